"""Maximum over the members of a neighborhood, without storing all members."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_CACHED_ELEMENTS = 2**19  # 2 MB in single precision


def neighbor_max(
    x: Float[Tensor, "N C"],
    hidden: Float[Tensor, "S K A"],
    proj: nn.Linear,
    member: Int[Tensor, "S K"],
    mask: Bool[Tensor, "S K"] | None = None,
) -> Float[Tensor, "S C"]:
    r"""Return :math:`\max_k (\mathbf{x}_{m_{sk}} + \mathbf{W} \mathbf{h}_{sk}) + \mathbf{b}` per
    channel.

    No tensor of size ``[S, K, C]`` is stored for the backward pass, while a linear layer, a sum and
    a maximum would store two of them. On the CPU such a tensor never exists as a whole.

    Args:
        x: Rows of the members.
        hidden: Narrow features of each member.
        proj: Layer that projects ``hidden`` to the width of a row.
        member: Rows of ``x`` that are members.
        mask: True for members; ``None`` if all are. Neighborhoods without members give zero.

    Shapes:
        - **input:** x ``[N, C]``, hidden ``[S, K, A]``, member ``[S, K]``, mask ``[S, K]``
        - **output:** ``[S, C]``

    Symmetries:
        Invariant to the order of members. Where several members share the maximum the first
        receives the gradient.

    Derivatives: twice differentiable, as forces require (``torch.autograd.grad(energy, pos,
    create_graph=True)``). Only then is a tensor ``[S, K, C]`` created.

    Example:
        >>> x, proj = torch.tensor([[1.0, 5.0], [2.0, 0.0]]), nn.Linear(1, 2)
        >>> _ = nn.init.zeros_(proj.weight), nn.init.zeros_(proj.bias)
        >>> neighbor_max(x, torch.ones(1, 2, 1), proj, torch.tensor([[0, 1]])).tolist()
        [[2.0, 5.0]]
    """
    # Under autocast the attention is in half precision, but the rows may not be.
    hidden, weight = hidden.to(x.dtype), proj.weight.to(x.dtype)
    found: Any = _LargestMember.apply(x, hidden, weight, member, mask)
    out = found[0] + proj.bias.to(x.dtype)
    return out if mask is None else out.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


class _LargestMember(torch.autograd.Function):
    """Maximum over members that keeps the index of the largest member for the backward pass."""

    @staticmethod
    def forward(
        x: Tensor, hidden: Tensor, weight: Tensor, member: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        num_sets, size, width = hidden.shape
        channels = x.size(1)
        small = size <= torch.iinfo(torch.int16).max
        out = x.new_empty(num_sets, channels)
        winner = member.new_empty(num_sets, channels, dtype=torch.int16 if small else torch.int64)
        for part in _slices(x, num_sets, size):
            value = x.index_select(0, member[part].flatten())
            value.addmm_(hidden[part].reshape(-1, width), weight.t())
            value = value.view(-1, size, channels)
            if mask is not None:
                value.masked_fill_(~mask[part].unsqueeze(-1), -torch.inf)
            out[part], winner[part] = _first_largest(value)
        return out, winner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, hidden, weight, member, _ = inputs
        winner = output[1]
        ctx.mark_non_differentiable(winner)
        ctx.save_for_backward(hidden, weight, member, winner)
        ctx.num_rows = x.size(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, member, winner = ctx.saved_tensors
        # Gradients are enabled here only if the gradient itself will be differentiated. A compiler
        # creates its own slices.
        twice = torch.is_grad_enabled() or torch.compiler.is_compiling()
        gradient = _differentiable_gradient if twice else _sliced_gradient
        return *gradient(grad, hidden, weight, member, winner.long(), ctx.num_rows), None, None


def _differentiable_gradient(
    grad: Tensor, hidden: Tensor, weight: Tensor, member: Tensor, winner: Tensor, num_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of rows, narrow features and weight; the maxima stay fixed."""
    channels = grad.size(1)
    to_x = grad.new_zeros(num_rows, channels).scatter_add(0, member.gather(1, winner), grad)
    to_member = grad.new_zeros(*member.shape, channels)
    to_member = to_member.scatter(1, winner.unsqueeze(1), grad.unsqueeze(1))  # [S, K, C]
    to_weight = to_member.flatten(0, 1).t() @ hidden.flatten(0, 1)
    return to_x, to_member @ weight, to_weight


def _sliced_gradient(
    grad: Tensor, hidden: Tensor, weight: Tensor, member: Tensor, winner: Tensor, num_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same gradients without a tensor of the rows of all members."""
    channels = grad.size(1)
    to_x = grad.new_zeros(num_rows, channels)
    to_x.scatter_add_(0, member.gather(1, winner), grad)
    to_hidden, to_weight = torch.empty_like(hidden), grad.new_zeros(weight.t().shape)
    slices = _slices(grad, *member.shape)
    # All slices share one buffer, because allocation costs as much as the computation.
    longest = member[slices[0]].size(0) if slices else 0
    space = grad.new_empty(longest, member.size(1), channels)
    for part in slices:
        to_member = space[: member[part].size(0)].zero_()
        to_member.scatter_(1, winner[part].unsqueeze(1), grad[part].unsqueeze(1))
        rows = to_member.flatten(0, 1)
        to_hidden[part] = (rows @ weight).view_as(to_hidden[part])
        to_weight.addmm_(hidden[part].flatten(0, 1).t(), rows)
    return to_x, to_hidden, to_weight.t()


def _first_largest(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum over the members ``[S, K, C]``, and the first index that attains it."""
    size = value.size(1)
    if torch.compiler.is_compiling():  # the window size may be unknown
        return value.max(dim=1)
    # As an image with channels last: max pooling returns the first of the largest, and NaN, and is
    # several times faster than a maximum over a middle dimension.
    picture = value.unsqueeze(2).permute(0, 3, 1, 2)  # [S, C, K, 1]
    largest, place = F.max_pool2d(picture, (size, 1), return_indices=True)
    return largest.flatten(1), place.flatten(1)


def _slices(x: Tensor, num_sets: int, size: int) -> list[slice]:
    """Return slices of neighborhoods whose rows fit the CPU cache; one slice on other devices."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return [slice(None)]
    step = max(1, _CACHED_ELEMENTS // max(1, size * x.size(1)))
    return [slice(first, first + step) for first in range(0, num_sets, step)]


__all__ = ["neighbor_max"]
