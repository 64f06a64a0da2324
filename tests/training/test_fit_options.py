"""Settings of a run that no training could follow are refused when they are made."""

import math
from typing import Any

import pytest

from pyg_peft.training.fitting.options import FitOptions


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", 0.0, "'lr' to be > 0"),
        ("lr", -1.0, r"'lr' to be > 0 \(got -1.0\)"),
        ("lr", math.nan, r"'lr' to be > 0 \(got nan\)"),
        ("weight_decay", -0.1, "'weight_decay' to be >= 0"),
        ("warmup_epochs", -1.0, "'warmup_epochs' to be >= 0"),
        ("label_smoothing", -0.1, r"'label_smoothing' to lie in \[0, 1\)"),
        ("label_smoothing", 1.0, r"'label_smoothing' to lie in \[0, 1\) \(got 1.0\)"),
        ("logger", "paper", "'logger' to be one of"),
    ],
)
def test_mistakes(name: str, value: Any, message: str):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        FitOptions(**{name: value})


def test_the_ends_of_the_ranges():
    options = FitOptions(lr=1e-9, weight_decay=0.0, warmup_epochs=0.0, label_smoothing=0.0)
    assert options.weight_decay == options.warmup_epochs == options.label_smoothing == 0
