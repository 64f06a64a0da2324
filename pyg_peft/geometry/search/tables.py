"""Neighbor tables: the results of neighbor searches before they are converted to edges.

A table ``[M, k]`` holds the rows of ``pos`` that are neighbors of each query, nearest first, and -1
where a cloud has no more.
"""

import torch
from torch import Tensor

from pyg_peft.errors import check_batch, check_count
from pyg_peft.geometry.layout import count_clouds, is_exporting, offsets
from pyg_peft.geometry.ordering import (
    Search,
    canonical_order,
    check_squarable,
    squared_distance,
    table_distance,
)
from pyg_peft.geometry.search.backends import chosen_backend
from pyg_peft.geometry.search.candidates import BACKENDS
from pyg_peft.geometry.search.exported import exported_table
from pyg_peft.typing import Batch, EdgeIndex, Pos, Query, QueryBatch


def neighbor_table(
    pos: Pos,
    query: Query,
    k: int,
    batch: Batch | None = None,
    query_batch: QueryBatch | None = None,
    *,
    batch_size: int | None = None,
    radius: float | None = None,
) -> Tensor:
    """Return the neighbors of :func:`~pyg_peft.geometry.knn` as a table.

    Its width is ``min(k, size of the largest cloud)``.
    """
    k = check_count(k, "k")
    _check_search(pos, query, batch, query_batch)
    same = query is pos
    pos = _searchable(pos)
    query = pos if same else _searchable(query)
    size = count_clouds(batch, batch_size)
    if batch is not None and query_batch is not None and batch_size is None:
        size = max(size, count_clouds(query_batch))
    if is_exporting() and batch is not None and query_batch is not None:
        ids, ptr = query_batch.long(), offsets(batch, pos.size(0), size)
        alike = same and query_batch is batch
        query_ptr = ptr if alike else offsets(query_batch, query.size(0), size)
        return exported_table(pos, query, k, ptr, query_ptr, ids, radius)
    if torch.compiler.is_compiling():
        return _compiled_table(pos, query, k, batch, query_batch, radius)
    ptr = offsets(batch, pos.size(0), size, device=pos.device)
    alike = same and query_batch is batch
    query_ptr = ptr if alike else offsets(query_batch, query.size(0), size, device=pos.device)
    return search_table(pos, query, k, ptr, query_ptr, radius)


def search_table(
    pos: Tensor,
    query: Tensor,
    k: int,
    ptr: Tensor,
    query_ptr: Tensor,
    radius: float | None = None,
) -> Tensor:
    """Search valid input with clouds given by their offsets; see :func:`neighbor_table`."""
    k = min(k, int(ptr.diff().max()) if ptr.numel() > 1 else 0)
    if k == 0 or query.size(0) == 0:
        return ptr.new_full((query.size(0), k), -1)
    # Backends pass the memory of tensors to other libraries, some of which ignore strides.
    # Points and queries that are one tensor, but divided differently, do not search each other.
    same = query is pos and torch.equal(query_ptr, ptr)
    pos = pos.contiguous()
    query = pos if same else query.contiguous().view_as(query)
    cloud = torch.arange(ptr.numel() - 1, device=ptr.device)
    cloud = cloud.repeat_interleave(query_ptr.diff(), output_size=query.size(0))
    search = Search(pos, query, ptr, query_ptr, cloud, k, radius)
    backend = chosen_backend("knn", pos, radius=radius)
    table = canonical_order(search, BACKENDS[backend](search))
    if radius is None:
        return table
    return table.masked_fill(table_distance(pos, query, table) > radius * radius, -1)


def to_edges(table: Tensor, *, complete: bool = False) -> EdgeIndex:
    """Return the ``edge_index`` of a neighbor table ``[M, k]``, in which -1 means no neighbor.

    ``complete=True`` declares that no neighbor is missing, which fixes the number of edges in a
    compiled graph.
    """
    receiver = torch.arange(table.size(0), device=table.device).unsqueeze(1).expand_as(table)
    edge_index = torch.stack([table.flatten(), receiver.flatten()])
    if is_exporting():
        edge_index = edge_index[:, edge_index[0] >= 0]
        torch._check(edge_index.size(1) > 0)  # its layers need to know
        return edge_index
    # Rows are filled from the left, so the last column shows whether a neighbor is missing.
    if complete or (not torch.compiler.is_compiling() and bool((table[:, -1:] >= 0).all())):
        return edge_index
    return edge_index[:, edge_index[0] >= 0]


def drop_self(table: Tensor) -> Tensor:
    """Return a table of ``k + 1`` nearest points without the receiver, one column narrower."""
    row = torch.arange(table.size(0), device=table.device)
    if not torch.compiler.is_compiling() and table.size(1) > 0 and torch.equal(table[:, 0], row):
        return table[:, 1:]  # the usual case, without coincident points
    own = table == row.unsqueeze(1)
    # All entries after the receiver move up by one place. Where coincident points displaced it from
    # its row, none moves and the last entry is dropped.
    moved = own.cumsum(dim=1) > 0
    return torch.where(moved[:, :-1], table[:, 1:], table[:, :-1])


def self_first(table: Tensor) -> Tensor:
    """Move the receiver before the points that coincide with it, if points search each other.

    If coincident points displaced the receiver from its row, the last of them is dropped.
    """
    row = torch.arange(table.size(0), device=table.device)
    if table.size(1) == 0 or torch.equal(table[:, 0], row):
        return table
    return torch.cat([row.unsqueeze(1), drop_self(table)], dim=1)


def _compiled_table(
    pos: Tensor,
    query: Tensor,
    k: int,
    batch: Tensor | None,
    query_batch: Tensor | None,
    radius: float | None,
) -> Tensor:
    """Search in one dense block, because a compiled graph cannot read the sizes of the clouds."""
    k = min(k, pos.size(0))
    distance = squared_distance(pos.unsqueeze(0), query.unsqueeze(1))
    if batch is not None and query_batch is not None:
        distance = distance.masked_fill(query_batch.unsqueeze(1) != batch, torch.inf)
    distance, index = distance.sort(dim=1, stable=True)
    if batch is None and radius is None:
        return index[:, :k]
    hidden = distance[:, :k].isinf()
    if radius is not None:
        hidden = hidden | (distance[:, :k] > radius * radius)
    return index[:, :k].masked_fill(hidden, -1)


def _searchable(pos: Tensor) -> Tensor:
    # Half precision has too few digits for distances, so they are compared in float32.
    pos = pos.detach()
    return pos if pos.dtype in (torch.float32, torch.float64) else pos.float()


def _check_search(
    pos: Tensor, query: Tensor, batch: Tensor | None, query_batch: Tensor | None
) -> None:
    check_squarable(pos)
    if query is not pos:
        check_squarable(query, "query")
    if query.dtype != pos.dtype:
        raise TypeError(f"Expected 'query' to be of dtype {pos.dtype} (got {query.dtype})")
    if query.device != pos.device:
        raise ValueError(f"Expected 'query' to be on {pos.device} (got {query.device})")
    if (batch is None) != (query_batch is None):
        raise ValueError(
            "Expected 'batch' and 'query_batch' to be given together (got one of them)"
        )
    check_batch(batch, pos.size(0), device=pos.device)
    if query_batch is not batch:
        check_batch(query_batch, query.size(0), device=pos.device, name="query_batch")


__all__ = ["drop_self", "neighbor_table", "search_table", "self_first", "to_edges"]
