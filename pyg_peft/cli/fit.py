"""Tune a backbone on labeled clouds and save the adapter.

The folder given by --output receives the adapter (weights, bank, classes, preprocessing), the
checkpoints from which --resume continues, the logs, and result.json with the numbers.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.cli.device import trainer_device
from pyg_peft.cli.from_adapter import read_start
from pyg_peft.cli.method import fill_bank, make_config, make_model, show_counts
from pyg_peft.cli.presets import expand_preset
from pyg_peft.cli.report.single import write_fit_report
from pyg_peft.cli.result import write_result
from pyg_peft.cli.say import printable, say
from pyg_peft.cli.scenes import check_features_used, scene_backbone_args, scene_data_args
from pyg_peft.datasets import CloudTargets, OutdoorAugment, PartLabels, ScaleTranslate, UpRotate
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.loading import backbone_class as find_class
from pyg_peft.loading import default_weights, open_backbone
from pyg_peft.training.comparing.draws import draw_episode
from pyg_peft.training.data.fingerprint import data_fingerprint
from pyg_peft.training.data.sources import Splits, shorthands
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.losses import check_loss, find_loss
from pyg_peft.training.fitting.run import FitOptions, FitReport, check_run, fit
from pyg_peft.training.fitting.tasks import DATA_MODULES, wrap_splits
from pyg_peft.training.tasks.registry import find_task

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

DEFAULT_METHOD = "point_peft"
TEST_FRACTION = 0.2  # of data without splits
AUGMENTATIONS = {
    "scale_translate": ScaleTranslate,
    "rotate": UpRotate,
    "outdoor": OutdoorAugment,
    "none": None,
}


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


def rewrite(arguments: list[str]) -> list[str]:
    """Replace ``--preset NAME`` by the options of the preset, which come first."""
    return expand_preset(arguments)


def run(  # noqa: PLR0913, since each argument is an option of the command
    data: str,
    output: str,
    preprocessing: Preprocessing,
    options: FitOptions,
    trainer: Any,
    task: str = "classification",
    method: str | None = None,
    method_args: dict[str, Any] | None = None,
    backbone: str | None = None,
    backbone_class: str | None = None,
    backbone_args: dict[str, Any] | None = None,
    data_args: dict[str, Any] | None = None,
    label_field: str | None = None,
    ignore_label: int | list[int] | None = None,
    classes: dict[str, str] | None = None,
    bank: bool = True,
    bank_per_class: int | None = None,
    augmentation: str = "scale_translate",
    num_views: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int = 32,
    val_fraction: float = 0.15,
    test_fraction: float | None = None,
    test_seed: int = 0,
    group_field: str | None = None,
    episode: dict[str, int] | None = None,
    num_workers: int = 0,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    from_adapter: str | None = None,
    report: bool = True,
    preset: str | None = None,
    task_args: dict[str, Any] | None = None,
    balanced_sampling: bool = False,
    loss: str | None = None,
    loss_args: dict[str, Any] | None = None,
    license: str | None = None,
    data_license: str | None = None,
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
        method: Name of the method, for example lora, linear_probe, full_fine_tuning; by default
            that of from_adapter, otherwise point_peft.
        method_args: Settings of the method, for example {"bottleneck_channels": 32}.
        backbone: Name of shipped weights, a file, or "random". The default are the shipped weights
            for the backbone_class; a class for which none ship needs a file.
        backbone_class: Name of the model; PointMAE or PointMAESegmentation by default.
        backbone_args: Constructor arguments, for example {"num_centers": 128}.
        data_args: Arguments of the data set, for example {"fold": 2}.
        label_field: Field of the labels in tiles of a scene, for example classification.
        ignore_label: One or more labels of tiles whose points are ignored.
        classes: Names of the labels of tiles, for example {"2": "ground", "9": "water"}.
        bank: Whether to build a memory bank of the training samples for methods that use one.
        bank_per_class: Maximum number of samples of each class in the bank.
        augmentation: "scale_translate" or "rotate", the two published protocols, "outdoor"
            for scenes, or "none".
        num_views: Number of versions of each training sample; required for --options.cache.
        epochs: Number of epochs, 50 by default; short for trainer.max_epochs.
        lr: Largest learning rate, 0.001 by default; short for options.lr.
        batch_size: Maximum number of clouds per step and process; every epoch uses all clouds.
        val_fraction: Share of the training set that selects the best epoch, unless the data have a
            validation split. With 0, none is used and the last epoch is kept.
        test_fraction: Share of the training set that is held out for testing, class by class. The
            default is 0.2 for data without splits, otherwise 0.
        test_seed: Seed of the held-out test set. Runs with different seeds share one test set.
        group_field: Per-cloud field of an .npz file; clouds of the same group are kept in the same
            split.
        episode: Few-shot task to train and test on, for example {"ways": 5, "shots": 10, "queries":
            20, "number": 0}.
        num_workers: Number of processes that load data.
        seed: Random seed.
        device: "cpu", "cuda", "cuda:1" and so on; "auto" is a GPU if there is one. The options of
            trainer choose several.
        resume: Whether to continue a run in --output that was interrupted, or to train a finished
            one for more epochs.
        from_adapter: Folder of a saved adapter to start from, with its method, settings, backbone
            and preprocessing. Its head is kept if the classes are the same.
        report: Whether to write report.html, with pictures, to --output (extra viz).
        preset: Name of a published recipe, whose options other options replace:
            point_peft_scanobjectnn, point_mae_scanobjectnn or modelnet40_few_shot.
        task_args: Settings of the task, for example {"class_weights": "balanced"}.
        balanced_sampling: Whether clouds of rare classes are repeated in each epoch.
        loss: Path of a loss of your own, a class of modules or a function, for example
            my_losses.FocalLoss. It is never read from a result.
        loss_args: Arguments of that loss.
        license: License of the adapter for its model card, for example apache-2.0.
        data_license: License of the data, for the model card.
    """
    _check_choices(preset, augmentation, num_views, options)
    augment = AUGMENTATIONS[augmentation]
    options = options if lr is None else replace(options, lr=lr)
    settings = _trainer_settings(trainer, epochs, device)
    check_run(output, options, settings, resume=resume)
    start = None
    if from_adapter is not None:
        start = read_start(
            from_adapter,
            task=task,
            method=method,
            method_args=method_args,
            backbone_class=backbone_class,
            preprocessing=preprocessing,
            bank=bank,
        )
        method, method_args, preprocessing = start.method, start.settings, start.preprocessing
        bank, backbone_class = start.has_bank, start.backbone_class
        backbone = backbone or start.weights
    config = make_config(method or DEFAULT_METHOD, method_args or {})
    own_loss = None if loss is None else find_loss(loss, loss_args)
    data_args = scene_data_args(task, data_args, label_field, ignore_label, classes)
    kind = find_class(backbone_class, find_task(task).head)
    weights = default_weights(kind) if backbone is None else backbone
    splits = DATA_MODULES[task].open_splits(data, **(data_args or {}))
    fingerprint = data_fingerprint(splits, data)
    splits = _draw_episode(splits, episode, group_field)
    share = test_fraction
    if share is None:
        share = getattr(splits.train, "test_fraction", TEST_FRACTION) if splits.whole else 0.0
    module = wrap_splits(
        task,
        splits,
        preprocessing=preprocessing,
        augmentation=augment() if augment else None,
        batch_size=batch_size,
        val_fraction=val_fraction,
        test_fraction=share,
        test_seed=test_seed,
        groups=groups_of(splits.train, group_field),
        num_views=num_views,
        num_workers=num_workers,
        seed=seed,
        task_args=task_args,
        balanced_sampling=balanced_sampling,
    )
    module.check_trainable()
    check_loss(own_loss, module)
    backbone_args = scene_backbone_args(kind, module, backbone_args)
    outputs, sizes = module.task.num_outputs, backbone_args or {}
    if start is None:
        base = open_backbone(weights, outputs, sizes, seed, kind)
    else:
        base = start.open_base(weights, sizes, outputs)
    wants_bank = bank and config.takes_memory_bank and is_token_backbone(base)
    rows = fill_bank(base, module, per_class=bank_per_class, seed=seed) if wants_bank else None
    model = make_model(base, config.method, method_args or {}, rows, seed)
    check_features_used(model, module)
    started = None if start is None else start.load_into(model, module.class_names)
    _show_start(kind, weights, module, share)
    show_counts(model)
    done = fit(
        model,
        module,
        output,
        options=options,
        trainer=settings,
        resume=resume,
        metadata=start.metadata(weights)
        if start
        else {"weights": {"source": weights, "seed": seed}},
        card=_card(data, license, data_license),
        loss=own_loss,
    )
    if done.is_main:
        run: dict[str, Any] = {
            "task": task,
            "task_args": task_args or {},
            "balanced_sampling": balanced_sampling,
            "loss": loss,
            "loss_args": loss_args or {},
            "data": data,
            "data_args": data_args or {},
            "data_fingerprint": fingerprint,
            "preprocessing": preprocessing.to_dict(),
            "backbone": weights,
            "backbone_class": kind.__name__,
            "backbone_args": backbone_args or {},
            "from_adapter": started,
            "method": config.method,
            "method_args": method_args or {},
            "bank": bank,
            "bank_per_class": bank_per_class,
            "options": asdict(options),
            "trainer": settings,
            "augmentation": augmentation,
            "batch_size": batch_size,
            "val_fraction": val_fraction,
            "test_fraction": share,
            "test_seed": test_seed,
            "group_field": group_field,
            "episode": episode,
            "num_views": num_views,
            "num_workers": num_workers,
            "seed": seed,
            "precision": str(settings.get("precision", "32-true")),
        }
        write_result(done, model, module, Path(output), run)
        if report:
            write_fit_report(done, model, module, Path(output), run)
    _show_end(done, settings)
    say(f"adapter: {output}")
    return done


