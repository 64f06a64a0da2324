"""The settings of a pre-training run."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pyg_peft.errors import check_count, check_flag, check_number
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.pretraining.corpus import ViewOptions


@dataclass(frozen=True)
class PretrainOptions:
    """Everything that decides the result besides the model and the corpus.

    Args:
        epochs, batch_size: length of the run; every cloud is used in every epoch, in batches of at
            most ``batch_size`` that differ by one cloud at most.
        lr, weight_decay: AdamW; biases, norms and tokens are not decayed.
        warmup_epochs: linear warm-up, then a cosine down to ``lr_floor`` times ``lr``.
        clip_norm: largest gradient norm.
        seed: keys every draw of the run.
        max_minutes: stop, with a checkpoint, after this much training time over all resumptions.
        checkpoint_minutes: time between checkpoints.
        log_every: steps between lines of the log.
        bf16: let matrix products run in bfloat16; weights, positions and loss stay in float32.
        views: how clouds are varied.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of its range.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    lr_floor: float = 0.01
    clip_norm: float = 5.0
    seed: int = 0
    max_minutes: float | None = None
    checkpoint_minutes: float = 1.0
    log_every: int = 20
    bf16: bool = False
    views: ViewOptions = field(default_factory=ViewOptions)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every"):
            check_count(getattr(self, name), name)
        check_count(self.seed, "seed", least=None)
        for name in ("lr", "clip_norm", "weight_decay", "warmup_epochs", "lr_floor"):
            check_number(getattr(self, name), name)
        check_number(self.checkpoint_minutes, "checkpoint_minutes")
        if self.max_minutes is not None:
            check_number(self.max_minutes, "max_minutes")
        check_flag(self.bf16, "bf16")
        check_kind(self.views, "views", ViewOptions)
        # Written so that NaN, of which every comparison is false, is refused too.
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"Expected '{name}' to be positive and finite (got {getattr(self, name)})"
                )
        for name in ("weight_decay", "warmup_epochs", "checkpoint_minutes", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"Expected '{name}' not to be negative (got {value})")
        if not 0 <= self.lr_floor <= 1:
            raise ValueError(f"Expected 'lr_floor' to lie in [0, 1] (got {self.lr_floor})")

    def identity(self) -> dict[str, Any]:
        """What changes weights: time limits and logging may differ between resumptions."""
        values = asdict(self)
        for name in ("max_minutes", "checkpoint_minutes", "log_every"):
            values.pop(name)
        return values


__all__ = ["PretrainOptions"]
