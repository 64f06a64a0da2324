"""Low-rank update of a linear layer, stored beside the layer."""

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.errors import check_channels, check_count, check_dtype, check_number
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="equivariant",
    of="the rows",
    depends_on=("x",),
    independent="rows",
    note="Without dropout, how rows are batched does not matter in training either.",
)
class LowRankLinear(nn.Module):
    r"""Computes the low-rank update that LoRA adds to a linear layer, after `"LoRA: Low-Rank
    Adaptation of Large Language Models" <https://arxiv.org/abs/2106.09685>`_.

    .. math::
        \Delta(\mathbf{x}_i) = \frac{\alpha}{r} \, \mathbf{B} \mathbf{A} \, \mathbf{x}_i, \qquad
        \mathbf{A} \in \mathbb{R}^{r \times C_{in}}, \;
        \mathbf{B} \in \mathbb{R}^{C_{out} \times r}

    :math:`\mathbf{A}` is ``down.weight``, drawn uniformly from :math:`\pm 1 / \sqrt{C_{in}}`,
    :math:`\mathbf{B}` is ``up.weight``; there is no bias, and :math:`r` is ``rank``. The module
    returns the update only; the caller adds it to the output of the linear layer. Zero at init,
    because :math:`\mathbf{B} = \mathbf{0}`.

    Args:
        in_channels: Width of an input row.
        out_channels: Width of an output row.
        rank: Inner width, in ``[1, min(in_channels, out_channels)]``.
        alpha: Numerator of the multiplier; ``None`` means ``rank``, a multiplier of one.
        dropout: Probability that an input is dropped in training, in ``[0, 1)``. (default: ``0.0``)

    Shapes:
        - **input:** x ``[..., C_in]``
        - **output:** ``[..., C_out]``

    Symmetries:

    Raises:
        ValueError: If a width, rank, numerator or probability is out of range, or rows have another
            width.
        TypeError: If a size is not a number, or, outside of autocast, rows have another dtype than
            the weights.

    Differences:
        None known. ``delta_weight`` ignores dropout, as required for merging.

    Example:
        >>> import torch
        >>> update = LowRankLinear(6, 4, rank=2, alpha=4)
        >>> x = torch.randn(3, 6)
        >>> torch.equal(update(x), torch.zeros(3, 4)), update.delta_weight().shape
        (True, torch.Size([4, 6]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rank: int,
        *,
        alpha: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        in_channels = check_count(in_channels, "in_channels")
        out_channels = check_count(out_channels, "out_channels")
        rank = check_count(rank, "rank", most=min(in_channels, out_channels))
        if alpha is not None:
            alpha = check_number(alpha, "alpha", above=0)
        dropout = check_number(dropout, "dropout", least=0, below=1)
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.rank = rank
        self.alpha = float(rank if alpha is None else alpha)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(in_channels, rank, bias=False)
        self.up = nn.Linear(rank, out_channels, bias=False)
        self.reset_parameters()

    @property
    def scale(self) -> float:
        """The multiplier ``alpha / rank``."""
        return self.alpha / self.rank

    def reset_parameters(self) -> None:
        """Initialize ``down`` like ``torch.nn.Linear`` and set ``up`` to zero."""
        self.down.reset_parameters()
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "*rows C_in"]) -> Float[Tensor, "*rows C_out"]:
        """Return the update of the linear layer's output."""
        check_channels(x, self.in_channels)
        check_dtype(x, self.down.weight)
        return self.scale * self.up(self.down(self.dropout(x)))  # [..., C_out]

    def delta_weight(self) -> Float[Tensor, "C_out C_in"]:
        """Return the same update as a matrix, to be added to the layer's weight."""
        return self.scale * (self.up.weight @ self.down.weight)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, rank={self.rank}, alpha={self.alpha}"


__all__ = ["LowRankLinear"]
