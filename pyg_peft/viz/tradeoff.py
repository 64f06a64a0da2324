"""Plot the accuracy of methods against their trained parameters."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pyg_peft.viz.figure import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_tradeoff(
    points: Mapping[str, tuple[int, Sequence[float]]], *, title: str = ""
) -> "Figure":
    """Plot the accuracy of each method against its trained parameters, with mean and single runs.

    Args:
        points: Number of trained parameters and accuracies (0 to 1) of the runs, for each method.
        title: Title of the figure.

    Raises:
        ValueError: If there is no method, or a method has no runs.
        MissingExtraError: If matplotlib is not installed.
    """
    if not points or not all(len(runs) for _, runs in points.values()):
        raise ValueError(f"Expected 'points' to hold runs of each method (got {dict(points)})")
    with style():
        figure = new_figure(7.0, 4.0)
        axes = figure.add_subplot()
        for number, (name, (count, runs)) in enumerate(points.items()):
            color = COLORS[number % len(COLORS)]
            marker = "osD^v"[number // len(COLORS) % 5]
            scores = [100 * value for value in runs]
            mean = sum(scores) / len(scores)
            axes.scatter([count] * len(scores), scores, s=10, color=color, alpha=0.35, lw=0)
            axes.scatter([count], [mean], s=48, color=color, marker=marker, label=name, zorder=3)
        # Logarithmic from 10,000 on, so that a probe with zero such parameters can be shown too.
        axes.set_xscale("symlog", linthresh=10_000, linscale=0.5)
        axes.set_xticks([0, *(10.0**power for power in range(4, 10))])
        axes.set_xlim(-1500, 2 * max(10_000, *(count for count, _ in points.values())))
        axes.set_xlabel("trained parameters without the head")
        axes.set_ylabel("test accuracy, %")
        axes.set_title(title, loc="left")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


__all__ = ["plot_tradeoff"]
