"""The largest value among the members of a neighbourhood, without keeping all of them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def neighbor_max(
    x: Float[Tensor, "N C"],
    change: Float[Tensor, "S K C"],
    member: Int[Tensor, "S K"],
    mask: Bool[Tensor, "S K"] | None = None,
) -> Float[Tensor, "S C"]:
    r"""Return :math:`\max_k (\mathbf{x}_{m_{sk}} + \mathbf{c}_{sk})` per channel.

    The winners are found without a gradient and then gathered with one. So nothing of size
    ``[S, K, C]`` is kept for the backward pass, where a plain maximum keeps two such tensors.

    Args:
        x: rows that the members are.
        change: what is added to a member.
        member: rows of ``x``.
        mask: true for members, ``None`` if all are. A neighbourhood without any gives zero.

    Shapes:
        - **input:** x ``[N, C]``, change ``[S, K, C]``, member ``[S, K]``, mask ``[S, K]``
        - **output:** ``[S, C]``

    Symmetries:
        Invariant to the order of members. Where several attain the maximum the first receives the
        gradient.

    Raises:
        Nothing of its own.

    Example:
        >>> x = torch.tensor([[1.0, 5.0], [2.0, 0.0]])
        >>> neighbor_max(x, torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))
        tensor([[2., 5.]])
    """
    num_sets, size, _ = change.shape
    winner = _first_largest(x, change, member, mask)  # [S, C]
    first = torch.arange(0, num_sets * size, size, device=x.device).unsqueeze(1)
    out = _select(change.flatten(0, 1), first + winner) + _select(x, member.gather(1, winner))
    if mask is None:
        return out
    return out.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def _select(x: Tensor, row: Tensor) -> Tensor:
    """Return ``x[row[s, c], c]``; unlike ``gather`` this keeps no ``x`` for the backward pass."""
    channels = x.size(1)
    place = row * channels + torch.arange(channels, device=x.device)  # [S, C]
    if not torch.compiler.is_compiling() and x.numel() <= torch.iinfo(torch.int32).max:
        place = place.int()  # kept for the backward pass, at half the size
    return x.flatten().index_select(0, place.flatten()).view(row.shape)


@torch.no_grad()
def _first_largest(x: Tensor, change: Tensor, member: Tensor, mask: Tensor | None) -> Tensor:
    """Return the first member of largest ``x + change`` for each channel, ``[S, C]``."""
    value = x.index_select(0, member.flatten()).view(change.shape).add_(change)  # [S, K, C]
    if mask is not None:
        value.masked_fill_(~mask.unsqueeze(-1), -torch.inf)
    size = value.size(1)
    # Counting down in small integers is several times faster than argmax over a middle dimension.
    dtype = torch.int16 if size < torch.iinfo(torch.int16).max else torch.int64
    place = torch.arange(size, 0, -1, dtype=dtype, device=x.device).view(1, size, 1)
    largest = (value < value.amax(dim=1, keepdim=True)).logical_not_()  # true for NaN as well
    return size - (largest * place).amax(dim=1).long()


__all__ = ["neighbor_max"]
