"""Train an adapter and save it: best epoch by validation, resumable."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import Logger
from torch import Tensor

from pyg_peft.errors import MissingExtraError, check_count, check_flag
from pyg_peft.model import PeftModel
from pyg_peft.storage import claim_folder, remove_leftovers
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.evaluation.forward import check_precision
from pyg_peft.training.fitting.batch_norms import check_batch_norms
from pyg_peft.training.fitting.callbacks import (
    CSVEpochs,
    Curves,
    EpochBar,
    KeptEpoch,
    LearningRate,
    TensorBoardEpochs,
    WandbEpochs,
    WholeFiles,
    progress_callback,
)
from pyg_peft.training.fitting.card import run_facts
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.losses import check_loss, describe_loss
from pyg_peft.training.fitting.options import LOGGERS, FitOptions
from pyg_peft.training.fitting.peft_module import PeftModule
from pyg_peft.training.runs.checkpoint_files import has_checkpoint, read_checkpoint
from pyg_peft.training.runs.resuming import (
    BEST,
    LAST,
    Resumed,
    check_folder,
    check_resumed,
    describe_run,
    write_run,
)
from pyg_peft.training.tasks.contract import Scored
from pyg_peft.tuners.engine.card import check_card

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitReport:
    """Results of a training run.

    Args:
        val: What the task measures of the kept epoch on the validation set, which chose it: an
            ``Evaluation``, or a ``PartEvaluation`` for segmentation. ``None`` without validation.
        test: The same of that epoch on the test set; ``None`` without one.
        epoch: The kept epoch, from 1: the best on validation, or the last without validation.
        curves: Values per epoch, by name of the metric.
        is_main: Whether this is the process that saves and prints.
        chosen_by: The metric that chose the epoch; ``None`` without validation.
        extended: Earlier numbers of epochs of the run, if it was resumed with more.
        seconds: Duration of the epochs with their validation, over all calls of a resumed run.
    """

    val: Any
    test: Any
    epoch: int
    curves: dict[str, list[float]] = field(default_factory=dict)
    is_main: bool = True
    chosen_by: str | None = None
    extended: tuple[int, ...] = ()
    seconds: float = 0.0


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
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    card: Mapping[str, Any] | None = None,
) -> FitReport:
    """Train the active adapter of ``model``, keep its best epoch, and save it to ``folder``.

    The best epoch has the largest metric on validation. If metrics are equal, the lowest validation
    loss decides. Data without validation (``val_fraction=0``) keep the last epoch.

    Args:
        model: The model to train. It gets the weights of the kept epoch.
        data: The splits. With a :class:`SegmentationDataModule`, points are classified.
        folder: Folder for the adapter, with subfolders ``checkpoints`` and ``logs``. One run at a
            time can write to it.
        options: See :class:`FitOptions`.
        caches: Caches of frozen features by stage, ``"train"``, ``"val"`` and ``"test"``, possibly
            filled by other runs on the same data. They replace those of ``options.cache``.
        trainer: Arguments of Lightning's ``Trainer``, for example ``{"max_epochs": 50}``.
        resume: Whether to continue an interrupted run in ``folder`` from its last finished epoch.
            With a larger ``max_epochs`` a run continues beyond its end: from there the learning
            rate follows the cosine of the larger number, so it rises again from zero.
            If that checkpoint is damaged, the one before is used, with a warning in the log.
        metadata: JSON-able values that are saved with the preprocessing, under keys other than
            those of ``Preprocessing``, ``read_args``, ``task_name`` and ``task_settings``. The
            run cannot be resumed with another ``from_adapter``, which describes the adapter it
            started from.
        loss: A loss of your own that replaces that of the task: ``loss(scores, labels)`` returns
            one number to minimize. It gets the rows that the task does not ignore. Resuming needs
            it again.
        card: Facts for the model card, see :meth:`~pyg_peft.model.PeftModel.save_pretrained`.
            The number of clouds, epochs, the learning rate and the metrics are added.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If ``folder`` holds a run and ``resume`` is off, or another process writes to
            it; if a precision would round positions; if a cache has no fixed number of views; if
            there is a single class, or nothing to validate on; or if batches have one cloud and a
            batch norm is trained on one value per cloud.
        CheckpointError: If the run to resume differs from this one (the message lists how), or its
            checkpoints are damaged.
        KeyboardInterrupt: If the run was interrupted. Use ``resume`` to continue.
    """
    check_kind(model, "model", PeftModel)
    check_kind(data, "data", ShapeDataModule)
    check_kind(caches, "caches", Mapping, optional=True)
    _check_metadata(metadata, data, card)
    options = options or FitOptions()
    settings = check_run(folder, options, trainer or {}, resume=resume)
    folder = Path(folder)
    precision = str(settings["precision"])
    data.check_trainable()
    validates = data.validates and settings.get("limit_val_batches") != 0
    if not validates:
        settings["limit_val_batches"] = 0
        if options.patience is not None:
            raise ValueError(
                "Expected 'patience' to be None without validation, which ends training early "
                f"(got {options.patience})"
            )
    check_loss(loss, data)
    if caches is None:
        caches = _caches(model, data) if options.cache else {}
    _check_views(caches, data)
    curves = Curves()
    monitor = f"val_{data.task.monitor}" if validates else None
    module = PeftModule(
        model,
        data.task,
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup_epochs=options.warmup_epochs,
        label_smoothing=options.label_smoothing,
        seed=data.seed,
        caches=caches,
        loss=loss,
    )
    log = _logger(options.logger, folder)
    timer = Timer()
    kept_epoch = KeptEpoch(folder, monitor, data.task.monitor_mode, options.patience)
    callbacks = [timer, kept_epoch, curves, *_reporters(settings, log)]
    runner = _make_trainer(
        **settings,
        logger=log or False,
        callbacks=callbacks,
        default_root_dir=folder,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    described = describe_run(
        model,
        data,
        asdict(options),
        settings,
        loss=describe_loss(loss),
        from_adapter=(metadata or {}).get("from_adapter"),
        processes=runner.world_size,
    )
    resumed = None
    if resume and has_checkpoint(folder / LAST):
        resumed = check_resumed(folder, described)
    _use_clouds(data, resumed)
    check_batch_norms(model, data, runner.world_size)
    with ExitStack() as stack:
        if runner.is_global_zero:
            _claim(stack, folder, resume=resume)
            if resumed is None:
                write_run(folder / LAST, described)
            elif resumed.extended:
                kept_as = {**described, "every_cloud": resumed.every_cloud}
                write_run(folder / LAST, kept_as, resumed.extended)
        checkpoint = None if resumed is None else resumed.checkpoint
        _run(runner, module, data, checkpoint, described)
        kept = _kept(folder, monitor)
        module.on_load_checkpoint(kept)
        module.load_state_dict(kept["state_dict"])
        has_test = data.test_set is not None
        report = FitReport(
            val=_evaluate(model, data, "val", precision, caches) if validates else None,
            test=_evaluate(model, data, "test", precision, caches) if has_test else None,
            epoch=int(kept["epoch"]) + 1,  # Lightning counts from 0
            curves=curves.values,
            is_main=runner.is_global_zero,
            chosen_by=monitor,
            extended=() if resumed is None else resumed.extended,
            seconds=timer.time_elapsed(),
        )
        if runner.is_global_zero:
            model.save_pretrained(
                folder,
                class_names=data.class_names,
                preprocessing={
                    **data.preprocessing.to_dict(),
                    "read_args": data.read_args,
                    "task_name": data.task.name,
                    "task_settings": data.task.to_dict(),
                    **(metadata or {}),
                },
                card={
                    **run_facts(report, data, options.lr, settings["max_epochs"]),
                    **(card or {}),
                },
            )
    return report


def check_run(
    folder: str | Path, options: FitOptions, trainer: Mapping[str, Any], *, resume: bool
) -> dict[str, Any]:
    """Return the trainer's settings with defaults, and raise if :func:`fit` could not start.

    Raises:
        TypeError, ValueError: see :func:`fit`.
    """
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"Expected 'folder' to be a path (got {folder!r})")
    check_kind(options, "options", FitOptions)
    check_kind(trainer, "trainer", Mapping)
    check_flag(resume, "resume")
    settings: dict[str, Any] = {"max_epochs": 50, "gradient_clip_val": 10.0, "precision": "32-true"}
    settings |= trainer
    check_precision(str(settings["precision"]))
    check_count(settings["max_epochs"], "max_epochs")
    every = settings.get("check_val_every_n_epoch")
    if every is not None and every > settings["max_epochs"]:
        raise ValueError(
            f"Expected 'check_val_every_n_epoch' to be at most 'max_epochs', "
            f"{settings['max_epochs']}, so that an epoch is validated (got {every})"
        )
    if settings.get("sync_batchnorm"):
        raise ValueError(
            "Expected 'sync_batchnorm' to be false, since torch replaces batch norms by others "
            "without their adapters (got true); statistics are averaged over the processes"
        )
    plugins = settings.pop("plugins", None) or []
    plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeFiles())
    settings["plugins"] = plugins
    check_folder(Path(folder), resume=resume)
    return settings


def _check_metadata(
    metadata: Mapping[str, Any] | None, data: ShapeDataModule, card: Mapping[str, Any] | None
) -> None:
    check_kind(metadata, "metadata", Mapping, optional=True)
    check_card(card)
    own = {*data.preprocessing.to_dict(), "read_args", "task_name", "task_settings"}
    own &= {*(metadata or ())}
    if own:
        raise ValueError(
            f"Expected 'metadata' without keys that fit sets itself (got {sorted(own)})"
        )


def _use_clouds(data: ShapeDataModule, resumed: Resumed | None) -> None:
    """Use all clouds, unless the run was started by a version that left some out of each epoch."""
    data.drop_last = resumed is not None and not resumed.every_cloud
    if data.drop_last and len(data.train_set) % data.batch_size:
        logger.warning(
            "this run was started by a version that left out a last batch that was not full, and "
            "continues that way; a run in another folder uses every training cloud in every epoch"
        )


def _claim(stack: ExitStack, folder: Path, *, resume: bool) -> None:
    """Lock ``folder`` for this run, and remove leftovers of a run that was killed.

    Raises:
        ValueError: If another process writes to it, or has written to it since it was checked.
    """
    checkpoints = (folder / LAST).parent
    checkpoints.mkdir(parents=True, exist_ok=True)
    held = stack.enter_context(claim_folder(checkpoints))
    check_folder(folder, resume=resume)
    if held:
        remove_leftovers(checkpoints, "*")


def _run(
    runner: Trainer,
    module: Any,
    data: ShapeDataModule,
    checkpoint: Path | None,
    described: dict[str, Any],
) -> None:
    """Log the settings and train.

    Raises:
        KeyboardInterrupt: If the run was interrupted, whatever Lightning raises.
    """
    handler = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        _ignore_lightning_warnings()
        for log in runner.loggers:
            log.log_hyperparams(described)
        try:
            runner.fit(module, datamodule=data, ckpt_path=checkpoint)
        except SystemExit:
            if not runner.interrupted:
                raise
    if runner.interrupted:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # Lightning has disabled it
        raise KeyboardInterrupt


def _kept(folder: Path, monitor: str | None) -> dict[str, Any]:
    """Return the checkpoint of the kept epoch."""
    if monitor is None:
        return read_checkpoint(folder / LAST)
    if not (folder / BEST).exists():
        raise ValueError(
            "Expected 'trainer' to validate after an epoch, so that one can be chosen (got no "
            "validation); a 'val_fraction' of 0 keeps the last epoch"
        )
    return read_checkpoint(folder / BEST)


def _reporters(settings: dict[str, Any], log: Logger | None) -> list[Callback]:
    """Return the callbacks that show the progress; Lightning's own bar is switched by them."""
    found: list[Callback] = [] if log is None else [LearningRate()]
    wanted = settings.get("enable_progress_bar")
    if wanted is not False and not settings.get("barebones"):
        found.append(EpochBar() if wanted else progress_callback())
        settings["enable_progress_bar"] = isinstance(found[-1], EpochBar)
    return found


