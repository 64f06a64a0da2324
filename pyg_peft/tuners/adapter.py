"""Plain bottleneck adapters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from ..nn import Bottleneck
from ..trainable import Target, match_modules
from .config import MethodConfig, Site
from .layers import output_channels
from .slot import OutputAdapter, check_site


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(MethodConfig):
    r"""A bottleneck after chosen layers, as in `"Parameter-Efficient Transfer Learning for NLP"
    <https://arxiv.org/abs/1902.00751>`_.

    ::

        x ── layer (frozen) ── y ──┬──────────────────────────(+)── output
                                   └── down ── GELU ── up ── s ┘

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | output of each layer matched | :class:`~pyg_peft.nn.Bottleneck` | 2 · C · width + C + width |
    | ``modules_to_save`` | own copy | all of them |

    Identity at init.

    Args:
        bottleneck_channels: Width of the bottleneck.
        scale: Multiplier of the residual branch.
        dropout: Inside the bottleneck, while training.
        target_modules: Layers whose output is adapted, of a tuple its first element; by default the
            attention and the MLP of every block.
        channels: Width of a layer's output by path, where its last linear layer does not tell it;
            measured if ``get_peft_model`` is handed an ``example``.
    """

    method: ClassVar[str] = "adapter"

    bottleneck_channels: int = 16
    scale: float = 1.0
    dropout: float = 0.0
    target_modules: tuple[Target, ...] = ("blocks.*.attn", "blocks.*.mlp")
    channels: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bottleneck_channels < 1:
            raise ValueError(
                f"Expected 'bottleneck_channels' to be positive (got {self.bottleneck_channels})"
            )

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        layers = match_modules(base, self.target_modules)
        for path, layer in layers.items():
            check_site(layer, path)
        sites = [
            Site(
                path,
                "adapter",
                OutputAdapter(
                    Bottleneck(
                        output_channels(layer, path, self.channels),
                        self.bottleneck_channels,
                        scale=self.scale,
                        dropout=self.dropout,
                    )
                ),
            )
            for path, layer in layers.items()
        ]
        return sites + self.saved_sites(base)


__all__ = ["AdapterConfig"]
