"""Sampling of clouds by a grid of cubes (voxels): one point for each cube that holds points."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyg_peft.errors import check_number, check_pos, check_reach
from pyg_peft.geometry.layout import offsets
from pyg_peft.typing import Batch, Pos

#: Largest number of cubes that the clouds together may span, because each has a number.
_MOST_CUBES = 2**62


class GridSample(NamedTuple):
    """The points that a grid keeps, and for every point the kept one of its cube.

    Attributes:
        index: Rows of the kept points ``[M]``, sorted by cloud.
        inverse: For each point, the position in ``index`` of the point of its cube ``[N]``. Values
            ``[M, ...]`` of the kept points are expanded to all points by ``values[inverse]``.
    """

    index: Tensor
    inverse: Tensor


def grid_sample(
    pos: Pos, size: float, batch: Batch | None = None, batch_size: int | None = None
) -> GridSample:
    """Keep one point for each cube of a grid: the one nearest to the middle of the cube.

    Each cloud has its own grid, whose corner is the smallest ``x``, ``y`` and ``z`` of the cloud.
    Among points at the same distance, the first is kept. Distances are computed in float64.

    Args:
        pos: Positions.
        size: Side of a cube, in the unit of ``pos``.
        batch: Cloud id of each point, sorted; ``None`` for one cloud.
        batch_size: Number of clouds.

    Shapes: pos ``(N, 3)``, batch ``(N)``; index ``(M)``, inverse ``(N)``.

    Symmetries: invariant under translation up to rounding; a cloud's sample does not depend on
        other clouds.

    Raises:
        TypeError, ValueError: If ``pos`` is not a finite floating-point tensor ``[N, 3]``,
            ``batch`` is not sorted, ``size`` is not positive, or it is so small that cubes cannot
            be numbered.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [0.4, 0.4, 0.4], [2.1, 0, 0]])
        >>> index, inverse = grid_sample(pos, size=1.0)
        >>> index.tolist(), inverse.tolist()
        ([1, 2], [0, 0, 1])
    """
    check_pos(pos)
    check_reach(pos)
    size = check_number(size, "size", above=0)
    ptr = offsets(batch, pos.size(0), batch_size, device=pos.device)
    if pos.size(0) == 0:
        return GridSample(ptr.new_empty(0), ptr.new_empty(0))
    count = ptr.diff()
    cloud = torch.arange(count.numel(), device=pos.device).repeat_interleave(
        count, output_size=pos.size(0)
    )
    wide = pos.detach().double()
    low = wide.new_full((count.numel(), 3), float("inf"))
    low = low.scatter_reduce(0, cloud.unsqueeze(1).expand(-1, 3), wide, "amin")
    place = (wide - low[cloud]) / size
    cube = place.floor()
    number = _numbers(torch.cat([cloud.unsqueeze(1).double(), cube], dim=1), size)
    kept, inverse = number.unique(return_inverse=True)
    distance = (place - cube - 0.5).square().sum(dim=1)
    least = distance.new_full((kept.numel(),), float("inf"))
    least = least.scatter_reduce(0, inverse, distance, "amin")
    rows = torch.arange(pos.size(0), device=pos.device)
    # A row that is not nearest gets a number behind all rows, so the first of the nearest is least.
    rows = torch.where(distance == least[inverse], rows, pos.size(0))
    index = rows.new_full((kept.numel(),), pos.size(0))
    return GridSample(index.scatter_reduce(0, inverse, rows, "amin"), inverse)


def _numbers(cube: Tensor, size: float) -> Tensor:
    """Return one number for each different row of whole, non-negative numbers ``[N, 4]``."""
    span = [int(most) + 1 if most < _MOST_CUBES else _MOST_CUBES for most in cube.amax(0).tolist()]
    if span[0] * span[1] * span[2] * span[3] > _MOST_CUBES:
        raise ValueError(
            f"Expected 'size' to be large enough to number the cubes of the clouds (got {size}, "
            f"which gives {span[1]} x {span[2]} x {span[3]} cubes)"
        )
    cube = cube.long()
    number = cube[:, 0]
    for axis in (1, 2, 3):
        number = number * span[axis] + cube[:, axis]
    return number


__all__ = ["GridSample", "grid_sample"]
