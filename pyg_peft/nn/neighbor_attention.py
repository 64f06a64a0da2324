"""Attention among the members of a neighbourhood."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_dtype, check_tensor


class NeighborAttention(nn.Module):
    r"""Lets the members of a neighbourhood exchange features, after `"Point-PEFT:
    Parameter-Efficient Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        [\mathbf{q}_j, \mathbf{k}_j, \mathbf{v}_j] &= \mathbf{W}_{qkv} \, \mathrm{LN}(\mathbf{x}_j)
        \\
        \mathbf{a}_{jh} &= \sum_{l \in \mathcal{N}} \mathrm{softmax}_l \Big(
        \frac{\mathbf{q}_{jh} \cdot \mathbf{k}_{lh}}{\sqrt{A}} \Big) \mathbf{v}_{lh} \\
        \mathbf{o}_j &= \mathbf{W}_{proj} \, [\mathbf{a}_{j0}, \mathbf{a}_{j1}, \ldots]
        + \mathbf{b}_{proj}

    with heads *h* and :math:`A` = ``attention_channels``, all heads together. The layer norm has
    weight, bias and ``eps=1e-5``. ``qkv.weight`` ``[3 * A, C]``, without a bias, has the rows of
    all queries, then all keys, then all values, in each head after head, ``A / num_heads`` rows for
    one. Members only are attended to. The module returns :math:`\mathbf{o}`; who calls it adds the
    residual. One module serves every block of a backbone.

    Norm and projection see one row at a time, so :meth:`project` may run before rows are gathered
    into neighbourhoods and :meth:`attend` after, which saves a factor of the overlap.

    Args:
        channels: width of a row.
        attention_channels: width of queries, keys and values, all heads together. (default: ``18``)
        num_heads: number of heads; divides ``attention_channels``. (default: ``6``)

    Shapes:
        - **input:** x ``[S, K, C]``, mask ``[S, K]`` with true for members, or ``None``
        - **output:** ``[S, K, C]``; rows that the mask excludes are of no meaning

    Symmetries:
        Equivariant to the order of members and of neighbourhoods; neighbourhoods do not see each
        other.

    Raises:
        ValueError: a width that is not positive; heads that do not divide the width; rows or a
            mask of another shape.
        TypeError: a size that is no integer; rows of another dtype than the weights outside of
            autocast; a mask that is not Boolean.

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
        """Draw both projections anew and reset the norm."""
        self.norm.reset_parameters()
        self.qkv.reset_parameters()
        self.proj.reset_parameters()

    def forward(
        self, x: Float[Tensor, "S K C"], mask: Bool[Tensor, "S K"] | None = None
    ) -> Float[Tensor, "S K C"]:
        """Return what each member learns from its neighbourhood."""
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
        # Laid out anew once, not by each product of its own.
        query, key, value = qkv.contiguous().unbind(0)  # [S, heads, K, width]
        if mask is not None:
            # A softmax over nothing would be NaN: a set without members attends to its padding,
            # and whoever holds the mask throws the result away.
            mask = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None, :]
        # Written out: on heads this narrow the fused attention takes half as long again.
        score = (self.scale * query) @ key.transpose(-2, -1)  # [S, heads, K, K]
        if mask is not None:
            score = score.masked_fill(~mask, -torch.inf)
        out = score.softmax(dim=-1) @ value  # [S, heads, K, width]
        return out.transpose(1, 2).reshape(num_sets, size, self.attention_channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.attention_channels}, num_heads={self.num_heads}"


__all__ = ["NeighborAttention"]
