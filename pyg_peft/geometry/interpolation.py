"""Interpolation of features from few points to many, weighted by inverse squared distance."""

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pyg_peft.errors import (
    check_count,
    check_index,
    check_number,
    check_pos,
    check_reach,
    check_tensor,
)
from pyg_peft.geometry.bags import sum_bags
from pyg_peft.geometry.layout import group_offsets, is_exporting
from pyg_peft.geometry.ordering import squared_distance
from pyg_peft.typing import EdgeIndex, Pos, Query


def interpolation_weights(
    pos: Pos, query: Query, edge_index: EdgeIndex, *, eps: float = 1e-8
) -> Tensor:
    r"""Return each edge's weight, inverse to its squared length and summing to one per receiver.

    .. math::
        w_{ji} = \frac{1 / (\lVert \mathbf{p}_j - \mathbf{q}_i \rVert^2 + \epsilon)}
        {\sum_{l} 1 / (\lVert \mathbf{p}_l - \mathbf{q}_i \rVert^2 + \epsilon)}

    Args:
        pos: Points that features are taken from.
        query: Points that receive features.
        edge_index: Edges, with a row of ``pos`` in row 0 and a row of ``query`` in row 1; see
            :func:`~pyg_peft.geometry.knn`.
        eps: Keeps the weights of coincident points finite, in squared units of ``pos``.

    Shapes: pos ``(N, 3)``, query ``(M, 3)``, edge_index ``(2, E)``; output ``(E,)``.

    Symmetries:
        Invariant under rotation, reflection and translation; equivariant to the order of the edges.
        Differentiable in ``pos`` and ``query``.

    Distances between half-precision positions are computed in float32; the weights are returned in
    half precision.

    Raises:
        TypeError: If an argument has the wrong type, or if the dtypes of the positions differ.
        ValueError: If positions are not finite or so large that their squares are not, an edge
            refers to a row that does not exist, or ``eps`` is not positive or outside the range of
            the positions' precision.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
        >>> edge_index = torch.tensor([[0, 1], [0, 0]])
        >>> interpolation_weights(pos, torch.tensor([[1.0, 0, 0]]), edge_index)
        tensor([0.8000, 0.2000])
    """
    for name, points in (("pos", pos), ("query", query)):
        check_pos(points, name)
        check_reach(points, name)
    if query.dtype != pos.dtype:
        raise TypeError(f"Expected 'query' to be of dtype {pos.dtype} (got {query.dtype})")
    edge_index = check_edges(edge_index, pos, query.size(0))
    eps = check_eps(eps, pos)
    return inverse_distance_weights(pos, query, edge_index, eps)


def inverse_distance_weights(
    pos: Tensor, query: Tensor, edge_index: Tensor, eps: float = 1e-8
) -> Tensor:
    """Return the :func:`interpolation_weights` without checking the arguments."""
    source, receiver = edge_index[0], edge_index[1]
    wide, wide_query = in_wide(pos), in_wide(query)
    weight = 1 / (squared_distance(wide[source], wide_query[receiver]) + eps)
    total = scatter(weight, receiver, dim=0, dim_size=query.size(0), reduce="sum")
    return (weight / total[receiver]).to(pos.dtype)


def interpolate(
    x: Tensor,
    edge_index: EdgeIndex,
    weight: Tensor,
    num_points: int,
    *,
    ptr: Tensor | None = None,
) -> Tensor:
    r"""Return :math:`\mathbf{y}_i = \sum_j w_{ji} \mathbf{x}_j` for ``num_points`` receivers.

    Args:
        x: Features of the source points.
        edge_index: Edges, with a row of ``x`` in row 0 and a receiver in row 1.
        weight: Weight of each edge; see :func:`interpolation_weights`.
        num_points: Number of receivers. Receivers without edges get zeros.
        ptr: Offsets of the receivers' edges. If given, the edges must be sorted by receiver. A
            :class:`~pyg_peft.geometry.Structure` provides them as ``interp_ptr``, so that layers
            need not sort. Receivers beyond the last offset have no edges.

    Shapes: x ``(N, C)``, edge_index ``(2, E)``, weight ``(E,)``, ptr ``(M + 1,)`` with ``M`` at
        most ``num_points``; output ``(num_points, C)``.

    Symmetries: equivariant to the order of points and of receivers. Twice differentiable in ``x``
        and ``weight``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an edge refers to a row or a receiver that does not exist, ``weight`` does
            not have one element per edge, or ``ptr`` has more receivers than ``num_points`` or does
            not increase from 0 to the number of edges.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [0, 0]])
        >>> interpolate(torch.tensor([[1.0], [6.0]]), edge_index, torch.tensor([0.8, 0.2]), 1)
        tensor([[2.]])
    """
    num_points = check_count(num_points, "num_points", least=0)
    check_tensor(x, "x", shape=("N", "C"), kind="float")
    check_tensor(edge_index, "edge_index", shape=(2, "E"))
    num_edges = edge_index.size(1)
    check_tensor(weight, "weight", shape=(num_edges,), kind="float", device=x.device)
    if ptr is not None:
        ptr = _checked_ptr(ptr, num_edges, num_points, x.device)
    edge_index = check_edges(edge_index, x, num_points)
    if ptr is None:
        edge_index, weight, ptr = sort_by_receiver(edge_index, weight, num_points)
    return weighted_sums(x, edge_index, weight, num_points, ptr)


