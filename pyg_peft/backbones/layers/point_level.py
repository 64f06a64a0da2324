"""A level of PointNet: one MLP for all points, with optional alignment by T-Nets."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.layers.flat_input import check_level
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.backbones.layers.t_net import TNet
from pyg_peft.geometry.layout import count_clouds
from pyg_peft.typing import Batch, Features, Pos


class PointLevel(nn.Module):
    """Apply the same layers to every point; points interact in the T-Nets only.

    Args:
        in_channels: Width of the input features.
        channels: Widths of the layers.
        aligns_pos: Whether to align the first three columns before the layers, as the paper's input
            transform does.
        aligns_features: Whether to align the rows after the layers, as the paper's feature
            transform does.
        slope: Negative slope of the activation; 0 for ReLU.
        bias: Whether the linear layers have a bias.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (N, channels[-1]). ``pos`` is not read
        here. It is an argument so that a module attached to the level receives it.

    Symmetries:
        Permutation equivariant; clouds do not influence each other.

    Example:
        >>> level = PointLevel(3, (16, 32)).eval()
        >>> pos, batch = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
        >>> level(pos, pos, batch, 1).shape
        torch.Size([5, 32])
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        aligns_pos: bool = False,
        aligns_features: bool = False,
        slope: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = channels[-1]
        self.input_transform = TNet(3) if aligns_pos else None
        self.mlp = shared_mlp(in_channels, *channels, slope=slope, bias=bias)
        self.feature_transform = TNet(channels[-1]) if aligns_features else None

    def reset_parameters(self) -> None:
        for part in (self.input_transform, self.mlp, self.feature_transform):
            if part is not None:
                part.reset_parameters()

    def forward(
        self, x: Features, pos: Pos, batch: Batch, batch_size: int | None = None
    ) -> Float[Tensor, "N D"]:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.mlp.parameters()))
        size = count_clouds(batch, batch_size)
        if self.input_transform is not None:
            aligned = self.input_transform(x[:, :3], batch, size)
            x = torch.cat([aligned, x[:, 3:]], dim=1)
        x = self.mlp(x)
        if self.feature_transform is not None:
            x = self.feature_transform(x, batch, size)
        return x


__all__ = ["PointLevel"]
