"""Scenes: cut into overlapping columns that a model of single clouds can see."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyg_peft.errors import check_count, check_number, check_pos, check_reach
from pyg_peft.typing import Pos

#: Steps of the windows along an axis at most: where each starts is kept in memory.
_MOST_STEPS = 2**20


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
    needed, so each block covers its whole column. Beside the scene, its coordinates in the plane
    (16 bytes a point), their order along x (8), and one strip of windows are in memory; while that
    order is made, 32 bytes a point more.

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
    check_reach(pos)
    size = check_number(size, "size", above=0)
    stride = size / 2 if stride is None else check_number(stride, "stride", above=0, most=size)
    max_points = check_count(max_points, "max_points")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    elif not isinstance(generator, torch.Generator):
        raise TypeError(
            f"Expected 'generator' to be a torch.Generator (got {type(generator).__qualname__})"
        )
    if pos.size(0) == 0:
        return iter(())
    low, high = pos[:, :2].double().aminmax(dim=0)
    steps = float((high - low).max()) / stride
    if steps > _MOST_STEPS:
        raise ValueError(
            f"Expected 'stride' to fit {_MOST_STEPS} times or less into the scene "
            f"(got {stride}, which fits {steps:.0f} times)"
        )
    return _columns(pos, size, stride, max_points, generator)


def _columns(
    pos: Tensor, size: float, stride: float, max_points: int, generator: torch.Generator
) -> Iterator[Tensor]:
    plane = pos[:, :2].double()
    plane = plane - plane.amin(dim=0)
    x_start, y_start = (_starts(plane[:, axis], size, stride) for axis in (0, 1))
    # Strip by strip: all pairs of a window and a point in it would be a multiple of the scene.
    for strip in _windows(plane[:, 0], x_start, size):
        for inside in _windows(plane[strip, 1], y_start, size):
            order = torch.randperm(inside.numel(), generator=generator).to(inside.device)
            yield from strip[inside[order]].tensor_split(math.ceil(inside.numel() / max_points))


def _starts(x: Tensor, size: float, stride: float) -> Tensor:
    """Where the windows along one axis start."""
    last = max(float(x.max()) - size, 0.0)
    number = torch.arange(math.ceil(last / stride) + 1, device=x.device, dtype=x.dtype)
    return (number * stride).clamp(max=last)


def _windows(x: Tensor, start: Tensor, size: float) -> list[Tensor]:
    """The rows of ``x`` in each window along one axis, views of one tensor; no window is empty."""
    x, order = x.sort(stable=True)
    end = torch.searchsorted(start, x, right=True)
    first = torch.searchsorted(start, x - size).minimum(end - 1)
    # The windows of x are those from first up to end, both of which grow with x.
    number = torch.arange(start.numel(), device=x.device)
    low = torch.searchsorted(end, number, right=True)
    high = torch.searchsorted(first, number, right=True)
    filled = torch.stack([low, high], dim=1)[low < high]
    return [order[begin:stop] for begin, stop in filled.tolist()]


__all__ = ["scene_columns"]
