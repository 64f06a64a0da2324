"""Edge convolution on a graph that each level rebuilds from its own features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv

from pyg_peft.backbones.layers.flat_input import check_level
from pyg_peft.backbones.layers.segment_max import SegmentMax
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.backbones.layers.tokens import check_sizes
from pyg_peft.errors import check_count, check_finite, check_flag, check_number
from pyg_peft.geometry import knn_graph
from pyg_peft.geometry.layout import count_clouds, is_exporting, offsets
from pyg_peft.geometry.search.exported import exported_table
from pyg_peft.geometry.search.tables import search_table, to_edges
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, EdgeIndex, Features, Pos


def feature_graph(x: Features, k: int, batch: Batch, batch_size: int) -> EdgeIndex:
    """Return edges to each row from the ``k`` nearest rows of its cloud, including the row itself.

    Args:
        x: Features; distances are measured between them.
        k: Number of neighbors; all rows of a cloud with fewer.
        batch: Sorted cloud ids.
        batch_size: Number of clouds.

    Shapes: x ``(N, C)``, batch ``(N,)``; output ``(2, E)``, sorted by receiver.

    Symmetries: permutation equivariant except at exact ties. Not differentiable: indices.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0]])
        >>> feature_graph(x, 2, torch.zeros(3, dtype=torch.long), 1).tolist()
        [[0, 1, 1, 0, 2, 1], [0, 0, 1, 1, 2, 2]]
    """
    x = x.detach()
    check_finite(x, "x")  # nothing is nearest to NaN
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    ptr = offsets(batch, x.size(0), batch_size)
    if is_exporting():
        return to_edges(exported_table(x, x, k, ptr, ptr, batch.long()))
    return to_edges(search_table(x, x, k, ptr, ptr))


@Symmetries(
    permutation="equivariant",
    depends_on=("x",),
    note=(
        "With ``by_pos``, neighbors are searched by position: the output then depends on "
        "distances too, is invariant under translation, rotation and reflection of the "
        "positions, and is local: one hop. At exact ties the order of the points matters."
    ),
)
class EdgeConvBlock(nn.Module):
    r"""Apply one level of DGCNN: an edge convolution on a graph in feature space, after `"Dynamic
    Graph CNN for Learning on Point Clouds" <https://arxiv.org/abs/1801.07829>`_.

    .. math::
        \mathbf{x}'_i = \max_{j \in \mathcal{N}(i)}
        \mathrm{mlp}(\mathbf{x}_i, \mathbf{x}_j - \mathbf{x}_i)

    The neighbors are the nearest rows in the space of ``x``. The convolution is PyG's ``EdgeConv``.
    The block does what PyG's ``DynamicEdgeConv`` does, without its compiled search.

    Args:
        in_channels: Width of the input features.
        channels: Widths of the layers.
        k: Number of neighbors, including the row itself.
        by_pos: Search neighbors by position instead of by features, as the first level does.
        slope: Negative slope of the activation.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (N, channels[-1]).

    Symmetries:

    Raises:
        ValueError: If ``k`` is not positive.

    Example:
        >>> block = EdgeConvBlock(4, (8,), k=3).eval()
        >>> batch = torch.zeros(10, dtype=torch.long)
        >>> block(torch.randn(10, 4), torch.randn(10, 3), batch).shape
        torch.Size([10, 8])
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        k: int,
        by_pos: bool = False,
        slope: float = 0.2,
    ) -> None:
        in_channels = check_count(in_channels, "in_channels")
        channels = check_sizes(channels, "channels")
        largest = torch.finfo(torch.float32).max
        check_number(slope, "slope", least=-largest, most=largest)
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = channels[-1]
        self.k = check_count(k, "k")
        self.by_pos = check_flag(by_pos, "by_pos")
        mlp = shared_mlp(2 * in_channels, *channels, slope=slope, bias=False)
        self.conv = EdgeConv(mlp, aggr=SegmentMax())  # pyright: ignore[reportArgumentType]

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()

    def forward(
        self, x: Features, pos: Pos, batch: Batch, batch_size: int | None = None
    ) -> Float[Tensor, "N D"]:
        check_level(x, pos, batch, in_channels=self.in_channels, like=next(self.conv.parameters()))
        size = count_clouds(batch, batch_size)
        if self.by_pos:
            edge_index = knn_graph(pos, self.k, batch, loop=True, batch_size=size)
        else:
            check_finite(pos, "pos")
            edge_index = feature_graph(x, self.k, batch, size)
        return self.conv(x, edge_index)

    def extra_repr(self) -> str:
        return f"k={self.k}, by_pos={self.by_pos}"


def edge_conv_levels(in_channels: int, channels: Sequence[Sequence[int]], k: int) -> nn.ModuleList:
    """Build the levels of DGCNN; the first finds its neighbors by position."""
    levels = nn.ModuleList()
    width = 3 + in_channels
    for widths in channels:
        levels.append(EdgeConvBlock(width, widths, k=k, by_pos=len(levels) == 0))
        width = widths[-1]
    return levels


__all__ = ["EdgeConvBlock", "edge_conv_levels", "feature_graph"]
