"""Neighbor search: k nearest neighbors, k-nearest-neighbor graphs, and ball queries.

All results follow one canonical order (:mod:`pyg_peft.geometry.ordering`), whichever library is
used for the search.
"""

from pyg_peft.errors import check_count, check_flag, check_number
from pyg_peft.geometry.search.tables import drop_self, neighbor_table, to_edges
from pyg_peft.typing import Batch, EdgeIndex, Pos, Query, QueryBatch


def knn(
    pos: Pos,
    query: Query,
    k: int,
    batch: Batch | None = None,
    query_batch: QueryBatch | None = None,
    *,
    batch_size: int | None = None,
) -> EdgeIndex:
    r"""Return edges from the ``k`` nearest points of ``pos`` to each row of ``query``.

    Squared distances are compared in the dtype of ``pos``, and those of half precision in float32.
    Coordinates above 4.6e18, whose squared distances overflow in float32, are refused. Pass
    float64, or positions in another unit.

    Args:
        pos: Points.
        query: Query positions, of the same dtype and device.
        k: Number of neighbors per query. Clouds with fewer points return all of them.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        query_batch: Sorted cloud id of each query. Must be given if and only if ``batch`` is.
        batch_size: Number of clouds. Required if trailing clouds may be empty and under
            ``torch.compile``.

    Shapes:
        pos ``(N, 3)``, query ``(M, 3)``; output ``(2, E)``: row 0 the neighbor's row of ``pos``,
        row 1 the receiver's row of ``query``, sorted by receiver, then squared distance, then
        neighbor.

    Symmetries:
        Permutation equivariant except at exact ties; invariant under rotation, reflection and
        translation up to rounding. Not differentiable: indices.

    Raises:
        TypeError: If positions are integers or not tensors, their dtypes differ, or ``k`` is not an
            integer.
        ValueError: If positions contain NaN or are too large for float32, a shape is wrong, a batch
            is not sorted, or ``k < 1``.

    Example:
        >>> import torch
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]])
        >>> knn(pos, pos[:1], k=2).tolist()
        [[0, 1], [0, 0]]
    """
    table = neighbor_table(pos, query, k, batch, query_batch, batch_size=batch_size)
    return to_edges(table, complete=batch is None)


def knn_graph(
    pos: Pos,
    k: int,
    batch: Batch | None = None,
    *,
    loop: bool = False,
    batch_size: int | None = None,
) -> EdgeIndex:
    r"""Return edges from each point's ``k`` nearest neighbors to the point.

    Args:
        pos: Points.
        k: Number of neighbors per point.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        loop: If true, the point itself counts as a neighbor.
        batch_size: Number of clouds. Required if trailing clouds may be empty and under
            ``torch.compile``.

    Shapes: pos ``(N, 3)``; output ``(2, E)``, ordered as in :func:`knn`.

    Symmetries: as in :func:`knn`.

    Raises: as in :func:`knn`.

    Differences:
        Without loops, every point keeps exactly ``k`` neighbors (or the size of its cloud minus
        one), also among coincident points. Removing loops from a ``k + 1`` search may keep
        ``k + 1`` neighbors there.

    Example:
        >>> import torch
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]])
        >>> knn_graph(pos, k=1).tolist()
        [[1, 0, 1], [0, 1, 2]]
    """
    k, loop = check_count(k, "k"), check_flag(loop, "loop")
    table = neighbor_table(pos, pos, k if loop else k + 1, batch, batch, batch_size=batch_size)
    return to_edges(table if loop else drop_self(table), complete=batch is None)


def ball_query(
    pos: Pos,
    query: Query,
    radius: float,
    max_num_neighbors: int,
    batch: Batch | None = None,
    query_batch: QueryBatch | None = None,
    *,
    batch_size: int | None = None,
) -> EdgeIndex:
    r"""Return edges from the nearest points within ``radius`` to each row of ``query``.

    Args:
        pos: Points.
        query: Query positions, of the same dtype and device.
        radius: Largest distance, inclusive, in the unit of ``pos``.
        max_num_neighbors: Maximum number of neighbors per query; the nearest ones are kept.
        batch, query_batch, batch_size: As in :func:`knn`.

    Shapes: as in :func:`knn`; a query without a point in its ball receives no edge.

    Symmetries: as in :func:`knn`.

    Raises: as in :func:`knn`, and ValueError if ``radius`` is negative or not a number.

    Differences:
        The ball queries of common CUDA packages keep the first points in memory order and repeat
        one to fill up; this one keeps the nearest and never repeats.

    Example:
        >>> import torch
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]])
        >>> ball_query(pos, pos[1:2], radius=1.0, max_num_neighbors=8).tolist()
        [[1, 0], [0, 0]]
    """
    radius = check_number(radius, "radius", least=0, infinite=True)
    max_num_neighbors = check_count(max_num_neighbors, "max_num_neighbors")
    return to_edges(
        neighbor_table(
            pos, query, max_num_neighbors, batch, query_batch, batch_size=batch_size, radius=radius
        )
    )


__all__ = ["ball_query", "knn", "knn_graph"]
