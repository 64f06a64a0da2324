"""A method in one file: a learned factor for each channel behind every block."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyg_peft.tuners import MethodConfig, OutputAdapter, Site, register_method


class ChannelScale(nn.Module):
    """Multiply each channel by a learned factor; the identity at init."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@register_method
@dataclass(frozen=True, kw_only=True)
class ChannelScaleConfig(MethodConfig):
    """Settings of the method: none beside those that every method has."""

    method: ClassVar[str] = "channel_scale"

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        backbone: Any = base
        scales = [
            Site(f"blocks.{number}", "scale", OutputAdapter(ChannelScale(backbone.embed_dim)))
            for number in range(len(backbone.blocks))
        ]
        return scales + self.saved_sites(base)
