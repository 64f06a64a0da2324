"""Stages that the encoder of a U-Net passes on to its decoder, from fine to coarse and back."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyg_peft.errors import check_count
from pyg_peft.geometry import farthest_point_sample
from pyg_peft.geometry.layout import counts, group_offsets, is_exporting


class Stage(NamedTuple):
    """The points at one resolution: features or ``None``, positions, and cloud ids."""

    x: Tensor | None
    pos: Tensor
    batch: Tensor


def sample_centers(
    pos: Tensor,
    batch: Tensor,
    batch_size: int,
    *,
    num_centers: int | None = None,
    stride: int | None = None,
) -> Tensor:
    """Return the rows of each cloud's farthest point samples, cloud after cloud.

    Sampling starts at the point of smallest x, then y, then z, so the order of points does not
    matter. That holds even for a cloud of two points, which are equally far from their centroid.

    Args:
        pos: Positions.
        batch: Sorted cloud ids.
        batch_size: Number of clouds.
        num_centers: Number of rows per cloud; all rows of a smaller cloud.
        stride: One row per ``stride`` points of a cloud, rounded up; used instead of
            ``num_centers``.

    Shapes: pos ``(N, 3)``, batch ``(N,)``; output ``(S,)``.

    Example:
        >>> batch = torch.tensor([0, 0, 0, 0, 0, 1])
        >>> sample_centers(torch.randn(6, 3), batch, 2, stride=4).shape
        torch.Size([3])
    """
    count = counts(batch, pos.size(0), batch_size)
    if stride is None:
        wanted = count.clamp(max=num_centers)
    else:
        wanted = (count + stride - 1) // stride
    if is_exporting():
        # The loop over picks has a fixed number of steps; the excess is cut off below.
        most = check_count(num_centers, "num_centers")
    else:
        most = int(wanted.max()) if wanted.numel() > 0 else 0
    if most == 0:
        return batch.new_zeros(0, dtype=torch.long)  # rows, whatever the type of the ids
    start = _first_by_coordinates(pos, batch, count)
    rows = farthest_point_sample(pos, most, batch, start=start, batch_size=batch_size)
    chosen = rows[torch.arange(most, device=pos.device) < wanted.unsqueeze(1)]
    if is_exporting():
        torch._check(chosen.size(0) > 0)  # there is at least one point
    return chosen


def encode(levels: Iterable[nn.Module], stage: Stage, batch_size: int) -> list[Stage]:
    """Apply levels in turn and return the input stage and the stage after each level."""
    stages = [stage]
    for level in levels:
        stages.append(Stage(*level(*stages[-1], batch_size)))
    return stages


def decode(
    decoder: Iterable[nn.Module], coarse: Stage, stages: Sequence[Stage], batch_size: int
) -> Tensor:
    """Propagate features to finer and finer stages and return those of the finest stage.

    Args:
        decoder: Modules ``(x, pos, batch, coarse_x, coarse_pos, coarse_batch, batch_size)``, which
            return features of the finer stage.
        coarse: Stage to start from.
        stages: Finer stages, starting with the finest.
        batch_size: Number of clouds.
    """
    for level, fine in zip(decoder, reversed(stages), strict=True):
        coarse = Stage(level(*fine, *coarse, batch_size), fine.pos, fine.batch)
    return features(coarse)


def features(stage: Stage) -> Any:
    """Return the features of a stage, or raise if it has none."""
    if stage.x is None:
        raise ValueError("Expected 'x' to be given for a stage without levels (got None)")
    return stage.x


def mean_of_clouds(x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
    """Return the mean over the points of each cloud; zero for an empty cloud."""
    total = x.new_zeros(batch_size, x.size(1)).index_add(0, batch, x)
    count = group_offsets(batch, batch_size).diff().clamp(min=1)
    return total / count.unsqueeze(1)


def _first_by_coordinates(pos: Tensor, batch: Tensor, count: Tensor) -> Tensor:
    """Return the row of smallest x, then y, then z of each cloud; any row for an empty one."""
    order = torch.arange(pos.size(0), device=pos.device)
    for column in (pos[:, 2], pos[:, 1], pos[:, 0], batch):
        order = order[column[order].sort(stable=True).indices]
    return order[(count.cumsum(0) - count).clamp(max=pos.size(0) - 1)]


__all__ = ["Stage", "decode", "encode", "features", "mean_of_clouds", "sample_centers"]
