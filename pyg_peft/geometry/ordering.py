"""The canonical order of neighbours, in one place.

A neighbour comes before another if its squared distance, computed in ``pos.dtype`` by direct
differences and summed as :math:`(dx^2 + dy^2) + dz^2`, is smaller; among equals the lower row comes
first. A search library has a rounding and a tie order of its own, so a backend only proposes ``k +
1`` candidates; :func:`canonical_order` decides, and searches again by brute force the few rows
where the library could have left out a neighbour that belongs in.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_peft.geometry.layout import dense_rows

#: Elements of the largest intermediate of a brute-force search (64 MB in float32).
CHUNK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Search:
    """One neighbour search: detached floating-point points and queries, and the clouds' borders.

    Points have three coordinates, except in PyG's own operators, which search features too.
    """

    pos: Tensor  # [N, 3], contiguous
    query: Tensor  # [M, 3], contiguous, the very same tensor if points look for each other
    ptr: Tensor  # [B + 1], borders of the clouds in pos
    query_ptr: Tensor  # [B + 1], borders of the clouds in query
    query_cloud: Tensor  # [M], cloud of each query
    k: int  # at most the size of the largest cloud
    radius: float | None = None  # neighbours beyond it may be left out by the backend


class Proposal(NamedTuple):
    """What a backend answers.

    Attributes:
        candidates: rows of ``pos`` ``[M, C]``, ``C`` from :func:`num_candidates`, -1 for none. They
            are a nearest set up to rounding; their order does not matter.
        slack: absolute error of the backend's squared distances, for all queries or each ``[M]``.
        settled: queries ``[M]`` whose candidates are in order already, all so far apart that no
            rounding could change it. ``None`` if the backend cannot tell.
    """

    candidates: Tensor
    slack: Tensor | float
    settled: Tensor | None = None


def num_candidates(search: Search) -> int:
    """Return ``k + 1``, so that a tie at the last place shows, or fewer if no cloud has so many."""
    return min(search.k + 1, int(search.ptr.diff().max()))


def relative_error(search: Search) -> float:
    """Return how far a canonical squared distance may be off, relative to itself.

    A few units in the last place for each term, all terms being positive.
    """
    return (search.pos.size(1) + 32) * torch.finfo(search.pos.dtype).eps


def float64_arrays(search: Search) -> tuple[Any, Any, float]:
    """Return points and queries as NumPy arrays for a library that computes in float64, the very
    same array if points look for each other, and the unit that they are measured in: huge ones are
    divided by it, so that squares stay finite. The arrays hold one point behind the other, whatever
    the tensors' strides: nanoflann reads them so without looking.
    """
    unit, same = 1.0, search.query is search.pos
    if search.pos.dtype == torch.float64:  # no smaller type holds coordinates of that size
        parts = (search.pos,) if same else (search.pos, search.query)
        if max(float(part.abs().max()) for part in parts) > 2.0**500:
            unit = 2.0**600

    def array(points: Tensor) -> Any:
        points = points.double()
        return (points if unit == 1.0 else points / unit).contiguous().numpy()

    pos = array(search.pos)
    return pos, pos if same else array(search.query), unit


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distance of broadcastable ``[..., 3]`` tensors, rounded as the order asks.

    Written per coordinate: no ``[..., 3]`` intermediate, and the sum's order is fixed on every
    device.
    """
    total = (a[..., 0] - b[..., 0]).square()
    for axis in range(1, a.size(-1)):
        total = total + (a[..., axis] - b[..., axis]).square()
    return total


def table_distance(pos: Tensor, query: Tensor, table: Tensor) -> Tensor:
    """Return the :func:`squared_distance` of each query to its row of a table of points ``[M, C]``.

    One coordinate is gathered at a time, which is three times as fast as to gather points.
    """
    rows, columns = table.flatten().clamp(min=0), pos.t().contiguous()
    total: Tensor | None = None
    for axis in range(pos.size(1)):
        term = columns[axis].index_select(0, rows).view_as(table) - query[:, axis : axis + 1]
        total = term.square_() if total is None else total.add_(term.square_())
    return pos.new_zeros(table.shape) if total is None else total


