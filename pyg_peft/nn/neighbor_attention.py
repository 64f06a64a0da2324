"""Attention among the members of a neighborhood."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_dtype, check_tensor
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="equivariant",
    of="the members",
    depends_on=("x",),
    note="Neighborhoods are processed independently, and the output follows their order.",
)
class NeighborAttention(nn.Module):
    r"""Computes attention among the members of a neighborhood, after `"Point-PEFT:
    Parameter-Efficient Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        [\mathbf{q}_j, \mathbf{k}_j, \mathbf{v}_j] &= \mathbf{W}_{qkv} \, \mathrm{LN}(\mathbf{x}_j)
        \\
        \mathbf{a}_{jh} &= \sum_{l \in \mathcal{N}} \mathrm{softmax}_l \Big(
        \frac{\mathbf{q}_{jh} \cdot \mathbf{k}_{lh}}{\sqrt{A}} \Big) \mathbf{v}_{lh} \\
        \mathbf{o}_j &= \mathbf{W}_{proj} \, [\mathbf{a}_{j0}, \mathbf{a}_{j1}, \ldots]
        + \mathbf{b}_{proj}

    with heads *h* and :math:`A` = ``attention_channels``, all heads together. The layer norm has
    weight, bias and ``eps=1e-5``. ``qkv.weight`` ``[3 * A, C]``, without a bias, contains the rows
    of all queries, then all keys, then all values. Each of the three is ordered head by head, with
    ``A / num_heads`` rows per head. Only members are attended to. The module returns
    :math:`\mathbf{o}`; the caller adds the residual. One module can be shared by all blocks of a
    backbone.

    Norm and projection work on each row independently. :meth:`project` can therefore run before
    rows are gathered into neighborhoods and :meth:`attend` after, which saves a factor of the
    overlap.

    Args:
        channels: Width of a row.
        attention_channels: Width of queries, keys and values, all heads together. (default: ``18``)
        num_heads: Number of heads; must divide ``attention_channels``. (default: ``6``)

    Shapes:
        - **input:** x ``[S, K, C]``, mask ``[S, K]`` with true for members, or ``None``
        - **output:** ``[S, K, C]``; rows that the mask excludes are meaningless

    Symmetries:

    Raises:
        ValueError: If a width is not positive, the number of heads does not divide the width, or
            rows or a mask have another shape.
        TypeError: If a size is not an integer, a mask is not Boolean, or, outside of autocast, rows
            have another dtype than the weights.

    Differences:
        None in the values. The scale is ``attention_channels ** -0.5`` as in the authors' code, not
        that of a head.

    Example:
        >>> attention = NeighborAttention(384)
        >>> attention(torch.randn(32, 16, 384)).shape
        torch.Size([32, 16, 384])
    """

    def __init__(self, channels: int, attention_channels: int = 18, num_heads: int = 6) -> None:
        channels = check_count(channels, "channels")
        attention_channels = check_count(attention_channels, "attention_channels")
        num_heads = check_count(num_heads, "num_heads")
        if attention_channels % num_heads:
            raise ValueError(
                f"Expected 'num_heads' to divide attention_channels {attention_channels} "
                f"(got {num_heads})"
            )
        super().__init__()
        self.channels = channels
        self.attention_channels = attention_channels
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * attention_channels, bias=False)
        self.proj = nn.Linear(attention_channels, channels)
        self.reset_parameters()

    @property
    def scale(self) -> float:
        """Multiplier of the scores."""
        return self.attention_channels**-0.5

    def reset_parameters(self) -> None:
        """Reinitialize both projections and the norm."""
        self.norm.reset_parameters()
        self.qkv.reset_parameters()
        self.proj.reset_parameters()

    def forward(
        self, x: Float[Tensor, "S K C"], mask: Bool[Tensor, "S K"] | None = None
    ) -> Float[Tensor, "S K C"]:
        """Return the attention output of each member, without the residual."""
        check_tensor(x, "x", shape=("S", "K", self.channels), values=False)
        check_dtype(x, self.norm.weight)
        if mask is not None:
            check_tensor(mask, "mask", shape=x.shape[:2], kind="bool", device=x.device)
        return self.proj(self.attend(self.project(x), mask))  # [S, K, C]

    def project(self, x: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows A3"]:
        """Return query, key and value of each row, side by side."""
        return self.qkv(self.norm(x))  # [..., 3 * A]

    def attend(
        self, qkv: Float[Tensor, "S K A3"], mask: Bool[Tensor, "S K"] | None = None
    ) -> Float[Tensor, "S K A"]:
        """Return the attention's output before its last projection."""
        num_sets, size, _ = qkv.shape
        width = self.attention_channels // self.num_heads
        qkv = qkv.view(num_sets, size, 3, self.num_heads, width).permute(2, 0, 3, 1, 4)
        # One copy here avoids a copy in each matrix product.
        query, key, value = qkv.contiguous().unbind(0)  # [S, heads, K, width]
        if mask is not None:
            # A softmax over no members would be NaN. Sets without members therefore attend to their
            # padding, and the caller discards the result.
            mask = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None, :]
            # Padding may be NaN, and so is its product with a weight of zero.
            value = value.masked_fill(~mask.transpose(-2, -1), 0)
        # Not fused, because fused attention takes 1.5 times as long for heads this narrow.
        score = (self.scale * query) @ key.transpose(-2, -1)  # [S, heads, K, K]
        if mask is not None:
            score = score.masked_fill(~mask, -torch.inf)
        out = score.softmax(dim=-1) @ value  # [S, heads, K, width]
        return out.transpose(1, 2).reshape(num_sets, size, self.attention_channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.attention_channels}, num_heads={self.num_heads}"


__all__ = ["NeighborAttention"]
