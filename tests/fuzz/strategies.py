"""What the fuzz suite calls functions with: descriptions of arguments, and ways to make them odd.

An argument is described by a small frozen object (:class:`Spec`), which Hypothesis draws and the
worker process turns into a tensor, a number, an object. A description can be printed, so that a
finding shows what to call.

``valid`` cases have every argument as the documentation wants it, in any layout; they must give a
right answer. Otherwise one or two arguments are replaced by odd ones. Each odd argument says what
must come of it: a right answer, a documented error, or either of the two.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fuzz import dice as st
from fuzz.sandbox import EITHER, ERROR, RIGHT, Expectation, Verdict, judge
from torch import Tensor

Draw = st.Draw

LAYOUTS = ("transposed", "sliced", "strided", "offset", "numpy")
FLOATS = ("float16", "bfloat16", "float32", "float64")
OTHERS = ("int64", "int32", "uint8", "bool", "complex64")
TIES = ("grid", "same", "zeros", "pairs")
EXTREME = ("tiny", "subnormal", "large", "huge", "far", "mixed")
_ORDER = (RIGHT, EITHER, ERROR)
NOT_FINITE = ("nan", "inf", "one nan")


class Spec:
    """Describes one argument.

    Attributes:
        base: what must come of a call with it as it is.
    """

    base: Expectation = RIGHT

    def make(self) -> Any:
        """The argument itself."""
        raise NotImplementedError

    def odd(self) -> Sequence[tuple["Spec", Expectation]]:
        """Other descriptions, and what must come of each."""
        return ()


@dataclass(frozen=True)
class Const(Spec):
    """Any value that can be pickled."""

    value: Any

    def make(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Perhaps(Const):
    """A value that may be valid or not."""

    base = EITHER


@dataclass(frozen=True)
class Made(Spec):
    """Something that is made in the worker."""

    what: Callable[..., Any]
    args: tuple[Any, ...] = ()
    refused: bool = True  # whether junk in its place must be an error

    def make(self) -> Any:
        return self.what(*self.args)

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        return [(Const(junk), ERROR if self.refused else EITHER) for junk in ("text", 3, [1], {})]


# ---- tensors -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Floats(Spec):
    """A tensor of floating-point numbers.

    Args:
        shape: its shape.
        values: kind of numbers.
        dtype, layout, device: of the tensor.
        seed: of the numbers.
        finite: NaN and infinity must be refused, as in positions.
        coordinates: integers must be refused too.
    """

    shape: tuple[int, ...]
    values: str = "normal"
    dtype: str = "float32"
    layout: str = "contiguous"
    device: str = "cpu"
    seed: int = 0
    finite: bool = False
    coordinates: bool = False

    def make(self) -> Tensor:
        dtype = getattr(torch, self.dtype)
        numbers = _numbers(self.values, self.shape, self.seed)
        if dtype in (torch.uint8, torch.int32, torch.int64):
            numbers = numbers.nan_to_num(0, 0, 0).clamp(-1e6, 1e6).abs()
        return lay(numbers.to(dtype), self.layout).to(self.device)

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        new: list[tuple[Spec, Expectation]] = []
        new += [(self._with(layout=layout), RIGHT) for layout in LAYOUTS]
        new += [(self._with(values=values), RIGHT) for values in TIES]
        new += [(self._with(values=values), EITHER) for values in EXTREME]
        not_finite = ERROR if self.finite and self.numel else EITHER
        new += [(self._with(values=values), not_finite) for values in NOT_FINITE]
        new += [(self._with(dtype=dtype), EITHER) for dtype in FLOATS if dtype != self.dtype]
        others = ERROR if self.coordinates else EITHER
        new += [(self._with(dtype=dtype), others) for dtype in OTHERS]
        new += [(self._with(device="meta"), EITHER), (Sparse(self), EITHER)]
        new += [(self._with(shape=shape), EITHER) for shape in _other_shapes(self.shape)]
        return [*new, *_no_tensor(self)]

    @property
    def numel(self) -> int:
        return int(np.prod(self.shape))

    def _with(self, **changes: Any) -> "Floats":
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Whole(Spec):
    """A tensor of integers, listed one by one.

    Args:
        values: nested tuples, or a flat tuple with ``shape``.
        shape: its shape; that of ``values`` by default.
        high: values from here on are out of range, if there is a range.
        sorted: an unsorted one must be refused; so must negative ones.
        labels: whole numbers of any type will do.
        dtype, layout, device: of the tensor.
    """

    values: Any
    shape: tuple[int, ...] | None = None
    high: int | None = None
    sorted: bool = False
    labels: bool = False
    dtype: str = "int64"
    layout: str = "contiguous"
    device: str = "cpu"

    def make(self) -> Tensor:
        tensor = torch.tensor(self.values, dtype=getattr(torch, self.dtype))
        if self.shape is not None:
            tensor = tensor.reshape(self.shape)
        return lay(tensor, self.layout).to(self.device)

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        flat = np.array(self.values, dtype=np.int64).ravel().tolist()
        shape = tuple(self.make().shape)
        new: list[tuple[Spec, Expectation]] = []
        new += [(self._with(layout=layout), RIGHT) for layout in LAYOUTS]
        new += [(self._with(dtype=dtype), EITHER) for dtype in ("int32", "int16", "uint8")]
        # A mask or fractions in the place of numbers; an empty one tells nothing.
        kind = ERROR if flat and not self.labels else EITHER
        new += [(self._with(dtype=dtype), kind) for dtype in ("float32", "bool", "complex64")]
        new += [(self._with(device="meta"), EITHER), (Sparse(self), EITHER)]
        if flat:
            outside = [[-1, *flat[1:]], [*flat[:-1], -(2**40)], [*flat[:-1], 2**40]]
            if self.high is not None:
                outside.append([*flat[:-1], self.high])
            new += [(self._flat(values, shape), EITHER) for values in outside]
            longer = (len(flat) + 1,) if len(shape) == 1 else None
            shorter = (len(flat) - 1,) if len(shape) == 1 else None
            new += [(self._flat([*flat, flat[-1]], longer), EITHER)] if longer else []
            new += [(self._flat(flat[:-1], shorter), EITHER)] if shorter else []
            new += [(self._flat(flat, (1, *shape)), EITHER)]
        if self.sorted and len(set(flat)) > 1:
            new += [(self._flat(flat[::-1], shape), ERROR)]
            new += [(self._flat([flat[-1], *flat[:-1]], shape), ERROR)]
        return [*new, *_no_tensor(self)]

    def _flat(self, values: Sequence[int], shape: tuple[int, ...] | None) -> "Whole":
        return self._with(values=tuple(values), shape=shape)

    def _with(self, **changes: Any) -> "Whole":
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Mask(Spec):
    """A Boolean tensor."""

    values: Any
    shape: tuple[int, ...] | None = None
    layout: str = "contiguous"
    dtype: str = "bool"

    def make(self) -> Tensor:
        tensor = torch.tensor(self.values).to(getattr(torch, self.dtype))
        return lay(tensor if self.shape is None else tensor.reshape(self.shape), self.layout)

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        shape = tuple(self.make().shape)
        new: list[tuple[Spec, Expectation]] = []
        new += [(dataclasses.replace(self, layout=layout), RIGHT) for layout in LAYOUTS]
        new += [(dataclasses.replace(self, dtype=d), ERROR) for d in ("float32", "int64")]
        new += [(dataclasses.replace(self, shape=(1, *shape)), EITHER)]
        flat = np.array(self.values, dtype=bool).ravel().tolist()
        return [*new, (Mask((*flat, True)), EITHER), *_no_tensor(self)]


@dataclass(frozen=True)
class Sparse(Spec):
    """The same as a sparse tensor."""

    dense: Spec

    def make(self) -> Tensor:
        return self.dense.make().to_sparse()


@dataclass(frozen=True)
class AsArray(Spec):
    """The same as a NumPy array, or as nested lists."""

    tensor: Spec
    lists: bool = False

    def make(self) -> Any:
        tensor = self.tensor.make()
        return tensor.tolist() if self.lists else tensor.float().numpy()


def _no_tensor(spec: Spec) -> list[tuple[Spec, Expectation]]:
    junk: list[Any] = [None, "text", 3, 2.5, True, {}, object]
    return [
        (AsArray(spec), EITHER),
        (AsArray(spec, lists=True), EITHER),
        *((Const(value), ERROR) for value in junk),
    ]


def _other_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    if not shape:
        return [(1,), (2, 3)]
    head, *rest = shape
    return [
        (),
        shape[1:],
        (1, *shape),
        (*shape, 1),
        (head + 1, *rest),
        (0, *rest),
        (1, *rest),
        (*shape[:-1], 1),
        (*shape[:-1], shape[-1] + 1),
        (*shape[:-1], 0),
    ]


def _pairs(numbers: Tensor) -> Tensor:
    size = numbers.shape[0] if numbers.dim() else 1
    half = (size + 1) // 2
    return torch.cat([numbers[:half], numbers[:half]])[:size] if size > 1 else numbers


def _mixed(numbers: Tensor) -> Tensor:
    scales = torch.logspace(-6, 6, max(1, numbers.numel()))[: numbers.numel()]
    return numbers * scales.reshape(numbers.shape)


def _one_nan(numbers: Tensor) -> Tensor:
    numbers = numbers.clone()
    if numbers.numel():
        numbers.view(-1)[numbers.numel() // 2] = torch.nan
    return numbers


# What each name in a strategy does to normal numbers.
_VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda numbers: numbers,
    "grid": lambda numbers: numbers.round(),
    "same": lambda numbers: torch.full_like(numbers, 0.7),
    "zeros": torch.zeros_like,
    "pairs": _pairs,
    "tiny": lambda numbers: numbers * 1e-18,
    "subnormal": lambda numbers: numbers * 1e-40,
    "large": lambda numbers: numbers * 1e6,
    "huge": lambda numbers: numbers * 1e19,
    "far": lambda numbers: numbers + 1e6,
    "mixed": _mixed,
    "nan": lambda numbers: torch.full_like(numbers, torch.nan),
    "inf": lambda numbers: torch.full_like(numbers, torch.inf),
    "one nan": _one_nan,
}


def _numbers(values: str, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return _VALUES[values](torch.randn(shape, generator=generator, dtype=torch.float64))


def lay(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers, in another place of memory."""
    match layout:
        case "contiguous":
            return tensor
        case "transposed":
            order = tuple(reversed(range(tensor.dim())))
            return tensor.permute(order).contiguous().permute(order)
        case "sliced":
            if tensor.dim() == 0:
                return tensor
            wide = tensor.new_zeros(*tensor.shape[:-1], tensor.shape[-1] + 2)
            wide[..., 1 : tensor.shape[-1] + 1] = tensor
            return wide[..., 1 : tensor.shape[-1] + 1]
        case "strided":
            if tensor.dim() == 0:
                return tensor
            return torch.stack([tensor, torch.zeros_like(tensor)], dim=1)[:, 0]
        case "offset":
            flat = torch.cat([tensor.new_zeros(3), tensor.reshape(-1)])
            return flat[3:].view(tensor.shape)
        case "numpy":
            if tensor.dim() != 2 or tensor.dtype == torch.bfloat16:
                return tensor
            return (
                torch.from_numpy(np.vstack([*tensor.t().numpy()]).T) if tensor.numel() else tensor
            )
        case _:
            raise ValueError(layout)


