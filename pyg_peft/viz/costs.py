"""Plot the time and the memory of methods side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyg_peft.viz.figure import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_costs(
    costs: Mapping[str, tuple[float | None, float | None]], *, title: str = ""
) -> "Figure":
    """Plot bars of the duration and the peak memory of each method.

    Args:
        costs: Seconds and MiB of each method; ``None`` for what was not measured.
        title: Title of the figure.

    Raises:
        ValueError: If there is nothing to draw.
        MissingExtraError: If matplotlib is not installed.

    Example:
        >>> figure = plot_costs({"lora": (12.0, 300.0), "full_fine_tuning": (60.0, None)})
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['seconds', 'peak memory, MiB']
    """
    if not costs:
        raise ValueError("Expected 'costs' to hold a method (got none)")
    with style():
        figure = new_figure(8.6, 1.1 + 0.5 * len(costs))
        names = list(costs)
        labels = ("seconds", "peak memory, MiB")
        for number, axes in enumerate(figure.subplots(1, 2, sharey=True)):
            values = [pair[number] for pair in costs.values()]
            for row, value in enumerate(values):
                axes.barh(row, value or 0.0, color=COLORS[2 * number])
                text = "not measured" if value is None else f"{value:,.0f}"
                axes.text(value or 0.0, row, f" {text}", va="center", size=8)
            axes.set_xlim(0.0, 1.25 * max([1e-3, *(value or 0.0 for value in values)]))
            axes.set_xlabel(labels[number])
            axes.set_yticks(range(len(names)), names)
            axes.grid(axis="y", visible=False)
            axes.locator_params(axis="x", nbins=4)
        figure.axes[0].invert_yaxis()
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


__all__ = ["plot_costs"]
