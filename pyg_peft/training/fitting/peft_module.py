"""Train a model with an adapter as a Lightning module."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_peft.datasets.keyed import keyed_seed
from pyg_peft.errors import CheckpointError, check_count, check_number
from pyg_peft.model import PeftModel
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.runs.batch_norms import average_batch_norms
from pyg_peft.training.runs.decay import decay_groups
from pyg_peft.training.runs.schedule import warmup_cosine
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Task
from pyg_peft.tuners.engine.saving import base_fingerprint

_FINGERPRINT = "base_fingerprint"


class PeftModule(LightningModule):
    """Trains the parameters of the active adapter of ``model``, and nothing else.

    It uses AdamW with a warm-up and a cosine; the task has the loss and the metrics. Checkpoints
    hold the adapter's tensors and the fingerprint of the base: megabytes, not another copy of the
    base. Random numbers of a training step (dropout) are keyed by seed, epoch, step and process. So
    a run that was killed and resumed at the end of an epoch equals one that was not.

    Args:
        model: The model, with the adapter to train active. It is called with the parameters of its
            base that a batch has, by name, or as ``forward(data)``.
        task: What to learn from the labels. A number of classes means classification of clouds.
        lr: Largest learning rate.
        weight_decay: Weight decay of matrices; biases, norms and tokens have none.
        warmup_epochs: Number of epochs of linear warm-up. The cosine ends with the last epoch of
            the trainer.
        label_smoothing: Share of the target that is spread over all classes, unless the task has a
            ``label_smoothing`` of its own.
        seed: Seed of the random numbers.
        caches: A :class:`FeatureCache` for each stage (``"train"``, ``"val"``, ``"test"``) to
            cache. Stages have separate caches, since each numbers its samples separately.
        loss: A loss that replaces that of the task: ``loss(scores, labels)`` returns one number.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If there is nothing to train, or ``label_smoothing`` is not in [0, 1).
    """

    def __init__(
        self,
        model: PeftModel,
        task: Task | int,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_epochs: float = 1.0,
        label_smoothing: float = 0.1,
        seed: int = 0,
        caches: Mapping[str, FeatureCache] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        check_kind(model, "model", PeftModel)
        if not isinstance(task, Task):
            task = ClassificationTask(task)
        check_count(seed, "seed", least=None)
        check_kind(caches, "caches", Mapping, optional=True)
        for name, value in (
            ("lr", lr),
            ("weight_decay", weight_decay),
            ("warmup_epochs", warmup_epochs),
        ):
            check_number(value, name)
        check_number(label_smoothing, "label_smoothing", least=0, below=1)
        if not trainable_parameters(model):
            raise ValueError("Expected 'model' to have trainable parameters (got none)")
        super().__init__()
        self.model = model
        self.task = task
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        own = task.label_smoothing
        self.label_smoothing = label_smoothing if own is None else own
        self.loss = loss
        self.seed = seed
        self.caches = dict(caches or {})
        self.metrics = nn.ModuleDict(
            {stage: task.metrics(f"{stage}_") for stage in ("val", "test")}
        )

    def forward(self, data: Data, stage: str = "predict") -> Tensor:
        """Return the scores of a batch; only in training the bank omits the sample itself."""
        sample_id = data.sample_id if stage == "train" else None
        cache = self.caches.get(stage)
        scores = self.task.score(self.model, data, sample_id=sample_id, cache=cache)
        self.task.check_scores(scores)
        return scores.float()

    def on_train_start(self) -> None:
        # The optimizer of a run that got more epochs still has the rate of its shorter cosine.
        # Otherwise the rates are equal, bit for bit.
        for schedule in self.trainer.lr_scheduler_configs:
            scheduler: Any = schedule.scheduler
            for group, start, factor in zip(
                scheduler.optimizer.param_groups,
                scheduler.base_lrs,
                scheduler.lr_lambdas,
                strict=True,
            ):
                group["lr"] = start * factor(scheduler.last_epoch)

    def on_train_batch_start(self, batch: Data, batch_idx: int) -> None:
        # Lightning restores modes module by module after validation, in its own order. The model
        # sets the modes itself, so that they are the same for each step.
        self.model.train()

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        torch.manual_seed(
            keyed_seed(self.seed, "step", self.current_epoch, batch_idx, self.global_rank)
        )
        scores = self(batch, "train")
        labels = self.task.labels(batch, scores.size(0))
        loss = self._loss(scores, labels, self.label_smoothing)
        size = batch.num_graphs
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=size, sync_dist=True)
        for name, value in self.task.progress(scores, labels).items():
            self.log(
                f"train_{name}",
                value,
                on_epoch=True,
                on_step=False,
                prog_bar=True,
                batch_size=size,
                sync_dist=True,
            )
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Data, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # before the epoch is validated and saved
            average_batch_norms(self.model)

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Data, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: Data, batch_idx: int) -> Tensor:
        return self.task.predictions(self(batch), batch)

    def _evaluate(self, batch: Data, stage: str) -> None:
        scores = self(batch, stage)
        labels = self.task.labels(batch, scores.size(0))
        metrics: Any = self.metrics[stage]
        self.task.update(metrics, scores, labels, batch)
        size = batch.num_graphs
        self.log(f"{stage}_loss", self._loss(scores, labels), batch_size=size, sync_dist=True)
        self.log_dict(metrics, prog_bar=True, batch_size=size)

    def _loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        if self.loss is None:
            return self.task.loss(scores, labels, label_smoothing)
        known, labels = self.task.known(scores, labels)
        if labels.numel() == 0:
            return scores.sum() * 0.0
        return self.loss(known, labels).reshape(())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = (parameter for _, parameter in trainable_parameters(self.model))
        optimizer = torch.optim.AdamW(decay_groups(trained, self.weight_decay), lr=self.lr)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        epochs = max(1, self.trainer.max_epochs or 1)
        warmup = min(total, round(self.warmup_epochs * total / epochs))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total, warmup)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    # ---- checkpoints --------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if _is_adapter(name)}
        checkpoint[_FINGERPRINT] = self._fingerprint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own, found = self.state_dict(), checkpoint["state_dict"]
        if checkpoint.get(_FINGERPRINT) != self._fingerprint():
            raise CheckpointError(
                f"Expected a checkpoint on the base {self._fingerprint()[:16]} "
                f"(got one on {str(checkpoint.get(_FINGERPRINT))[:16]})"
            )
        # With the base's tensors, which are already loaded, the state can be loaded strictly.
        rest = {name: tensor for name, tensor in own.items() if not _is_adapter(name)}
        checkpoint["state_dict"] = {**rest, **found}

    def _fingerprint(self) -> str:
        name = self.model.active_adapter
        if name is None:
            raise ValueError("Expected an active adapter (got none)")
        return base_fingerprint(self.model.base, self.model.peft_config[name])


def _is_adapter(name: str) -> bool:
    """Whether a key of the state belongs to an adapter, since its path contains a slot."""
    return "peft" in name.split(".")


__all__ = ["PeftModule"]
