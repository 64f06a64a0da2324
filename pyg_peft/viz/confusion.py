"""Plot a confusion matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyg_peft.viz.figure import new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_confusion(confusion: Tensor, class_names: Sequence[str], *, title: str = "") -> "Figure":
    """Plot a confusion matrix with counts, colored by the share of the true class.

    Args:
        confusion: Counts ``[K, K]``; rows are true classes, columns predicted classes.
        class_names: Names of the K classes.
        title: Title of the figure.

    Raises:
        ValueError: If the shapes do not match.
        MissingExtraError: If matplotlib is not installed.
    """
    size = len(class_names)
    if tuple(confusion.shape) != (size, size):
        raise ValueError(
            f"Expected 'confusion' to be of shape [{size}, {size}] (got {list(confusion.shape)})"
        )
    share = confusion.double() / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    with style():
        side = 2.4 + 0.42 * size
        figure = new_figure(side + 0.8, side)
        axes = figure.add_subplot()
        image = axes.imshow(share.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
        axes.grid(visible=False)
        axes.set_xticks(range(size), list(class_names), rotation=45, ha="right")
        axes.set_yticks(range(size), list(class_names))
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title, loc="left")
        if size <= 20:
            for row, column in torch.nonzero(confusion).tolist():
                color = "white" if share[row, column] > 0.55 else "#222222"
                count = int(confusion[row, column])
                axes.text(column, row, str(count), ha="center", va="center", color=color, size=8)
        figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


__all__ = ["plot_confusion"]
