"""Where the layers of any model lie in space: read from their calls, and handed on explicitly.

A layer's own call comes first, then that of the nearest ancestor that receives positions. The
ancestor's pre-hook notes them in a :class:`GeometrySource`, which the layer's component holds a
reference to, and its post-hook forgets them, also when the call raises::

    ancestor(x, pos, batch) ──before──▶ source.held = pos, batch
        └── layer(x) ──after──▶ adapter(output, source.held)
                       ──release──▶ source.held is gone

Nothing is looked up in a context: which source a layer reads is decided when the method is
attached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .calls import parameter_names
from .slot import Args, Component, Kwargs

_DATA = "data"


@dataclass(frozen=True)
class Names:
    """What a model calls the geometry in its calls.

    Attributes:
        pos: parameter of the positions, or ``"graph.pos"`` for an attribute of a parameter.
        batch: parameter or attribute of the cloud ids.
        edge_index: parameter or attribute of the edges.
    """

    pos: str = "pos"
    batch: str = "batch"
    edge_index: str = "edge_index"


class Found(NamedTuple):
    """What one call, or one output, says of the geometry.

    Attributes:
        pos: positions of the sources and of the targets; the same tensor unless bipartite.
        batch: cloud ids of the targets; ``None`` for one cloud if ``knows_batch``.
        knows_batch: whether the call has cloud ids, be they ``None``.
        edge_index: edges, row 0 the source.
    """

    pos: tuple[Tensor, Tensor] | None = None
    batch: Tensor | None = None
    knows_batch: bool = False
    edge_index: Tensor | None = None

    def completed_by(self, outer: "Found") -> "Found":
        """What is missing here is taken from there."""
        batch = self if self.knows_batch else outer
        edges = outer.edge_index if self.edge_index is None else self.edge_index
        pos = outer.pos if self.pos is None else self.pos
        return Found(pos, batch.batch, batch.knows_batch, edges)


class CallReader:
    """Reads a module's calls; its parameters' names are looked up once, when it is made.

    Args:
        module: Whose calls are read.
        names: What they call the geometry.
    """

    def __init__(self, module: nn.Module, names: Names) -> None:
        self.names = names
        self.parameters = parameter_names(module)
        owner, _, attribute = names.pos.rpartition(".")
        self.owner, self.pos = owner, attribute
        # Row 0 of edge_index is the source, unless a layer passes messages against the edges.
        self.flipped = getattr(module, "flow", "source_to_target") == "target_to_source"

    @property
    def tells_pos(self) -> bool:
        """Whether the parameters name positions, or data that have them."""
        return (self.owner or self.pos) in self.parameters or _DATA in self.parameters

    @property
    def tells_neighbors(self) -> bool:
        """Whether the parameters name cloud ids or edges besides, or data that have them."""
        wanted = {self.names.batch, self.names.edge_index, _DATA, self.owner} - {""}
        return bool(wanted & set(self.parameters))

    def __call__(self, args: Args, kwargs: Kwargs) -> Found:
        call = {**dict(zip(self.parameters, args, strict=False)), **kwargs}
        names = self.names
        data = None
        if self.owner or self.pos not in call:
            data = call.pop(self.owner or _DATA, None)
        if data is not None:
            values = {n: getattr(data, n, None) for n in (self.pos, names.batch, names.edge_index)}
            # A layer's own arguments go before those of the data that it is called with.
            call = {**values, **call}
        edges = call.get(names.edge_index)
        if self.flipped and isinstance(edges, Tensor):
            edges = edges.flip(0)
        return Found(
            _pair(call.get(self.pos)),
            _last(call.get(names.batch)),
            # Left out of a call it has its default: one cloud.
            names.batch in call or (names.batch in self.parameters and names.batch != self.owner),
            edges,
        )


def read_output(output: Any) -> Found:
    """The geometry that a module returns beside its features, as ``(x, pos, batch)``."""
    if not isinstance(output, (tuple, list)) or len(output) < 3:  # pyright: ignore[reportUnknownArgumentType]
        return Found()
    _, pos, batch, *_ = output  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(pos, Tensor) or not (batch is None or isinstance(batch, Tensor)):
        return Found()
    return Found((pos, pos), batch, True)


class GeometrySource(Component):
    """At a module that receives positions (or returns them): notes them for the layers below.

    Args:
        reader: Of the module's calls; ``None`` notes what it returns, until the model returns.
    """

    def __init__(self, reader: CallReader | None) -> None:
        super().__init__()
        self.reader = reader
        self.held: list[Found] = []

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        if self.reader is not None:
            self.held.append(self.reader(args, kwargs))
        return args, kwargs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        if self.reader is None:
            self.held.append(read_output(output))
        return output

    def release(self, module: nn.Module) -> None:
        if self.held:
            self.held.pop()


class HoldsNotes(Protocol):
    """A component that notes something for the time of a forward."""

    held: list[Any]


class SharedStructures(Component):
    """At the base: structures of one forward, each built once for all layers of a level.

    A level is told by the very tensors: layers that are handed the same positions, cloud ids and
    edges share a structure. Outside of a forward of the base nothing is kept.

    Args:
        notes: Components that note something in ``held`` for the time of a forward; they are
            emptied when the base returns.
    """

    def __init__(self, notes: "tuple[HoldsNotes, ...]" = ()) -> None:
        super().__init__()
        self._notes = notes
        self._built: list[tuple[tuple[Any, ...], Any]] | None = None

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        self._built = []
        return args, kwargs

    def release(self, module: nn.Module) -> None:
        self._built = None
        for component in self._notes:
            component.held.clear()

    def get(self, tensors: tuple[Tensor | None, ...], build: Callable[[], Any]) -> Any:
        """What ``build`` made of these very tensors in this forward, or makes now."""
        stamp = tuple(_version(tensor) for tensor in tensors)
        for known, (versions, structure) in self._built or []:
            if versions == stamp and all(a is b for a, b in zip(known, tensors, strict=True)):
                return structure
        structure = build()
        if self._built is not None:
            self._built.append((tensors, (stamp, structure)))
        return structure


def _version(tensor: Tensor | None) -> int:
    """How often a tensor was changed in place; a compiler follows such changes by itself."""
    if tensor is None or torch.compiler.is_compiling() or tensor.is_inference():
        return 0
    return tensor._version


def _pair(pos: Any) -> tuple[Tensor, Tensor] | None:
    if isinstance(pos, Tensor):
        return pos, pos
    if isinstance(pos, (tuple, list)) and len(pos) == 2 and isinstance(pos[1], Tensor):  # pyright: ignore[reportUnknownArgumentType]
        return pos[0], pos[1]  # pyright: ignore[reportUnknownVariableType]
    return None


def _last(batch: Any) -> Tensor | None:
    return batch[-1] if isinstance(batch, (tuple, list)) else batch


__all__ = ["CallReader", "Found", "GeometrySource", "Names", "SharedStructures", "read_output"]
