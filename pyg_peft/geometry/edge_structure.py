"""Structure from edges that a layer has already: no search, no sampling, no cloud ids needed."""

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
    """What a layer needs whose edges lead from one set of points to another.

    Attributes:
        structure: over the rows ``[targets, sources]``: every target is a centre, its members are
            the sources that it is joined to, and it alone receives from itself.
        lift_index: the edges back, targets to sources ``[2, E]``.
        lift_weight: their weights ``[E]``, one in all per source.
        lift_ptr: borders of each source's edges back ``[N + 1]``.
    """

    structure: Structure
    lift_index: Tensor
    lift_weight: Tensor
    lift_ptr: Tensor


def edge_structure(
    pos: Pos, edge_index: EdgeIndex, *, max_degree: int | None = None, eps: float = 1e-8
) -> Structure:
    r"""Return the structure in which every point is a centre and its in-neighbours are its members.

    A point belongs to its own members, and receives from the centres that it is joined to and from
    itself, weighted by :math:`1 / (d_{ji}^2 + \overline{d_i^2} + \epsilon)`. The mean squared
    length of its edges softens the weights, since its own distance is zero and would take all.

    Args:
        pos: points.
        edge_index: edges, row 0 the neighbour, row 1 the receiver, in any order. Self-loops do not
            matter: each point gets one.
        max_degree: a number of members, the point itself among them, that no point exceeds; needed
            while a graph is compiled, and counted otherwise.
        eps: keeps weights finite where all points coincide, in squared units of ``pos``; with 0
            all weights of such a point are equal.

    Shapes: pos ``(N, 3)``, edge_index ``(2, E)``; output as in :class:`Structure` with N centres.

    Symmetries:
        Permutation equivariant; equivariant to the order of the edges; invariant under rotation,
        reflection, translation and, but for ``eps``, scaling. Two points that no edge joins do not
        see each other, so clouds stay apart if the edges keep them apart. ``interp_weight`` is
        differentiable in ``pos``.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if ``edge_index`` is no ``[2, E]`` tensor or names a point that is not there,
            positions are not finite or so large that squares are not, or a size is out of range.

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
    """Return the structure of a layer that passes messages from some points to others.

    Every target is a centre; its members are the sources that it is joined to. Features exist at
    the targets only: a source takes those of the targets that it is joined to, by inverse squared
    distance, along the edges back.

    Args:
        pos: the sources.
        query: the targets.
        edge_index: edges, row 0 a source, row 1 a target, in any order.
        max_degree: as in :func:`edge_structure`, without the point itself.

    Shapes: pos ``(N, 3)``, query ``(M, 3)``, edge_index ``(2, E)``; output as in
        :class:`BipartiteStructure` with M centres.

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
    """Return the number of members if every centre has as many, and one that none exceeds."""
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
