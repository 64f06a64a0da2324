"""Read positions, cloud ids and edges from the calls and outputs of a model's layers, by name.

A layer's own call has priority. What is missing there is taken from an enclosing call, see
:mod:`~pyg_peft.tuners.graphs.sources`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from pyg_peft.nn.cloud_rows import level_of
from pyg_peft.tuners.engine.calls import parameter_names, required_names
from pyg_peft.tuners.engine.slot import Args, Kwargs

# Usual parameter names of a PyG batch.
_DATA = ("data", "graph")
# Names that may also be those of a tensor, so that the user has to name the parameter.
_POSSIBLE_DATA = ("inputs", "input", "graphs", "sample", "samples", "points", "cloud", "clouds")


@dataclass(frozen=True)
class Names:
    """Parameter names of the geometry in a model's calls; the usual names are also recognized.

    Attributes:
        pos: Parameter of the positions, or ``"graph.pos"`` for an attribute of a parameter.
        batch: Parameter or attribute of the cloud ids.
        edge_index: Parameter or attribute of the edges.
    """

    pos: str = "pos"
    batch: str = "batch"
    edge_index: str = "edge_index"


class Found(NamedTuple):
    """The geometry that one call or one output contains.

    Attributes:
        pos: Positions of the sources and of the targets; the same tensor unless bipartite.
        batch: Cloud ids of the targets. ``None`` if there is one cloud, or if the caller left out
            optional ids. If only ids of another number of points are known, these.
        knows_batch: Whether the call has cloud ids, even if they are ``None``.
        edge_index: Edges as passed, possibly a sparse adjacency.
        flipped: Whether row 1 is the source, for a layer that passes messages against the edges.
    """

    pos: tuple[Tensor, Tensor] | None = None
    batch: Tensor | None = None
    knows_batch: bool = False
    edge_index: Any = None
    flipped: bool = False

    @property
    def has_ids(self) -> bool:
        """Whether there is a cloud id for each target."""
        if self.pos is None or self.batch is None:
            return False
        return self.batch.size(0) == self.pos[1].size(0)

    @property
    def is_complete(self) -> bool:
        """Whether this determines the neighborhoods, without any enclosing call."""
        return self.pos is not None and (self.edge_index is not None or self.has_ids)

    def completed_by(self, outer: "Found") -> "Found":
        """Fill in missing values from ``outer``; edges only if the numbers of points match."""
        found = self if self.pos is not None else self._replace(pos=outer.pos)
        if found.edge_index is None and not self.is_complete and _same_number(found.pos, outer.pos):
            found = found._replace(edge_index=outer.edge_index, flipped=outer.flipped)
        # Ids of other points are also taken: if there are any, None does not mean one cloud.
        if not found.has_ids and outer.batch is not None:
            found = found._replace(batch=outer.batch)
        return found._replace(knows_batch=self.knows_batch or outer.knows_batch)


class CallReader:
    """Reads the geometry from a module's calls; its parameter names are looked up only once.

    Args:
        module: The module whose calls are read.
        names: Names of the geometry in its calls. The usual names are read if these are missing,
            except an attribute that is named by a dot.

    Attributes:
        names: The names as passed.
        parameters: Names of the module's parameters.
        pos: The parameter of the positions; empty without one. Likewise ``batch`` and
            ``edge_index``.
        features: The first parameter, unless it is one of these.
    """

    def __init__(self, module: nn.Module, names: Names) -> None:
        self.names = names
        self.parameters = parameter_names(module)
        owner, _, pos = names.pos.rpartition(".")
        self._owner = owner
        # PyG's layers keep the usual names, also in a model with other names.
        self._pos = (pos, "pos")
        self._batch = (names.batch, "batch")
        self._edges = (names.edge_index, "edge_index")
        self._required = set(required_names(module))
        self.pos = self._parameter(self._pos)
        batch = self._parameter(self._batch)
        # If 'batch' is the only required parameter, it is a batch of graphs: cloud ids alone are
        # not an input.
        is_whole = bool(batch) and self._required == {batch} and "x" not in self.parameters
        is_whole = is_whole and not self.pos
        self._owners = tuple(n for n in (owner, *_DATA, *([batch] if is_whole else [])) if n)
        self.batch = "" if is_whole else batch
        self.edge_index = self._parameter(self._edges)
        first, *_ = *self.parameters, ""
        self.features = "" if first in (self.pos, self.batch, self.edge_index) else first
        # Row 0 of edge_index is the source, unless a layer passes messages against the edges.
        self.flipped = getattr(module, "flow", "source_to_target") == "target_to_source"

    @property
    def has_pos(self) -> bool:
        """Whether a parameter holds positions, or data that have them."""
        return bool(self.pos or self._parameter(self._owners))

    @property
    def has_neighbors(self) -> bool:
        """Whether a parameter holds cloud ids or edges, or data that have them."""
        return any(self._parameter(n) for n in (self._batch, self._edges, self._owners))

    def needs(self, name: str) -> bool:
        """Whether the module requires this parameter."""
        return name in self._required

    def needs_only(self, *names: str) -> bool:
        """Whether the module can be called with these parameters alone."""
        return self._required <= set(names)

    def __call__(self, args: Args, kwargs: Kwargs) -> Found:
        call = {**dict(zip(self.parameters, args, strict=False)), **kwargs}
        data = None
        for owner in (*self._owners, *self._batch):
            if is_data(call.get(owner)):
                data = call.pop(owner)
                if owner == self._owner:
                    self._check_attribute(data)
                break
        # Ids that a call leaves out have their default.
        known = bool(self.batch) or any(name in call for name in self._batch)
        found = self._found(call.get, known)
        if data is None:
            return found
        # Separate arguments have priority over the attributes of a data argument.
        return found.completed_by(self._found(_getter(data), True))

    def _found(self, get: Callable[[str], Any], knows_batch: bool) -> Found:
        pos, batch, edges = (_first(get, n) for n in (self._pos, self._batch, self._edges))
        return Found(_pair(pos), _ids(batch), knows_batch, edges, self.flipped)

    def _check_attribute(self, data: Any) -> None:
        """Raise unless a data argument has the positions under the attribute after the dot."""
        if _getter(data)(self._pos[0]) is None:
            keys = getattr(data, "keys", None)
            names: Any = keys() if callable(keys) else getattr(data, "__dict__", ())
            held = sorted(map(str, names))
            raise ValueError(
                f"Expected 'pos_name' to name an attribute of {self._owner!r} "
                f"(got {self.names.pos!r}; {self._owner!r} has {', '.join(held) or 'none'})"
            )

    @property
    def possible_data(self) -> str:
        """Name of the parameter that may be a batch of graphs; empty without one."""
        return self._parameter(_POSSIBLE_DATA)

    def _parameter(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if name in self.parameters), "")


def read_output(output: Any) -> Found:
    """Return the geometry in a module's output ``(x, pos, batch)``."""
    level = level_of(output)
    return Found() if level is None else Found((level.pos, level.pos), level.batch, True)