# ---- numbers, names, lists -----------------------------------------------------------------------


@dataclass(frozen=True)
class Count(Spec):
    """An integer.

    Args:
        value: a valid one.
        low: the smallest valid one; below it, an error.
        high: the largest valid one, or ``None``.
        capped: any large number is valid and means as many as there are.
        optional: ``None`` is valid, too.
    """

    value: int | None
    low: int = 1
    high: int | None = None
    capped: bool = False
    optional: bool = False

    def make(self) -> int | None:
        return self.value

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        value = self.low if self.value is None else self.value
        new: list[tuple[Any, Expectation]] = []
        new += [(junk, ERROR) for junk in ("3", [value], value + 0.5, float("nan"), 1j, b"3", {})]
        new += [(None, EITHER if self.optional else ERROR)]
        new += [(self.low - 1, ERROR), (self.low - 2**40, ERROR), (-(2**70), ERROR)]
        new += [(float(value), EITHER), (np.int64(value), EITHER), (True, EITHER)]
        new += [(float("inf"), ERROR)]
        if self.high is not None:
            new += [(self.high + 1, ERROR), (2**70, ERROR)]
        elif self.capped:
            new += [(2**40, RIGHT), (2**70, EITHER)]
        return [
            *((Const(value), expected) for value, expected in new),
            (Whole((value,), ()), EITHER),
        ]


