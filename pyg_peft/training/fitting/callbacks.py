"""Callbacks of a training run: curves, checkpoints, progress bar, loggers."""

import logging
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from pyg_peft.training.runs.checkpoint_files import read_checkpoint, save_checkpoint
from pyg_peft.training.runs.resuming import BEST, LAST

LOSS = "val_loss"

logger = logging.getLogger(__name__)


class Curves(Callback):
    """Record every metric once per epoch; saved in checkpoints, so a resumed run has all values."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    @property
    def state_key(self) -> str:
        return "_Curves"  # as in checkpoints of earlier versions

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.values.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = {name: list(values) for name, values in state_dict["values"].items()}


class KeptEpoch(Checkpoint):
    """Write ``last.ckpt`` after each epoch, and ``best.ckpt`` after the best on validation so far.

    The best epoch has the best metric. If metrics are equal, the lower validation loss is
    better; if losses are equal too, the earlier epoch. Equal metrics are common on small validation
    sets. Without validation, the last epoch is kept.

    With ``patience``, training ends after that many epochs without a better one.

    Args:
        folder: Folder of the run.
        monitor: Name of the metric; ``None`` without validation.
        mode: ``"max"`` if a larger metric is better, otherwise ``"min"``.
        patience: Number of epochs without a better one, or ``None`` to train to the end.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str | None,
        mode: Literal["max", "min"] = "max",
        patience: int | None = None,
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.best: tuple[float, float] | None = None  # metric and loss of the kept epoch
        self.waited = 0  # epochs since then
        self._best_epoch = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._stop_if_enough(trainer)  # of a run that had ended early and is resumed

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        found = tuple(float(trainer.callback_metrics[name]) for name in (self.monitor, LOSS))
        # One process decides, since all processes must save together.
        metric, loss = trainer.strategy.broadcast(found)
        if self.best is None or self._rank(metric, loss) > self._rank(*self.best):
            self.best = (metric, loss)
            self._best_epoch = trainer.current_epoch
            self.waited = 0
            trainer.save_checkpoint(self.folder / BEST)
        self.waited = trainer.current_epoch - self._best_epoch
        self._stop_if_enough(trainer)

    def _stop_if_enough(self, trainer: Trainer) -> None:
        if self.patience is not None and self.waited >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.save_checkpoint(self.folder / LAST)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self._best_epoch, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        self.best = None if best is None else (best[0], best[1])
        # Earlier versions, which could not end early, saved neither.
        self._best_epoch = state_dict.get("best_epoch", 0)
        self.waited = state_dict.get("waited", 0)

    def _rank(self, metric: float, loss: float) -> tuple[float, float]:
        """Return a key for comparing epochs; NaN is worse than anything."""
        value = metric if self.mode == "max" else -metric
        return (
            -math.inf if math.isnan(value) else value,
            -math.inf if math.isnan(loss) else -loss,
        )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the best epoch of a run that was started with Lightning's own checkpoints."""
        if self.monitor is None or self.state_key in checkpoint.get("callbacks", {}):
            return
        kept = int(read_checkpoint(self.folder / BEST)["epoch"])
        curves = checkpoint["callbacks"]["_Curves"]["values"]
        # A kill between both writes may have left a best epoch that is newer than the last file.
        if kept < len(curves[self.monitor]):
            self.best = (curves[self.monitor][kept], curves[LOSS][kept])


class WholeFiles(TorchCheckpointIO):
    """Write each checkpoint completely or not at all, and keep the one before the last."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        save_checkpoint(checkpoint, path, keep_previous=path.name == LAST.name)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


class EpochBar(TQDMProgressBar):
    """Lightning's bar, with epochs from 1."""

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        counted: Any = SimpleNamespace(current_epoch=trainer.current_epoch + 1)
        super().on_train_epoch_start(counted, *args)  # reads only current_epoch of the trainer


class LearningRate(Callback):
    """Log the learning rate of the last step of each epoch."""

    # Before the step, since the schedule moves on after it.
    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        numbers: dict[str, float] = {"lr": self._lr, "epoch": trainer.current_epoch}
        for log in trainer.loggers:
            log.log_metrics(numbers, trainer.global_step - 1)


class EpochLines(Callback):
    """Log one line for each epoch, where no terminal shows a bar."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._begun = time.monotonic()

    # After Lightning has gathered the metrics of the epoch.
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        numbers = "   ".join(f"{name} {values[name]:.4f}" for name in sorted(values))
        logger.info(
            "epoch %d/%s   %s   %.1f s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            numbers,
            time.monotonic() - self._begun,
        )


def progress_callback() -> Callback:
    """Return a bar on a terminal or in a notebook, and otherwise a line for each epoch."""
    shown = sys.stdout.isatty() or "ipykernel" in sys.modules
    return EpochBar() if shown else EpochLines()


class _FromOne:
    """Log epochs counted from 1; Lightning counts from 0."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        if "epoch" in metrics:
            metrics = {**metrics, "epoch": metrics["epoch"] + 1}
        super().log_metrics(metrics, step)  # pyright: ignore[reportAttributeAccessIssue]


class CSVEpochs(_FromOne, CSVLogger):
    """Lightning's log in one CSV file, with epochs from 1."""


class TensorBoardEpochs(_FromOne, TensorBoardLogger):
    """Lightning's log for TensorBoard, with epochs from 1."""


class WandbEpochs(_FromOne, WandbLogger):
    """Lightning's log for Weights & Biases, with epochs from 1."""


__all__ = [
    "CSVEpochs",
    "Curves",
    "EpochBar",
    "EpochLines",
    "KeptEpoch",
    "LearningRate",
    "TensorBoardEpochs",
    "WandbEpochs",
    "WholeFiles",
    "progress_callback",
]
