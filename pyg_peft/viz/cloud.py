"""Plot a point cloud, colored by patch."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyg_peft.viz.figure import new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D


def plot_patches(pos: Tensor, center: Tensor, *, title: str = "") -> "Figure":
    """Plot one cloud with its patch centers; each point has the color of its nearest center.

    Args:
        pos: Points ``[N, 3]`` of one cloud, z up.
        center: Patch centers ``[G, 3]``.
        title: Title of the figure.

    Raises:
        ValueError: If a shape is wrong, or there is nothing to draw.
        MissingExtraError: If matplotlib is not installed.
    """
    check_positions(pos=pos, center=center)
    pos, center = pos.detach().float().cpu(), center.detach().float().cpu()
    nearest = torch.cdist(pos, center).argmin(dim=1)
    with style():
        import matplotlib

        figure = new_figure(5.0, 5.0)
        axes: Axes3D = figure.add_subplot(projection="3d")  # pyright: ignore[reportAssignmentType]
        # Steps of the golden ratio on the color wheel give adjacent centers different colors.
        hue = (0.618034 * torch.arange(center.size(0))) % 1.0
        colors = matplotlib.colormaps["hsv"](hue.numpy())
        draw_cloud(axes, pos, c=colors[nearest.numpy()] * [0.85, 0.85, 0.85, 0.8])
        axes.scatter(*center.T.numpy(), s=26, c="black", marker="o", lw=0, depthshade=False)
        axes.set_title(title or f"{pos.size(0)} points, {center.size(0)} patch centers")
    return figure


def draw_cloud(axes: "Axes3D", pos: Tensor, *, size: int = 9, **colors: Any) -> Any:
    """Scatter ``pos`` ``[N, 3]`` with equal axes and no frame; return the result of ``scatter``."""
    drawn = axes.scatter(*pos.T.numpy(), s=size, lw=0, **colors)
    low, high = pos.amin(dim=0), pos.amax(dim=0)
    middle, half = (low + high) / 2, float((high - low).max()) / 2 or 1.0
    axes.set_xlim(float(middle[0]) - half, float(middle[0]) + half)
    axes.set_ylim(float(middle[1]) - half, float(middle[1]) + half)
    axes.set_zlim(float(middle[2]) - half, float(middle[2]) + half)
    axes.set_box_aspect((1, 1, 1), zoom=1.2)  # pyright: ignore[reportArgumentType]
    axes.set_axis_off()
    axes.view_init(elev=22, azim=-55)
    return drawn


def check_positions(**named: Tensor) -> None:
    """Raise unless each tensor is ``[N, 3]`` with at least one row."""
    for name, value in named.items():
        if value.dim() != 2 or value.size(1) != 3 or value.size(0) == 0:
            raise ValueError(f"Expected '{name}' to be [N, 3], N > 0 (got {list(value.shape)})")


__all__ = ["check_positions", "draw_cloud", "plot_patches"]
