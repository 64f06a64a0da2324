"""Plot what a pre-training model sees of a cloud, its reconstruction, and the true cloud."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyg_peft.backbones import Completion, Reconstruction
from pyg_peft.geometry import Patches
from pyg_peft.viz.figure import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D


def plot_reconstruction(result: Reconstruction, *, num_clouds: int = 4) -> "Figure":
    """Plot visible patches, their reconstructed neighbors, and the true cloud, one row per cloud.

    A fourth column shows the whole cloud that :class:`~pyg_peft.backbones.PointMAECompletion`
    generates from the summary token and the pooled visible tokens.

    Args:
        result: Result of ``model.reconstruct``.
        num_clouds: Number of rows, or fewer if the batch has fewer clouds.

    Raises:
        ValueError: If the batch has no clouds.
        MissingExtraError: If matplotlib is not installed.
    """
    rows = min(num_clouds, result.points.size(0))
    if rows < 1:
        raise ValueError(f"Expected 'result' to hold clouds (got {result.points.size(0)})")
    titles = ["visible", "rebuilt", "true"]
    if isinstance(result, Completion):
        titles.append("drawn from the summary")
    with style():
        figure = new_figure(2.6 * len(titles), 2.5 * rows)
        for row in range(rows):
            visible = _members(result.visible, result.visible.points, row)
            hidden = _members(result.masked, result.masked.points, row)
            rebuilt = _members(result.masked, result.points.to(hidden.dtype), row)
            columns = [[visible], [visible, rebuilt], [visible, hidden]]
            if isinstance(result, Completion):
                columns.append([result.cloud[row].detach().float()])
            limits = torch.cat([visible, hidden])
            for number, (title, sets) in enumerate(zip(titles, columns, strict=True)):
                axes: Axes3D = figure.add_subplot(  # pyright: ignore[reportAssignmentType]
                    rows, len(titles), row * len(titles) + number + 1, projection="3d"
                )
                _draw(axes, sets, limits)
                if row == 0:
                    axes.set_title(title)
    return figure


def _members(patches: Patches, points: Tensor, row: int) -> Tensor:
    """Return the points of the valid patches of cloud ``row`` in its coordinates, ``[M, 3]``."""
    members = (points[row] + patches.center[row].unsqueeze(1)).detach().float().cpu()
    keep = slice(None) if patches.mask is None else patches.mask[row].cpu()
    return members[keep].flatten(0, 1)


def _draw(axes: "Axes3D", sets: list[Tensor], limits: Tensor) -> None:
    for color, points in zip(COLORS, sets, strict=False):
        axes.scatter(*points.cpu().T.numpy(), s=3, c=color, lw=0)
    if limits.size(0) > 0:
        low, high = limits.amin(dim=0), limits.amax(dim=0)
        middle, half = (low + high) / 2, float((high - low).max()) / 2 or 1.0
        for set_limits, value in zip(
            (axes.set_xlim, axes.set_ylim, axes.set_zlim), middle.tolist(), strict=True
        ):
            set_limits(value - half, value + half)
    axes.set_box_aspect((1, 1, 1), zoom=1.4)  # pyright: ignore[reportArgumentType]
    axes.set_axis_off()
    axes.view_init(elev=22, azim=-55)


__all__ = ["plot_reconstruction"]
