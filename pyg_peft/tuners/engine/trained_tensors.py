"""Let an adapter train its own copies of base tensors, which replace the originals in a call."""

from typing import Any, ClassVar

from torch import Tensor, nn

from pyg_peft.errors import PlacementError
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs


class TrainedTensors(Component):
    """An adapter's own copies of some tensors of a module.

    The copies replace the originals during the module's forward. The originals are put back right
    after it, also if it raises. Between calls the base is therefore unchanged, and nothing has to
    be switched, saved apart or undone. Threads run the module one after the other.

    Args:
        owner: The module whose tensors are copied.
        parameters: Names of its own parameters to train.
        buffers: Names of its own buffers that training changes (running statistics).
        inner: Path to the owner from the module that this component is attached to, if the two
            differ. Needed for a child whose parent reads its tensors without calling it.

    Raises:
        PlacementError: If the owner has no parameter or buffer of a name.
    """

    takes_turns: ClassVar[bool] = True

    def __init__(
        self,
        owner: nn.Module,
        parameters: list[str],
        buffers: list[str] | None = None,
        *,
        inner: str = "",
    ) -> None:
        super().__init__()
        self.replaces = inner
        for name in parameters:
            original = owner._parameters.get(name)
            if original is None:
                raise PlacementError(
                    f"Expected {type(owner).__name__} to have a parameter {name!r} "
                    f"(got {', '.join(owner._parameters) or 'none'})"
                )
            self.register_parameter(name, nn.Parameter(original.detach().clone()))
        for name in buffers or []:
            original = owner._buffers.get(name)
            if original is None:
                raise PlacementError(
                    f"Expected {type(owner).__name__} to have a buffer {name!r} "
                    f"(got {', '.join(owner._buffers) or 'none'})"
                )
            self.register_buffer(name, original.detach().clone())
        self._originals: dict[str, Tensor | None] = {}
        self._depth = 0

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        # In a module that calls itself, the copies are already in place.
        self._depth += 1
        if self._depth > 1:
            return args, kwargs
        for own, place in self._places(module):
            for name in own:
                self._originals[name] = place[name]
                place[name] = own[name]
        return args, kwargs

    def release(self, module: nn.Module) -> None:
        self._depth = max(self._depth - 1, 0)
        if not self._depth:
            self.abandon(module)

    def abandon(self, module: nn.Module) -> None:
        self._depth = 0
        for own, place in self._places(module):
            for name in own:
                if name in self._originals:
                    if own is self._buffers:
                        # A module may assign a new tensor to its buffer instead of changing it.
                        own[name] = place[name]
                    place[name] = self._originals[name]
        self._originals = {}

    def merged(self, module: nn.Module) -> list[tuple[nn.Module, str]]:
        return [(self._owner(module), name) for name in self._parameters]

    def merge(self, module: nn.Module) -> None:
        for own, place in self._places(module):
            for name, tensor in own.items():
                merged = tensor.detach().clone()
                place[name] = nn.Parameter(merged) if isinstance(tensor, nn.Parameter) else merged

    def _places(self, module: nn.Module) -> list[tuple[Any, Any]]:
        owner = self._owner(module)
        return [(self._parameters, owner._parameters), (self._buffers, owner._buffers)]

    def _owner(self, module: nn.Module) -> nn.Module:
        return module.get_submodule(self.replaces) if self.replaces else module

    def extra_repr(self) -> str:
        prefix = f"{self.replaces}." if self.replaces else ""
        return ", ".join(f"{prefix}{name}" for name in [*self._parameters, *self._buffers])


__all__ = ["TrainedTensors"]
