"""Pictures of what training did, as matplotlib figures (extra ``viz``)."""

from pyg_peft.viz.cloud import plot_patches
from pyg_peft.viz.confusion import plot_confusion
from pyg_peft.viz.curves import plot_curves
from pyg_peft.viz.tradeoff import plot_tradeoff

__all__ = ["plot_confusion", "plot_curves", "plot_patches", "plot_tradeoff"]
