"""Weighted sums of rows with ``embedding_bag``, twice differentiable."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def sum_bags(x: Tensor, weight: Tensor, source: Tensor, ptr: Tensor) -> Tensor:
    """Return the weighted sum of the rows of ``x`` in each bag.

    The gradient of torch's own ``embedding_bag`` is not differentiable. The gradient of this
    function is: it then creates one row per member of a bag, and only then. Values and first
    derivatives are those of torch.

    Args:
        x: Rows.
        weight: Weight of each member, in the precision of ``x``.
        source: Row of ``x`` of each member.
        ptr: Offsets of the bags.

    Shapes: x ``(N, C)``, weight ``(E,)``, source ``(E,)``, ptr ``(M + 1,)``; output ``(M, C)``.

    Example:
        >>> x, source = torch.tensor([[1.0], [6.0]]), torch.tensor([0, 1])
        >>> sum_bags(x, torch.tensor([0.8, 0.2]), source, torch.tensor([0, 2, 2])).tolist()
        [[2.0], [0.0]]
    """
    tracked = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if tracked and not torch.compiler.is_compiling():
        found: Any = _Bags.apply(x, weight, source, ptr)
        return found[0]
    return F.embedding_bag(
        source, x, ptr, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


class _Bags(torch.autograd.Function):
    """Weighted sums that keep the outputs of ``_embedding_bag`` for the backward pass."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, source: Tensor, ptr: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.aten._embedding_bag(x, source, ptr, False, 0, False, weight, True, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, source, ptr, bag, size, most = ctx.saved_tensors
        to_x = to_weight = None
        # Gradients are enabled here only if the gradient itself will be differentiated.
        if torch.is_grad_enabled():
            received = grad.repeat_interleave(ptr.diff(), dim=0)  # [E, C]
            to_x = torch.zeros_like(x).index_add(0, source, weight.unsqueeze(1) * received)
            return to_x, (x[source] * received).sum(dim=1), None, None
        ops = torch.ops.aten
        if ctx.needs_input_grad[0]:
            shape = (source, ptr, bag, size, most, x.size(0))
            to_x = ops._embedding_bag_backward(grad, *shape, False, 0, False, weight)
        if ctx.needs_input_grad[1]:
            back = ops._embedding_bag_per_sample_weights_backward
            to_weight = back(grad, x, source, ptr, bag, 0)
        return to_x, to_weight, None, None


__all__ = ["sum_bags"]
