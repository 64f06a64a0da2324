"""Train an adapter from start to saved folder: best epoch by validation, resumable."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from pyg_peft.errors import MissingExtraError
from pyg_peft.model import PeftModel
from pyg_peft.training.cache import FeatureCache
from pyg_peft.training.data import ShapeDataModule
from pyg_peft.training.evaluation import Evaluation, check_precision
from pyg_peft.training.fit_options import LOGGERS, FitOptions
from pyg_peft.training.resuming import check_folder, check_resumed, describe_run, write_run
from pyg_peft.training.tasks import task_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitReport:
    """What a run found.

    Args:
        val: the best epoch on the validation set, which chose it.
        test: that epoch on the test set; ``None`` without one.
        epoch: the best epoch, from 0.
        curves: per epoch, by name of the metric.
        is_main: whether this is the process that saves and prints.
    """

    val: Evaluation
    test: Evaluation | None
    epoch: int
    curves: dict[str, list[float]] = field(default_factory=dict)
    is_main: bool = True


def fit(
    model: PeftModel,
    data: ShapeDataModule,
    folder: str | Path,
    *,
    options: FitOptions | None = None,
    caches: Mapping[str, FeatureCache] | None = None,
    trainer: dict[str, Any] | None = None,
    resume: bool = False,
    metadata: dict[str, Any] | None = None,
) -> FitReport:
    """Train the active adapter of ``model``, keep its best epoch, and save it to ``folder``.

    Args:
        model: receives the weights of the best epoch.
        data: the splits; with a :class:`SegmentationDataModule` points are labelled.
        folder: receives the adapter, and below it ``checkpoints`` and ``logs``.
        options: see :class:`FitOptions`.
        caches: frozen features by stage, ``"train"``, ``"val"`` and ``"test"``, which other runs on
            the same data may have filled; instead of those that ``options.cache`` makes.
        trainer: arguments of Lightning's ``Trainer``, for example ``{"max_epochs": 50}``.
        resume: go on from the last finished epoch of a run in ``folder`` that was interrupted.
        metadata: JSON-able values that are saved beside the preprocessing.

    Raises:
        ValueError: ``folder`` holds a run and ``resume`` is off; a precision that would round
            positions; a cache without a fixed number of views; a single class; nothing to validate
            on.
        CheckpointError: the run to resume is another one, which the message tells apart, or its
            checkpoint is damaged.
    """
    options = options or FitOptions()
    folder = Path(folder)
    settings = check_run(folder, options, trainer or {}, resume=resume)
    precision = str(settings["precision"])
    data.check_trainable()
    if caches is None:
        caches = _caches(model, data) if options.cache else {}
    _check_views(caches, data)
    described = describe_run(model, data, asdict(options), settings)
    last = folder / "checkpoints" / "last.ckpt"
    resumes = resume and last.exists()
    if resumes:
        check_resumed(last, described)
    curves = _Curves()
    task = task_of(data)
    keep = ModelCheckpoint(
        dirpath=folder / "checkpoints",
        filename="best",
        monitor=task.monitor,
        mode="max",
        enable_version_counter=False,
    )
    # A callback of its own: with save_last the other one writes only when it finds a better epoch.
    latest = ModelCheckpoint(
        dirpath=folder / "checkpoints", filename="last", enable_version_counter=False
    )
    module = task.make_module(
        model,
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup_epochs=options.warmup_epochs,
        label_smoothing=options.label_smoothing,
        seed=data.seed,
        caches=caches,
    )
    runner = _make_trainer(
        **settings,
        logger=_logger(options.logger, folder),
        callbacks=[keep, curves, latest],
        default_root_dir=folder,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    if runner.is_global_zero and not resumes:
        write_run(last, described)
    with warnings.catch_warnings():
        _expect_of_lightning()
        runner.fit(module, datamodule=data, ckpt_path=last if resumes else None)
    if runner.interrupted:
        raise KeyboardInterrupt
    best = torch.load(keep.best_model_path, map_location="cpu", weights_only=True)
    module.on_load_checkpoint(best)
    module.load_state_dict(best["state_dict"])
    report = FitReport(
        val=_evaluate(model, data, "val", precision, caches),
        test=None if data.test_set is None else _evaluate(model, data, "test", precision, caches),
        epoch=int(best["epoch"]),
        curves=curves.values,
        is_main=runner.is_global_zero,
    )
    if runner.is_global_zero:
        model.save_pretrained(
            folder,
            class_names=data.class_names,
            preprocessing={
                **data.preprocessing.to_dict(),
                "read_args": data.read_args,
                **(metadata or {}),
            },
        )
    return report


def check_run(
    folder: str | Path, options: FitOptions, trainer: dict[str, Any], *, resume: bool
) -> dict[str, Any]:
    """Settings of the trainer with the defaults, unless :func:`fit` would refuse to start.

    Raises:
        ValueError: see :func:`fit`.
    """
    settings: dict[str, Any] = {"max_epochs": 50, "gradient_clip_val": 10.0, "precision": "32-true"}
    settings |= trainer
    check_precision(str(settings["precision"]))
    if settings["max_epochs"] < 1:
        raise ValueError(f"Expected 'max_epochs' to be positive (got {settings['max_epochs']})")
    check_folder(Path(folder), resume=resume)
    return settings


def _make_trainer(**settings: Any) -> Trainer:
    try:
        return Trainer(**settings)
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise ValueError(
            f"Expected the trainer's options to fit together and this machine (got: {error})"
        ) from error


def _expect_of_lightning() -> None:
    """Silence what Lightning says about things that are meant here, and about its own code."""
    for message in (
        r".*module\(s\) in eval mode at the start of training",  # the frozen base is
        r".*does not have many workers",  # clouds are small and in memory
        r".*isinstance\(treespec, LeafSpec\)",
        r".*Checkpoint directory .* exists and is not empty",  # that of the run that is resumed
        r".*Experiment logs directory .* exists",
    ):
        warnings.filterwarnings("ignore", message=message)


class _Curves(Callback):
    """Every metric once an epoch; part of the checkpoint, so a resumed run has all of them."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.values.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = {name: list(values) for name, values in state_dict["values"].items()}


def _evaluate(
    model: PeftModel,
    data: ShapeDataModule,
    stage: str,
    precision: str,
    caches: Mapping[str, FeatureCache],
) -> Evaluation:
    loader = data.val_dataloader() if stage == "val" else data.test_dataloader()
    return task_of(data).evaluate(model, loader, precision=precision, cache=caches.get(stage))


def _check_views(caches: Mapping[str, FeatureCache], data: ShapeDataModule) -> None:
    if "train" in caches and data.train_set.num_views is None:
        raise ValueError(
            "Expected the data to have a fixed number of views to cache features of "
            "(got num_views=None)"
        )


def _caches(model: PeftModel, data: ShapeDataModule) -> dict[str, FeatureCache]:
    transform = str(data.preprocessing)
    return {stage: FeatureCache(model, f"{stage}: {transform}") for stage in ("train", "val")}


def _logger(name: str, folder: Path) -> Logger | bool:
    if name == "none":
        return False
    if name == "csv":
        return CSVLogger(folder, name="logs", version="")
    try:
        return TensorBoardLogger(folder, name="logs", version="")
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorboard", "train") from error


__all__ = ["LOGGERS", "FitOptions", "FitReport", "check_run", "fit"]
