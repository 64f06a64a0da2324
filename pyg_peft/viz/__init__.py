"""Plots of training results as matplotlib figures (extra ``viz``)."""

from pyg_peft.viz.cloud import plot_patches
from pyg_peft.viz.clouds import plot_clouds
from pyg_peft.viz.confusion import plot_confusion
from pyg_peft.viz.costs import plot_costs
from pyg_peft.viz.curves import plot_curves
from pyg_peft.viz.parts import plot_parts
from pyg_peft.viz.prompts import plot_attention, prompt_attention
from pyg_peft.viz.sizes import plot_sizes
from pyg_peft.viz.tradeoff import plot_tradeoff

__all__ = [
    "plot_attention",
    "plot_clouds",
    "plot_confusion",
    "plot_costs",
    "plot_curves",
    "plot_parts",
    "plot_patches",
    "plot_sizes",
    "plot_tradeoff",
    "prompt_attention",
]
