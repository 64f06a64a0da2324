"""Tune a backbone on labeled clouds and save the adapter.

The folder given by --output receives the adapter (weights, bank, classes, preprocessing), the
checkpoints from which --resume continues, the logs, and result.json with the numbers.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.cli.method import fill_bank, make_config, make_model, show_counts
from pyg_peft.cli.say import say
from pyg_peft.cli.weights import backbone_class as find_class
from pyg_peft.cli.weights import open_backbone
from pyg_peft.datasets import CloudTargets, PartLabels, ScaleTranslate, UpRotate
from pyg_peft.storage import remove_leftovers, write_atomic
from pyg_peft.training.data.preprocessing import Preprocessing
from pyg_peft.training.data.sources import shorthands
from pyg_peft.training.fitting.losses import check_loss, find_loss
from pyg_peft.training.fitting.run import FitOptions, FitReport, check_run, fit
from pyg_peft.training.fitting.tasks import DATA_MODULES, wrap_splits
from pyg_peft.training.tasks.registry import find_task

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

RESULT = "result.json"
AUGMENTATIONS = {"scale_translate": ScaleTranslate, "rotate": UpRotate, "none": None}


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run` and those of Lightning's trainer."""
    from lightning import Trainer

    parser.add_function_arguments(run, skip={"trainer"})
    own: set[str | int] = {"callbacks", "logger", "default_root_dir", "use_distributed_sampler"}
    own |= {
        "plugins",
        "enable_checkpointing",
        "num_sanity_val_steps",
        "log_every_n_steps",
        "model_registry",
    }
    parser.add_class_arguments(Trainer, "trainer", skip=own, instantiate=False)
    parser.set_defaults(
        {
            "trainer.max_epochs": 50,
            "trainer.gradient_clip_val": 10.0,
            "trainer.enable_model_summary": False,
        }
    )
    parser.epilog = f"--data is one of\n{shorthands()}"