def _make_trainer(**settings: Any) -> Trainer:
    try:
        return Trainer(**settings)
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise ValueError(
            f"Expected the trainer's options to fit together and this machine (got: {error})"
        ) from error


def _ignore_lightning_warnings() -> None:
    """Silence Lightning's warnings about things that are intended here, and about its own code."""
    for message in (
        r".*module\(s\) in eval mode at the start of training",  # the frozen base
        r".*does not have many workers",  # clouds are small and in memory
        r".*isinstance\(treespec, LeafSpec\)",
        r".*Checkpoint directory .* exists and is not empty",  # that of the resumed run
        r".*Experiment logs directory .* exists",
        r".*callbacks used to create the checkpoint need to be provided",  # of earlier versions
    ):
        warnings.filterwarnings("ignore", message=message)


def _evaluate(
    model: PeftModel,
    data: ShapeDataModule,
    stage: str,
    precision: str,
    caches: Mapping[str, FeatureCache],
) -> Scored:
    loader = data.val_dataloader() if stage == "val" else data.test_dataloader()
    return data.task.evaluate(model, loader, precision=precision, cache=caches.get(stage))


def _check_views(caches: Mapping[str, FeatureCache], data: ShapeDataModule) -> None:
    if "train" in caches and data.train_set.num_views is None:
        raise ValueError(
            "Expected the data to have a fixed number of views to cache features of "
            "(got num_views=None)"
        )


def _caches(model: PeftModel, data: ShapeDataModule) -> dict[str, FeatureCache]:
    transform = str(data.preprocessing)
    return {stage: FeatureCache(model, f"{stage}: {transform}") for stage in ("train", "val")}


def _logger(name: str, folder: Path) -> Logger | None:
    if name == "none":
        return None
    if name == "csv":
        return CSVEpochs(folder, name="logs", version="")
    try:
        if name == "wandb":
            return WandbEpochs(name=folder.name, save_dir=folder, project="pyg_peft")
        return TensorBoardEpochs(folder, name="logs", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        if name == "wandb":
            raise ImportError(
                "Expected the package 'wandb' to be installed for the logger 'wandb' (got none): "
                "pip install wandb"
            ) from error
        raise MissingExtraError("tensorboard", "train") from error


__all__ = ["LOGGERS", "FitOptions", "FitReport", "check_run", "fit"]
