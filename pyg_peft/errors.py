"""Exception classes, and argument checks shared by all public functions.

A user's mistake raises a built-in ``ValueError`` or ``TypeError`` with the message
``Expected 'name' to be … (got …)``. The classes below exist for errors that a caller may want to
catch separately.
"""

import difflib
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

#: Maximum number of clouds in a batch, because a table with one entry per cloud is allocated.
MOST_CLOUDS = 2**24

_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
_COMPARABLE: Any = (int, float, torch.SymInt, torch.SymFloat)
_KINDS = {
    "float": ("floating point", _FLOATS),
    "int": ("an integer tensor", _INTEGERS),
    "bool": ("a Boolean tensor", frozenset({torch.bool})),
}


class CheckpointError(ValueError):
    """A file of weights does not fit: damaged, foreign, of another base, or with leftover keys."""


class MissingHeadError(ValueError):
    """Weights have no head, and the number of classes was not given."""


class PlacementError(ValueError):
    """A method cannot be put on this model: no module matches, or a match is not supported."""


class MissingExtraError(ImportError):
    """An optional package is missing. The message includes the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"'{package}' is needed here and not installed: pip install 'pyg-peft[{extra}]'"
        )
        self.package = package
        self.extra = extra


def check_count(
    value: Any, name: str = "k", *, least: int | None = 1, most: int | None = None
) -> int:
    """Return ``value`` as an ``int``; raise unless it is an integer within the bounds.

    NumPy integers and tensors with one integer are accepted. Booleans, floats and strings are not.

    Args:
        value: Value passed by the caller.
        name: Name of the argument in the message.
        least: Smallest value allowed; ``None`` for no limit, as for a seed.
        most: Largest value allowed; ``None`` for no limit.

    Example:
        >>> check_count(3)
        3
        >>> check_count("3")
        Traceback (most recent call last):
        ...
        TypeError: Expected 'k' to be an integer (got '3')
    """
    whole: Any = value
    if not isinstance(value, int | torch.SymInt) or isinstance(value, bool):
        flag = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool
        try:
            whole = None if flag else operator.index(value)
        except TypeError:
            whole = None
        if whole is None:
            raise TypeError(f"Expected '{name}' to be an integer (got {described(value)})")
    least = -(2**63) if least is None else least
    if whole < least or (most is not None and whole > most):
        bounds = f">= {least}" if most is None else f"in [{least}, {most}]"
        verb = "be" if most is None else "lie"
        raise ValueError(f"Expected '{name}' to {verb} {bounds} (got {whole})")
    return whole


def check_number(
    value: Any,
    name: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    infinite: bool = False,
) -> float:
    """Return ``value`` as a number; raise unless it is a real number within the bounds.

    Args:
        value: Value passed by the caller. A tensor or array with one number is accepted, a Boolean
            is not.
        name: Name of the argument in the message.
        least: Smallest value allowed.
        above: A bound that the value must exceed, instead of ``least``.
        most: Largest value allowed.
        below: A bound that the value must not reach, instead of ``most``.
        infinite: Allow infinity. NaN is never allowed.

    Example:
        >>> check_number(0.5, "ratio", above=0, most=1)
        0.5
        >>> check_number(1.5, "ratio", above=0, most=1)
        Traceback (most recent call last):
        ...
        ValueError: Expected 'ratio' to lie in (0, 1] (got 1.5)
    """
    number: Any = value
    if isinstance(value, Tensor) and value.numel() == 1 and value.dtype in _FLOATS | _INTEGERS:
        number = value.item()
    if not _is_number(number):
        raise TypeError(f"Expected '{name}' to be a number (got {described(value)})")
    if not isinstance(number, _COMPARABLE):
        number = float(number)  # NumPy scalars warn if a bound is beyond their precision
    low = (least is None or number >= least) and (above is None or number > above)
    high = (most is None or number <= most) and (below is None or number < below)
    if not (low and high and number == number and (infinite or abs(number) != math.inf)):
        raise ValueError(f"Expected '{name}' to {_range(least, above, most, below)} (got {number})")
    return number


def check_scale(value: Any, name: str = "scale") -> float:
    """Return a scaling factor; raise unless it is a finite number within the range of float32.

    Example:
        >>> check_scale(0.7)
        0.7
    """
    number = check_number(value, name)
    largest = torch.finfo(torch.float32).max
    if not abs(number) <= largest:
        raise ValueError(f"Expected '{name}' to lie in [{-largest}, {largest}] (got {number})")
    return number


def check_flag(value: Any, name: str) -> bool:
    """Return ``value``; raise unless it is ``True`` or ``False``.

    Example:
        >>> check_flag(1, "loop")
        Traceback (most recent call last):
        ...
        TypeError: Expected 'loop' to be True or False (got 1)
    """
    if not isinstance(value, bool | torch.SymBool):
        raise TypeError(f"Expected '{name}' to be True or False (got {described(value)})")
    return bool(value)


def check_module(value: Any, name: str = "module") -> nn.Module:
    """Return ``value``; raise unless it is a ``torch.nn.Module``.

    Example:
        >>> check_module([1], "root")
        Traceback (most recent call last):
        ...
        TypeError: Expected 'root' to be a torch.nn.Module (got list)
    """
    if not isinstance(value, nn.Module):
        raise TypeError(f"Expected '{name}' to be a torch.nn.Module (got {described(value)})")
    return value


def check_tensor(
    value: Any,
    name: str,
    *,
    shape: Sequence[Any] | None = None,
    kind: Literal["float", "int", "bool"] | None = None,
    device: torch.device | None = None,
    values: bool = True,
) -> Tensor:
    """Return ``value``; raise unless it is a dense tensor that holds values.

    Only metadata is read, so that there is no device synchronization and no graph break.

    Args:
        value: Value passed by the caller. Arrays, lists, and sparse or nested tensors are refused.
        name: Name of the argument in the message.
        shape: Required sizes. A string matches any size and is shown in the message. A leading
            ``...`` matches any number of dimensions.
        kind: ``"float"`` (16 to 64 bits), ``"int"`` (no Boolean) or ``"bool"``; any kind by
            default.
        device: Required device.
        values: Whether the values will be read. If not, the device ``meta`` is allowed.

    Raises:
        TypeError: If ``value`` is not a tensor, or is of another kind.
        ValueError: If ``value`` has another shape or layout, or is on another device.

    Example:
        >>> check_tensor(torch.zeros(4, 2), "pos", shape=("N", 3))
        Traceback (most recent call last):
        ...
        ValueError: Expected 'pos' to be of shape [N, 3] (got [4, 2])
    """
    if not isinstance(value, Tensor):
        hint = ""
        if type(value).__module__ == "numpy":
            hint = "; use torch.from_numpy"
        elif isinstance(value, list | tuple):
            hint = "; use torch.tensor"
        raise TypeError(f"Expected '{name}' to be a tensor (got {described(value)}{hint})")
    if value.layout != torch.strided:
        raise ValueError(f"Expected '{name}' to be a dense tensor (got {value.layout})")
    if shape is not None and not _fits(value, shape):
        words = ", ".join("..." if size is ... else str(size) for size in shape)
        raise ValueError(f"Expected '{name}' to be of shape [{words}] (got {list(value.shape)})")
    if kind is not None and value.dtype not in _KINDS[kind][1]:
        raise TypeError(f"Expected '{name}' to be {_KINDS[kind][0]} (got {value.dtype})")
    if device is not None and value.device != device:
        raise ValueError(f"Expected '{name}' to be on {device} (got {value.device})")
    if values and value.device.type == "meta":
        raise ValueError(f"Expected '{name}' to hold values (got a tensor on the device 'meta')")
    return value


def check_index(
    index: Any,
    name: str,
    size: int | None,
    *,
    shape: Sequence[Any] | None = None,
    least: int = 0,
    of: str = "rows",
    device: torch.device | None = None,
) -> Tensor:
    """Return ``index`` as int64; raise unless all its integers are in ``[least, size)``.

    Values are not checked while a graph is compiled.

    Args:
        index: Value passed by the caller.
        name: Name of the argument in the message.
        size: Number of objects that are indexed; ``None`` if it is unknown.
        shape: Required sizes, as in :func:`check_tensor`.
        least: Smallest integer allowed, for example -1 if that means "none".
        of: What is indexed, for the message.
        device: Required device.

    Example:
        >>> check_index(torch.tensor([0, 7]), "edge_index", 4)
        Traceback (most recent call last):
        ...
        ValueError: Expected 'edge_index' to name rows in [0, 4) (got 7)
    """
    check_tensor(index, name, shape=shape, kind="int", device=device)
    if not torch.compiler.is_compiling() and index.numel() > 0:
        low, high = torch.stack(index.aminmax()).tolist()
        if low < least or (size is not None and high >= size):
            bounds = f"from {least} on" if size is None else f"in [{least}, {size})"
            raise ValueError(
                f"Expected '{name}' to name {of} {bounds} (got {low if low < least else high})"
            )
    return index.long()


def check_mask(
    mask: Any, name: str, num_rows: int, *, device: torch.device | None = None
) -> Tensor:
    """Return ``mask``; raise unless it is a Boolean vector with one element per row.

    Example:
        >>> check_mask(torch.ones(2), "keep", 2)
        Traceback (most recent call last):
        ...
        ValueError: Expected 'keep' to be a Boolean tensor of shape [2] (got torch.float32, [2])
    """
    check_tensor(mask, name, values=False)
    if mask.dtype != torch.bool or mask.dim() != 1 or mask.size(0) != num_rows:
        raise ValueError(
            f"Expected '{name}' to be a Boolean tensor of shape [{num_rows}] "
            f"(got {mask.dtype}, {list(mask.shape)})"
        )
    return check_tensor(mask, name, device=device)


def described(value: Any) -> str:
    """Return a short description of any value for error messages."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, {list(value.shape)}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}…"
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped.

    Messages that quote text from a file then have no effect on a terminal.

    Example:
        >>> printable("a\x1b[31m")
        'a\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _is_number(value: Any) -> bool:
    kinds = int | float | numbers.Real | torch.SymInt | torch.SymFloat
    return isinstance(value, kinds) and not isinstance(value, bool)


