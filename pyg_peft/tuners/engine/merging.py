"""Merge an adapter into its base, and take it out again bit for bit."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.slot import SLOT, Component


def check_merge(base: nn.Module, method: str, sites: Sequence[Site]) -> None:
    """Raise unless every component can be merged into its module's own parameters.

    Raises:
        NotImplementedError: If a component is not a change of a weight; if the weight is recomputed
            in each forward, so that a change would be lost; or if several modules share it.
    """
    holders: dict[int, list[str]] = {}
    for path, module in base.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    for site in sites:
        if type(site.component).merge is Component.merge:
            raise NotImplementedError(
                f"{method} cannot be merged: a {type(site.component).__name__} (at {site.path!r}) "
                "is no change of a weight; call the PeftModel itself, in eval mode"
            )
        for owner, name in site.component.merged(base.get_submodule(site.path)):
            parameter = owner._parameters.get(name)
            if parameter is None:
                raise NotImplementedError(
                    f"{method} cannot be merged: the {name} of {site.path!r} is no parameter, but "
                    "computed anew in each forward (as by weight_norm)"
                )
            if len(shared := holders.get(id(parameter), [])) > 1:
                raise NotImplementedError(
                    f"{method} cannot be merged: {' and '.join(shared)} are one parameter, and "
                    "only one of them would have to change"
                )


class OwnTensors:
    """The tensors and children that a base has, to be restored after a merge.

    Tensors that a merge changes are replaced by clones first, so the originals stay as they are:
    the same objects with the same bits.

    Args:
        base: The model, before the merge.
        sites: Sites of the adapter that will be merged.
    """

    def __init__(self, base: nn.Module, sites: Sequence[Site]) -> None:
        self.base = base
        self._attributes = dict(base.__dict__)
        self._added: list[str] = []
        self._place = _place(base)
        self._held: list[tuple[nn.Module, str, dict[str, Any]]] = [
            (module, kind, dict(getattr(module, kind)))
            for path, module in base.named_modules()
            if SLOT not in path.split(".")
            for kind in ("_parameters", "_buffers", "_modules")
        ]
        for owner in _changed(base, sites):
            kinds: list[dict[str, Any]] = [owner._parameters, owner._buffers]
            for held in kinds:
                held.update({name: _clone(t) for name, t in held.items() if t is not None})

    def end(self) -> None:
        """Note which attributes of the base the merge has changed; only these are restored.

        Call it once, when the merge is done or has failed.
        """
        now = self.base.__dict__
        before = self._attributes
        self._added = [name for name in now if name not in before]
        self._attributes = {k: v for k, v in before.items() if v is not now.get(k)}

    def restore(self) -> None:
        """Give the base its own tensors and children back.

        They follow the base if its device or precision has changed since.
        """
        place = _place(self.base)
        apart: list[Any] = []
        for module, kind, before in self._held:
            held = getattr(module, kind)
            apart += [own for name, own in before.items() if own is not held.get(name)]
            held.clear()
            held.update(before)
        self.base.__dict__.update(self._attributes)
        for name in self._added:
            self.base.__dict__.pop(name, None)
        if place != self._place:
            for own in apart:
                _follow(own, *self._place, *place)


def freeze_merged(base: nn.Module, sites: Sequence[Site]) -> None:
    """Freeze the weights that a merge has changed; raise ``ValueError`` if one is not finite."""
    for site in sites:
        for owner, name in site.component.merged(base.get_submodule(site.path)):
            merged = owner._parameters[name]
            if merged is None:
                continue
            merged.requires_grad_(False)
            if not bool(torch.isfinite(merged).all()):
                raise ValueError(
                    f"Expected merged weights to be finite (got {name} of {site.path!r} with NaN "
                    "or infinite values): the adapter or the base is damaged, or its precision is "
                    "too small"
                )


def _changed(base: nn.Module, sites: Sequence[Site]) -> list[nn.Module]:
    """Return the modules whose tensors a merge changes, each once."""
    owners: dict[int, nn.Module] = {}
    for site in sites:
        module = base.get_submodule(site.path)
        for owner in (module, *(owner for owner, _ in site.component.merged(module))):
            owners[id(owner)] = owner
    return list(owners.values())


def _clone(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied


def _place(base: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
    """Return the device and precision of a model's first parameter."""
    first = next(base.parameters(), None)
    return (None, None) if first is None else (first.device, first.dtype)


def _follow(own: Any, device: Any, dtype: Any, new_device: Any, new_dtype: Any) -> None:
    """Move a tensor or a module that was apart from the base while that has moved."""
    if isinstance(own, nn.Module):
        own.to(new_device, new_dtype if new_dtype != dtype else None)
    elif isinstance(own, Tensor):
        changes = own.dtype == dtype and dtype != new_dtype
        own.data = own.data.to(
            new_device if own.device == device else own.device, new_dtype if changes else own.dtype
        )


__all__ = ["OwnTensors", "check_merge", "freeze_merged"]
