"""Let an adapter train its own copies of base tensors, which replace the originals in a call."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
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

    @torch.no_grad()
    def combine(
        self, module: nn.Module, components: Sequence[Component], weights: Sequence[float]
    ) -> None:
        """Add the weighted changes of the copies to the base's tensors.

        This is the weighted mean of the copies if the weights add up to one. A tensor of another
        shape than the base's, as in a head for other classes, is the weighted sum of the copies
        itself. Statistics are the mean of those with positive weights, so that variances stay
        positive. Of whole numbers, such as counts of batches, the largest is taken.
        """
        for own, place in self._places(module):
            for name, tensor in own.items():
                copies = [getattr(component, name).to(tensor) for component in components]
                if not tensor.is_floating_point():
                    tensor.copy_(torch.stack(copies).amax(0))
                    continue
                factors = _as_mean(weights) if own is self._buffers else list(weights)
                total = sum(w * copied for w, copied in zip(factors, copies, strict=True))
                base = place.get(name)
                if base is not None and base.shape == tensor.shape and sum(factors) != 1:
                    total = total + (1 - sum(factors)) * base.to(tensor)
                tensor.copy_(total)

    def _places(self, module: nn.Module) -> list[tuple[Any, Any]]:
        owner = self._owner(module)
        return [(self._parameters, owner._parameters), (self._buffers, owner._buffers)]

    def _owner(self, module: nn.Module) -> nn.Module:
        return module.get_submodule(self.replaces) if self.replaces else module

    def extra_repr(self) -> str:
        prefix = f"{self.replaces}." if self.replaces else ""
        return ", ".join(f"{prefix}{name}" for name in [*self._parameters, *self._buffers])


def _as_mean(weights: Sequence[float]) -> list[float]:
    """Return weights of at least zero that add up to one."""
    positive = [max(weight, 0.0) for weight in weights]
    if not sum(positive):
        return [1 / len(weights)] * len(weights)
    return [weight / sum(positive) for weight in positive]


__all__ = ["TrainedTensors"]