def _range(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    if most is not None or below is not None:
        left = f"({above}" if above is not None else f"[{-math.inf if least is None else least}"
        return f"lie in {left}, {most}]" if below is None else f"lie in {left}, {below})"
    if above is not None:
        return f"be > {above}"
    return "be a finite number" if least is None else f"be >= {least}"


def _fits(tensor: Tensor, shape: Sequence[Any]) -> bool:
    if len(shape) > 0 and shape[0] is ...:
        shape = shape[1:]
        if tensor.dim() < len(shape):
            return False
    elif tensor.dim() != len(shape):
        return False
    first = tensor.dim() - len(shape)
    return all(
        isinstance(size, str) or tensor.size(first + axis) == size
        for axis, size in enumerate(shape)
    )


def check_pos(pos: Tensor, name: str = "pos") -> None:
    """Raise unless ``pos`` is a finite floating-point ``[N, 3]`` tensor.

    Values are not checked while a graph is compiled, because that would break the graph.
    """
    check_tensor(pos, name, shape=("N", 3), kind="float")
    check_finite(pos, name)


def check_finite(value: Tensor, name: str) -> None:
    """Raise unless a floating-point tensor is finite; the message names the first bad row.

    Values are not checked while a graph is compiled.
    """
    if torch.compiler.is_compiling() or value.numel() == 0:
        return
    if not bool(torch.isfinite(value).all()):
        rows = value.reshape(value.size(0), -1) if value.dim() > 0 else value.reshape(1, 1)
        row = int((~torch.isfinite(rows)).any(dim=1).nonzero()[0])
        shown = f"{rows[row].tolist()} in" if rows.size(1) <= 8 else "NaN or infinity in"
        raise ValueError(f"Expected '{name}' to be finite (got {shown} row {row})")


def check_reach(pos: Tensor, name: str = "pos") -> None:
    """Raise unless squared distances between these positions, and their sums, stay finite.

    The limit for a coordinate is the square root of the largest number of its precision, divided by
    ``2**16``. This is ``2.8e14`` in float32, which is also used to compute in half precision.
    Values are not checked while a graph is compiled.
    """
    if torch.compiler.is_compiling() or pos.numel() == 0 or pos.dtype == torch.float16:
        return
    wide = torch.float64 if pos.dtype == torch.float64 else torch.float32
    limit = torch.finfo(wide).max ** 0.5 / 2**16
    largest = float(pos.detach().abs().amax())
    if not largest <= limit:
        raise ValueError(
            f"Expected '{name}' to lie within {limit:.1e} of the origin, so that squared distances "
            f"stay finite (got {largest:.1e}); rescale the cloud"
        )


def check_batch(
    batch: Tensor | None,
    num_nodes: int,
    batch_size: int | None = None,
    *,
    device: torch.device | None = None,
    name: str = "batch",
) -> None:
    """Raise unless ``batch`` is ``None`` or a sorted, non-negative integer vector.

    It must have one element per node. Values are not checked while a graph is compiled.
    """
    if batch is None:
        return
    check_tensor(batch, name, shape=(num_nodes,), kind="int", device=device)
    if torch.compiler.is_compiling() or num_nodes == 0:
        return
    if bool((batch[1:] < batch[:-1]).any()):
        raise ValueError(
            f"Expected '{name}' to be sorted (got a smaller id after a larger one); sort the "
            "points by it first"
        )
    if int(batch[0]) < 0:
        raise ValueError(f"Expected '{name}' to be non-negative (got {int(batch[0])})")
    last = int(batch[-1])
    if batch_size is not None and last >= batch_size:
        raise ValueError(
            f"Expected '{name}' to hold ids below batch_size {batch_size} (got {last})"
        )
    if last >= MOST_CLOUDS:
        raise ValueError(
            f"Expected '{name}' to hold ids below {MOST_CLOUDS} (got {last}); number the clouds "
            "from 0"
        )


def check_channels(x: Tensor, channels: int, name: str = "x") -> None:
    """Raise unless the last dimension of ``x`` is ``channels``."""
    check_tensor(x, name, values=False)
    if x.dim() == 0 or x.size(-1) != channels:
        raise ValueError(
            f"Expected '{name}' to have {channels} channels (got shape {list(x.shape)})"
        )


def check_dtype(x: Tensor, like: Tensor, name: str = "x") -> None:
    """Raise unless ``x`` has the dtype of a module's weight ``like``, and values if ``like`` has.

    Under autocast, which casts both to one dtype, any floating-point tensor is accepted.

    Example:
        >>> check_dtype(torch.ones(2), torch.ones(2, dtype=torch.float64))
        Traceback (most recent call last):
        ...
        TypeError: Expected 'x' to be of dtype torch.float64, as the module's weights are ...
    """
    if x.is_meta and not like.is_meta:
        check_tensor(x, name)  # on meta tensors, torch would return meta tensors or fail later
    if x.dtype == like.dtype:
        return
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if not (autocast and x.dtype in _FLOATS):
        raise TypeError(
            f"Expected '{name}' to be of dtype {like.dtype}, as the module's weights are "
            f"(got {x.dtype}); cast either with .to()"
        )


def nearest_paths(target: str, paths: Sequence[str]) -> str:
    """Return the paths most similar to a missing one, and the last child of the model.

    The result is shown in error messages. The last child is usually the output layer of the model.

    Example:
        >>> nearest_paths("lim", ["lin", "norm", "blocks", "head"])
        'lin, head'
        >>> nearest_paths("classifier", ["a", "b", "c", "d", "e", "f", "head"])
        'a, b, c, d, e, head'
    """
    name = target.rpartition(".")[2]
    near = difflib.get_close_matches(target, paths, n=4, cutoff=0.4)
    of_that_name = [path for path in paths if path.rpartition(".")[2] == name]
    likely = [*near, *of_that_name[:2]] or paths[:5]
    children = [path for path in paths if "." not in path]
    return ", ".join(dict.fromkeys([*likely, *children[-1:]])) or "none"


__all__ = [
    "CheckpointError",
    "MissingExtraError",
    "MissingHeadError",
    "PlacementError",
    "check_batch",
    "check_channels",
    "check_count",
    "check_dtype",
    "check_finite",
    "check_flag",
    "check_index",
    "check_mask",
    "check_module",
    "check_number",
    "check_pos",
    "check_reach",
    "check_scale",
    "check_tensor",
]
