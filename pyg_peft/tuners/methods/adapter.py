"""Plain bottleneck adapters after chosen layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from pyg_peft.nn import Bottleneck
from pyg_peft.trainable import Target, match_modules
from pyg_peft.tuners.engine.checks import check_dropout, check_positive, check_widths
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.layers import MEASURE, check_bottleneck, output_channels
from pyg_peft.tuners.engine.slot import Args, Kwargs, OutputAdapter, check_site, features_of


class LayerAdapter(OutputAdapter):
    """An :class:`OutputAdapter` that names its layer if the output does not fit.

    Args:
        component: The bottleneck.
        path: Path of the layer.
    """

    def __init__(self, component: Bottleneck, path: str) -> None:
        super().__init__(component)
        self.path = path
        self.channels = component.channels

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        x = features_of(output)
        if not isinstance(x, Tensor) or x.dim() == 0:
            got = "a scalar" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"Expected {self.path!r} to return features, or a tuple of which they are the "
                f"first (got {got}): choose another target"
            )
        if x.size(-1) != self.channels:
            raise ValueError(
                f"Expected {self.path!r} to return {self.channels} channels (got {x.size(-1)}): "
                f"{MEASURE}"
            )
        return super().after(module, args, kwargs, output)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(MethodConfig):
    r"""Add a bottleneck after chosen layers, as in `"Parameter-Efficient Transfer Learning for NLP"
    <https://arxiv.org/abs/1902.00751>`_.

    ::

        x ── layer (frozen) ── y ──┬──────────────────────────(+)── output
                                   └── down ── GELU ── up ── s ┘

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | output of each layer matched | :class:`~pyg_peft.nn.Bottleneck` | 2 · C · width + C + width |
    | ``feature_stem``, if there is one | own copy | 128 · ``in_channels`` |
    | ``modules_to_save`` | own copy | all of them |

    Identity at init.

    Args:
        bottleneck_channels: Width of the bottleneck.
        scale: Multiplier of the residual branch.
        dropout: Dropout rate inside the bottleneck, while training.
        target_modules: Layers whose output is adapted. If the output is a tuple, its first element
            is. By default the attention and the MLP of every block.
        channels: Output widths of layers by path, if they differ from those of their last linear
            layers. Measured if ``get_peft_model`` gets an ``example``.
    """

    method: ClassVar[str] = "adapter"

    bottleneck_channels: int = 16
    scale: float = 1.0
    dropout: float = 0.0
    target_modules: tuple[Target, ...] = ("blocks.*.attn", "blocks.*.mlp")
    channels: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "bottleneck_channels")
        check_dropout(self)
        check_widths(self, "channels")

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        layers = match_modules(base, self.target_modules)
        for path, layer in layers.items():
            check_site(layer, path)
        adapters = {path: self._adapter(path, layer) for path, layer in layers.items()}
        sites = [Site(path, "adapter", adapter) for path, adapter in adapters.items()]
        return sites + self.saved_sites(base)

    def _adapter(self, path: str, layer: nn.Module) -> LayerAdapter:
        channels, width = output_channels(layer, path, self.channels), self.bottleneck_channels
        check_bottleneck(width, channels, path)
        return LayerAdapter(
            Bottleneck(channels, width, scale=self.scale, dropout=self.dropout), path
        )


__all__ = ["AdapterConfig"]
