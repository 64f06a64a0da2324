"""Find the module that provides a layer's geometry, when a method is attached."""

from collections.abc import Mapping

from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.trainable import match_modules
from pyg_peft.tuners.engine.calls import parameter_names
from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.slot import SLOT, check_site
from pyg_peft.tuners.graphs.geometry import CallReader, Names
from pyg_peft.tuners.graphs.sources import GeometrySource, OutputSource


class Origins:
    """Finds and creates the geometry sources of a model's layers, without changing the model.

    Args:
        base: The model.
        names: Names of the geometry in its calls.
        pos_from: Path or glob of the source that the user chose.

    Raises:
        PlacementError: If the positions are an attribute of a parameter that no module has.

    Attributes:
        around: Sources at enclosing modules, by path.
        beside: Sources at modules whose output the layers work on, by path.
    """

    def __init__(self, base: nn.Module, names: Names, pos_from: str | None = None) -> None:
        self.base = base
        self.names = names
        self.pos_from = pos_from
        self.around: dict[str, GeometrySource] = {}
        self.beside: dict[str, OutputSource] = {}
        self._check_owner()

    def of(self, path: str) -> GeometrySource | None:
        """Return the source of geometry that a layer's call lacks; ``None`` if it lacks nothing.

        Raises:
            PlacementError: If no module provides it. The message lists those that have geometry.
        """
        if self.pos_from is not None:
            return self._named(path, self.pos_from)
        if (source := self._around(path)) is not None:
            return source
        own = self.reader(path)
        if own.has_pos and own.has_neighbors:
            return None
        names, layer = self.names, self.base.get_submodule(path)
        raise PlacementError(
            f"Expected {path!r}, or a module around it, to receive {names.pos!r} and "
            f"{names.batch!r} or {names.edge_index!r} by name (got {type(layer).__name__} with "
            f"{', '.join(own.parameters) or 'no named parameters'}); say 'pos_name' if the model "
            f"has another name{self._dotted()}, 'pos_from' if another module provides it; modules "
            f"that do: {listed(self.carriers())}"
        )

    def sites(self) -> list[Site]:
        """Return the sites of the sources."""
        return [
            *(Site(path, "source", source) for path, source in self.around.items()),
            *(Site(path, "returned", source) for path, source in self.beside.items()),
        ]

    def carriers(self) -> dict[str, CallReader]:
        """Return readers of the modules whose calls contain the geometry, by path."""
        return {
            path: reader
            for path, module in self.base.named_modules()
            if SLOT not in path.split(".")
            and (reader := CallReader(module, self.names)).has_pos
            and reader.has_neighbors
        }

    def reader(self, path: str) -> CallReader:
        """Return a reader for the calls of the module at a path."""
        return CallReader(self.base.get_submodule(path), self.names)

    def _check_owner(self) -> None:
        owner, dot, _ = self.names.pos.rpartition(".")
        if dot and not any(owner in parameter_names(m) for m in self.base.modules()):
            parameters = ", ".join(self.reader("").parameters) or "no named parameters"
            raise PlacementError(
                f"Expected 'pos_name' to begin with a parameter of the model (got "
                f"{self.names.pos!r}; {type(self.base).__name__} has {parameters})"
            )

    def _dotted(self) -> str:
        """Return a hint for positions that are an attribute of the model's argument."""
        reader = self.reader("")
        # A PyG batch may have any name. If no name gives a hint, it is the only parameter.
        name = reader.possible_data or (reader.features if len(reader.parameters) == 1 else "")
        return f" ({name + '.pos'!r} if {name!r} is a PyG batch)" if name else ""

    def _around(self, path: str) -> GeometrySource | None:
        """Return a source at the nearest enclosing module that has what ``path`` may lack."""
        own, ancestors = self.reader(path), _ancestors(path)
        if own.pos and own.needs(own.edge_index):
            return None
        if own.pos and own.needs(own.batch):
            # The layer receives ids if there are any; only the model itself is sure to be called.
            ancestors = ancestors[-1:]
        for ancestor in ancestors:
            reader = self.reader(ancestor)
            if reader.has_neighbors and (reader.has_pos or own.has_pos):
                return self._at(ancestor)
        return None

    def _at(self, path: str) -> GeometrySource:
        """Return the source at a module, created with its enclosing sources if needed."""
        if path not in self.around:
            self.around[path] = GeometrySource(path, self.reader(path), self._around(path))
        return self.around[path]

    def _named(self, path: str, pos_from: str) -> GeometrySource | None:
        """Return the source that ``pos_from`` names: the nearest enclosing one, or the only one."""
        named = match_modules(self.base, [pos_from], argument="pos_from")
        if path in named:
            return None
        for ancestor in _ancestors(path):
            if ancestor in named:
                return self._at(ancestor)
        if len(named) > 1:
            raise PlacementError(
                f"Expected 'pos_from' to name a module around {path!r} or one module whose output "
                f"it works on (got {', '.join(named)})"
            )
        ((origin, module),) = named.items()
        check_site(module, origin)
        if origin not in self.beside:
            self.beside[origin] = OutputSource(origin, self.reader(origin), self._around(origin))
        return self.beside[origin]


def listed(modules: Mapping[str, object]) -> str:
    """Format paths for a message."""
    return ", ".join(path or "the model itself" for path in modules) or "none"


def _ancestors(path: str) -> list[str]:
    """Return the paths that enclose ``path``, the nearest first, the model itself last."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)]


__all__ = ["Origins", "listed"]
