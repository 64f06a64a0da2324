"""Manage the adapters of one base: which exist, which one is active, and what they own."""

import re
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_peft.errors import PlacementError, check_module
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.merging import OwnTensors, check_merge, freeze_merged
from pyg_peft.tuners.engine.placement import match_base, place, remove, site_tensors, slots
from pyg_peft.tuners.engine.slot import Slot
from pyg_peft.tuners.engine.turns import Turns


class AdapterSet:
    """Adds, switches, pauses and removes adapters on a frozen base.

    Args:
        base: The model. It stays frozen until :meth:`clear`.

    Attributes:
        configs: Configurations by adapter name, in the order in which they were added.
        turns: State that the threads calling the model share.

    Raises:
        PlacementError: If ``base`` already has adapters, or has uninitialized lazy layers.
        TypeError: If ``base`` is not a module.
    """

    def __init__(self, base: nn.Module) -> None:
        check_module(base, "base")
        if slots(base):
            raise PlacementError(
                "Expected a model without adapters (got one that carries some): "
                "add to its PeftModel, or unload it first"
            )
        if waiting := [n for n, p in base.named_parameters() if is_lazy(p)]:
            raise PlacementError(
                f"Expected a model whose layers are initialized (got {', '.join(waiting)}, which "
                "wait for a first input): run it once, or hand get_peft_model an 'example' of its "
                "input"
            )
        self.base = base
        self.configs: dict[str, MethodConfig] = {}
        self.turns = Turns()
        self._chosen: str | None = None
        self._mode = base.training
        self._sites: dict[str, list[Site]] = {}
        self._owners: dict[str, list[nn.Module]] = {}
        self._slots: list[Slot] = []
        self._verified: set[str] = set()
        self._own: OwnTensors | None = None
        self._modes = {path: module.training for path, module in base.named_modules()}
        self._requires_grad = {name: p.requires_grad for name, p in base.named_parameters()}
        base.requires_grad_(False)

    @property
    def active(self) -> str | None:
        """Name of the active adapter; ``None`` if there is none or adapters are disabled."""
        return None if self.turns.disabled_here else self._chosen

    @property
    def merged(self) -> str | None:
        """Name of the adapter that is merged into the base's weights, or ``None``."""
        return None if self._own is None else self._chosen

    def check_name(self, name: str) -> None:
        """Raise unless ``name`` is free and can name a module."""
        _check_text(name)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict(), name):
            raise ValueError(
                "Expected 'adapter_name' to be of letters, digits, '_' and '-', and no attribute "
                f"of a module (got {name!r})"
            )
        if name in self.configs:
            raise ValueError(f"Expected 'adapter_name' to be new (got {name!r}, which exists)")

    def check_new(self, name: str, config: object) -> None:
        """Raise unless ``name`` is free and ``config`` is a method's configuration."""
        self.check_name(name)
        if not isinstance(config, MethodConfig):
            raise TypeError(
                "Expected 'config' to be the configuration of a method, such as LoRAConfig() "
                f"(got {config!r})"
            )

    def sites(self, name: str) -> list[Site]:
        """Return the sites of an adapter.

        Raises:
            ValueError: If there is no adapter of this name. The message lists those that exist.
        """
        _check_text(name)
        if name not in self._sites:
            known = ", ".join(self._sites) or "none"
            raise ValueError(f"Expected 'adapter_name' to be one of {known} (got {name!r})")
        return self._sites[name]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return every tensor of an adapter by its key in a file."""
        return site_tensors(self.sites(name))

    def add(self, name: str, config: MethodConfig, sites: list[Site]) -> None:
        """Attach an adapter without making it active."""
        self._refuse_while_paused()
        self.refuse_while_merged("add an adapter")
        match_base(self.base, sites)
        owners = config.trained_modules(self.base)
        owners |= {s.path: self.base.get_submodule(s.path) for s in sites if s.trains_buffers}
        place(self.base, name, sites, self.turns)
        self.configs[name] = config
        self._sites[name] = sites
        self._owners[name] = list(owners.values())
        self._slots = list(slots(self.base).values())

    def activate(self, name: str) -> None:
        """Make one adapter run and train, and no other."""
        self._refuse_while_paused()
        self.refuse_while_merged("switch to another adapter")
        self.sites(name)
        self._chosen = name
        for other in self._sites:
            for tensor in self.tensors(other).values():
                if isinstance(tensor, nn.Parameter):
                    tensor.requires_grad_(other == name)
        for slot in self._slots:
            slot.activate(name)

    @contextmanager
    def paused(self) -> Generator[None]:
        """Run the base alone in eval mode, in this thread; contexts may be nested."""
        self.refuse_while_merged("disable it")
        if self.active is None:
            yield
            return
        if not torch.compiler.is_compiling():
            self.forget_interrupted()
        disabled = self.turns.disable()
        self._set_owners()
        try:
            yield
        except BaseException:
            if not self.turns.is_calling:
                self.release()
            raise
        finally:
            self.turns.enable(disabled)
            self._set_owners()

    def _set_owners(self) -> None:
        """Set the mode of the adapter's modules: eval mode while any thread disables adapters."""
        # In training mode the base's statistics would change.
        if self._mode and self._chosen is not None:
            for module in self._owners[self._chosen]:
                module.training = not self.turns.disabled_anywhere

    @contextmanager
    def calling(self) -> Generator[None]:
        """Keep other threads from changing the adapters; restore the base on an exception."""
        with self.turns.calling() as outermost:
            if outermost:
                self.forget_interrupted()
            try:
                yield
            except BaseException:
                self.release()
                raise

    def changing(self) -> AbstractContextManager[None]:
        """Return a context in which no other thread calls the model or changes its adapters."""
        return self.turns.changing()

    def remove(self, name: str) -> None:
        """Remove an adapter, and those of its slots that no other adapter uses."""
        self._refuse_while_paused()
        self.refuse_while_merged("delete an adapter")
        self.sites(name)
        remove(self.base, name)
        del self._sites[name], self._owners[name], self.configs[name]
        self._slots = list(slots(self.base).values())
        self._verified.discard(name)
        if self._chosen == name:
            self._chosen = None

    def clear(self) -> nn.Module:
        """Remove all adapters and return the base as it was before, including its modes."""
        self._refuse_while_paused()
        self.unmerge()
        for name in list(self._sites):
            self.remove(name)
        for name, parameter in self.base.named_parameters():
            parameter.requires_grad_(self._requires_grad[name])
        for path, module in self.base.named_modules():
            module.training = self._modes[path]
        return self.base

    def merge(self, name: str) -> None:
        """Fold an adapter into the base's weights for good.

        Raises:
            NotImplementedError: If a component is not a change of a weight, or its weight is shared
                or recomputed in each forward. Nothing has changed in that case.
        """
        self._refuse_while_paused()
        if self.merged is not None:
            self._own = None  # the weights stay merged
            return
        self.check_mergeable(name)
        self._fold(name)

    def check_mergeable(self, name: str) -> None:
        """Raise ``NotImplementedError`` unless an adapter can be merged."""
        check_merge(self.base, self.configs[name].method, self.sites(name))

    def merge_in_place(self, name: str) -> None:
        """Fold an adapter into the base's weights until :meth:`unmerge`; hooks do nothing then.

        Raises:
            NotImplementedError: As :meth:`merge`.
            ValueError: If a merged weight is not finite, or an adapter is merged already. Nothing
                has changed in either case.
        """
        self._refuse_while_paused()
        self.refuse_while_merged("merge an adapter")
        self.check_mergeable(name)
        own = OwnTensors(self.base, self.sites(name))
        try:
            self._fold(name)
            freeze_merged(self.base, self.sites(name))
        except BaseException:
            own.end()
            own.restore()
            raise
        own.end()
        self._own = own
        for slot in self._slots:
            slot.activate(None)

    def unmerge(self) -> None:
        """Give the base its own tensors back, the same objects with the same bits."""
        if self._own is None or self._chosen is None:
            return
        self._refuse_while_paused()
        self._own.restore()
        self._own = None
        for slot in self._slots:
            slot.activate(self._chosen)

    def refuse_while_merged(self, what: str) -> None:
        """Raise ``ValueError`` if an adapter is merged into the base's weights."""
        if self._own is not None:
            raise ValueError(
                f"Expected no merged adapter to {what} (got {self._chosen!r}, which is merged "
                "into the base): call unmerge_adapter first"
            )

    def _fold(self, name: str) -> None:
        num_classes = self.configs[name].num_classes
        if num_classes is not None:
            # Gives the base its new number of classes; the new head is overwritten below.
            self.base.reset_head(num_classes)  # type: ignore[operator]
        for site in self.sites(name):
            site.component.merge(self.base.get_submodule(site.path))

    def train(self, mode: bool) -> None:
        """Set the mode of the active adapter's modules; everything frozen is set to eval mode."""
        self._mode = mode
        self.base.train(False)
        name = self._chosen
        if mode and name is not None:
            for site in self._sites[name]:
                site.component.train()
            self._set_owners()

    def release(self) -> None:
        """Clean up after this thread's calls: drop stored values and restore the base's tensors.

        This is needed after an interrupt, for example, since hooks do not run then.
        """
        is_mine = self.turns.is_mine
        for sites in self._sites.values():
            for site in sites:
                if is_mine or not site.component.takes_turns:
                    site.component.abandon(self.base.get_submodule(site.path))
        self.turns.drop()

    def forget_interrupted(self) -> None:
        """Clean up after an interrupted call of the base itself, before a new call."""
        if self.turns.is_mine:
            self.release()

    def adapts(self, path: str) -> bool:
        """Whether the active adapter has a component at a module or below it."""
        sites = self._sites.get(self.active, []) if self.active is not None else []
        return any(f"{site.path}.".startswith(f"{path}.") for site in sites)

    def _refuse_while_paused(self) -> None:
        if self.turns.disabled_anywhere:
            raise ValueError(
                "Expected adapters to stay as they are within 'disable_adapter' "
                f"(got a change while {self._chosen!r} is disabled)"
            )

    def verify(self) -> None:
        """Raise if a forward did not call a module of the active adapter; checked once per adapter.

        Raises:
            PlacementError: If modules are not used, or their parents use their weights without
                calling them. The message names them.
        """
        if self.active is None or self.active in self._verified or self.merged is not None:
            return
        silent = [
            path
            for path, slot in slots(self.base).items()
            if self.active in slot.adapters and not slot.fired
        ]
        if silent:
            raise PlacementError(
                "Expected every adapted module to be called in a forward (got no call of "
                f"{', '.join(silent)}): each is only read by its parent, or is never used; "
                f"{_remedy(self.configs[self.active])}"
            )
        self._verified.add(self.active)


def _check_text(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"Expected 'adapter_name' to be text (got {name!r})")


def _remedy(config: MethodConfig) -> str:
    """Return how to leave out a module, by the settings that this method has."""
    if hasattr(config, "exclude_modules"):
        return "name it in 'exclude_modules', or leave it out of 'modules_to_save' if it is there"
    settings = ("target_modules", "head", "modules_to_save")
    return f"leave it out of {' and '.join(repr(n) for n in settings if hasattr(config, n))}"


__all__ = ["AdapterSet"]
