"""Place a list of sites on a model, and collect their tensors for a file."""

from collections.abc import Sequence

from torch import Tensor, nn

from pyg_peft.errors import PlacementError
from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.slot import SLOT, Component, Slot, attach, check_site, detach, slot_of
from pyg_peft.tuners.engine.turns import Turns


def place(base: nn.Module, adapter_name: str, sites: Sequence[Site], turns: Turns) -> None:
    """Attach an adapter's components, after all sites have been checked.

    Args:
        base: The model.
        adapter_name: Name of the adapter.
        sites: Sites of the adapter.
        turns: State that the slots of the base share.

    Raises:
        PlacementError: If a site is a container, does not exist, or is named twice.
    """
    grouped: dict[str, dict[str, Component]] = {}
    for site in sites:
        check_site(base.get_submodule(site.path), site.path)
        components = grouped.setdefault(site.path, {})
        if site.name in components:
            raise PlacementError(f"Expected one {site.name!r} at {site.path!r} (got two)")
        components[site.name] = site.component
    try:
        for path, components in grouped.items():
            attach(base.get_submodule(path), path, adapter_name, components, turns)
    except BaseException:
        remove(base, adapter_name)
        raise


def match_base(base: nn.Module, sites: Sequence[Site]) -> None:
    """Move components to the base's device and precision; copies keep their own precision."""
    like = next(base.parameters(), None)
    if like is None:
        return
    for site in sites:
        is_copy = site.component.replaces is not None
        site.component.to(like.device, None if is_copy else like.dtype)


def remove(base: nn.Module, adapter_name: str) -> None:
    """Remove an adapter's components, and the slots and hooks that are then unused."""
    for module in [m for m in base.modules() if slot_of(m) is not None]:
        detach(module, adapter_name)


def slots(base: nn.Module) -> dict[str, Slot]:
    """Return every slot by the path of its module."""
    return {path: s for path, m in base.named_modules() if (s := slot_of(m)) is not None}


def site_tensors(sites: Sequence[Site]) -> dict[str, Tensor]:
    """Return every tensor of an adapter by its key in a file; a shared tensor appears once.

    An adapter's own copy of a base tensor keeps its name in the base. The tensors of other
    components have the prefix ``path.peft.component``.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for site in sites:
        replaces = site.component.replaces
        parts = [site.path, SLOT, site.name] if replaces is None else [site.path, replaces]
        prefix = ".".join(part for part in parts if part)
        for name, tensor in site.component.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                tensors[f"{prefix}.{name}" if prefix else name] = tensor
    return tensors


def base_tensors(base: nn.Module, without: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the base's own parameters and buffers, except those under the paths of ``without``."""
    return {
        name: tensor
        for name, tensor in base.state_dict().items()
        if SLOT not in name.split(".")
        and not any(path == "" or f"{name}.".startswith(f"{path}.") for path in without)
    }


__all__ = ["base_tensors", "match_base", "place", "remove", "site_tensors", "slots"]