@dataclass(frozen=True)
class Real(Spec):
    """A floating-point number in ``[low, high]``; ``open`` leaves out the ends.

    A ``factor`` says how large something is made: huge ones are not tried. An ``infinite`` number
    may be infinity although the ends are left out.
    """

    value: float | None
    low: float = -float("inf")
    high: float = float("inf")
    open: bool = False
    optional: bool = False
    factor: bool = False
    infinite: bool = False

    def make(self) -> float | None:
        return self.value

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        value = 1.0 if self.value is None else self.value
        new: list[tuple[Any, Expectation]] = []
        new += [(junk, ERROR) for junk in ("0.5", [value], 1j, b"1", {})]
        new += [(None, EITHER if self.optional else ERROR)]
        new += [(float("nan"), ERROR), (np.float32(value), EITHER), (True, EITHER)]
        for extreme in (float("inf"), -float("inf"), 1e308, -1e308, 5e-324, 0.0, -1.0, 2):
            if self.factor and extreme > 2:
                continue
            inside = self.low < extreme < self.high or (
                not self.open and extreme in (self.low, self.high)
            )
            inside |= self.infinite and extreme == float("inf")
            new += [(extreme, EITHER if inside else ERROR)]
        return [(Const(value), expected) for value, expected in new]


@dataclass(frozen=True)
class Flag(Spec):
    """A Boolean."""

    value: bool

    def make(self) -> bool:
        return self.value

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        junk = [np.bool_(self.value), int(self.value), None, "no", 2.5, []]
        return [(Const(value), EITHER) for value in junk]


