"""Scenes: cut into overlapping columns that a model of single clouds can see."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyg_peft.errors import check_pos
from pyg_peft.typing import Pos


def scene_columns(
    pos: Pos,
    size: float,
    *,
    stride: float | None = None,
    max_points: int = 4096,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield blocks of at most ``max_points`` rows of ``pos``, which together cover every point.

    Square windows of ``size`` slide over x and y by ``stride``, the last one ending where the scene
    ends. A window's points are dealt at random into as many blocks of about equal size as are
    needed, so each block covers its whole column.

    Args:
        pos: points of one scene, z up.
        size: side of a column, in the unit of ``pos``.
        stride: step between columns; half of ``size`` by default, at most ``size``.
        max_points: points of a block at most.
        generator: deals the points; by default one with a fixed seed, so that a scene is always cut
            the same way.

    Shapes: pos ``(N, 3)``; every block ``(n,)``, ``1 <= n <= max_points``.

    Symmetries: invariant under translation up to rounding. With ``stride`` half of ``size``, points
        away from the border are in four columns.

    Raises:
        TypeError, ValueError: ``pos`` is no finite floating-point ``[N, 3]``, or a size is out of
            range.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
        >>> [rows.sort().values.tolist() for rows in scene_columns(pos, size=1.5, stride=1.0)]
        [[0, 1], [1, 2]]
    """
    check_pos(pos)
    stride = size / 2 if stride is None else stride
    if not 0 < size < math.inf:
        raise ValueError(f"Expected 'size' to be positive (got {size})")
    if not 0 < stride <= size:
        raise ValueError(f"Expected 'stride' to lie in (0, {size}] (got {stride})")
    if max_points < 1:
        raise ValueError(f"Expected 'max_points' to be >= 1 (got {max_points})")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    window, rows = _windows(pos, size, stride)
    for inside in rows.split(window.unique_consecutive(return_counts=True)[1].tolist()):
        order = torch.randperm(inside.numel(), generator=generator).to(inside.device)
        yield from inside[order].tensor_split(math.ceil(inside.numel() / max_points))


def _windows(pos: Tensor, size: float, stride: float) -> tuple[Tensor, Tensor]:
    """Every pair of a window and a point in it: sorted window numbers and rows of ``pos``."""
    if pos.size(0) == 0:
        nothing = torch.zeros(0, dtype=torch.long, device=pos.device)
        return nothing, nothing
    plane = pos[:, :2].double()
    plane = plane - plane.amin(dim=0)
    (x_first, x_count, _), (y_first, y_count, num_y) = (
        _along(plane[:, axis].contiguous(), size, stride) for axis in (0, 1)
    )
    windows: list[Tensor] = []
    rows: list[Tensor] = []
    for dx in range(int(x_count.max())):
        for dy in range(int(y_count.max())):
            here = ((dx < x_count) & (dy < y_count)).nonzero().squeeze(1)
            windows.append((x_first[here] + dx) * num_y + y_first[here] + dy)
            rows.append(here)
    window, order = torch.cat(windows).sort(stable=True)
    return window, torch.cat(rows)[order]


def _along(x: Tensor, size: float, stride: float) -> tuple[Tensor, Tensor, int]:
    """The first window along one axis that holds each point, how many do, and how many exist."""
    last = max(float(x.max()) - size, 0.0)
    number = math.ceil(last / stride) + 1
    start = (torch.arange(number, device=x.device, dtype=x.dtype) * stride).clamp(max=last)
    end = torch.searchsorted(start, x, right=True)
    first = torch.searchsorted(start, x - size).minimum(end - 1)
    return first, end - first, number


__all__ = ["scene_columns"]
