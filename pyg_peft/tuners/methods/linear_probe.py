"""Linear probe: train one linear layer on frozen features."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from pyg_peft.errors import PlacementError
from pyg_peft.trainable import match_modules
from pyg_peft.tuners.engine.calls import first_input
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.layers import linear_layers
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs, check_site


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig(MethodConfig):
    """Train a linear layer instead of the head, on frozen features (except for the stem, below).

    ::

        features ── head (frozen, ignored)
               └─── BatchNorm (no weights) ── Linear ── logits

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | the head | ``LinearProbe`` | classes · (C + 1) |
    | ``feature_stem``, if there is one | own copy | 128 · ``in_channels`` |

    The batch norm scales the features, as is usual for probes of masked autoencoders. It has
    running statistics, which are saved with the probe, and no trainable parameters. No identity at
    init: the head is replaced. On a backbone with ``in_channels`` the features do change. The layer
    that reads point features starts at zero, so it is trained; otherwise they would have no effect.

    Args:
        head: Path of the module whose input is probed; not a container.
    """

    method: ClassVar[str] = "linear_probe"
    identity_at_init: ClassVar[bool] = False

    modules_to_save: tuple[str, ...] = ()
    head: str = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head:
            raise ValueError("Expected 'head' to be the path of a module within the model (got '')")

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        path = self._path(base)
        head = base.get_submodule(path)
        check_site(head, path)
        layers: list[Any] = list(linear_layers(head).values())
        if not layers:
            raise PlacementError(
                f"Expected {path!r} to hold a linear layer (got {type(head).__name__})"
            )
        num_classes = self.num_classes or layers[-1].weight.size(0)
        probe = LinearProbe(layers[0].weight.size(1), num_classes)
        # The probe has the adapter's number of classes; the ignored head keeps the base's.
        own = replace(self, num_classes=None).saved_sites(base)
        return [Site(path, "probe", probe), *own]

    def replaced_paths(self, base: nn.Module) -> list[str]:
        return [self._path(base), *super().replaced_paths(base)]

    def _path(self, base: nn.Module) -> str:
        matched = list(match_modules(base, [self.head], argument="head"))
        if len(matched) > 1:
            raise PlacementError(
                f"Expected 'head' to match one module (got {self.head!r}, which matches "
                f"{', '.join(matched)})"
            )
        return matched[0]


class LinearProbe(Component):
    """Replaces a head's output by a linear function of the head's input."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(in_channels, affine=False)
        self.linear = nn.Linear(in_channels, num_classes)

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Tensor:
        return self.linear(self.norm(first_input(args, kwargs)))


__all__ = ["LinearProbe", "LinearProbeConfig"]
