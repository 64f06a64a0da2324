"""The settings of a run that trains an adapter."""

import math
from dataclasses import dataclass

from pyg_peft.errors import check_flag, check_number
from pyg_peft.training.checks import check_text

LOGGERS = ("tensorboard", "csv", "none")


@dataclass(frozen=True)
class FitOptions:
    """How an adapter is trained.

    Args:
        lr: largest learning rate of AdamW.
        weight_decay: of matrices; biases, norms and tokens have none.
        warmup_epochs: linear warm-up before the cosine.
        label_smoothing: share of the target that is spread over all classes.
        cache: keep the frozen features of each sample and view; wants views in the data.
        logger: ``"tensorboard"``, ``"csv"`` or ``"none"``.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of its range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.1
    cache: bool = False
    logger: str = "tensorboard"

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup_epochs", "label_smoothing"):
            check_number(getattr(self, name), name)
            if math.isinf(getattr(self, name)):
                raise ValueError(f"Expected '{name}' to be finite (got {getattr(self, name)})")
        check_flag(self.cache, "cache")
        check_text(self.logger, "logger")
        # Written so that NaN, of which every comparison is false, is refused too.
        if not self.lr > 0:
            raise ValueError(f"Expected 'lr' to be positive (got {self.lr})")
        for name in ("weight_decay", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"Expected '{name}' not to be negative (got {getattr(self, name)})"
                )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"Expected 'label_smoothing' to lie in [0, 1) (got {self.label_smoothing})"
            )
        if self.logger not in LOGGERS:
            raise ValueError(f"Expected 'logger' to be one of {LOGGERS} (got {self.logger!r})")


__all__ = ["LOGGERS", "FitOptions"]