def _check_choices(
    preset: str | None, augmentation: str, num_views: int | None, options: FitOptions
) -> None:
    """Raise for options that do not fit together, before data are opened."""
    if preset is not None:
        raise ValueError(
            f"Expected 'preset' on the command line, not in a configuration file (got {preset!r})"
        )
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"Expected 'augmentation' to be one of {', '.join(AUGMENTATIONS)} "
            f"(got {augmentation!r})"
        )
    if options.cache and num_views is None:
        raise ValueError("Expected 'num_views' to be a number for 'options.cache' (got None)")


def _show_end(done: FitReport, settings: dict[str, Any]) -> None:
    """Print the results of a run."""
    if done.extended:
        say(
            f"the run of {done.extended[-1]} epochs was continued to {settings['max_epochs']}, "
            "on the learning rate of a cosine over all of them"
        )
    if done.val is None:
        say(f"nothing validated: the last epoch, {done.epoch}, is kept, whatever it is worth")
    else:
        say(f"best epoch {done.epoch}: validation {done.val}")
    if done.test is not None:
        say(f"test {done.test}")
        for line in done.test.table():
            say(printable(line))


def _draw_episode(
    splits: Splits, episode: dict[str, int] | None, group_field: str | None
) -> Splits:
    """Draw a few-shot task from the data, if one is given."""
    if episode is None:
        return splits
    expected = {"ways", "shots", "queries", "number"}
    if set(episode) != expected:
        raise ValueError(
            f"Expected 'episode' to hold {', '.join(sorted(expected))} (got {episode})"
        )
    if group_field is not None:
        raise ValueError(f"Expected 'group_field' to be None with 'episode' (got {group_field!r})")
    return draw_episode(splits, **episode)


