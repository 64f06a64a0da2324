"""Create matplotlib figures without a display, in one common style."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pyg_peft.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinguishable with color blindness (Okabe and Ito), in order of use.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
}


def style() -> AbstractContextManager[None]:
    """Return a context manager that applies the common style within a ``with`` block only.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "viz") from error
    settings: Any = STYLE
    return matplotlib.rc_context(settings)


def new_figure(width: float, height: float) -> "Figure":
    """Return a figure that has no window and is not part of the global state of ``pyplot``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


__all__ = ["COLORS", "new_figure", "style"]
