"""Train the biases of a whole model, or of some of its modules."""

from collections.abc import Container, Sequence

from torch import nn

from pyg_peft.tuners.engine.config import Site, trained_site
from pyg_peft.tuners.engine.slot import SLOT

_BIASES = ("bias", "in_proj_bias")


def bias_sites(
    base: nn.Module, *, inside: Sequence[str] = ("",), without: Container[str] = ()
) -> list[Site]:
    """Return sites with the adapter's own copy of every bias at or below some paths.

    Args:
        base: The model.
        inside: Paths; ``""`` is the whole model.
        without: Paths of modules to leave out.
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
