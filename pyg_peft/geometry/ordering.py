"""The canonical order of neighbors.

A neighbor precedes another if its squared distance is smaller. Squared distances are computed in
``pos.dtype`` from direct differences and summed as :math:`(dx^2 + dy^2) + dz^2`; among equals the
lower row comes first. Search libraries round and break ties differently, so a backend only proposes
``k + 1`` candidates. :func:`canonical_order` sorts them, and repeats the search by brute force for
the few rows where the library may have missed a neighbor.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_peft.errors import check_finite, check_tensor
from pyg_peft.geometry.layout import dense_rows

#: Largest coordinate of points in float32. Their squared distances are at most
#: :math:`3 (2 \cdot 2^{62})^2 < 2^{128}`.
MOST_IN_FLOAT32 = 2.0**62
#: Elements of the largest intermediate of a brute-force search (64 MB in float32).
CHUNK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Search:
    """A neighbor search: detached floating-point points and queries, and the offsets of the clouds.

    Points have three coordinates. Only PyG's own operators also search features of any width.
    """

    pos: Tensor  # [N, 3], contiguous
    query: Tensor  # [M, 3], contiguous; the same object as pos if points search each other
    ptr: Tensor  # [B + 1], offsets of the clouds in pos
    query_ptr: Tensor  # [B + 1], offsets of the clouds in query
    query_cloud: Tensor  # [M], cloud of each query
    k: int  # at most the size of the largest cloud
    radius: float | None = None  # the backend may omit neighbors beyond it


class Proposal(NamedTuple):
    """The result of a backend.

    Attributes:
        candidates: Rows of ``pos`` ``[M, C]``, with ``C`` from :func:`num_candidates` and -1 for
            none. They are a nearest set up to rounding; their order does not matter.
        slack: Absolute error of the backend's squared distances, for all queries or for each one
            ``[M]``.
        settled: Boolean ``[M]``, true for queries whose candidates are already in order and so far
            apart that rounding cannot change it. ``None`` if the backend cannot determine it.
    """

    candidates: Tensor
    slack: Tensor | float
    settled: Tensor | None = None


def num_candidates(search: Search) -> int:
    """Return ``k + 1``, which reveals a tie at the last place, or fewer if clouds are smaller."""
    return min(search.k + 1, int(search.ptr.diff().max()))


def relative_error(search: Search) -> float:
    """Return the maximum relative error of a canonical squared distance.

    It is a few units in the last place for each term, because all terms are positive.
    """
    return (search.pos.size(1) + 32) * torch.finfo(search.pos.dtype).eps


def float64_arrays(search: Search) -> tuple[Any, Any, float]:
    """Return points and queries as NumPy arrays in float64, and the unit that they are measured in.

    If points search each other, both arrays are the same object. Huge coordinates are divided by
    the unit, so that their squares stay finite. The arrays are contiguous, whatever the strides of
    the tensors, because nanoflann reads them without checking strides.
    """
    unit, same = 1.0, search.query is search.pos
    if search.pos.dtype == torch.float64:  # smaller types cannot hold such coordinates
        parts = (search.pos,) if same else (search.pos, search.query)
        if max(float(part.abs().max()) for part in parts) > 2.0**500:
            unit = 2.0**600

    def array(points: Tensor) -> Any:
        points = points.double()
        return (points if unit == 1.0 else points / unit).contiguous().numpy()

    pos = array(search.pos)
    return pos, pos if same else array(search.query), unit


def check_squarable(pos: Tensor, name: str = "pos") -> None:
    """Raise unless ``pos`` is a finite floating-point ``[N, 3]`` tensor with finite distances.

    Squared distances in float32, which also serves half precision, are finite if no coordinate is
    beyond :data:`MOST_IN_FLOAT32`. Values are not checked while a graph is compiled.
    """
    check_tensor(pos, name, shape=("N", 3), kind="float")
    # The compiler first: it may not know the number of points.
    if torch.compiler.is_compiling() or pos.dtype == torch.float64 or pos.numel() == 0:
        check_finite(pos, name)
        return
    # Neither NaN nor infinity is within the limit, so this replaces the check for them.
    largest = float(pos.detach().abs().amax())
    if not largest <= MOST_IN_FLOAT32:
        check_finite(pos, name)
        raise ValueError(
            f"Expected '{name}' to lie within {MOST_IN_FLOAT32:.1e} of the origin, so that squared "
            f"distances stay finite in float32 (got {largest:.1e}); rescale the cloud or pass "
            "float64"
        )


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances of ``[..., 3]`` tensors, rounded as the canonical order requires.

    The tensors must be broadcastable. Distances are computed per coordinate. This avoids a
    ``[..., 3]`` intermediate and fixes the order of the sum on every device.
    """
    total = (a[..., 0] - b[..., 0]).square()
    for axis in range(1, a.size(-1)):
        total = total + (a[..., axis] - b[..., axis]).square()
    return total


def table_distance(pos: Tensor, query: Tensor, table: Tensor) -> Tensor:
    """Return the :func:`squared_distance` of each query to the points in its table row ``[M, C]``.

    One coordinate is gathered at a time, which is three times as fast as gathering points.
    """
    rows, columns = table.flatten().clamp(min=0), pos.t().contiguous()
    total: Tensor | None = None
    for axis in range(pos.size(1)):
        term = columns[axis].index_select(0, rows).view_as(table) - query[:, axis : axis + 1]
        total = term.square_() if total is None else total.add_(term.square_())
    return pos.new_zeros(table.shape) if total is None else total


def canonical_order(search: Search, proposal: Proposal) -> Tensor:
    """Sort the candidates of a backend into the canonical neighbors.

    Returns:
        Rows of ``pos`` ``[M, k]``, nearest first, -1 for none.
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

    # Nearly all rows are returned in strictly ascending order and need no sorting.
    unordered = (distance[:, 1:] <= distance[:, :-1]) & ~missing[:, 1:] | (
        missing[:, :-1] & ~missing[:, 1:]
    )
    rows = unordered.any(dim=1).nonzero().squeeze(1)
    if rows.numel() > 0:
        distance[rows], candidates = _sort_rows(distance[rows], candidates, rows)
    if candidates.size(1) == k:  # the largest cloud has k points: none was left out
        return candidates

    # Another point may belong in place of the k-th neighbor if the backend ranked it behind.
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
    """Return the canonical ``[R, k]`` neighbors of some queries by comparing all points."""
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
    # Members are in ascending order, so a stable sort puts the lower row first.
    order = distance.argsort(dim=1, stable=True)[:, : search.k]
    return members.gather(1, order).masked_fill(~real.gather(1, order), -1)


__all__ = [
    "CHUNK_ELEMENTS",
    "MOST_IN_FLOAT32",
    "Proposal",
    "Search",
    "brute_force",
    "canonical_order",
    "check_squarable",
    "float64_arrays",
    "num_candidates",
    "relative_error",
    "squared_distance",
    "table_distance",
]
