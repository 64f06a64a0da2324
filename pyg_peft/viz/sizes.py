"""Plot the trained parameters and file sizes of methods side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyg_peft.viz.figure import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_sizes(sizes: Mapping[str, tuple[int, int, int]], *, title: str = "") -> "Figure":
    """Plot bars of trained parameters (those of the head separately) and of file sizes.

    Args:
        sizes: Number of trained parameters, number of those outside the head, and bytes on disk,
            for each method.
        title: Title of the figure.

    Raises:
        ValueError: If there is nothing to draw.
        MissingExtraError: If matplotlib is not installed.
    """
    if not sizes:
        raise ValueError("Expected 'sizes' to hold a method (got none)")
    with style():
        figure = new_figure(8.6, 1.1 + 0.5 * len(sizes))
        left, right = figure.subplots(1, 2, sharey=True)
        names = list(sizes)
        for row, (trained, body, size) in enumerate(sizes.values()):
            left.barh(row, body, color=COLORS[0], label="" if row else "beside the head")
            left.barh(row, trained - body, left=body, color="#b8cfe0", label="" if row else "head")
            left.text(trained, row, f" {trained:,}", va="center", size=8)
            right.barh(row, size / 1024, color=COLORS[2])
            right.text(size / 1024, row, f" {size / 1024:,.0f}", va="center", size=8)
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        left.set_xlabel("trained parameters")
        right.set_xlabel("file on disk, kB")
        left.set_xlim(right=1.25 * max(trained for trained, _, _ in sizes.values()))
        right.set_xlim(right=1.2 * max(size for *_, size in sizes.values()) / 1024)
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.locator_params(axis="x", nbins=4)
            axes.ticklabel_format(axis="x", style="plain")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        figure.get_layout_engine().set(wspace=0.06)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
        figure.legend(frameon=False, loc="outside lower left", ncols=2)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


__all__ = ["plot_sizes"]
