"""Low-rank update of a linear layer with one weight per type of row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_dtype, check_index, check_number, check_tensor
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="equivariant",
    of="the rows",
    depends_on=("x",),
    independent="rows",
    note="Without dropout, how rows are batched does not matter in training either.",
)
class LowRankHeteroLinear(nn.Module):
    r"""Computes the low-rank update that LoRA adds to a :class:`torch_geometric.nn.HeteroLinear`,
    after `"LoRA: Low-Rank Adaptation of Large Language Models"
    <https://arxiv.org/abs/2106.09685>`_.

    .. math::
        \Delta(\mathbf{x}_i) = \frac{\alpha}{r} \, \mathbf{B}_{\kappa(i)} \mathbf{A}_{\kappa(i)} \,
        \mathbf{x}_i

    Each type :math:`\kappa` has its own matrices: :math:`\mathbf{A}_\kappa^\top` is ``down[kappa]``
    ``[C_in, r]``, drawn uniformly from :math:`\pm 1 / \sqrt{C_{in}}`, and
    :math:`\mathbf{B}_\kappa^\top` is ``up[kappa]`` ``[r, C_out]``; there is no bias. The module
    returns the update only; the caller adds it to the output of the layer. Zero at init, because
    :math:`\mathbf{B} = \mathbf{0}`.

    Args:
        in_channels: Width of an input row.
        out_channels: Width of an output row.
        num_types: Number of types.
        rank: Inner width, in ``[1, min(in_channels, out_channels)]``.
        alpha: Numerator of the multiplier; ``None`` means ``rank``, a multiplier of one.
        dropout: Probability that an input is dropped in training, in ``[0, 1)``. (default: ``0.0``)

    Shapes:
        - **input:** x ``[N, C_in]``, type_vec ``[N]``
        - **output:** ``[N, C_out]``

    Symmetries:

    Raises:
        ValueError: If a width, number of types, rank, numerator or probability is out of range,
            rows have another width, or the layer does not have a type.
        TypeError: If a size is not a number, types are not integers, or, outside of autocast, rows
            have another dtype than the weights.

    Differences:
        The paper's layer has one weight; here the weight of each type is updated separately.

    Example:
        >>> import torch
        >>> update = LowRankHeteroLinear(6, 4, num_types=2, rank=2)
        >>> x, type_vec = torch.randn(3, 6), torch.tensor([0, 1, 0])
        >>> torch.equal(update(x, type_vec), torch.zeros(3, 4)), update.delta_weight().shape
        (True, torch.Size([2, 6, 4]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_types: int,
        rank: int,
        *,
        alpha: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        in_channels = check_count(in_channels, "in_channels")
        out_channels = check_count(out_channels, "out_channels")
        num_types = check_count(num_types, "num_types")
        rank = check_count(rank, "rank", most=min(in_channels, out_channels))
        if alpha is not None:
            alpha = check_number(alpha, "alpha", above=0)
        dropout = check_number(dropout, "dropout", least=0, below=1)
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_types = num_types
        self.rank = rank
        self.alpha = float(rank if alpha is None else alpha)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Parameter(torch.empty(num_types, in_channels, rank))
        self.up = nn.Parameter(torch.empty(num_types, rank, out_channels))
        self.reset_parameters()

    @property
    def scale(self) -> float:
        """The multiplier ``alpha / rank``."""
        return self.alpha / self.rank

    def reset_parameters(self) -> None:
        """Initialize ``down`` like ``torch.nn.Linear``, for each type, and set ``up`` to zero."""
        bound = self.in_channels**-0.5
        nn.init.uniform_(self.down, -bound, bound)
        nn.init.zeros_(self.up)

    def forward(
        self, x: Float[Tensor, "N C_in"], type_vec: Int[Tensor, " N"]
    ) -> Float[Tensor, "N C_out"]:
        """Return the update of the layer's output."""
        check_tensor(x, "x", shape=("N", self.in_channels), values=False)
        check_dtype(x, self.down)
        type_vec = check_index(
            type_vec, "type_vec", self.num_types, shape=x.shape[:1], of="types", device=x.device
        )
        # The inner width is small, so all types are computed and other types are masked per row.
        h = self.dropout(x) @ self.down.transpose(0, 1).flatten(1)  # [N, T * r]
        own = type_vec.unsqueeze(1) == torch.arange(self.num_types, device=x.device)  # [N, T]
        h = h.unflatten(1, (self.num_types, self.rank)) * own.unsqueeze(2)
        return self.scale * (h.flatten(1) @ self.up.flatten(0, 1))  # [N, C_out]

    def delta_weight(self) -> Float[Tensor, "T C_in C_out"]:
        """Return the same update as one matrix per type, to be added to the layer's weight."""
        return self.scale * torch.bmm(self.down, self.up)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, num_types={self.num_types}, "
            f"rank={self.rank}, alpha={self.alpha}"
        )


__all__ = ["LowRankHeteroLinear"]