def canonical_order(search: Search, proposal: Proposal) -> Tensor:
    """Turn a backend's proposal into the canonical neighbours.

    Returns:
        ``[M, k]`` rows of ``pos``, nearest first, -1 for none.
    """
    candidates, slack, settled = proposal
    if settled is None:
        return _ordered(search, candidates, slack)
    table, rows = candidates[:, : search.k], (~settled).nonzero().squeeze(1)
    if rows.numel() > 0:
        part = replace(search, query=search.query[rows], query_cloud=search.query_cloud[rows])
        slack = slack[rows] if isinstance(slack, Tensor) else slack
        table[rows] = _ordered(part, candidates[rows], slack)
    return table


def _ordered(search: Search, candidates: Tensor, slack: Tensor | float) -> Tensor:
    k = search.k
    missing = candidates < 0
    distance = table_distance(search.pos, search.query, candidates)
    distance = distance.masked_fill_(missing, torch.inf)

    # Rows that a backend returned in strictly ascending order, nearly all of them, need no sorting.
    unordered = (distance[:, 1:] <= distance[:, :-1]) & ~missing[:, 1:] | (
        missing[:, :-1] & ~missing[:, 1:]
    )
    rows = unordered.any(dim=1).nonzero().squeeze(1)
    if rows.numel() > 0:
        distance[rows], candidates = _sort_rows(distance[rows], candidates, rows)
    if candidates.size(1) == k:  # the largest cloud has k points: no candidate was left out
        return candidates

    # The k-th neighbour may stand for one that the backend ranked behind it.
    last, following = distance[:, k - 1], distance[:, k]
    doubtful = (following <= last * (1 + relative_error(search)) + slack) & (candidates[:, k] >= 0)
    rows = doubtful.nonzero().squeeze(1)
    candidates = candidates[:, :k]
    if rows.numel() > 0:
        candidates = candidates.index_copy(0, rows, brute_force(search, rows))
    return candidates


def _sort_rows(distance: Tensor, candidates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sort rows by index, then stably by distance; places without a point go last."""
    none = torch.iinfo(candidates.dtype).max
    part = candidates[rows]
    index, order = part.masked_fill(part < 0, none).sort(dim=1)
    distance, by_distance = distance.gather(1, order).sort(dim=1, stable=True)
    index = index.gather(1, by_distance)
    return distance, candidates.index_copy(0, rows, index.masked_fill(index == none, -1))


def brute_force(search: Search, rows: Tensor) -> Tensor:
    """Return the canonical ``[R, k]`` neighbours of some queries, looking at every point."""
    largest = int(search.ptr.diff().max())
    chunk = max(1, CHUNK_ELEMENTS // max(1, largest))
    found = [_brute_force_chunk(search, part, largest) for part in rows.split(chunk)]
    return torch.cat(found)


def _brute_force_chunk(search: Search, rows: Tensor, largest: int) -> Tensor:
    members, real = dense_rows(search.ptr, largest)
    cloud = search.query_cloud[rows]
    members, real = members[cloud], real[cloud]
    distance = squared_distance(search.pos[members], search.query[rows].unsqueeze(1))
    distance = distance.masked_fill(~real, torch.inf)
    # Members stand in ascending order, so that a stable sort puts the lower row first.
    order = distance.argsort(dim=1, stable=True)[:, : search.k]
    return members.gather(1, order).masked_fill(~real.gather(1, order), -1)


__all__ = [
    "CHUNK_ELEMENTS",
    "Proposal",
    "Search",
    "brute_force",
    "canonical_order",
    "float64_arrays",
    "num_candidates",
    "relative_error",
    "squared_distance",
    "table_distance",
]
