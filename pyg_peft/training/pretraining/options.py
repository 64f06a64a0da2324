"""Settings of a pre-training run."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pyg_peft.errors import check_count, check_flag, check_number
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.pretraining.corpus import ViewOptions


@dataclass(frozen=True)
class PretrainOptions:
    """Settings of ``pretrain``, other than the model and the corpus.

    Args:
        epochs, batch_size: Number of epochs, and largest number of clouds in a batch. Every cloud
            is used in every epoch, in batches that differ by at most one cloud.
        lr, weight_decay: Learning rate and weight decay of AdamW; biases, norms and tokens are not
            decayed.
        warmup_epochs: Number of epochs of linear warm-up, before a cosine down to ``lr_floor``
            times ``lr``.
        clip_norm: Largest gradient norm.
        seed: Seed of all random numbers of the run.
        max_minutes: Training time, over all resumptions, after which the run saves a checkpoint and
            stops.
        checkpoint_minutes: Time between checkpoints.
        log_every: Number of steps between lines of the log.
        bf16: Whether to run matrix products in bfloat16. Weights, positions and loss stay in
            float32.
        views: Settings of the random views of clouds.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If a setting is out of its range.
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
        # Written so that NaN, for which every comparison is false, also raises.
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
        """Return the settings that affect weights; time limits and logging may change on resume."""
        values = asdict(self)
        for name in ("max_minutes", "checkpoint_minutes", "log_every"):
            values.pop(name)
        return values


__all__ = ["PretrainOptions"]
