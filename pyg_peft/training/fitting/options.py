"""The settings of a run that trains an adapter."""

from dataclasses import dataclass

from pyg_peft.errors import check_flag, check_number
from pyg_peft.training.data.checks import check_text

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
        check_number(self.lr, "lr", above=0)
        check_number(self.weight_decay, "weight_decay", least=0)
        check_number(self.warmup_epochs, "warmup_epochs", least=0)
        check_number(self.label_smoothing, "label_smoothing", least=0, below=1)
        check_flag(self.cache, "cache")
        check_text(self.logger, "logger")
        if self.logger not in LOGGERS:
            raise ValueError(f"Expected 'logger' to be one of {LOGGERS} (got {self.logger!r})")


__all__ = ["LOGGERS", "FitOptions"]
