"""Conversion between the flat and the dense layout of points.

*Flat* is PyG's layout: rows ``[N, ...]`` of all clouds one after another, with a sorted
``batch [N]`` of cloud ids. *Dense* is the layout of token backbones: ``[B, G, ...]`` with a Boolean
``mask [B, G]`` that is true for real rows. Only this module converts between them.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from pyg_peft.errors import MOST_CLOUDS, check_batch, check_count, check_tensor


def count_clouds(batch: Tensor | None, batch_size: int | None = None) -> int:
    """Return the number of clouds ``B``, including empty ones.

    Args:
        batch: Sorted cloud id of each row, or ``None`` for one cloud.
        batch_size: Number of clouds. Required if trailing clouds are empty and under
            ``torch.compile``.

    Raises:
        ValueError: If a graph is being compiled and ``batch_size`` is missing, or if ``batch_size``
            is negative or contradicts a missing ``batch``.
    """
    if batch_size is not None:
        batch_size = check_count(batch_size, "batch_size", least=0)
        if batch is None and batch_size != 1:
            raise ValueError(f"Expected 'batch_size' to be 1 without a batch (got {batch_size})")
        # The compiler cannot check a number that is only known when the graph runs.
        if not torch.compiler.is_compiling() and batch_size > MOST_CLOUDS:
            raise ValueError(
                f"Expected 'batch_size' to be at most {MOST_CLOUDS} (got {batch_size})"
            )
        return batch_size
    if batch is None:
        return 1
    check_tensor(batch, "batch", shape=("N",), kind="int")
    if torch.compiler.is_compiling():
        raise ValueError("Expected 'batch_size' to be given while a graph is compiled (got None)")
    return int(batch[-1]) + 1 if batch.numel() > 0 else 0


def offsets(
    batch: Tensor | None,
    num_nodes: int,
    batch_size: int | None = None,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Return ``ptr [B + 1]``: cloud ``b`` holds the rows ``ptr[b]`` to ``ptr[b + 1] - 1``.

    Args:
        batch: Sorted cloud id of each row, or ``None`` for one cloud. Ids may have gaps.
        num_nodes: Number of rows ``N``.
        batch_size: Number of clouds ``B``; the largest id plus one by default.
        device: Device of the result if ``batch`` is ``None``.

    Raises:
        ValueError, TypeError: If ``batch`` is not a sorted integer vector of ``num_nodes`` ids.

    Example:
        >>> offsets(torch.tensor([0, 0, 2]), 3, batch_size=4).tolist()
        [0, 2, 2, 3, 3]
    """
    num_nodes = check_count(num_nodes, "num_nodes", least=0)
    if batch_size is not None:
        batch_size = check_count(batch_size, "batch_size", least=0)
    check_batch(batch, num_nodes, batch_size, device=device)
    size = count_clouds(batch, batch_size)
    if batch is None:
        return torch.arange(2, device=device) * num_nodes
    return group_offsets(batch.long(), size)


def group_offsets(index: Tensor, num_groups: int) -> Tensor:
    """Return the offsets ``[S + 1]`` of sorted group ids ``[E]``, without checking them.

    While a graph is exported, the rows of each group are counted instead of searched, because ONNX
    has no search in a sorted tensor.
    """
    if not is_exporting():
        groups = torch.arange(num_groups + 1, device=index.device)
        return torch.searchsorted(index.contiguous(), groups)
    count = index.new_zeros(num_groups + 1).scatter_add(0, index + 1, torch.ones_like(index))
    return count.cumsum(0)


def is_exporting() -> bool:
    """Return whether ``torch.export`` traces a graph, which may then be converted to ONNX."""
    found: Callable[[], bool] | None = getattr(torch.compiler, "is_exporting", None)
    return found is not None and found()  # torch 2.6 cannot tell


def largest_count(ptr: Tensor, num_nodes: int) -> int:
    """Return the number of rows of the largest cloud, to allocate the dense layout.

    A graph that is compiled cannot read it and gets ``num_nodes``, which is always sufficient. A
    graph that is exported reads it when it runs.
    """
    if is_exporting():
        largest = ptr.diff().max().item()
        torch._check(largest >= 1)  # there is at least one row
        return cast(int, largest)
    if torch.compiler.is_compiling():
        return num_nodes
    return int(ptr.diff().max()) if ptr.numel() > 1 else 0