@dataclass(frozen=True)
class Name(Spec):
    """One of some words, or any word if it is ``free``."""

    value: str | None
    optional: bool = False
    free: bool = False

    def make(self) -> str | None:
        return self.value

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        new: list[tuple[Spec, Expectation]] = [
            (Const(junk), ERROR) for junk in ("", 3, ["x"], b"x", 2.5, {})
        ]
        new.append((Const("nonsense"), EITHER if self.free else ERROR))
        return [*new, (Const(None), EITHER if self.optional else ERROR)]


@dataclass(frozen=True)
class Sizes(Spec):
    """A sequence of positive integers, or of such sequences."""

    value: tuple[Any, ...]
    optional: bool = False

    def make(self) -> tuple[Any, ...]:
        return self.value

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        bad: list[Any] = [3, "text", (0,), (-1,), (2.5,), ("3",), (None,), {}, ((), ()), ((0,),)]
        new = [(Const(value), ERROR if value != {} else EITHER) for value in bad]
        new += [(Const(()), EITHER), (Const(list(self.value)), RIGHT)]
        return [*new, (Const(None), EITHER if self.optional else ERROR)]


@dataclass(frozen=True)
class Words(Spec):
    """A sequence of strings. Others are refused, unless they are ``free``: names of anything."""

    value: tuple[str, ...]
    optional: bool = False
    free: bool = False

    def make(self) -> tuple[str, ...]:
        return self.value

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        bad: list[Any] = [3, (3,), (None,), ((),), (b"x",)]
        new: list[tuple[Spec, Expectation]] = [(Const(value), ERROR) for value in bad]
        new += [(Const(("nonsense",)), EITHER if self.free else ERROR)]
        new += [(Const(()), EITHER), (Const(list(self.value)), RIGHT), (Const("text"), ERROR)]
        return [*new, (Const(None), EITHER if self.optional else ERROR)]


@dataclass(frozen=True)
class Maybe(Spec):
    """An optional argument: ``None`` is as valid as what is described."""

    spec: Spec
    given: bool = True

    def make(self) -> Any:
        return self.spec.make() if self.given else None

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        new: list[tuple[Spec, Expectation]] = []
        for spec, expected in self.spec.odd():
            # Given where nothing was, it may miss what it goes together with.
            fits = expected if self.given else max(expected, EITHER, key=_ORDER.index)
            new.append((spec, EITHER if isinstance(spec, Const) and spec.value is None else fits))
        return new


# ---- shapes that go together ---------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """Sizes of a ragged batch: ``counts`` points in each cloud, some of them empty."""

    counts: tuple[int, ...]
    flat: bool  # one cloud, without a batch

    @property
    def num_points(self) -> int:
        return sum(self.counts)

    @property
    def size(self) -> int:
        return len(self.counts)

    def batch(self) -> Maybe:
        ids = tuple(c for c, count in enumerate(self.counts) for _ in range(count))
        return Maybe(Whole(ids, (len(ids),), sorted=True), not self.flat)

    def batch_size(self) -> Spec:
        return Count(None if self.flat else self.size, low=0, optional=True)

    def pos(self, draw: Draw, columns: int = 3) -> Floats:
        return floats(draw, (self.num_points, columns), finite=True, coordinates=True)


