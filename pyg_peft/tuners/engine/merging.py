"""Check whether an adapter can be merged into its base, before any tensor is changed."""

from collections.abc import Sequence

from torch import nn

from pyg_peft.tuners.engine.config import Site
from pyg_peft.tuners.engine.slot import Component


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
                "is no change of a weight"
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


__all__ = ["check_merge"]
