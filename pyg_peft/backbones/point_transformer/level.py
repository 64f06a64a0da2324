"""The levels of Point Transformer: a change of resolution, then blocks that share one graph."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import PointNetConv

from pyg_peft.backbones.layers.feature_propagation import bring_back
from pyg_peft.backbones.layers.flat_input import check_clouds, check_level
from pyg_peft.backbones.layers.segment_max import SegmentMax
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.backbones.layers.stages import Stage, mean_of_clouds, sample_centers
from pyg_peft.backbones.layers.tokens import check_positive
from pyg_peft.backbones.point_transformer.block import make_blocks
from pyg_peft.geometry import knn, knn_graph
from pyg_peft.geometry.layout import count_clouds
from pyg_peft.typing import Batch, Features, Pos


class TransitionDown(nn.Module):
    """Reduce the number of points, take the maximum over neighbors, then apply blocks.

    Args:
        in_channels: Width of ``x``.
        channels: Width of the output.
        stride: Factor by which the number of points is reduced; 1 keeps all points and uses no
            neighbors.
        k: Number of neighbors of a point, including the point itself.
        depth: Number of blocks.
        share: Number of channels that share an attention weight.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output features (S, channels), positions (S, 3)
        and ids (S) of the points that are kept.

    Symmetries:
        Translation invariant; permutation equivariant except at exact ties; clouds do not influence
        each other.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> level = TransitionDown(6, 16, stride=4, k=8, depth=1).eval()
        >>> x, pos, batch = torch.randn(10, 6), torch.randn(10, 3), torch.zeros(10).long()
        >>> level(x, pos, batch).x.shape
        torch.Size([3, 16])
    """

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, k: int, depth: int, share: int = 8
    ) -> None:
        check_positive(stride=stride, k=k)
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = channels
        self.stride = stride
        self.k = k
        self.mlp = shared_mlp(in_channels, channels, bias=False) if stride == 1 else None
        self.conv = None if stride == 1 else make_conv(in_channels, channels)
        self.blocks = make_blocks(channels, depth, share)

    def reset_parameters(self) -> None:
        for part in (self.mlp, self.conv, *self.blocks):
            if part is not None:
                part.reset_parameters()  # pyright: ignore[reportCallIssue]

    def forward(self, x: Features, pos: Pos, batch: Batch, batch_size: int | None = None) -> Stage:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.parameters()))
        size = check_clouds(pos, batch, batch_size)
        if self.mlp is not None:
            x = self.mlp(x)
        if self.conv is not None:
            index = sample_centers(pos, batch, size, stride=self.stride)
            center, center_batch = pos[index], batch[index]
            edge_index = knn(pos, center, self.k, batch, center_batch, batch_size=size)
            x = self.conv((x, None), (pos, center), edge_index)
            pos, batch = center, center_batch
        return Stage(run_blocks(self.blocks, x, pos, batch, self.k, size), pos, batch)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, k={self.k}"


class Summit(nn.Module):
    """Concatenate each cloud's mean with its points, as the first step of the decoder.

    Args:
        channels: Width of the features.
        k: Number of neighbors of a point, including the point itself.
        depth: Number of blocks.
        share: Number of channels that share an attention weight.

    Shapes: x (N, C), pos (N, 3), batch (N); output (N, C).

    Symmetries: as :class:`TransitionDown`.

    Example:
        >>> x, pos, batch = torch.randn(10, 16), torch.randn(10, 3), torch.zeros(10).long()
        >>> Summit(16, k=4, depth=1).eval()(x, pos, batch).shape
        torch.Size([10, 16])
    """

    def __init__(self, channels: int, *, k: int, depth: int, share: int = 8) -> None:
        check_positive(k=k)
        super().__init__()
        self.in_channels = self.out_channels = channels
        self.k = k
        self.of_cloud = nn.Sequential(nn.Linear(channels, channels), nn.ReLU())
        self.mlp = shared_mlp(2 * channels, channels)
        self.blocks = make_blocks(channels, depth, share)

    def reset_parameters(self) -> None:
        self.of_cloud[0].reset_parameters()  # pyright: ignore[reportCallIssue]
        for part in (self.mlp, *self.blocks):
            part.reset_parameters()  # pyright: ignore[reportCallIssue]

    def forward(
        self, x: Features, pos: Pos, batch: Batch, batch_size: int | None = None
    ) -> Features:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.parameters()))
        size = check_clouds(pos, batch, batch_size)
        batch = batch.long()
        mean = self.of_cloud(mean_of_clouds(x, batch, size))  # [B, C]
        x = self.mlp(torch.cat([x, mean[batch]], dim=1))
        return run_blocks(self.blocks, x, pos, batch, self.k, size)

    def extra_repr(self) -> str:
        return f"k={self.k}"


class TransitionUp(nn.Module):
    """Interpolate coarse features at finer points, add the finer features, then apply blocks.

    Args:
        coarse_channels: Width of ``coarse_x``.
        channels: Width of ``x`` and of the output.
        k: Number of neighbors of a point, including the point itself.
        depth: Number of blocks.
        share: Number of channels that share an attention weight.

    Shapes:
        x (N, channels), pos (N, 3), batch (N); coarse_x (M, coarse_channels), coarse_pos (M, 3),
        coarse_batch (M); output (N, channels).

    Symmetries: as :class:`TransitionDown`.

    Example:
        >>> level = TransitionUp(32, 16, k=4, depth=1).eval()
        >>> x, pos, batch = torch.randn(10, 16), torch.randn(10, 3), torch.zeros(10).long()
        >>> level(x, pos, batch, torch.randn(3, 32), pos[:3], batch[:3]).shape
        torch.Size([10, 16])
    """

    def __init__(
        self, coarse_channels: int, channels: int, *, k: int, depth: int, share: int = 8
    ) -> None:
        check_positive(k=k)
        super().__init__()
        self.coarse_channels = coarse_channels
        self.in_channels = self.out_channels = channels
        self.k = k
        self.mlp = shared_mlp(channels, channels)
        self.coarse_mlp = shared_mlp(coarse_channels, channels)
        self.blocks = make_blocks(channels, depth, share)

    def reset_parameters(self) -> None:
        for part in (self.mlp, self.coarse_mlp, *self.blocks):
            part.reset_parameters()  # pyright: ignore[reportCallIssue]

    def forward(
        self,
        x: Features,
        pos: Pos,
        batch: Batch,
        coarse_x: Float[Tensor, "M D"],
        coarse_pos: Float[Tensor, "M 3"],
        coarse_batch: Tensor,
        batch_size: int | None = None,
    ) -> Features:
        like = next(self.parameters())
        check_level(x, pos, batch, in_channels=self.in_channels, like=like)
        coarse = (coarse_x, coarse_pos, coarse_batch)
        check_level(*coarse, in_channels=self.coarse_channels, like=like, prefix="coarse_")
        size = count_clouds(batch, batch_size)
        mixed = (self.coarse_mlp(coarse_x), coarse_pos, coarse_batch)
        x = self.mlp(x) + bring_back(*mixed, pos, batch, k=3, batch_size=size)
        return run_blocks(self.blocks, x, pos, batch, self.k, size)

    def extra_repr(self) -> str:
        return f"k={self.k}"


def make_conv(in_channels: int, channels: int) -> PointNetConv:
    """Build a maximum over neighbors, with an MLP on their features and relative positions."""
    mlp = shared_mlp(in_channels + 3, channels, bias=False)
    return PointNetConv(mlp, add_self_loops=False, aggr=SegmentMax())


def run_blocks(
    blocks: nn.ModuleList, x: Tensor, pos: Tensor, batch: Tensor, k: int, batch_size: int
) -> Tensor:
    """Apply blocks on one graph of ``k`` neighbors, which is built once if there are blocks."""
    if len(blocks) == 0:
        return x
    edge_index = knn_graph(pos, k, batch, loop=True, batch_size=batch_size)
    for block in blocks:
        x = block(x, pos, edge_index)
    return x


__all__ = ["Summit", "TransitionDown", "TransitionUp"]
