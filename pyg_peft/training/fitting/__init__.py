"""Fit an adapter: the loop, its options, and the Lightning modules of each task."""

from typing import TYPE_CHECKING

from pyg_peft.training.fitting.options import FitOptions

if TYPE_CHECKING:
    from pyg_peft.training.fitting.run import FitReport, fit


def __getattr__(name: str) -> object:
    # Imported on first use: the options need no Lightning.
    if name not in ("FitReport", "fit"):
        raise AttributeError(f"module 'pyg_peft.training.fitting' has no attribute '{name}'")
    from pyg_peft.training.fitting import run

    return getattr(run, name)


__all__ = ["FitOptions", "FitReport", "fit"]
