"""Neighbours of points: k nearest, the graph of them, and those within a ball.

All results follow one canonical order (:mod:`pyg_peft.geometry.ordering`), whichever library
searched.
"""

from pyg_peft.errors import check_count, check_flag, check_number
from pyg_peft.geometry.tables import drop_self, neighbor_table, to_edges
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

    Args:
        pos: points.
        query: positions that look for neighbours, of the same dtype and device.
        k: neighbours per query; a cloud with fewer points gives them all.
        batch: sorted cloud id of each point; ``None`` for one cloud.
        query_batch: sorted cloud id of each query; given exactly if ``batch`` is.
        batch_size: number of clouds, if trailing ones may be empty and under ``torch.compile``.

    Shapes:
        pos ``(N, 3)``, query ``(M, 3)``; output ``(2, E)``: row 0 the neighbour's row of ``pos``,
        row 1 the receiver's row of ``query``, sorted by receiver, then squared distance, then
        neighbour.

    Symmetries:
        Permutation equivariant except at exact ties; invariant under rotation, reflection and
        translation up to rounding. Not differentiable: indices.

    Raises:
        TypeError: if positions are integers or no tensors, their dtypes differ, or ``k`` is no
            integer.
        ValueError: on NaN, a wrong shape, an unsorted batch or ``k < 1``.

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
    r"""Return edges from each point's ``k`` nearest neighbours to it.

    Args:
        pos: points.
        k: neighbours per point.
        batch: sorted cloud id of each point; ``None`` for one cloud.
        loop: count the point itself as a neighbour.
        batch_size: number of clouds, if trailing ones may be empty and under ``torch.compile``.

    Shapes: pos ``(N, 3)``; output ``(2, E)``, ordered as in :func:`knn`.

    Symmetries: as in :func:`knn`.

    Raises: as in :func:`knn`.

    Differences:
        Without loops every point keeps exactly ``k`` neighbours (or its cloud's size minus one)
        also among coincident points, where dropping loops from a ``k + 1`` search may keep ``k +
        1``.

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
        pos: points.
        query: positions that look for neighbours, of the same dtype and device.
        radius: largest distance, inclusive, in the unit of ``pos``.
        max_num_neighbors: neighbours per query at most; the nearest ones are kept.
        batch, query_batch, batch_size: as in :func:`knn`.

    Shapes: as in :func:`knn`; a query without a point in its ball receives no edge.

    Symmetries: as in :func:`knn`.

    Raises: as in :func:`knn`, and ValueError if ``radius`` is negative or not a number.

    Differences:
        The ball queries of the field's CUDA packages keep the first points in memory order and
        repeat one to fill up; this one keeps the nearest and never repeats.

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
