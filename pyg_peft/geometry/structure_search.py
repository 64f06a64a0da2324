"""Construction of structures by farthest point sampling and neighbor search."""

import math

import torch
from torch import Tensor

from pyg_peft.errors import check_count, check_mask, check_number, check_pos, check_reach
from pyg_peft.geometry.interpolation import inverse_distance_weights
from pyg_peft.geometry.layout import count_clouds, counts
from pyg_peft.geometry.search.sampling import farthest_point_sample
from pyg_peft.geometry.search.tables import neighbor_table, to_edges
from pyg_peft.geometry.structure import Structure
from pyg_peft.typing import Batch, Pos


def build_structure(
    pos: Pos,
    batch: Batch | None = None,
    *,
    k: int = 16,
    ratio: float = 0.5,
    num_centers: int | None = None,
    num_interp: int | None = 3,
    receivers: Tensor | None = None,
    batch_size: int | None = None,
    max_num: int | None = None,
) -> Structure:
    """Sample centers, and search their members and the weighted edges back to the points.

    Args:
        pos: Points.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        k: Number of members per center, including the center.
        ratio: Number of centers per point of a cloud; the number of centers is rounded up.
        num_centers: Number of centers per cloud; replaces ``ratio``.
        num_interp: Number of nearest centers that a point receives from; ``None`` for all centers
            of its cloud.
        receivers: Boolean ``[N]``, true for points that receive; all by default.
        batch_size: Number of clouds. Required if trailing clouds may be empty and under
            ``torch.compile``.
        max_num: Upper bound on the size of a cloud. A compiled graph, which cannot read the sizes,
            then samples no more centers than a cloud of that size needs.

    Shapes: pos ``(N, 3)``; output as in :class:`Structure`.

    Symmetries:
        Permutation equivariant and invariant under rotation, reflection and translation, except at
        exact ties. ``interp_weight`` is differentiable in ``pos``.

    Raises:
        TypeError: If positions are integers or not a tensor, or a size is not a number.
        ValueError: If positions contain NaN or are so large that their squares are not finite, a
            shape is wrong, a batch is not sorted, or a size is out of range.

    Example:
        >>> build_structure(torch.eye(3), k=2, ratio=0.5).center_index.shape
        torch.Size([2])
    """
    check_pos(pos)
    check_reach(pos)
    k = check_count(k, "k")
    if num_centers is None:
        ratio = check_number(ratio, "ratio", above=0, most=1)
    else:
        num_centers = check_count(num_centers, "num_centers")
    if num_interp is not None:
        num_interp = check_count(num_interp, "num_interp")
    if max_num is not None:
        max_num = check_count(max_num, "max_num", least=0)
    if receivers is not None:
        check_mask(receivers, "receivers", pos.size(0), device=pos.device)
    size = count_clouds(batch, batch_size)
    count = counts(batch, pos.size(0), size, device=pos.device)
    center_index, center_batch = _centers(pos, batch, count, ratio, num_centers, max_num)
    centers = pos[center_index]
    center_batch = None if batch is None else center_batch
    members = neighbor_table(pos, centers, k, batch, center_batch, batch_size=size)

    if receivers is None:
        receiver_rows = torch.arange(pos.size(0), device=pos.device)
    else:
        receiver_rows = receivers.nonzero().squeeze(1)
    back = neighbor_table(
        centers,
        pos[receiver_rows],
        max(1, centers.size(0)) if num_interp is None else num_interp,
        center_batch,
        None if batch is None else batch[receiver_rows],
        batch_size=size,
    )
    interp_index = to_edges(back, complete=batch is None)
    weight = inverse_distance_weights(centers, pos[receiver_rows], interp_index)
    return Structure(
        center_index=center_index,
        edge_index=to_edges(members, complete=batch is None),
        interp_index=torch.stack([interp_index[0], receiver_rows[interp_index[1]]]),
        interp_weight=weight,
        degree=_degree(members, batch is None),
        interp_degree=_degree(back, batch is None),
        max_degree=members.size(1),
        num_rows=pos.size(0),
    )


def _centers(
    pos: Tensor,
    batch: Tensor | None,
    count: Tensor,
    ratio: float,
    num_centers: int | None,
    max_num: int | None,
) -> tuple[Tensor, Tensor]:
    """Sample centers; return their rows ``[S]`` and clouds ``[S]``, cloud by cloud."""
    size = count.numel()
    if num_centers is not None:
        wanted, most = count.new_full((size,), num_centers), num_centers
    elif batch is None:
        most = math.ceil(ratio * pos.size(0))
        wanted = count.new_full((size,), most)
    else:
        wanted = torch.ceil(ratio * count.double()).long()
        if torch.compiler.is_compiling():
            most = math.ceil(ratio * (pos.size(0) if max_num is None else max_num))
        else:
            most = int(wanted.max()) if size > 0 else 0
    sampled = farthest_point_sample(pos, max(most, 1), batch, batch_size=size)
    cloud = torch.arange(size, device=pos.device).unsqueeze(1).expand_as(sampled)
    if batch is None and most <= pos.size(0) and most > 0:
        return sampled.flatten(), cloud.flatten()
    place = torch.arange(sampled.size(1), device=pos.device)
    chosen = (sampled >= 0) & (place < wanted.unsqueeze(1))
    return sampled[chosen], cloud[chosen]


def _degree(table: Tensor, complete: bool) -> int | None:
    """Return the number of neighbors if it is the same for all rows of the table."""
    if complete or (not torch.compiler.is_compiling() and bool((table[:, -1:] >= 0).all())):
        return table.size(1)
    return None


__all__ = ["build_structure"]
