"""Train a cell of a comparison, or test its adapter: the work of one process."""

import functools
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.cli.comparing.experiment import Cell, Experiment, Job, Results
from pyg_peft.cli.device import trainer_device
from pyg_peft.cli.fit import AUGMENTATIONS, groups_of
from pyg_peft.cli.method import make_model
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.loading import backbone_class, open_backbone
from pyg_peft.model import PeftModel
from pyg_peft.nn import MemoryBank
from pyg_peft.storage import write_atomic
from pyg_peft.training.comparing.answers import collect_answers
from pyg_peft.training.comparing.draws import draw
from pyg_peft.training.comparing.features import SharedFeatures, can_cache
from pyg_peft.training.comparing.memory import peak_memory
from pyg_peft.training.data.sources import Splits, open_source
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.options import FitOptions
from pyg_peft.training.fitting.run import fit
from pyg_peft.training.tasks.classification import Evaluation
from pyg_peft.tuners import METHODS

MISTAKES = 8  # the most confident ones that are kept of each test
# Settings that decide which clouds and views there are; the rest is a method's business.
_OF_CLOUDS = (
    *("backbone", "backbone_class", "backbone_args", "data_args", "augmentation", "num_views"),
    *("batch_size", "val_fraction", "test_fraction", "shots", "group_field"),
)


def do_job(experiment: Experiment, folder: Path, job: Job) -> None:
    """Do one job and write its file, which is whole or absent."""
    threads = torch.get_num_threads()
    if torch.device(experiment.device).type == "cpu":
        torch.set_num_threads(1)  # the same bits for any number of processes
    try:
        results = Results(folder, experiment)
        record = (_test if job.tests else _train)(experiment, results, job.cell)
    finally:
        torch.set_num_threads(threads)
    text = json.dumps(record) + "\n"
    write_atomic(results.file(job), lambda path: path.write_text(text))
    if job.tests and job.cell.seed == 0:
        for rate in experiment.rates:  # the choice is recorded now
            if rate != job.cell.lr:
                shutil.rmtree(results.adapter(replace(job.cell, lr=rate)), ignore_errors=True)


@functools.lru_cache(maxsize=2)
def open_data(spec: str, data_args: str) -> Splits:
    """Open a source once per process; its arguments are given as JSON."""
    return open_source(spec, **json.loads(data_args))


def open_cell(experiment: Experiment, cell: Cell) -> tuple[ShapeDataModule, bool]:
    """Return the clouds of a cell, and whether another seed has other test clouds."""
    training = experiment.training
    splits = open_data(experiment.data[cell.data], json.dumps(training["data_args"]))
    augment = AUGMENTATIONS[training["augmentation"]]
    groups = groups_of(splits.train, training["group_field"])
    drawn = draw(
        splits,
        cell.seed,
        val_fraction=training["val_fraction"],
        test_fraction=training["test_fraction"],
        shots=training["shots"],
        groups=groups,
    )
    data = ShapeDataModule(
        drawn.train,
        drawn.val,
        drawn.test,
        class_names=splits.class_names,
        preprocessing=experiment.preprocessing,
        augmentation=augment() if augment else None,
        batch_size=training["batch_size"],
        num_views=training["num_views"],
        seed=cell.seed,
    )
    return data, drawn.resampled


def open_base(experiment: Experiment, num_classes: int, seed: int) -> Any:
    """Return the backbone with a new head drawn from ``seed``."""
    training = experiment.training
    kind = backbone_class(training["backbone_class"], "classification")
    return open_backbone(training["backbone"], num_classes, training["backbone_args"], seed, kind)


def open_model(experiment: Experiment, cell: Cell, data: ShapeDataModule) -> PeftModel:
    """Return the model of a cell before its training."""
    base = open_base(experiment, data.num_classes, cell.seed)
    bank = None
    takes = experiment.training["bank"] and METHODS[cell.method].takes_memory_bank
    if takes and is_token_backbone(base):
        generator = keyed_generator(cell.seed, "bank")
        bank = MemoryBank.from_loader(base, data.bank_dataloader(), generator=generator)
    settings = experiment.method_args.get(cell.method, {})
    return make_model(base, cell.method, settings, bank, cell.seed)


