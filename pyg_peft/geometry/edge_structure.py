"""Structures from existing edges, without search, sampling or cloud ids."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pyg_peft.errors import check_count, check_number, check_pos, check_reach
from pyg_peft.geometry.interpolation import (
    check_edges,
    check_eps,
    in_wide,
    inverse_distance_weights,
    least_eps,
    sort_by_receiver,
)
from pyg_peft.geometry.ordering import squared_distance
from pyg_peft.geometry.structure import Structure
from pyg_peft.typing import EdgeIndex, Pos, Query


class BipartiteStructure(NamedTuple):
    """Structure of a layer whose edges connect one set of points to another.

    Attributes:
        structure: Structure over the rows ``[targets, sources]``. Every target is a center, its
            members are the sources connected to it, and it receives from itself only. Sources
            receive nothing.
        lift_index: Reverse edges, from targets to sources ``[2, E]``.
        lift_weight: Weights of the reverse edges ``[E]``, which sum to one per source.
        lift_ptr: Offsets of the reverse edges of each source ``[N + 1]``.
    """

    structure: Structure
    lift_index: Tensor
    lift_weight: Tensor
    lift_ptr: Tensor


def edge_structure(
    pos: Pos, edge_index: EdgeIndex, *, max_degree: int | None = None, eps: float = 1e-8
) -> Structure:
    r"""Return the structure in which every point is a center and its in-neighbors are its members.

    A point is one of its own members. It receives from the centers connected to it and from itself,
    with weights :math:`1 / (d_{ji}^2 + \overline{d_i^2} + \epsilon)`. The mean squared length of
    its edges softens the weights. Without it, the point itself, at distance zero, would get all the
    weight.

    Args:
        pos: Points.
        edge_index: Edges in any order, with the neighbor in row 0 and the receiver in row 1.
            Self-loops do not matter: each point gets exactly one.
        max_degree: Upper bound on the number of members of a point, itself included. Required while
            a graph is compiled; counted by default.
        eps: Keeps weights finite where all points coincide, in squared units of ``pos``. With 0,
            all weights of such a point are equal.

    Shapes: pos ``(N, 3)``, edge_index ``(2, E)``; output as in :class:`Structure` with N centers.

    Symmetries:
        Permutation equivariant; equivariant to the order of the edges; invariant under rotation,
        reflection, translation and, except for ``eps``, scaling. Points without an edge between
        them do not affect each other, so clouds stay separate if no edge connects them.
        ``interp_weight`` is differentiable in ``pos``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``edge_index`` is not a ``[2, E]`` tensor or refers to a point that does not
            exist, positions are not finite or so large that their squares are not, or a size is out
            of range.

    Example:
        >>> structure = edge_structure(torch.eye(3), torch.tensor([[1, 2], [0, 0]]))
        >>> structure.edge_index.tolist(), structure.center_index.tolist()
        ([[0, 1, 2, 1, 2], [0, 0, 0, 1, 2]], [0, 1, 2])
    """
    _check_points(pos, "pos")
    max_degree = None if max_degree is None else check_count(max_degree, "max_degree")
    eps = check_number(eps, "eps", least=0)
    if eps > 0:
        check_eps(eps, pos)
    num_points = pos.size(0)
    edge_index = check_edges(edge_index, pos, num_points)
    node = torch.arange(num_points, device=pos.device)
    joined = edge_index[:, edge_index[0] != edge_index[1]]
    edges = torch.cat([node.expand(2, -1), joined], dim=1)
    edges = edges[:, edges[1].argsort(stable=True)]
    source, receiver = edges[0], edges[1]
    wide = in_wide(pos)
    length = squared_distance(wide[source], wide[receiver])
    softening = scatter(length, receiver, dim=0, dim_size=num_points, reduce="sum")
    count = scatter(torch.ones_like(length), receiver, dim=0, dim_size=num_points, reduce="sum")
    softening = softening / (count - 1).clamp(min=1)
    length = length + softening[receiver] + eps
    weight = 1 / (length if eps > 0 else length.clamp(min=least_eps(pos)))
    total = scatter(weight, receiver, dim=0, dim_size=num_points, reduce="sum")
    degree, most = _degrees(count, max_degree)
    return Structure(
        center_index=node,
        edge_index=edges,
        interp_index=edges,
        interp_weight=(weight / total[receiver]).to(pos.dtype),
        degree=degree,
        interp_degree=degree,
        max_degree=most,
        num_rows=num_points,
    )


def bipartite_structure(
    pos: Pos, query: Query, edge_index: EdgeIndex, *, max_degree: int | None = None
) -> BipartiteStructure:
    """Return the structure of a layer that passes messages from one set of points to another.

    Every target is a center; its members are the sources connected to it. Features exist at the
    targets only: a source receives those of the targets connected to it, along the reverse edges,
    weighted by inverse squared distance.

    Args:
        pos: Positions of the sources.
        query: Positions of the targets.
        edge_index: Edges in any order, with a source in row 0 and a target in row 1.
        max_degree: As in :func:`edge_structure`, but without the point itself.

    Shapes: pos ``(N, 3)``, query ``(M, 3)``, edge_index ``(2, E)``; output as in
        :class:`BipartiteStructure` with M centers.

    Symmetries: as :func:`edge_structure`, equivariant to the order of sources and of targets.

    Raises: as :func:`edge_structure`.

    Example:
        >>> edge_index = torch.tensor([[1, 2], [0, 0]])
        >>> made = bipartite_structure(torch.eye(3), torch.eye(3)[:1], edge_index)
        >>> made.structure.edge_index.tolist(), made.lift_weight.tolist()
        ([[2, 3], [0, 0]], [1.0, 1.0])
    """
    _check_points(pos, "pos")
    _check_points(query, "query")
    if query.dtype != pos.dtype:
        raise TypeError(f"Expected 'query' to be of dtype {pos.dtype} (got {query.dtype})")
    max_degree = None if max_degree is None else check_count(max_degree, "max_degree", least=0)
    num_targets = query.size(0)
    edge_index = check_edges(edge_index, pos, num_targets)
    edges = edge_index[:, edge_index[1].argsort(stable=True)]
    node = torch.arange(num_targets, device=query.device)
    count = scatter(torch.ones_like(edges[1]), edges[1], dim_size=num_targets, reduce="sum")
    degree, most = _degrees(count, max_degree)
    structure = Structure(
        center_index=node,
        edge_index=torch.stack([edges[0] + num_targets, edges[1]]),
        interp_index=node.expand(2, -1),
        interp_weight=query.new_ones(num_targets),
        degree=degree,
        interp_degree=1,
        max_degree=most,
        num_rows=num_targets,
    )
    back = edges.flip(0)
    weight = inverse_distance_weights(query, pos, back)
    return BipartiteStructure(structure, *sort_by_receiver(back, weight, pos.size(0)))


def _degrees(count: Tensor, max_degree: int | None) -> tuple[int | None, int]:
    """Return the number of members if it is the same for all centers, and an upper bound on it."""
    if torch.compiler.is_compiling():
        if max_degree is None:
            raise ValueError(
                "Expected 'max_degree' to be given while a graph is compiled (got None)"
            )
        fits = (count <= max_degree).all()
        torch.ops.aten._assert_async.msg(fits, "a point has more than max_degree members")
        return None, max_degree
    if count.numel() == 0:
        return None, 0
    least, most = int(count.min()), int(count.max())
    return (most if least == most > 0 else None), most


def _check_points(pos: Tensor, name: str) -> None:
    check_pos(pos, name)
    check_reach(pos, name)


__all__ = ["BipartiteStructure", "bipartite_structure", "edge_structure"]