def counts(
    batch: Tensor | None,
    num_nodes: int,
    batch_size: int | None = None,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Return the number of rows of each cloud ``[B]``, zero for an empty cloud.

    Example:
        >>> counts(torch.tensor([0, 0, 2]), 3).tolist()
        [2, 0, 1]
    """
    return offsets(batch, num_nodes, batch_size, device=device).diff()


def dense_rows(ptr: Tensor, max_num: int) -> tuple[Tensor, Tensor]:
    """Return the flat row of each cell of the dense layout, and whether the cell is real.

    Args:
        ptr: Offsets ``[B + 1]``.
        max_num: Number of cells per cloud.

    Returns:
        ``rows [B, max_num]`` (0 where not real) and ``mask [B, max_num]``.
    """
    cell = torch.arange(max_num, device=ptr.device)
    mask = cell < ptr.diff().unsqueeze(-1)
    rows = (ptr[:-1].unsqueeze(-1) + cell).masked_fill(~mask, 0)
    return rows, mask


def to_dense(
    x: Tensor,
    batch: Tensor | None = None,
    batch_size: int | None = None,
    max_num: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Convert flat rows to the dense layout.

    Args:
        x: Rows ``[N, ...]``.
        batch: Sorted cloud id of each row, or ``None`` for one cloud.
        batch_size: Number of clouds ``B``.
        max_num: Number of cells per cloud; the size of the largest cloud by default. While a graph
            is compiled the sizes cannot be read, and the default is ``N``, which is always
            sufficient.

    Shapes:
        x ``(N, ...)``; output ``(B, max_num, ...)`` with zeros where the mask ``(B, max_num)`` is
        false.

    Symmetries: keeps the order of the rows in each cloud; differentiable in ``x``.

    Raises:
        TypeError: If ``x`` is not a tensor, or a size is not an integer.
        ValueError: If a cloud has more than ``max_num`` rows, or ``batch`` does not match ``x``.

    Example:
        >>> dense, mask = to_dense(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1]))
        >>> dense.squeeze(-1).tolist(), mask.tolist()
        ([[1.0, 2.0], [3.0, 0.0]], [[True, True], [True, False]])
    """
    check_tensor(x, "x")
    if x.dim() == 0:
        raise ValueError("Expected 'x' to be of shape [N, ...] (got [])")
    if max_num is not None:
        max_num = check_count(max_num, "max_num", least=0)
    ptr = offsets(batch, x.size(0), batch_size, device=x.device)
    if torch.compiler.is_compiling():
        max_num = largest_count(ptr, x.size(0)) if max_num is None else max_num
    else:
        largest = largest_count(ptr, x.size(0))
        max_num = largest if max_num is None else max_num
        if largest > max_num:
            raise ValueError(f"Expected 'max_num' to be at least {largest} (got {max_num})")
    rows, mask = dense_rows(ptr, max_num)
    # Cells that are not real point to a row of zeros at the end. This needs no branch for an empty
    # ``x``, whose size may be unknown in a compiled graph.
    padded = torch.cat([x, x.new_zeros(1, *x.shape[1:])])
    return padded[rows.masked_fill(~mask, x.size(0))], mask


def to_flat(dense: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Convert the dense layout to flat rows and their ``batch``.

    Args:
        dense: Rows ``[B, G, ...]``.
        mask: Boolean ``[B, G]``, true where a cell is real; ``None`` if all are.

    Returns:
        The rows ``[N, ...]`` and their cloud ids ``[N]``, sorted.

    Example:
        >>> x, batch = to_flat(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[True, False]]))
        >>> x.tolist(), batch.tolist()
        ([[1.0]], [0])
    """
    check_tensor(dense, "dense", values=False)
    if dense.dim() < 2:
        raise ValueError(f"Expected 'dense' to be of shape [B, G, ...] (got {list(dense.shape)})")
    cloud = torch.arange(dense.size(0), device=dense.device).unsqueeze(-1).expand(dense.shape[:2])
    if mask is None:
        return dense.flatten(0, 1), cloud.flatten()
    check_tensor(mask, "mask", shape=dense.shape[:2], kind="bool", device=dense.device)
    return dense[mask], cloud[mask]


__all__ = [
    "count_clouds",
    "counts",
    "dense_rows",
    "group_offsets",
    "is_exporting",
    "largest_count",
    "offsets",
    "to_dense",
    "to_flat",
]
