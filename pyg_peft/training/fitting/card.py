"""Facts of a run for the model card of its adapter."""

import math
from typing import Any

from pyg_peft.training.fitting.data_module import ShapeDataModule


def run_facts(report: Any, data: ShapeDataModule, lr: float, epochs: int) -> dict[str, Any]:
    """Return what a model card shows of a run, as JSON values.

    Args:
        report: A ``FitReport``.
        data: The splits.
        lr: Largest learning rate.
        epochs: Number of epochs of the whole run.
    """
    facts: dict[str, Any] = {
        "clouds": {
            "train": len(data.train_set),
            "val": len(data.val_set),
            "test": 0 if data.test_set is None else len(data.test_set),
        },
        "learning_rate": lr,
        "epochs": epochs,
        "kept_epoch": report.epoch,
    }
    for name, scored in (("val", report.val), ("test", report.test)):
        if scored is not None:
            facts[name] = {k: v for k, v in scored.numbers().items() if _is_finite(v)}
    return facts


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


__all__ = ["run_facts"]
