"""Attach components to a module, through a child module and hooks that call it.

An adapted module keeps its class, its name and its state-dict keys. It gets one child, the
:class:`Slot`, named ``peft``, and hooks which pass each call to the slot's active adapter::

    args ──before──▶ module.forward ──after──▶ output
              │                         ▲
              └── slot.adapters[active] ┘      (nothing happens while no adapter is active)

The hooks are functions of this file and find the slot through the module they run on. So copies,
pickles, activation checkpointing, DDP, FSDP and ``torch.compile(fullgraph=True)`` all work as for
an ordinary module.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from pyg_peft.errors import PlacementError
from pyg_peft.tuners.engine.copying import copy_as_before, copy_whole
from pyg_peft.tuners.engine.turns import Turns

SLOT = "peft"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Component(nn.Module):
    """Base class of components, which may change a call's arguments, its output, or both.

    Several threads may call a model at once. Values that a component stores during a call belong
    to one thread, see ``PerThread`` in ``pyg_peft.tuners.engine.turns``.

    Attributes:
        takes_turns: Whether the component changes ``module`` itself until :meth:`release`. Threads
            then run the module one after the other, including those with adapters disabled.
        replaces: Path, from the module, of the module whose tensors the component replaces
            (``""`` is the module itself), or ``None`` if it replaces none. Such tensors keep the
            base's names, types and devices.
    """

    takes_turns: ClassVar[bool] = False
    replaces: str | None = None

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Return the arguments to call ``module`` with."""
        return args, kwargs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        """Return the output for ``module``'s caller; ``args`` are those ``module`` ran with."""
        return output

    def release(self, module: nn.Module) -> None:
        """Undo the changes of :meth:`before` to ``module`` itself; runs even if the call raised."""

    def abandon(self, module: nn.Module) -> None:
        """Undo the calls of this thread for which :meth:`release` did not run.

        This happens after an interrupt, for example.
        """
        self.release(module)

    def merged(self, module: nn.Module) -> list[tuple[nn.Module, str]]:
        """Return the parameters that :meth:`merge` changes, each as its owner and its name."""
        return []

    def merge(self, module: nn.Module) -> None:
        """Fold the component into ``module``'s own tensors.

        Raises:
            NotImplementedError: If the component is not a linear change of a weight.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be merged into a weight")

    def combine(
        self, module: nn.Module, components: Sequence["Component"], weights: Sequence[float]
    ) -> None:
        """Make this component's change of the weights the weighted sum of those of others.

        Args:
            module: The module that all of them are attached to.
            components: Components of the same class, of other adapters.
            weights: A factor for each of them.

        Raises:
            NotImplementedError: If the component is not a linear change of a weight.
        """
        raise NotImplementedError(f"{type(self).__name__} has no weighted sum")


class Slot(nn.Module):
    """The adapters of one module by name, of which at most one is active.

    Attributes:
        adapters: Each adapter's components at this module, by adapter name, in the order in which
            they are called.
        active: Name of the active adapter, or ``None``.
        turns: Whether adapters are disabled in this thread, and which thread has the turn; shared
            by the slots of a base.
        takes_turns: Whether a component of the active adapter changes the module during a call.
        fired: Whether the hooks have run since the slot was created.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.turns = Turns() if turns is None else turns
        self.takes_turns = False
        self.fired = False

    def activate(self, name: str | None) -> None:
        """Make one adapter of this module active, or none."""
        self.active = name
        self.takes_turns = any(component.takes_turns for component in self._of(name))

    def components(self) -> list[Component]:
        """Return the active adapter's components; none if adapters are disabled."""
        return [] if self.turns.disabled_here else self._of(self.active)

    def _of(self, name: str | None) -> list[Component]:
        if name is None or name not in self.adapters:
            return []
        return list(self.adapters[name].values())  # type: ignore[operator]

    def extra_repr(self) -> str:
        return f"active={self.active!r}"


class OutputAdapter(Component):
    """Passes a module's output through a component, such as a bottleneck.

    If the output is a tuple, its first element, the features, is passed.

    Args:
        component: A module that maps features to features of the same shape.
    """

    def __init__(self, component: nn.Module) -> None:
        super().__init__()
        self.component = component

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        return with_features(output, self.component(features_of(output)))