def load_model(experiment: Experiment, results: Results, cell: Cell, num_classes: int) -> PeftModel:
    """Return the model of a finished cell, from the adapter that it saved."""
    base = open_base(experiment, num_classes, cell.seed)
    return PeftModel.from_pretrained(base, results.adapter(cell))


def _train(experiment: Experiment, results: Results, cell: Cell) -> dict[str, Any]:
    """Train without test clouds, keep the epoch that is best on validation, save the adapter."""
    training, device = experiment.training, torch.device(experiment.device)
    data, resampled = open_cell(experiment, cell)
    test_count = len(data.test_set or ())
    data.test_set = None  # the search must not see it, and the test is made once
    data.check_trainable()
    model = open_model(experiment, cell, data)
    shared = None
    if can_cache(model, data):
        clouds = {name: training[name] for name in _OF_CLOUDS}
        clouds |= {"data": experiment.fingerprints[cell.data], "seed": cell.seed}
        clouds |= {"preprocessing": experiment.preprocessing.to_dict(), "device": device.type}
        shared = SharedFeatures(model, clouds, results.folder / "features")
    place = results.adapter(cell)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results.folder, prefix=".part_") as scratch:
        begun, busy = time.perf_counter(), time.process_time()
        with peak_memory(device) as peak:
            report = fit(
                model,
                data,
                scratch,
                options=FitOptions(lr=cell.lr, logger="none"),
                caches=None if shared is None else shared.caches,
                trainer={
                    "max_epochs": training["epochs"],
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    **trainer_device(experiment.device),
                },
                metadata={"weights": {"source": training["backbone"], "seed": cell.seed}},
            )
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
        spared = 0.0 if shared is None else shared.spared_seconds
        if shared is not None:
            shared.save()
        shutil.rmtree(Path(scratch) / "checkpoints")
        if place.exists():
            shutil.rmtree(place)  # of a process that was killed before it wrote the result
        shutil.copytree(scratch, place)
    counts = model.count_parameters()
    files = {path.name: path.stat().st_size for path in place.glob("*.safetensors")}
    val: Evaluation = report.val
    return {
        "lr": cell.lr,
        "clouds": {"train": len(data.train_set), "val": len(data.val_set), "test": test_count},
        "classes": list(data.class_names),
        "resampled": resampled,
        "kept_epoch": report.epoch,
        "val": {**_numbers(val), "loss": report.curves["val_loss"][report.epoch - 1]},
        "curves": report.curves,
        "parameters": {
            "trainable": counts.trainable,
            "without_head": counts.without_head,
            "frozen": counts.frozen,
        },
        "adapter_bytes": files.pop("adapter_model.safetensors"),
        "bank_bytes": sum(files.values()),
        "seconds": seconds + spared,
        "cpu_seconds": busy + spared,
        "peak_mebibytes": peak.mebibytes,
    }


def _test(experiment: Experiment, results: Results, cell: Cell) -> dict[str, Any]:
    """Classify every test cloud once with the saved adapter."""
    data, _ = open_cell(experiment, cell)
    model = load_model(experiment, results, cell, data.num_classes).to(experiment.device)
    answers = collect_answers(data.task, model, data.test_dataloader())  # pyright: ignore[reportArgumentType]
    found = answers.mistakes(MISTAKES)
    return {
        "lr": cell.lr,
        "test": _numbers(answers.evaluation),
        "mistakes": [vars(mistake) for mistake in found],
    }


def _numbers(found: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": found.accuracy,
        "macro_accuracy": found.macro_accuracy,
        "confusion": found.confusion.tolist(),
    }


__all__ = ["do_job", "load_model", "open_base", "open_cell", "open_data"]