def clouds(draw: Draw, *, max_clouds: int = 3, max_points: int = 12, empty: bool = True) -> Cloud:
    """Draw sizes of clouds: one cloud without a batch, or up to ``max_clouds``."""
    low = 0 if empty else 1
    if draw(st.booleans()):
        return Cloud((draw(st.integers(low, max_points)),), True)
    counts = draw(st.lists(st.integers(low, max_points), min_size=1, max_size=max_clouds))
    return Cloud(tuple(counts), False)


def floats(draw: Draw, shape: tuple[int, ...], **options: Any) -> Floats:
    """Draw a tensor of this shape: mostly single precision, sometimes with ties."""
    values = draw(st.sampled_from(("normal", "normal", *TIES)))
    dtype = draw(st.sampled_from(("float32", "float32", "float64")))
    return Floats(shape, values, dtype, seed=draw(st.integers(0, 999)), **options)


def same_dtype(args: dict[str, Any]) -> dict[str, Any]:
    """Give all floating-point tensors the dtype of the first: mixing them is an oddity."""
    bare = [spec.spec if isinstance(spec, Maybe) else spec for spec in args.values()]
    dtype = next((spec.dtype for spec in bare if isinstance(spec, Floats)), "float32")

    def fixed(spec: Spec) -> Spec:
        if isinstance(spec, Floats):
            return dataclasses.replace(spec, dtype=dtype)
        if isinstance(spec, Maybe):
            return dataclasses.replace(spec, spec=fixed(spec.spec))
        return spec

    return {name: fixed(spec) for name, spec in args.items()}


def in_memory(draw: Draw, spec: Spec) -> Spec:
    """Now and then another place in memory, which must not matter."""
    if isinstance(spec, Maybe):
        return dataclasses.replace(spec, spec=in_memory(draw, spec.spec))
    if isinstance(spec, Floats | Whole | Mask) and draw(st.integers(0, 3)) == 1:
        return dataclasses.replace(spec, layout=draw(st.sampled_from(LAYOUTS)))
    return spec


# ---- entries and cases ---------------------------------------------------------------------------

Args = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """How one public name is fuzzed.

    Args:
        call: takes the arguments by name.
        draw: draws valid ones.
        check: says what is wrong with a result, given the arguments, or ``None``; finite numbers,
            untouched arguments and independence of layout are checked beside it.
        also: further names that an error may name: those of arguments that these are passed on to.
        fixed: arguments that are left as they are.
        moves: results differ from call to call, or depend on layout by rounding.
        files: values of arguments that are paths; an error may name those.
    """

    call: Callable[..., Any]
    draw: Callable[[Draw], dict[str, Spec]]
    check: Callable[[Args, Any], str | None] = lambda args, result: None
    also: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    moves: bool = False


ENTRIES: dict[str, Entry] = {}


def entry(name: str, **options: Any) -> Callable[[Callable[[Draw], dict[str, Spec]]], Any]:
    """Register the strategy of a public name: a function that draws valid arguments."""

    def register(draw: Callable[[Draw], dict[str, Spec]]) -> Any:
        assert name not in ENTRIES, name
        ENTRIES[name] = Entry(draw=draw, **options)
        return draw

    return register


@dataclass(frozen=True)
class FunctionCase:
    """One call of one public name."""

    name: str
    args: dict[str, Spec] = field(hash=False)
    changed: tuple[str, ...]
    expected: Expectation

    def trial(self) -> Verdict:
        entry = ENTRIES[self.name]
        made = {name: spec.make() for name, spec in self.args.items()}
        before = {name: _copy(value) for name, value in made.items()}
        # An error names the argument that is odd, or one that it has to fit.
        names = {*self.args, *entry.also}
        return judge(
            lambda: entry.call(**made),
            names=names,
            check=lambda result: self._check(entry, made, before, result),
            expected=self.expected,
        )

    def _check(self, entry: Entry, made: Args, before: Args, result: Any) -> str | None:
        for name, value in made.items():
            if not _equal(value, before[name]):
                return f"the argument '{name}' was changed"
        if any(isinstance(v, Tensor) and v.device.type == "meta" for v in made.values()):
            return None  # shapes without numbers
        if _moderate(self.args, made) and not _finite(result):
            return f"NaN or infinity from finite arguments: {result!r}"[:300]
        problem = entry.check(before, result)
        if problem is not None or entry.moves or not self._laid_out(made):
            return problem
        torch.manual_seed(0)
        plain = {n: v.contiguous() if isinstance(v, Tensor) else v for n, v in before.items()}
        if not _close(entry.call(**plain), result):
            return f"another answer than for contiguous arguments: {result!r}"[:400]
        return None

    def _laid_out(self, made: Args) -> bool:
        return any(
            isinstance(v, Tensor) and v.layout == torch.strided and not v.is_contiguous()
            for v in made.values()
        )

    def __str__(self) -> str:
        args = ", ".join(f"{name}={_shown(spec)}" for name, spec in self.args.items())
        return f"{self.name}({args})\n  odd: {', '.join(self.changed) or 'nothing'}"


