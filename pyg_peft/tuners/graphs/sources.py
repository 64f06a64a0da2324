"""Pass the geometry of enclosing calls to a layer, for the time of one forward.

The pre-hook of an enclosing module stores the geometry of its call in a :class:`GeometrySource`.
The layer's component holds a reference to this source. The post-hook removes the geometry, also
if the call raises::

    ancestor(x, pos, batch) ──before──▶ source.held = pos, batch
        └── layer(x) ──after──▶ adapter(output, source.held)
                       ──release──▶ source.held is gone

There is no lookup at run time: the source that a layer reads is fixed when the method is attached.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyg_peft.errors import PlacementError
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs
from pyg_peft.tuners.engine.turns import PerThread
from pyg_peft.tuners.graphs.geometry import CallReader, Found, read_output


class GeometrySource(Component):
    """Stores the geometry of a module's call for the layers inside the module.

    Args:
        path: Path of the module, for messages.
        reader: Reader of the module's calls.
        outer: The enclosing source, for values that a call leaves out.
    """

    def __init__(
        self, path: str, reader: CallReader, outer: "GeometrySource | None" = None
    ) -> None:
        super().__init__()
        self.path = path
        self._notes = PerThread(list)
        # In a tuple, so that a module attached elsewhere is not registered as a child.
        self._links = (reader, outer)

    @property
    def held(self) -> list[Found]:
        """Geometry of this thread's calls, the innermost last."""
        return self._notes.here()

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        self.held.append(self.call(args, kwargs))
        return args, kwargs

    def release(self, module: nn.Module) -> None:
        if self.held:
            self.held.pop()

    def abandon(self, module: nn.Module) -> None:
        self.held.clear()

    def call(self, args: Args, kwargs: Kwargs) -> Found:
        """Return the geometry of a call of this module, completed by enclosing calls."""
        reader, outer = self._links
        found = reader(args, kwargs)
        return found if outer is None else outer.complete(found, self.path)

    def complete(self, found: Found, path: str) -> Found:
        """Complete the geometry of the module at ``path`` from the enclosing call of this module.

        Raises:
            RuntimeError: If something is missing, and this module is not being called.
        """
        if self.held:
            return found.completed_by(self.held[-1])
        if found.is_complete:
            return found
        raise RuntimeError(
            f"Expected {path!r} to run within a call of {self.path or 'the model'!r}, which "
            "receives its geometry (got a call of its own, as where that module is never called, "
            "or when a checkpoint is recomputed): call or checkpoint it as a whole, name another "
            "module with 'pos_from', or choose targets that receive 'pos', and 'batch' or "
            "'edge_index'"
        )


class OutputSource(GeometrySource):
    """Stores the geometry of a module's output for other layers, until the model returns."""

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        return args, kwargs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        found = read_output(output)
        if found.pos is not None and not found.is_complete:
            found = found.completed_by(self.call(args, kwargs))
        self.held.append(found)
        return output

    def release(self, module: nn.Module) -> None:
        """Do nothing: the geometry is removed when the base returns."""

    def complete(self, found: Found, path: str) -> Found:
        """Complete the geometry of the module at ``path`` from this module's earlier output.

        Raises:
            PlacementError: If this module has not been called in this forward.
        """
        if self.held:
            return found.completed_by(self.held[-1])
        if found.is_complete:
            return found
        raise PlacementError(
            f"Expected 'pos_from' to name a module that is called before {path!r} (got "
            f"{self.path!r}, which was not called in this forward): name another, whose output "
            "(x, pos, batch) the layer works on, or one around the layer"
        )


class HoldsNotes(Protocol):
    """A component that stores values for the time of a forward."""

    @property
    def held(self) -> list[Any]: ...


class SharedStructures(Component):
    """Caches the structures of one forward of the base, so that layers of a level share them.

    A level is identified by its tensor objects: layers that receive the same positions, cloud ids
    and edges share a structure. Nothing is kept outside of a forward of the base.

    Args:
        notes: Components that store values in ``held`` for the time of a forward; they are emptied
            when the base returns.
    """

    def __init__(self, notes: "tuple[HoldsNotes, ...]" = ()) -> None:
        super().__init__()
        # In a tuple, so that modules attached elsewhere are not registered as children.
        self._noting = notes
        self._forwards = PerThread(_Forward)

    @property
    def built(self) -> list[tuple[tuple[Any, ...], Any]] | None:
        """Tensors and their structures in this thread's forward; ``None`` outside of one."""
        return self._forwards.here().built

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        self._forwards.here().built = []
        return args, kwargs

    def release(self, module: nn.Module) -> None:
        self._forwards.here().built = None
        for component in self._noting:
            component.held.clear()

    def get(self, tensors: tuple[Tensor | None, ...], build: Callable[[], Any]) -> Any:
        """Return the structure of these tensor objects, built at most once in a forward."""
        stamp = tuple(_version(tensor) for tensor in tensors)
        built = self.built
        for known, (versions, structure) in built or []:
            if versions == stamp and all(a is b for a, b in zip(known, tensors, strict=True)):
                return structure
        structure = build()
        if built is not None:
            built.append((tensors, (stamp, structure)))
        return structure


class _Forward:
    """State of :class:`SharedStructures` during one forward."""

    def __init__(self) -> None:
        self.built: list[tuple[tuple[Any, ...], Any]] | None = None


def _version(tensor: Tensor | None) -> int:
    """Return how often a tensor was changed in place; zero when compiling, which tracks this."""
    if tensor is None or torch.compiler.is_compiling() or tensor.is_inference():
        return 0
    return tensor._version


__all__ = ["GeometrySource", "OutputSource", "SharedStructures"]
