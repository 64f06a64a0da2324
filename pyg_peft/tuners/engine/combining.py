"""Combine adapters of one method into a new one, whose changes are the weighted sum of theirs."""

import math
from collections.abc import Sequence

from torch import nn

from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.placement import match_base
from pyg_peft.tuners.engine.slot import Component


def check_weights(weights: object, number: int) -> list[float]:
    """Return the weights of ``number`` adapters.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If there are more or fewer, or one is not finite.
    """
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        raise TypeError(f"Expected 'weights' to be a list of numbers (got {weights!r})")
    found: list[float] = []
    for weight in weights:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"Expected 'weights' to hold numbers (got {weight!r})")
        if not math.isfinite(weight):
            raise ValueError(f"Expected 'weights' to be finite (got {weight})")
        found.append(float(weight))
    if len(found) != number:
        raise ValueError(
            f"Expected 'weights' to hold a number for each of the {number} adapters "
            f"(got {len(found)})"
        )
    return found


def combine(
    base: nn.Module,
    configs: Sequence[MethodConfig],
    sites: Sequence[Sequence[Site]],
    weights: Sequence[float],
) -> tuple[MethodConfig, list[Site]]:
    """Return the configuration and the sites of a weighted sum; nothing is attached.

    Args:
        base: The model.
        configs: Configurations of the adapters.
        sites: Sites of the adapters.
        weights: A factor for each adapter.

    Raises:
        NotImplementedError: If the method has a component that is not a change of a weight.
        ValueError: If the adapters differ in method, settings or places.
    """
    config = configs[0].combined(configs[1:])
    for site in sites[0]:
        if type(site.component).combine is Component.combine:
            raise NotImplementedError(
                f"{config.method} has no weighted sum: a {type(site.component).__name__} (at "
                f"{site.path!r}) is no change of a weight; switch between the adapters with "
                "set_adapter, or average their scores"
            )
    combined = config.sites(base)
    match_base(base, combined)
    places = [(site.path, site.name) for site in combined]
    for found in sites:
        if [(site.path, site.name) for site in found] != places:
            raise ValueError(
                "Expected 'adapters' to have components at the same modules (got other places)"
            )
    for site, *others in zip(combined, *sites, strict=True):
        module = base.get_submodule(site.path)
        site.component.combine(module, [other.component for other in others], weights)
    return config, combined


__all__ = ["check_weights", "combine"]
