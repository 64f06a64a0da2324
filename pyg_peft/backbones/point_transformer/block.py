"""The residual block of Point Transformer: vector attention among a point's neighbors."""

from torch import Tensor, nn
from torch_geometric.nn import PointTransformerConv

from pyg_peft.errors import check_count, check_dtype, check_finite, check_index, check_tensor
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import EdgeIndex, Features, Pos


class ShareChannels(nn.Module):
    """Repeat each row, so that channels at the same position in each repetition share a weight.

    Args:
        times: Number of repetitions.

    Shapes: x (E, C); output (E, times * C).

    Example:
        >>> ShareChannels(2)(torch.tensor([[1.0, 5.0]])).tolist()
        [[1.0, 5.0, 1.0, 5.0]]
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.times)

    def extra_repr(self) -> str:
        return f"times={self.times}"


@Symmetries(
    permutation="equivariant",
    rotation=False,
    reach=1,
    given="the edges",
)
class PointTransformerBlock(nn.Module):
    r"""Apply the residual block of Point Transformer, after `"Point Transformer"
    <https://arxiv.org/abs/2012.09164>`_, figure 4a.

    .. math::
        \mathbf{x} \leftarrow \mathrm{relu}(\mathbf{x} + \mathrm{norm}_3(\mathbf{W}_{out}\,
        \mathrm{relu}(\mathrm{norm}_2(\mathrm{attn}(\mathrm{relu}(\mathrm{norm}_1(
        \mathbf{W}_{in} \mathbf{x})))))))

    The attention is PyG's ``PointTransformerConv`` with the paper's position code :math:`\delta`
    (two layers, with 3 channels in between) and weights :math:`\gamma` (two layers).

    Args:
        channels: Width of the features.
        share: Number of channels that share an attention weight; it must divide ``channels``.

    Shapes:
        x (N, C), pos (N, 3), edge_index (2, E), in which each point is among its own neighbors;
        output (N, C).

    Symmetries:

    Raises:
        ValueError: If ``share`` does not divide ``channels``.

    Differences:
        Queries, keys and values have no bias, as in PyG.

    Example:
        >>> block = PointTransformerBlock(16).eval()
        >>> edge_index = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]])
        >>> block(torch.randn(2, 16), torch.randn(2, 3), edge_index).shape
        torch.Size([2, 16])
    """

    def __init__(self, channels: int, *, share: int = 8) -> None:
        channels = check_count(channels, "channels")
        share = check_count(share, "share")
        if channels % share:
            raise ValueError(f"Expected 'share' to divide {channels} (got {share})")
        super().__init__()
        self.channels = channels
        self.share = share
        narrow = channels // share
        self.lin_in = nn.Linear(channels, channels, bias=False)
        self.norm1 = nn.BatchNorm1d(channels)
        pos_nn = nn.Sequential(
            nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, channels)
        )
        attn_nn = nn.Sequential(
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Linear(channels, narrow),
            nn.BatchNorm1d(narrow),
            nn.ReLU(),
            nn.Linear(narrow, narrow),
            ShareChannels(share),
        )
        self.conv = PointTransformerConv(
            channels, channels, pos_nn=pos_nn, attn_nn=attn_nn, add_self_loops=False
        )
        self.norm2 = nn.BatchNorm1d(channels)
        self.lin_out = nn.Linear(channels, channels, bias=False)
        self.norm3 = nn.BatchNorm1d(channels)

    def reset_parameters(self) -> None:
        for part in (self.lin_in, self.norm1, self.conv, self.norm2, self.lin_out, self.norm3):
            part.reset_parameters()

    def forward(self, x: Features, pos: Pos, edge_index: EdgeIndex) -> Features:
        check_tensor(x, "x", shape=("N", self.channels))
        check_dtype(x, self.lin_in.weight)
        check_tensor(pos, "pos", shape=(x.size(0), 3), device=x.device)
        check_dtype(pos, self.lin_in.weight, "pos")
        check_finite(pos, "pos")
        number = x.size(0)
        edge_index = check_index(
            edge_index, "edge_index", number, shape=(2, "E"), of="points", device=x.device
        )
        out = self.norm1(self.lin_in(x)).relu()
        out = self.norm2(self.conv(out, pos, edge_index)).relu()
        return (x + self.norm3(self.lin_out(out))).relu()


def make_blocks(channels: int, depth: int, share: int) -> nn.ModuleList:
    """Build a stack of blocks."""
    check_count(depth, "depth", least=0)
    return nn.ModuleList(PointTransformerBlock(channels, share=share) for _ in range(depth))


__all__ = ["PointTransformerBlock", "ShareChannels", "make_blocks"]
