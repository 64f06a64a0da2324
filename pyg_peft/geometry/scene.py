"""Division of scenes into overlapping columns for models of single clouds."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyg_peft.errors import check_count, check_number, check_pos, check_reach
from pyg_peft.typing import Pos

#: Maximum number of windows along an axis, because all their starts are kept in memory.
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

    Square windows of side ``size`` move along x and y in steps of ``stride``; the last one ends
    where the scene ends. The points of a window are divided at random into the required number of
    blocks of about equal size, so each block covers its whole column. In addition to the scene, its
    coordinates in the plane (16 bytes per point), their order along x (8 bytes) and one strip of
    windows are kept in memory. While the order is computed, 32 more bytes per point are needed.

    Args:
        pos: Points of one scene, z up.
        size: Side of a column, in the unit of ``pos``.
        stride: Step between columns, at most ``size``; half of ``size`` by default.
        max_points: Maximum number of points per block.
        generator: Random generator for the division into blocks. By default one with a fixed seed,
            so that a scene is always divided in the same way.

    Shapes: pos ``(N, 3)``; every block ``(n,)``, ``1 <= n <= max_points``.

    Symmetries: invariant under translation up to rounding. With ``stride`` half of ``size``, points
        away from the border are in four columns.

    Raises:
        TypeError, ValueError: If ``pos`` is not a finite floating-point tensor ``[N, 3]``, or a
            size is out of range.

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
    reach = float((high - low).max())
    steps = reach / stride if stride > 0 else math.inf  # half of the smallest number is 0
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
    # One strip at a time, because the points of all windows are a multiple of the scene.
    for strip in _windows(plane[:, 0], x_start, size):
        for inside in _windows(plane[strip, 1], y_start, size):
            order = torch.randperm(inside.numel(), generator=generator).to(inside.device)
            yield from strip[inside[order]].tensor_split(math.ceil(inside.numel() / max_points))


def _starts(x: Tensor, size: float, stride: float) -> Tensor:
    """Return where the windows along one axis start."""
    last = max(float(x.max()) - size, 0.0)
    number = torch.arange(math.ceil(last / stride) + 1, device=x.device, dtype=x.dtype)
    return (number * stride).clamp(max=last)


def _windows(x: Tensor, start: Tensor, size: float) -> list[Tensor]:
    """Return the rows of ``x`` in each non-empty window along one axis, as views of one tensor."""
    x, order = x.sort(stable=True)
    end = torch.searchsorted(start, x, right=True)
    first = torch.searchsorted(start, x - size).minimum(end - 1)
    # Windows first to end - 1 contain x. Both bounds increase with x.
    number = torch.arange(start.numel(), device=x.device)
    low = torch.searchsorted(end, number, right=True)
    high = torch.searchsorted(first, number, right=True)
    filled = torch.stack([low, high], dim=1)[low < high]
    return [order[begin:stop] for begin, stop in filled.tolist()]


__all__ = ["scene_columns"]
