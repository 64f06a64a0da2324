"""Set abstraction: the levels of PointNet++, from points to centers of their neighborhoods."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import PointNetConv

from pyg_peft.backbones.layers.flat_input import check_clouds, check_level
from pyg_peft.backbones.layers.segment_max import SegmentMax, segment_max
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.backbones.layers.stages import Stage, sample_centers
from pyg_peft.backbones.layers.tokens import check_sizes
from pyg_peft.errors import check_count, check_number
from pyg_peft.geometry import ball_query
from pyg_peft.geometry.layout import count_clouds
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Pos


@Symmetries(
    permutation="invariant",
    rotation=False,
    note="At exact ties the order of the points matters.",
)
class SetAbstraction(nn.Module):
    r"""Sample centers and summarize the points around each center, after `"PointNet++"
    <https://arxiv.org/abs/1706.02413>`_.

    .. math::
        \mathbf{x}'_i = \max_{j \in \mathcal{B}(i)}
        \mathrm{mlp}(\mathbf{x}_j, \mathbf{p}_j - \mathbf{p}_i)

    Args:
        in_channels: Width of ``x``; 0 for positions alone.
        channels: Widths of the layers.
        num_centers: Number of centers per cloud; a smaller cloud keeps all its points.
        radius: Radius of the balls, in the unit of ``pos``.
        patch_size: Maximum number of points of a ball; the nearest are kept.

    Shapes:
        x (N, in_channels) or ``None``, pos (N, 3), batch (N); output features
        (S, channels[-1]), positions (S, 3) and ids (S) of the centers.

    Symmetries:

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> level = SetAbstraction(0, (8, 16), num_centers=4, radius=1.0, patch_size=8).eval()
        >>> pos, batch = torch.randn(10, 3), torch.zeros(10, dtype=torch.long)
        >>> [tuple(part.shape) for part in level(None, pos, batch)]
        [(4, 16), (4, 3), (4,)]
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        num_centers: int,
        radius: float,
        patch_size: int,
    ) -> None:
        in_channels = check_count(in_channels, "in_channels", least=0)
        channels = check_sizes(channels, "channels")
        check_number(radius, "radius", above=0, infinite=True)
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = channels[-1]
        self.num_centers = check_count(num_centers, "num_centers")
        self.radius = radius
        self.patch_size = check_count(patch_size, "patch_size")
        mlp = shared_mlp(3 + in_channels, *channels)
        self.conv = PointNetConv(mlp, add_self_loops=False, aggr=SegmentMax())

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()

    def forward(
        self, x: Tensor | None, pos: Pos, batch: Batch, batch_size: int | None = None
    ) -> Stage:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.conv.parameters()))
        size = count_clouds(batch, batch_size)
        index = sample_centers(pos, batch, size, num_centers=self.num_centers)
        center, center_batch = pos[index], batch[index]
        edge_index = ball_query(
            pos, center, self.radius, self.patch_size, batch, center_batch, batch_size=size
        )
        x = self.conv((x, None), (pos, center), edge_index)
        return Stage(x, center, center_batch)

    def extra_repr(self) -> str:
        return f"num_centers={self.num_centers}, radius={self.radius}, patch_size={self.patch_size}"


@Symmetries(permutation="invariant", translation=False, rotation=False)
class GlobalSetAbstraction(nn.Module):
    """Summarize each cloud as a whole: the last level of PointNet++.

    Args:
        in_channels: Width of ``x``.
        channels: Widths of the layers.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output features (B, channels[-1]), zero for an
        empty cloud, positions (B, 3), all at the origin, and ids (B).

    Symmetries:

    Example:
        >>> level = GlobalSetAbstraction(4, (8, 16)).eval()
        >>> x, pos, batch = torch.randn(5, 4), torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])
        >>> level(x, pos, batch).x.shape
        torch.Size([2, 16])
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        in_channels = check_count(in_channels, "in_channels")
        channels = check_sizes(channels, "channels")
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = channels[-1]
        self.mlp = shared_mlp(3 + in_channels, *channels)

    def reset_parameters(self) -> None:
        self.mlp.reset_parameters()

    def forward(self, x: Tensor, pos: Pos, batch: Batch, batch_size: int | None = None) -> Stage:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.mlp.parameters()))
        size = check_clouds(pos, batch, batch_size)
        batch = batch.long()
        x = segment_max(self.mlp(torch.cat([x, pos], dim=1)), batch, size)
        return Stage(x, pos.new_zeros(size, 3), torch.arange(size, device=pos.device))


__all__ = ["GlobalSetAbstraction", "SetAbstraction"]
