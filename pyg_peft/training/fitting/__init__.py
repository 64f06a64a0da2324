"""Train an adapter: the training run, its options, and the Lightning modules of each task."""

from pyg_peft.training.fitting.options import FitOptions
from pyg_peft.training.fitting.run import FitReport, fit

__all__ = ["FitOptions", "FitReport", "fit"]
