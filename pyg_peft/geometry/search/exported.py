"""Neighbor search and sampling in a graph that ``torch.export`` traces, for files such as ONNX.

The graph reads the sizes of the clouds when it runs, and works in dense blocks of the size of the
largest cloud. Its work grows with the number of clouds, not with its square as in a graph of
``torch.compile``, which cannot read sizes.
"""

import torch
from torch import Tensor

from pyg_peft.geometry.layout import dense_rows, largest_count
from pyg_peft.geometry.ordering import squared_distance
from pyg_peft.geometry.search.backends import TREE_DIMENSIONS

#: Candidates beyond ``k`` whose distances are computed exactly, in spaces of many dimensions.
SPARE_CANDIDATES = 8


def exported_table(
    pos: Tensor,
    query: Tensor,
    k: int,
    ptr: Tensor,
    query_ptr: Tensor,
    query_cloud: Tensor,
    radius: float | None = None,
) -> Tensor:
    """Search neighbors cloud by cloud; the table is always ``k`` columns wide.

    Args:
        pos: Points ``[N, C]``.
        query: Query positions ``[M, C]``.
        k: Number of neighbors.
        ptr: Offsets of the clouds in ``pos`` ``[B + 1]``.
        query_ptr: Offsets of the clouds in ``query`` ``[B + 1]``.
        query_cloud: Cloud of each query ``[M]``.
        radius: Largest distance of a neighbor.

    Returns:
        Rows of ``pos`` ``[M, k]`` in canonical order, -1 for none.
    """
    many = pos.size(1) > TREE_DIMENSIONS
    width = k + SPARE_CANDIDATES if many else k
    # More cells than points, so that there always are enough columns.
    members, real = dense_rows(ptr, largest_count(ptr, pos.size(0)) + width)
    queries, _ = dense_rows(query_ptr, largest_count(query_ptr, query.size(0)))
    points, asked = pos[members], query[queries]  # [B, n, C], [B, m, C]
    if many:
        distance, cell = _nearest_of_many(points, asked, real, width)
    else:
        distance = squared_distance(points.unsqueeze(1), asked.unsqueeze(2))
        distance, cell = distance.masked_fill(~real.unsqueeze(1), torch.inf).sort(stable=True)
    distance, cell = distance[..., :k], cell[..., :k]
    hidden = cell >= ptr.diff()[:, None, None]
    if radius is not None:
        hidden = hidden | (distance > radius * radius)
    rows = (ptr[:-1, None, None] + cell).masked_fill(hidden, -1)
    place = torch.arange(query.size(0), device=query.device) - query_ptr[query_cloud]
    return rows[query_cloud, place]


def _nearest_of_many(
    points: Tensor, asked: Tensor, real: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """Return distances and cells of the nearest points in a space of many dimensions.

    A matrix product, which is less exact, proposes candidates. Their distances are computed again
    from differences, as the canonical order requires.
    """
    norms = asked.square().sum(-1, keepdim=True) + points.square().sum(-1).unsqueeze(1)
    distance = norms - 2 * asked @ points.transpose(1, 2)
    distance = distance.masked_fill(~real.unsqueeze(1), torch.inf)
    cell = distance.topk(width, dim=-1, largest=False).indices.sort(dim=-1, stable=True).values
    cloud = torch.arange(points.size(0), device=points.device)[:, None, None]
    exact = (points[cloud, cell] - asked.unsqueeze(2)).square().sum(-1)  # [B, m, width]
    exact, order = exact.masked_fill(~real[cloud, cell], torch.inf).sort(stable=True)
    return exact, cell.gather(-1, order)


def exported_picks(points: Tensor, distance: Tensor, pick: Tensor, num_samples: int) -> Tensor:
    """Sample farthest points in a loop that the graph keeps as one, instead of unrolling it.

    Args:
        points: Dense points ``[B, n, 3]``.
        distance: Squared distance to the nearest pick so far ``[B, n]``.
        pick: First pick ``[B, 1]``.
        num_samples: Number of picks.

    Returns:
        Places in ``points`` ``[B, num_samples]``.
    """
    place = torch.arange(num_samples, device=pick.device)
    step = torch.ones((), dtype=torch.long, device=pick.device)

    def unfinished(step: Tensor, distance: Tensor, pick: Tensor, picks: Tensor) -> Tensor:
        return step < num_samples

    def pick_next(
        step: Tensor, distance: Tensor, pick: Tensor, picks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        last = points.gather(1, pick.unsqueeze(-1).expand(-1, -1, 3))
        distance = torch.minimum(distance, squared_distance(points, last))
        pick = distance.argmax(dim=1, keepdim=True)
        return step + 1, distance, pick, torch.where(place == step, pick, picks)

    state = (step, distance, pick, pick.expand(-1, num_samples).clone())
    return torch.while_loop(unfinished, pick_next, state)[-1]


__all__ = ["SPARE_CANDIDATES", "exported_picks", "exported_table"]