def run(  # noqa: PLR0913, since each argument is an option of the command
    data: str,
    output: str,
    preprocessing: Preprocessing,
    options: FitOptions,
    trainer: Any,
    task: str = "classification",
    method: str = "point_peft",
    method_args: dict[str, Any] | None = None,
    backbone: str = "random",
    backbone_class: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    data_args: dict[str, Any] | None = None,
    bank: bool = True,
    bank_per_class: int | None = None,
    augmentation: str = "scale_translate",
    num_views: int | None = None,
    batch_size: int = 32,
    val_fraction: float = 0.15,
    group_field: str | None = None,
    num_workers: int = 0,
    seed: int = 0,
    resume: bool = False,
    task_args: dict[str, Any] | None = None,
    balanced_sampling: bool = False,
    loss: str | None = None,
    loss_args: dict[str, Any] | None = None,
) -> FitReport:
    """Tune a backbone and save the adapter.

    Args:
        data: Training data; the help of this command ends with the shorthands.
        output: Folder to which the adapter is saved.
        preprocessing: Number of points, normalization and up axis; saved with the adapter.
        options: Training options, such as the learning rate.
        trainer: Arguments of Lightning's trainer.
        task: "classification" of clouds, "segmentation" of points into parts, "regression" of
            numbers, "multi_label", or a task that an imported module registered.
        method: Name of the method, for example point_peft, lora, linear_probe, full_fine_tuning.
        method_args: Settings of the method, for example {"bottleneck_channels": 32}.
        backbone: "random", the name of shipped weights, or a file.
        backbone_class: Name of the model; PointMAE or PointMAESegmentation by default.
        backbone_args: Constructor arguments, for example {"num_centers": 128}.
        data_args: Arguments of the data set, for example {"fold": 2}.
        bank: Whether to build a memory bank of the training samples for methods that use one.
        bank_per_class: Maximum number of samples of each class in the bank.
        augmentation: "scale_translate" or "rotate", the two published protocols, or "none".
        num_views: Number of versions of each training sample; required for --options.cache.
        batch_size: Maximum number of clouds per step and process; every epoch uses all clouds.
        val_fraction: Share of the training set that selects the best epoch, unless the data have a
            validation split. With 0, all data are used for training and the last epoch is kept.
        group_field: Per-cloud field of an .npz file; clouds of the same group are kept in the same
            split.
        num_workers: Number of processes that load data.
        seed: Random seed.
        resume: Whether to continue an interrupted run in --output.
        task_args: Settings of the task, for example {"class_weights": "balanced"}.
        balanced_sampling: Whether clouds of rare classes are repeated in each epoch.
        loss: Path of a loss of your own, a class of modules or a function, for example
            my_losses.FocalLoss. It is never read from a result.
        loss_args: Arguments of that loss.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"Expected 'augmentation' to be one of {', '.join(AUGMENTATIONS)} "
            f"(got {augmentation!r})"
        )
    augment = AUGMENTATIONS[augmentation]
    settings = {k: v for k, v in vars(trainer).items() if v is not None}
    check_run(output, options, settings, resume=resume)
    config = make_config(method, method_args or {})
    own_loss = None if loss is None else find_loss(loss, loss_args)
    if options.cache and num_views is None:
        raise ValueError("Expected 'num_views' to be a number for 'options.cache' (got None)")
    kind = find_class(backbone_class, find_task(task).head)
    splits = DATA_MODULES[task].open_splits(data, **(data_args or {}))
    module = wrap_splits(
        task,
        splits,
        preprocessing=preprocessing,
        augmentation=augment() if augment else None,
        batch_size=batch_size,
        val_fraction=val_fraction,
        groups=groups_of(splits.train, group_field),
        num_views=num_views,
        num_workers=num_workers,
        seed=seed,
        task_args=task_args,
        balanced_sampling=balanced_sampling,
    )
    module.check_trainable()
    check_loss(own_loss, module)
    base = open_backbone(backbone, module.task.num_outputs, backbone_args or {}, seed, kind)
    wants_bank = bank and config.takes_memory_bank and is_token_backbone(base)
    rows = fill_bank(base, module, per_class=bank_per_class, seed=seed) if wants_bank else None
    model = make_model(base, method, method_args or {}, rows, seed)
    say(
        f"{len(module.train_set):,} clouds train, {len(module.val_set):,} validate, "
        f"{0 if module.test_set is None else len(module.test_set):,} test, "
        f"{module.num_classes} {module.task.output_word}"
    )
    show_counts(model)
    report = fit(
        model,
        module,
        output,
        options=options,
        trainer=settings,
        resume=resume,
        metadata={"weights": {"source": backbone, "seed": seed}},
        loss=own_loss,
    )
    if report.is_main:
        _write_result(
            report,
            Path(output),
            {
                "task": task,
                "task_args": task_args or {},
                "balanced_sampling": balanced_sampling,
                "loss": loss,
                "loss_args": loss_args or {},
                "data": data,
                "data_args": data_args or {},
                "batch_size": batch_size,
                "seed": seed,
                "method": method,
                "method_args": method_args or {},
                "options": asdict(options),
                "augmentation": augmentation,
                "val_fraction": val_fraction,
                "group_field": group_field,
                "num_views": num_views,
                "precision": str(settings.get("precision", "32-true")),
            },
            0 if rows is None else len(rows),
        )
    if report.val is None:
        say(f"nothing validated: the last epoch, {report.epoch}, is kept, whatever it is worth")
    else:
        say(f"best epoch {report.epoch}: validation {report.val}")
    if report.test is not None:
        say(f"test {report.test}")
    say(f"adapter: {output}")
    return report


def groups_of(dataset: Any, field: str | None) -> Any:
    """Return the number of the group of each cloud, or ``None`` without a field."""
    if field is None:
        return None
    import torch

    dataset = dataset.dataset if isinstance(dataset, PartLabels | CloudTargets) else dataset
    if not hasattr(dataset, "field"):
        raise ValueError(f"Expected 'group_field' for a FILE.npz only (got {field!r})")
    names: dict[Any, int] = {}
    values = dataset.field(field).tolist()
    return torch.tensor([names.setdefault(value, len(names)) for value in values])


def _write_result(report: FitReport, folder: Path, run: dict[str, Any], bank_rows: int) -> None:
    numbers = {
        name: found.numbers()
        for name, found in (("val", report.val), ("test", report.test))
        if found is not None
    }
    kept = {"kept_epoch": report.epoch, "chosen_by": report.chosen_by}
    content = {"run": run, "bank_rows": bank_rows, **kept, **numbers}
    content["curves"] = report.curves
    text = json.dumps(content, indent=2) + "\n"
    remove_leftovers(folder, RESULT)
    write_atomic(folder / RESULT, lambda path: path.write_text(text))
