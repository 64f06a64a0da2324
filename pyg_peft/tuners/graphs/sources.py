"""Geometry of calls around a layer, handed on explicitly for the time of one forward.

The pre-hook of a module around the layer notes what its call says in a :class:`GeometrySource`,
which the layer's component holds a reference to, and its post-hook forgets it, also when the call
raises::

    ancestor(x, pos, batch) ──before──▶ source.held = pos, batch
        └── layer(x) ──after──▶ adapter(output, source.held)
                       ──release──▶ source.held is gone

Nothing is looked up in a context: which source a layer reads is decided when the method is
attached.
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
    """At a module that receives positions: notes its call for the layers below.

    Args:
        path: Of the module, for messages.
        reader: Of the module's calls.
        outer: The source around it, for what a call leaves out.
    """

    def __init__(
        self, path: str, reader: CallReader, outer: "GeometrySource | None" = None
    ) -> None:
        super().__init__()
        self.path = path
        self._notes = PerThread(list)
        # In a tuple: a module that sits elsewhere and is no child of this one.
        self._links = (reader, outer)

    @property
    def held(self) -> list[Found]:
        """What this thread's calls say, the innermost last."""
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
        """What a call of this module says, and the calls around it."""
        reader, outer = self._links
        found = reader(args, kwargs)
        return found if outer is None else outer.complete(found, self.path)

    def complete(self, found: Found, path: str) -> Found:
        """What a call of the module at ``path`` lacks, from the call of this module around it.

        Raises:
            RuntimeError: If something is lacking, and this module is not being called.
        """
        if self.held:
            return found.completed_by(self.held[-1])
        if found.tells_all:
            return found
        raise RuntimeError(
            f"Expected {path!r} to run within a call of {self.path or 'the model'!r}, which tells "
            "its geometry (got a call of its own, as where that module is never called, or when a "
            "checkpoint is recomputed): call or checkpoint it as a whole, name another module "
            "with 'pos_from', or choose targets that receive 'pos', and 'batch' or 'edge_index'"
        )


class OutputSource(GeometrySource):
    """At a module beside a layer: notes what it returns, until the model does."""

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        return args, kwargs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        found = read_output(output)
        if found.pos is not None and not found.tells_all:
            found = found.completed_by(self.call(args, kwargs))
        self.held.append(found)
        return output

    def release(self, module: nn.Module) -> None:
        """Nothing yet: the base forgets it."""

    def complete(self, found: Found, path: str) -> Found:
        """What the call of the module at ``path`` lacks, from what this module returned before.

        Raises:
            PlacementError: If this module has not been called in this forward.
        """
        if self.held:
            return found.completed_by(self.held[-1])
        if found.tells_all:
            return found
        raise PlacementError(
            f"Expected 'pos_from' to name a module that is called before {path!r} (got "
            f"{self.path!r}, which was not called in this forward): name another, whose output "
            "(x, pos, batch) the layer works on, or one around the layer"
        )


class HoldsNotes(Protocol):
    """A component that notes something for the time of a forward."""

    @property
    def held(self) -> list[Any]: ...


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
        # In a tuple: they sit elsewhere and are no children of this one.
        self._noting = notes
        self._forwards = PerThread(_Forward)

    @property
    def built(self) -> list[tuple[tuple[Any, ...], Any]] | None:
        """Tensors, and what was made of them in this thread's forward; ``None`` outside of one."""
        return self._forwards.here().built

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        self._forwards.here().built = []
        return args, kwargs

    def release(self, module: nn.Module) -> None:
        self._forwards.here().built = None
        for component in self._noting:
            component.held.clear()

    def get(self, tensors: tuple[Tensor | None, ...], build: Callable[[], Any]) -> Any:
        """What ``build`` made of these very tensors in this forward, or makes now."""
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
    """What :class:`SharedStructures` keeps of one forward."""

    def __init__(self) -> None:
        self.built: list[tuple[tuple[Any, ...], Any]] | None = None


def _version(tensor: Tensor | None) -> int:
    """How often a tensor was changed in place; a compiler follows such changes by itself."""
    if tensor is None or torch.compiler.is_compiling() or tensor.is_inference():
        return 0
    return tensor._version


__all__ = ["GeometrySource", "OutputSource", "SharedStructures"]
