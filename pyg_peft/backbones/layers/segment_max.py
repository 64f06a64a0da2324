"""Maximum over groups of rows, such as the neighbors of a point or the points of a cloud."""

from typing import Any

import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.nn.aggr import MaxAggregation
from torch_geometric.utils import scatter, segment


def segment_max(x: Tensor, index: Tensor, num_groups: int) -> Tensor:
    """Return the maximum over the rows of each group, zero for a group without rows.

    The values are those of ``torch_geometric.utils.scatter(reduce="max")``, which runs if no
    gradient is needed. If one is needed, a reduction over sorted groups is several times faster in
    total on a CPU (0.17 s instead of 0.45 s for 131,072 rows of 128 channels in groups of 32). All
    edges of :mod:`pyg_peft.geometry` are sorted.

    Args:
        x: Rows.
        index: Group of each row; unsorted rows are sorted first.
        num_groups: Number of groups ``S``.

    Shapes: x ``(E, C)``, index ``(E,)``; output ``(S, C)``.

    Symmetries: invariant under the order of rows. Equal maxima share the gradient. If
    ``torch_scatter`` is installed, PyG calls it, and one of the maxima gets the whole gradient.
    Twice differentiable, as forces require.

    Example:
        >>> x = torch.tensor([[1.0], [3.0], [2.0]])
        >>> segment_max(x, torch.tensor([0, 0, 2]), 3).tolist()
        [[3.0], [0.0], [2.0]]
    """
    # A compiled graph cannot check whether the groups are sorted.
    if torch.compiler.is_compiling() or not (x.requires_grad and torch.is_grad_enabled()):
        return scatter(x, index, 0, num_groups, reduce="max")
    if x.size(0) == 0:
        return x.new_zeros(num_groups, x.size(1))
    if bool((index[1:] < index[:-1]).any()):
        index, order = index.sort(stable=True)
        x = x.index_select(0, order)
    index = index.contiguous()  # torch warns if it has to copy the index itself
    ptr = torch.searchsorted(index, torch.arange(num_groups + 1, device=index.device))
    if torch_geometric.typing.WITH_TORCH_SCATTER:
        return segment(x, ptr, reduce="max")
    out: Any = _SortedMax.apply(x, ptr)
    return torch.where(out.isinf(), 0, out)  # zero for a group without rows, as in PyG


class _SortedMax(torch.autograd.Function):
    """PyG's ``segment(reduce="max")`` with a gradient that can be differentiated again."""

    @staticmethod
    def forward(x: Tensor, ptr: Tensor) -> Tensor:
        return torch._segment_reduce(x, "amax", offsets=ptr)  # pyright: ignore[reportPrivateImportUsage]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, ptr, out = ctx.saved_tensors
        size = ptr.diff()
        # Autograd is enabled here only if the gradient itself is differentiated.
        if torch.is_grad_enabled():
            index = torch.arange(size.numel(), device=ptr.device).repeat_interleave(size)
            attains = (x.detach() == out.detach()[index]) | x.detach().isnan()
            count = scatter(attains.to(x.dtype), index, 0, size.numel(), reduce="sum")
            return (grad / count.clamp(min=1))[index] * attains, None
        # In torch 2.13 equal maxima share positive gradients only; each would get all of a negative
        # one. So the kernel shares the absolute value, and the sign is set afterwards.
        back = torch.ops.aten._segment_reduce_backward
        to_x = back(grad.abs(), out, x, "amax", offsets=ptr)
        sign = grad.sign()
        if size.numel() > 0 and bool((size == size[0]).all()):
            to_x.view(size.numel(), -1, x.size(1)).mul_(sign.unsqueeze(1))
        else:
            to_x.mul_(sign.repeat_interleave(size, dim=0))
        return to_x, None


class SegmentMax(MaxAggregation):
    """PyG aggregation that calls :func:`segment_max`, for ``MessagePassing(aggr=SegmentMax())``.

    Example:
        >>> from torch_geometric.nn import SimpleConv
        >>> conv = SimpleConv(aggr=SegmentMax())
        >>> conv(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 1, 1], [0, 0, 1]])).tolist()
        [[3.0], [3.0]]
    """

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        if index is None or dim_size is None or x.dim() != 2:
            return super().forward(x, index, ptr, dim_size, dim)
        return segment_max(x, index, dim_size)


__all__ = ["SegmentMax", "segment_max"]
