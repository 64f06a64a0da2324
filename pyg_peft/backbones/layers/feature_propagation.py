"""Feature propagation: a decoder level of PointNet++, from few points back to many."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.layers.flat_input import check_level
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.backbones.layers.tokens import check_sizes
from pyg_peft.errors import check_batch, check_count, check_finite, check_reach
from pyg_peft.geometry import interpolate, interpolation_weights, knn
from pyg_peft.geometry.layout import count_clouds
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Pos


def bring_back(
    coarse_x: Tensor,
    coarse_pos: Tensor,
    coarse_batch: Tensor,
    pos: Tensor,
    batch: Tensor,
    *,
    k: int,
    batch_size: int | None,
) -> Tensor:
    """Interpolate the ``k`` nearest coarse points' features by inverse squared distance.

    Raises:
        ValueError: If positions are not finite or too far away, or ids do not fit.
    """
    for points, name in ((pos, "pos"), (coarse_pos, "coarse_pos")):
        check_finite(points, name)
        check_reach(points, name)
    check_batch(batch, pos.size(0), batch_size)
    rows, device = coarse_pos.size(0), pos.device
    check_batch(coarse_batch, rows, batch_size, device=device, name="coarse_batch")
    edge_index = knn(coarse_pos, pos, k, coarse_batch, batch, batch_size=batch_size)
    weight = interpolation_weights(coarse_pos, pos, edge_index)
    return interpolate(coarse_x, edge_index, weight, pos.size(0))


@Symmetries(
    permutation="equivariant",
    note="Features are held fixed. At exact ties the order of the points matters.",
)
class FeaturePropagation(nn.Module):
    """Interpolate coarse features, concatenate the finer ones, and mix them, after `"PointNet++"
    <https://arxiv.org/abs/1706.02413>`_, section 3.4.

    Args:
        coarse_channels: Width of ``coarse_x``.
        in_channels: Width of ``x``; 0 for none.
        channels: Widths of the layers.
        k: Number of coarse points from which each point is interpolated.

    Shapes:
        x (N, in_channels) or ``None``, pos (N, 3), batch (N); coarse_x (M, coarse_channels),
        coarse_pos (M, 3), coarse_batch (M); output (N, channels[-1]).

    Symmetries:

    Raises:
        ValueError: If ``k`` is not positive.

    Example:
        >>> level = FeaturePropagation(8, 0, (16,)).eval()
        >>> batch = torch.zeros(10, dtype=torch.long)
        >>> level(None, torch.randn(10, 3), batch, torch.randn(4, 8), torch.randn(4, 3),
        ...       batch[:4]).shape
        torch.Size([10, 16])
    """

    def __init__(
        self, coarse_channels: int, in_channels: int, channels: Sequence[int], *, k: int = 3
    ) -> None:
        coarse_channels = check_count(coarse_channels, "coarse_channels")
        in_channels = check_count(in_channels, "in_channels", least=0)
        channels = check_sizes(channels, "channels")
        super().__init__()
        self.coarse_channels = coarse_channels
        self.in_channels = in_channels
        self.out_channels = channels[-1]
        self.k = check_count(k, "k")
        self.mlp = shared_mlp(coarse_channels + in_channels, *channels)

    def reset_parameters(self) -> None:
        self.mlp.reset_parameters()

    def forward(
        self,
        x: Tensor | None,
        pos: Pos,
        batch: Batch,
        coarse_x: Float[Tensor, "M C"],
        coarse_pos: Float[Tensor, "M 3"],
        coarse_batch: Tensor,
        batch_size: int | None = None,
    ) -> Float[Tensor, "N D"]:
        like = next(self.mlp.parameters())
        check_level(x, pos, batch, in_channels=self.in_channels, like=like)
        coarse = (coarse_x, coarse_pos, coarse_batch)
        check_level(*coarse, in_channels=self.coarse_channels, like=like, prefix="coarse_")
        if batch_size is not None:
            batch_size = count_clouds(batch, batch_size)
        brought = bring_back(*coarse, pos, batch, k=self.k, batch_size=batch_size)
        return self.mlp(brought if x is None else torch.cat([brought, x], dim=1))

    def extra_repr(self) -> str:
        return f"k={self.k}"


__all__ = ["FeaturePropagation", "bring_back"]