def features_of(output: Any) -> Any:
    """Return a module's output, or the first element of a tuple such as ``(x, pos, batch)``."""
    return output[0] if isinstance(output, (tuple, list)) and output else output  # pyright: ignore[reportUnknownVariableType]


def with_features(output: Any, features: Any) -> Any:
    """Return ``output`` with other features; a tuple keeps its type and its other elements."""
    if not isinstance(output, (tuple, list)):
        return features
    rest = (features, *output[1:])
    return type(output)(*rest) if hasattr(output, "_fields") else type(output)(rest)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def slot_of(module: nn.Module) -> Slot | None:
    """Return the slot of a module, or ``None`` if it has none."""
    slot = module._modules.get(SLOT)
    return slot if isinstance(slot, Slot) else None


def attach(
    module: nn.Module,
    path: str,
    adapter_name: str,
    components: dict[str, Component],
    turns: Turns | None = None,
) -> None:
    """Attach an adapter's components to a module, which gets a slot and hooks if it has none.

    Args:
        module: The module.
        path: Path of the module.
        adapter_name: Name of the adapter.
        components: Components by name, in the order in which they are called.
        turns: State that the slots of a base share.

    Raises:
        PlacementError: If the module is a container, whose children are run or iterated by others.
    """
    check_site(module, path)
    adapter = nn.ModuleDict(components)  # may raise for a name, so before anything changes
    slot = slot_of(module)
    if slot is None:
        slot = Slot(turns)
        slot.train(module.training)
        module.add_module(SLOT, slot)
        copy_whole(module)
        module.register_forward_pre_hook(_before, with_kwargs=True)
        module.register_forward_hook(_release, with_kwargs=True, always_call=True, prepend=True)
        module.register_forward_hook(_after, with_kwargs=True)
    slot.adapters[adapter_name] = adapter


def detach(module: nn.Module, adapter_name: str) -> None:
    """Remove an adapter; with the last one, also the slot and the hooks."""
    slot = slot_of(module)
    if slot is None or adapter_name not in slot.adapters:
        return
    del slot.adapters[adapter_name]
    if slot.active == adapter_name:
        slot.activate(None)
    if len(slot.adapters):
        return
    del module._modules[SLOT]
    copy_as_before(module)
    # Hooks are found by identity, since handles do not survive deepcopy or pickle.
    for hooks, companions in (
        (module._forward_pre_hooks, [module._forward_pre_hooks_with_kwargs]),
        (
            module._forward_hooks,
            [module._forward_hooks_with_kwargs, module._forward_hooks_always_called],
        ),
    ):
        for key in [k for k, hook in hooks.items() if hook in (_before, _release, _after)]:
            del hooks[key]
            for companion in companions:
                companion.pop(key, None)


def check_site(module: nn.Module, path: str) -> None:
    """Raise unless ``module`` can have a slot."""
    if isinstance(module, _CONTAINERS):
        raise PlacementError(
            f"Expected {path!r} to be a layer (got the container {type(module).__name__}, "
            "whose children are run or iterated one by one; name those)"
        )
    if SLOT in module._modules and slot_of(module) is None:
        raise PlacementError(f"Expected {path!r} to have no child {SLOT!r} of its own")


def _before(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    slot: Slot = module._modules[SLOT]  # type: ignore[assignment]
    if not slot.fired:
        slot.fired = True
    if slot.takes_turns and not torch.compiler.is_compiling():
        slot.turns.take()
    for component in slot.components():
        args, kwargs = component.before(module, args, kwargs)
    return args, kwargs


def _release(module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> None:
    slot: Slot = module._modules[SLOT]  # type: ignore[assignment]
    if not slot.takes_turns or torch.compiler.is_compiling():
        for component in slot.components():
            component.release(module)
        return
    # Also runs if an earlier hook raised and _before did not run. Then another thread may have
    # the turn.
    is_mine = slot.turns.is_mine
    try:
        for component in slot.components():
            if is_mine or not component.takes_turns:
                component.release(module)
    finally:
        slot.turns.give()


def _after(module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
    for component in reversed(module._modules[SLOT].components()):  # type: ignore[union-attr,operator]
        output = component.after(module, args, kwargs, output)
    return output


__all__ = [
    "SLOT",
    "Component",
    "OutputAdapter",
    "Slot",
    "attach",
    "check_site",
    "detach",
    "features_of",
    "slot_of",
    "with_features",
]
