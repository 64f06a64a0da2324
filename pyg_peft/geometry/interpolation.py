"""Interpolation: features travel from few points to many, weighted by inverse squared distance."""

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pyg_peft.geometry.bags import sum_bags
from pyg_peft.geometry.ordering import squared_distance
from pyg_peft.typing import EdgeIndex, Pos, Query


def interpolation_weights(
    pos: Pos, query: Query, edge_index: EdgeIndex, *, eps: float = 1e-8
) -> Tensor:
    r"""Return each edge's weight, inverse to its squared length; one in all per receiver.

    .. math::
        w_{ji} = \frac{1 / (\lVert \mathbf{p}_j - \mathbf{q}_i \rVert^2 + \epsilon)}
        {\sum_{l} 1 / (\lVert \mathbf{p}_l - \mathbf{q}_i \rVert^2 + \epsilon)}

    Args:
        pos: points that give.
        query: points that receive.
        edge_index: edges, row 0 a row of ``pos``, row 1 a row of ``query``; see
            :func:`~pyg_peft.geometry.knn`.
        eps: keeps the weight of a coincident point finite, in squared units of ``pos``.

    Shapes: pos ``(N, 3)``, query ``(M, 3)``, edge_index ``(2, E)``; output ``(E,)``.

    Symmetries:
        Invariant under rotation, reflection and translation; equivariant to the order of the edges.
        Differentiable in ``pos`` and ``query``.

    Raises:
        ValueError: if ``eps`` is not positive.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
        >>> edge_index = torch.tensor([[0, 1], [0, 0]])
        >>> interpolation_weights(pos, torch.tensor([[1.0, 0, 0]]), edge_index)
        tensor([0.8000, 0.2000])
    """
    if not eps > 0:
        raise ValueError(f"Expected 'eps' to be > 0 (got {eps})")
    source, receiver = edge_index[0], edge_index[1]
    weight = 1 / (squared_distance(pos[source], query[receiver]) + eps)
    total = scatter(weight, receiver, dim=0, dim_size=query.size(0), reduce="sum")
    return weight / total[receiver]


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
        x: features of the points that give.
        edge_index: edges, row 0 a row of ``x``, row 1 a receiver.
        weight: weight of each edge; see :func:`interpolation_weights`.
        num_points: number of receivers. One without an edge gets zeros.
        ptr: borders of the receivers' edges, which are then taken as sorted by receiver. A
            :class:`~pyg_peft.geometry.Structure` has them as ``interp_ptr``, so that no layer pays
            for the order. Receivers beyond the last border have no edge.

    Shapes: x ``(N, C)``, edge_index ``(2, E)``, weight ``(E,)``, ptr ``(M + 1,)`` with ``M`` at
        most ``num_points``; output ``(num_points, C)``.

    Symmetries: equivariant to the order of points and of receivers. Twice differentiable in ``x``
        and ``weight``.

    Raises:
        ValueError: if ``ptr`` has more receivers than ``num_points``.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [0, 0]])
        >>> interpolate(torch.tensor([[1.0], [6.0]]), edge_index, torch.tensor([0.8, 0.2]), 1)
        tensor([[2.]])
    """
    if ptr is None:
        edge_index, weight, ptr = sort_by_receiver(edge_index, weight, num_points)
    missing = num_points + 1 - ptr.size(0)
    if missing < 0:
        raise ValueError(
            f"Expected 'num_points' to be at least {ptr.size(0) - 1} (got {num_points})"
        )
    if not torch.compiler.is_compiling() and weight.numel() == 0:
        return x.new_zeros(num_points, x.size(1))
    if missing > 0:
        ptr = torch.cat([ptr, ptr[-1:].expand(missing)])
    # A bag per receiver: no message of size [E, C] is made, let alone kept for the backward pass.
    return sum_bags(x, weight.to(x.dtype), edge_index[0], ptr)


def sort_by_receiver(
    edge_index: Tensor, weight: Tensor, num_points: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges and weights sorted by receiver, and the borders ``[num_points + 1]`` of each."""
    receiver, order = edge_index[1].sort(stable=True)
    ptr = torch.searchsorted(receiver, torch.arange(num_points + 1, device=receiver.device))
    return torch.stack([edge_index[0][order], receiver]), weight[order], ptr


__all__ = ["interpolate", "interpolation_weights", "sort_by_receiver"]