def draw_case(draw: Draw, name: str) -> FunctionCase:
    """Draw valid arguments, and make none, one or two of them odd."""
    entry = ENTRIES[name]
    args = same_dtype(entry.draw(draw))
    args = {name: in_memory(draw, spec) for name, spec in args.items()}
    able = [name for name in args if name not in entry.fixed]
    number = draw(st.sampled_from((0, 1, 1, 1, 1, 1, 2))) if able else 0
    changed: list[str] = []
    expected = max((spec.base for spec in args.values()), key=_ORDER.index, default=RIGHT)
    for _ in range(number):
        argument = draw(st.sampled_from(able))
        options = args[argument].odd()
        if argument in changed or not options:
            continue
        place = draw(st.integers(0, len(options) - 1))
        args[argument], what = options[place]
        changed.append(argument)
        # Two oddities may make up for each other, so that no error is due.
        expected = EITHER if len(changed) > 1 else max(expected, what, key=_ORDER.index)
    return FunctionCase(name, args, tuple(changed), expected)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.device.type != "meta" else value


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or a.device.type == "meta" or a.layout != torch.strided:
        return True
    return (
        a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        if a.is_floating_point()
        else torch.equal(a, b)
    )


def _moderate(specs: Mapping[str, Spec], made: Args) -> bool:
    """Whether results of finite numbers have to be finite: not where squares leave the type."""
    for value in made.values():
        if isinstance(value, Tensor) and value.layout != torch.strided:
            return False
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            limit = 1e3 if value.dtype == torch.float16 else 1e17
            if not bool(torch.isfinite(value).all()) or float(value.abs().max()) > limit:
                return False
        elif isinstance(value, float) and not abs(value) < 1e17:
            return False
        elif isinstance(value, np.ndarray):
            return False  # tensors tell enough
    return True


def tensors_of(result: Any) -> list[Tensor]:
    """All tensors in a result, however nested."""
    if isinstance(result, Tensor):
        return [result.detach()]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return tensors_of([getattr(result, f.name) for f in dataclasses.fields(result)])
    if isinstance(result, Mapping):
        return tensors_of(list(result.values()))
    if isinstance(result, list | tuple):
        return [tensor for item in result for tensor in tensors_of(item)]
    return []


def _finite(result: Any) -> bool:
    return all(
        bool(torch.isfinite(tensor).all())
        for tensor in tensors_of(result)
        if tensor.layout == torch.strided and tensor.is_floating_point()
    )


def _close(a: Any, b: Any) -> bool:
    first, second = tensors_of(a), tensors_of(b)
    return len(first) == len(second) and all(
        x.shape == y.shape
        and x.dtype == y.dtype
        and torch.allclose(
            x.double().nan_to_num(), y.double().nan_to_num(), rtol=1e-3, atol=_tolerance(x)
        )
        for x, y in zip(first, second, strict=True)
    )


def _tolerance(x: Tensor) -> float:
    if not x.is_floating_point() or x.numel() == 0:
        return 0.0
    scale = float(x.double().abs().nan_to_num().max())
    return scale * (1e-2 if x.dtype in (torch.float16, torch.bfloat16) else 1e-5)


def _shown(spec: Spec) -> str:
    if isinstance(spec, Maybe):
        return _shown(spec.spec) if spec.given else "None"
    if isinstance(spec, Const):
        return repr(spec.value)
    if isinstance(spec, Made):
        return f"{getattr(spec.what, '__name__', spec.what)}{spec.args}"
    if isinstance(spec, Count | Real | Flag | Name | Sizes | Words):
        return repr(spec.value)
    return repr(spec)
