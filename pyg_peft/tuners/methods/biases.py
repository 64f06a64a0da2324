"""Own biases: of a whole model, or of some of its modules."""

from collections.abc import Container, Sequence

from torch import nn

from pyg_peft.tuners.engine.config import Site, trained_site
from pyg_peft.tuners.engine.slot import SLOT

_BIASES = ("bias", "in_proj_bias")


def bias_sites(
    base: nn.Module, *, inside: Sequence[str] = ("",), without: Container[str] = ()
) -> list[Site]:
    """An adapter's own version of every bias at or below some paths.

    Args:
        base: The model.
        inside: Paths; ``""`` is all of the model.
        without: Paths of modules that are left out.
    """
    return [
        trained_site(base, path, names)
        for path, module in base.named_modules()
        if SLOT not in path.split(".")
        and path not in without
        and any(root == "" or f"{path}.".startswith(f"{root}.") for root in inside)
        and (names := [n for n in _BIASES if module._parameters.get(n) is not None])
    ]


__all__ = ["bias_sites"]