def _card(data: str, license: str | None, data_license: str | None) -> dict[str, str]:
    """Return facts for the model card: the name of the data without their place, and licenses."""
    kind, colon, _ = data.partition(":")
    is_shorthand = bool(colon) and len(kind) > 1  # a single letter is a drive
    name = data if kind == "procedural" else kind if is_shorthand else Path(data).resolve().name
    found = {"data": name, "license": license, "data_license": data_license}
    return {key: value for key, value in found.items() if value is not None}


def _trainer_settings(trainer: Any, epochs: int | None, device: str) -> dict[str, Any]:
    """Return the arguments of the trainer that are set, also by their short options."""
    settings = {k: v for k, v in vars(trainer).items() if v is not None}
    if epochs is not None:
        settings["max_epochs"] = epochs
    chosen = trainer_device(device)
    given = [name for name in chosen if settings.get(name, "auto") != "auto"]
    if given:
        raise ValueError(
            f"Expected either 'device' or 'trainer.{given[0]}' to be given (got {device!r} and "
            f"{settings[given[0]]!r})"
        )
    return {**settings, **chosen}


def _show_start(
    kind: type[Any], weights: str, module: ShapeDataModule, test_fraction: float
) -> None:
    """Print the backbone and the splits of a run."""
    if weights == "random":
        say(
            f"backbone: {kind.__name__} with random weights, which stay frozen and have learned "
            "nothing; --backbone names others"
        )
    else:
        say(f"backbone: {kind.__name__}, {weights}")
    tested = 0 if module.test_set is None else len(module.test_set)
    say(
        f"{len(module.train_set):,} clouds train, {len(module.val_set):,} validate, "
        f"{tested:,} test, {module.num_classes} {module.task.output_word}"
    )
    if test_fraction > 0:
        say(
            f"the test clouds are {100 * test_fraction:.3g} % of each class, held out; "
            "--test_fraction 0 trains on them too"
        )
    elif not tested:
        say("no test split: the result says nothing about other data")


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
