"""How one number changed over the epochs, one line a run."""

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
    """Learning curves with each run's name at the end of its line.

    Args:
        curves: run name to values, one an epoch, from epoch 1.
        epochs: those of the values, the same for all runs, if they are not 1, 2, 3 ...
        ylabel: what the values are.
        title: above the picture.

    Raises:
        ValueError: no curve, one without values, or another number of epochs.
        MissingExtraError: matplotlib is not installed.
    """
    if not curves or not all(len(values) for values in curves.values()):
        raise ValueError(f"Expected 'curves' to hold values for each run (got {dict(curves)})")
    if epochs is not None and any(len(values) != len(epochs) for values in curves.values()):
        raise ValueError(f"Expected 'epochs' to be one a value (got {len(epochs)})")
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