def weighted_sums(
    x: Tensor, edge_index: Tensor, weight: Tensor, num_points: int, ptr: Tensor
) -> Tensor:
    """Return :func:`interpolate` without checking the arguments, such as the edges of a structure.

    The rows ``edge_index[0]`` of ``x`` are read without bounds checks: the caller must ensure that
    they exist.
    """
    if is_exporting():  # ONNX would loop over the bags
        parts = weight.to(x.dtype).unsqueeze(1) * x[edge_index[0]]
        return x.new_zeros(num_points, x.size(1)).index_add(0, edge_index[1], parts)
    missing = num_points + 1 - ptr.size(0)
    if not torch.compiler.is_compiling() and weight.numel() == 0:
        return x.new_zeros(num_points, x.size(1))
    if missing > 0:
        ptr = torch.cat([ptr, ptr[-1:].expand(missing)])
    # One bag per receiver avoids messages of size [E, C], also in the backward pass. Non-contiguous
    # inputs would use a slower kernel that rounds differently.
    return sum_bags(x.contiguous(), weight.to(x.dtype).contiguous(), edge_index[0], ptr)


def in_wide(pos: Tensor) -> Tensor:
    """Return positions in the precision used for distances: at least float32."""
    return pos if pos.dtype in (torch.float32, torch.float64) else pos.float()


def least_eps(pos: Tensor) -> float:
    """Return the smallest number whose inverses can be summed in the precision of ``pos``."""
    wide = torch.float64 if pos.dtype == torch.float64 else torch.float32
    return torch.finfo(wide).tiny * 2**40


def check_eps(eps: float, pos: Tensor) -> float:
    """Return ``eps``; raise unless its inverse, also of sums with it, is finite and not 0."""
    eps = check_number(eps, "eps", above=0)
    least = least_eps(pos)
    if not least <= eps <= 1 / least:
        raise ValueError(
            f"Expected 'eps' to lie in [{least:.1e}, {1 / least:.1e}] for positions of {pos.dtype} "
            f"(got {eps})"
        )
    return eps


def check_edges(edge_index: Tensor, x: Tensor, num_receivers: int) -> Tensor:
    """Return edges in int64; raise unless they connect rows of ``x`` to receivers."""
    check_tensor(edge_index, "edge_index", shape=(2, "E"), kind="int", device=x.device)
    for row, size, of in ((0, x.size(0), "sources"), (1, num_receivers, "receivers")):
        check_index(edge_index[row], f"edge_index[{row}]", size, of=of)
    return edge_index.long()


def _checked_ptr(ptr: Tensor, num_edges: int, num_points: int, device: torch.device) -> Tensor:
    check_tensor(ptr, "ptr", shape=("M + 1",), kind="int", device=device)
    if ptr.size(0) == 0:
        raise ValueError("Expected 'ptr' to hold at least one border (got none)")
    if ptr.size(0) > num_points + 1:
        raise ValueError(
            f"Expected 'num_points' to be at least {ptr.size(0) - 1} (got {num_points})"
        )
    if not torch.compiler.is_compiling():
        ends = ptr[0] == 0, ptr[-1] == num_edges, (ptr[1:] >= ptr[:-1]).all()
        if not bool(torch.stack(ends).all()):
            raise ValueError(
                f"Expected 'ptr' to rise from 0 to the number of edges, {num_edges} "
                f"(got {ptr[:8].tolist()}{' …' if ptr.size(0) > 8 else ''})"
            )
    return ptr.long()


def sort_by_receiver(
    edge_index: Tensor, weight: Tensor, num_points: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges and weights sorted by receiver, and their offsets ``[num_points + 1]``."""
    receiver, order = edge_index[1].sort(stable=True)
    ptr = group_offsets(receiver, num_points)
    return torch.stack([edge_index[0][order], receiver]), weight[order], ptr


__all__ = [
    "check_edges",
    "check_eps",
    "in_wide",
    "interpolate",
    "interpolation_weights",
    "inverse_distance_weights",
    "least_eps",
    "sort_by_receiver",
    "weighted_sums",
]
