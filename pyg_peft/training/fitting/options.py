"""Settings of a run that trains an adapter."""

from dataclasses import dataclass

from pyg_peft.errors import check_count, check_flag, check_number
from pyg_peft.training.data.checks import check_text

LOGGERS = ("tensorboard", "csv", "wandb", "none")


@dataclass(frozen=True)
class FitOptions:
    """Settings of ``fit``, which trains an adapter.

    Args:
        lr: Largest learning rate of AdamW.
        weight_decay: Weight decay of matrices; biases, norms and tokens have none.
        warmup_epochs: Number of epochs of linear warm-up before the cosine.
        label_smoothing: Share of the target that is spread over all classes, unless the task has a
            ``label_smoothing`` of its own.
        cache: Whether to cache the frozen features of each sample and view. The data must have a
            fixed number of views.
        logger: ``"tensorboard"``, ``"csv"``, ``"wandb"`` (its own package) or ``"none"``.
        patience: Number of epochs without a better one, after which training ends early; ``None``
            never ends it early. The better epoch is the one that ``fit`` would keep.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If a setting is out of its range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.1
    cache: bool = False
    logger: str = "tensorboard"
    patience: int | None = None

    def __post_init__(self) -> None:
        check_number(self.lr, "lr", above=0)
        check_number(self.weight_decay, "weight_decay", least=0)
        check_number(self.warmup_epochs, "warmup_epochs", least=0)
        check_number(self.label_smoothing, "label_smoothing", least=0, below=1)
        check_flag(self.cache, "cache")
        check_text(self.logger, "logger")
        if self.patience is not None:
            check_count(self.patience, "patience")
        if self.logger not in LOGGERS:
            raise ValueError(f"Expected 'logger' to be one of {LOGGERS} (got {self.logger!r})")


__all__ = ["LOGGERS", "FitOptions"]
