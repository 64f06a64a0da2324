"""Plot several clouds in a grid."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pyg_peft.errors import check_count
from pyg_peft.viz.cloud import check_positions, draw_cloud
from pyg_peft.viz.figure import new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D


def plot_clouds(
    clouds: Sequence[Tensor], titles: Sequence[str], *, columns: int = 4, title: str = ""
) -> "Figure":
    """Plot clouds in a grid, colored by height, each with its title.

    Args:
        clouds: Points ``[N, 3]`` of each cloud, z up.
        titles: One title per cloud.
        columns: Number of clouds in a row.
        title: Title of the figure.

    Raises:
        ValueError: If there is nothing to draw, or lengths or shapes do not match.
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> figure = plot_clouds([torch.rand(50, 3), torch.rand(60, 3)], ["chair", "table"])
        >>> [axes.get_title() for axes in figure.axes]
        ['chair', 'table']
    """
    check_count(columns, "columns", least=1)
    if not clouds or len(titles) != len(clouds):
        raise ValueError(f"Expected 'titles' to name each of {len(clouds)} (got {len(titles)})")
    for pos in clouds:
        check_positions(clouds=pos)
    with style():
        rows = -(-len(clouds) // columns)
        wide = min(columns, len(clouds))
        figure = new_figure(2.5 * wide, 2.8 * rows)
        for number, (pos, name) in enumerate(zip(clouds, titles, strict=True)):
            axes: Axes3D = figure.add_subplot(  # pyright: ignore[reportAssignmentType]
                rows, wide, number + 1, projection="3d"
            )
            pos = pos.detach().float().cpu()
            draw_cloud(axes, pos, size=5, c=pos[:, 2].numpy(), cmap="viridis")
            axes.set_title(name, size=9)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


__all__ = ["plot_clouds"]