def _first(get: Callable[[str], Any], names: tuple[str, str]) -> Any:
    return next((value for name in names if (value := get(name)) is not None), None)


def is_data(value: Any) -> bool:
    """Whether an argument is a graph or a batch of graphs, with positions as an attribute."""
    return value is not None and not isinstance(value, (Tensor, tuple, list))


def _getter(data: Any) -> Callable[[str], Any]:
    if isinstance(data, Mapping):
        return data.get  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return lambda name: getattr(data, name, None)


def _pair(pos: Any) -> tuple[Tensor, Tensor] | None:
    if isinstance(pos, Tensor):
        return pos, pos
    if isinstance(pos, (tuple, list)) and len(pos) == 2 and isinstance(pos[1], Tensor):  # pyright: ignore[reportUnknownArgumentType]
        return pos[0], pos[1]  # pyright: ignore[reportUnknownVariableType]
    return None


def _same_number(pos: tuple[Tensor, Tensor] | None, other: tuple[Tensor, Tensor] | None) -> bool:
    if pos is None or other is None:
        return pos is other
    return all(a.size(0) == b.size(0) for a, b in zip(pos, other, strict=True))


def _ids(batch: Any) -> Tensor | None:
    """Return cloud ids; for a pair, those of the targets."""
    batch = batch[-1] if isinstance(batch, (tuple, list)) and batch else batch  # pyright: ignore[reportUnknownVariableType]
    return batch if isinstance(batch, Tensor) else None


__all__ = ["CallReader", "Found", "Names", "is_data", "read_output"]
