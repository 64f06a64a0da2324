"""Plot a quantity over the epochs, one line per run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pyg_peft.viz.figure import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_curves(
    curves: Mapping[str, Sequence[float]],
    *,
    epochs: Sequence[int] | None = None,
    ylabel: str = "accuracy",
    title: str = "",
) -> "Figure":
    """Plot learning curves, one line per run, with a legend of the run names.

    Args:
        curves: Values per epoch, from epoch 1, for each run name.
        epochs: Epochs of the values, the same for all runs, if they are not 1, 2, 3 ...
        ylabel: Name of the quantity.
        title: Title of the figure.

    Raises:
        ValueError: If there is no curve, a curve has no values, or the number of epochs is wrong.
        MissingExtraError: If matplotlib is not installed.
    """
    if not curves or not all(len(values) for values in curves.values()):
        raise ValueError(f"Expected 'curves' to hold values for each run (got {dict(curves)})")
    if epochs is not None and any(len(values) != len(epochs) for values in curves.values()):
        raise ValueError(f"Expected 'epochs' to have one entry per value (got {len(epochs)})")
    with style():
        figure = new_figure(7.0, 4.0)
        axes = figure.add_subplot()
        longest = max(len(values) for values in curves.values())
        for number, (name, values) in enumerate(curves.items()):
            color = COLORS[number % len(COLORS)]
            places = range(1, len(values) + 1) if epochs is None else epochs
            marker = "o" if longest <= 40 else ""
            axes.plot(places, list(values), color=color, lw=1.8, marker=marker, ms=3.5, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(ylabel)
        axes.set_title(title, loc="left")
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


__all__ = ["plot_curves"]
