"""Base class of method configurations: where components are placed, and what is saved.

A method is a frozen dataclass derived from :class:`MethodConfig`. It implements
:meth:`~MethodConfig.sites`; attaching, switching and saving are the same for all methods. Third
parties write their own methods the same way and pass the class to
``PeftModel.from_pretrained(..., configs=[MyConfig])``.
"""

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from pyg_peft.backbones.contract import frozen_part
from pyg_peft.errors import CheckpointError, PlacementError
from pyg_peft.nn import MemoryBank
from pyg_peft.trainable import Target, check_targets, match_modules
from pyg_peft.tuners.engine.checks import check_types
from pyg_peft.tuners.engine.dry_run import Widths
from pyg_peft.tuners.engine.layers import is_never_called
from pyg_peft.tuners.engine.slot import SLOT, Component
from pyg_peft.tuners.engine.trained_tensors import TrainedTensors


@dataclass(frozen=True)
class Site:
    """One component at one module.

    Attributes:
        path: Path of the module in the base; ``""`` is the base itself.
        name: Name of the component in the slot.
        component: The component.
    """

    path: str
    name: str
    component: Component

    @property
    def trains_buffers(self) -> bool:
        """Whether the adapter has its own running statistics here, so that ``train()`` applies."""
        return self.component.replaces is not None and bool(self.component._buffers)


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Settings that every method has.

    An adapter also has its own copy of the children that backbone modules name in
    ``always_trained``. An example is the ``feature_stem`` (128 · ``in_channels`` parameters) of
    backbones that embed patches with features. Pre-trained weights leave that layer at zero, so
    without training it ``x`` would have no effect.

    Args:
        modules_to_save: Whole paths (or globs, ``re:`` expressions, classes) of modules that the
            adapter trains and saves as its own. All their tensors and buffers are included, such as
            batch norms with their statistics. By default the head.
        num_classes: Number of classes of the adapter's own head; ``None`` keeps the base's number.
            Needs a base with ``reset_head``.
    """

    method: ClassVar[str]
    takes_memory_bank: ClassVar[bool] = False
    identity_at_init: ClassVar[bool] = True

    modules_to_save: tuple[Target, ...] = ("head",)
    num_classes: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("modules_to_save", "target_modules", "exclude_modules"):
            targets = getattr(self, name, None)
            if targets is None and self._may_be_none(name):
                continue
            if isinstance(targets, (str, type)) or not isinstance(targets, Iterable):
                raise TypeError(f"Expected '{name}' to be a tuple of targets (got {targets!r})")
            targets = tuple(targets)
            check_targets(targets, argument=name)
            if name == "target_modules" and not targets:
                raise ValueError(f"Expected '{name}' to hold at least one target (got none)")
            object.__setattr__(self, name, targets)
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"Expected 'num_classes' to be positive (got {self.num_classes})")

    def _may_be_none(self, name: str) -> bool:
        """Whether a setting's default is ``None``, or the method has no such setting."""
        default = {f.name: f.default for f in dataclasses.fields(self)}.get(name)
        return default is None

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        """Create the components and return the site of each; ``base`` is not changed.

        Args:
            base: The model.
            has_bank: Whether the adapter gets a memory bank. Without one, no component may
                depend on its answer.

        Raises:
            PlacementError: If the method does not fit this model.
        """
        raise NotImplementedError

    def trained_modules(self, base: nn.Module) -> dict[str, nn.Module]:
        """Return the modules that the adapter owns as a whole, by path.

        ``train()`` sets the mode of these modules; all others stay in eval mode.
        """
        return {
            _join(path, inner): module
            for path, root in {**self._saved(base), **always_trained(base)}.items()
            for inner, module in root.named_modules()
            if SLOT not in inner.split(".")
        }

    def saved_sites(self, base: nn.Module) -> list[Site]:
        """Return sites with own copies of ``modules_to_save`` and of modules always trained."""
        owner = base if self.num_classes is None else _with_head(base, self.num_classes)
        saved = self.trained_modules(owner)
        if owner is not base:
            self._check_own_head(base, owner, saved)
        sites: list[Site] = []
        for path, module in saved.items():
            parameters = [name for name, p in module._parameters.items() if p is not None]
            buffers = [name for name, b in module._buffers.items() if b is not None]
            if parameters or buffers:
                # If the adapter does not own the parent, a module that is never called raises.
                inside = path.rpartition(".")[0] in saved
                sites.append(trained_site(owner, path, parameters, buffers, at_parent=inside))
        return sites

    def _check_own_head(
        self, base: nn.Module, owner: nn.Module, saved: Mapping[str, nn.Module]
    ) -> None:
        """Raise unless the adapter owns all of a new head; otherwise the base's head would run."""
        for name, head in owner._modules.items():
            if head is None or head is base._modules.get(name):
                continue
            parts = head.named_modules(prefix=name)
            if any(path not in saved for path, module in parts if module._parameters):
                raise PlacementError(
                    f"Expected 'modules_to_save' to hold '{name}', which is made anew for the "
                    f"adapter's 'num_classes' (got {self.modules_to_save!r})"
                )

    def replaced_paths(self, base: nn.Module) -> list[str]:
        """Return the paths whose tensors the adapter replaces with its own.

        Modules that are always trained are not included: the base's own tensors compute the memory
        bank's query.
        """
        return list(self._saved(base))

    def head_paths(self, base: nn.Module) -> list[str]:
        """Return the paths whose parameters are counted as the head's."""
        return self.replaced_paths(base)

    def check_bank(self, base: nn.Module, bank: MemoryBank | None) -> None:
        """Raise unless the method can use this bank on this base."""
        if bank is not None and not self.takes_memory_bank:
            raise ValueError(f"Expected no 'memory_bank' for the method {self.method} (got one)")

    def check_example(
        self, model: nn.Module, base: nn.Module, sites: Sequence[Site], example: Any
    ) -> None:
        """Raise if a dry run with ``example`` shows that the method does not fit this model.

        Args:
            model: The base with its adapters.
            base: The model that ``example`` is for.
            sites: Sites of the adapter.
            example: An input, or ``None``.
        """

    def precompute(
        self,
        base: nn.Module,
        call: Mapping[str, Any],
        bank: MemoryBank | None,
        stale: Collection[str],
    ) -> dict[str, Any]:
        """Compute the frozen part of a call with adapters disabled, see ``PeftModel.precompute``.

        Args:
            base: The model.
            call: Arguments of the model by name.
            bank: The adapter's memory bank.
            stale: Names of arguments to leave out, since the adapter changes them.
        """
        return frozen_part(base, call, leave_out=stale, make_query=bank is not None)

    def ask_bank(
        self, base: nn.Module, call: dict[str, Any], question: "Question"
    ) -> dict[str, Any]:
        """Return the call with the memory bank's answer, for methods that take a bank.

        Args:
            base: The model.
            call: Arguments of the model by name.
            question: The bank and the values to query it with.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no memory bank")

    def resolve(
        self, base: nn.Module, widths: Widths | None = None, *, bank: MemoryBank | None = None
    ) -> Self:
        """Return a copy that can be saved: classes become paths, and measured widths are added.

        Args:
            base: The model.
            widths: Widths of every module that was called in a dry run.
            bank: The adapter's memory bank.
        """
        changes: dict[str, Any] = {}
        for name in ("target_modules", "modules_to_save", "exclude_modules"):
            targets = getattr(self, name, None)
            if targets is not None and any(isinstance(target, type) for target in targets):
                changes[name] = tuple(match_modules(base, targets, argument=name))
        targets = getattr(self, "target_modules", None)
        if widths is not None and targets is not None:
            paths = match_modules(base, targets)
            for name, found in (("channels", widths.outputs), ("in_channels", widths.inputs)):
                if hasattr(self, name):
                    changes[name] = {path: found[path] for path in paths if path in found}
        return dataclasses.replace(self, **changes) if changes else self

    def combined(self, others: "Sequence[MethodConfig]") -> Self:
        """Return the configuration of a weighted sum of adapters, see ``add_weighted_adapter``.

        Args:
            others: Configurations of the other adapters.

        Raises:
            ValueError: If they are of another method, or have settings that differ.
        """
        for other in others:
            if type(other) is not type(self):
                raise ValueError(
                    f"Expected 'adapters' to be of one method (got {self.method} and "
                    f"{other.method})"
                )
            for field in dataclasses.fields(self):
                own, found = getattr(self, field.name), getattr(other, field.name)
                if own != found:
                    raise ValueError(
                        f"Expected 'adapters' to have the same settings (got '{field.name}' "
                        f"{own!r} and {found!r})"
                    )
        return self

    def _saved(self, base: nn.Module) -> dict[str, nn.Module]:
        return match_modules(base, self.modules_to_save, argument="modules_to_save")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return {f.name: _plain(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Rebuild a configuration.

        Raises:
            CheckpointError: If a setting is unknown to this version. The message names it.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise CheckpointError(
                f"Expected the settings of {cls.__name__} to be among {', '.join(sorted(known))} "
                f"(got {', '.join(unknown)})"
            )
        lists_as_tuples: dict[str, Any] = {}
        for name, value in settings.items():
            lists_as_tuples[name] = tuple(value) if isinstance(value, list) else value
        return cls(**lists_as_tuples)


@dataclass(frozen=True)
class Question:
    """The memory bank of one forward, and the values to query it with.

    Attributes:
        bank: The bank.
        query: Features that the caller passed, or ``None``.
        sample_id: Ids of the samples, or ``None``.
        training: Whether the model trains, so that a sample must not retrieve itself.
        precompute: Computes the frozen part of a call with adapters disabled, see
            ``PeftModel.precompute``.
    """

    bank: MemoryBank
    query: Tensor | None
    sample_id: Tensor | None
    training: bool
    precompute: Callable[..., dict[str, Any]]


def always_trained(base: nn.Module) -> dict[str, nn.Module]:
    """Return the children that modules of a model name in ``always_trained``, by path."""
    found: dict[str, nn.Module] = {}
    for path, module in base.named_modules():
        if SLOT in path.split("."):
            continue
        for name in getattr(module, "always_trained", ()):
            child = module._modules.get(name)
            if child is not None:
                found[_join(path, name)] = child
    return found


def trained_site(
    base: nn.Module,
    path: str,
    parameters: list[str],
    buffers: list[str] | None = None,
    *,
    at_parent: bool = True,
) -> Site:
    """Return a site with the adapter's own copies of some tensors of the module at ``path``.

    The tensors of a layer that is never called are replaced in the call of its parent, unless
    ``at_parent`` is false.
    """
    module = base.get_submodule(path)
    if at_parent and is_never_called(base, path):
        parent, _, child = path.rpartition(".")
        own = TrainedTensors(module, parameters, buffers, inner=child)
        return Site(parent, f"trained_{child}", own)
    return Site(path, "trained", TrainedTensors(module, parameters, buffers))


def _with_head(base: nn.Module, num_classes: int) -> nn.Module:
    """Return a shallow copy of ``base`` with a new head; ``base`` is not changed."""
    if not hasattr(base, "reset_head"):
        raise PlacementError(
            f"Expected a base with 'reset_head' to give an adapter {num_classes} classes of its "
            f"own (got {type(base).__name__})"
        )
    shadow = copy.copy(base)
    shadow.__dict__ = dict(base.__dict__, _modules=dict(base._modules))
    shadow.reset_head(num_classes)  # type: ignore[operator]
    return shadow


def _join(path: str, inner: str) -> str:
    return f"{path}.{inner}" if path and inner else path or inner


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        for item in value:
            if isinstance(item, type):
                raise TypeError(
                    f"Expected '{name}' to hold paths when an adapter is saved (got the class "
                    f"{item.__name__}; classes cannot be written to a file)"
                )
        return list(value)
    return value


__all__ = ["MethodConfig", "Question", "Site", "always_trained", "trained_site"]
