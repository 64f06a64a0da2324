"""Tune, compare and predict in minutes, on a CPU, without a download.

The weights ship with the package, and the labeled shapes are generated. Point-PEFT, full
fine-tuning and a linear probe learn twelve classes from ten shapes each. The folder given by
--output receives report.html, which shows all results, and an adapter folder for each method.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyg_peft.cli import predict
from pyg_peft.cli.demo_pictures import draw_pictures, save_pictures
from pyg_peft.cli.demo_report import Outcome, as_lines, write_report
from pyg_peft.cli.method import fill_bank, make_config, make_model
from pyg_peft.cli.say import say
from pyg_peft.datasets import ProceduralShapes, ScaleTranslate
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.errors import check_number
from pyg_peft.loading import open_backbone
from pyg_peft.model import PeftModel
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.run import FitOptions, FitReport, fit
from pyg_peft.tuners import METHODS
from pyg_peft.viz.figure import style

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from matplotlib.figure import Figure

WEIGHTS = "point-mae-tiny"
REPORT = "report.html"
DEFAULT = ("point_peft", "linear_probe", "full_fine_tuning")
# Not tuned: if few parameters are trained, larger steps are safe.
LARGE_LR, FULL_LR = 3e-3, 1e-3


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`."""
    parser.add_function_arguments(run)


def run(
    output: str = "pyg_peft_demo",
    methods: Sequence[str] = DEFAULT,
    num_shapes: int = 120,
    num_points: int = 1024,
    epochs: int = 25,
    lr: float | None = None,
    seed: int = 0,
) -> dict[str, FitReport]:
    """Run the demo.

    Args:
        output: Folder of the report, adapters and pictures. A finished demo in it is shown again;
            an interrupted one continues.
        methods: Methods to compare; the report shows details of the first.
        num_shapes: Number of labeled training shapes, at least one per class. Half as many are used
            for validation, and twice as many for testing.
        num_points: Number of points of a shape.
        epochs: Number of epochs of each method.
        lr: Learning rate; by default 0.001 for full fine-tuning and 0.003 for the others.
        seed: Random seed.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown or not methods:
        raise ValueError(
            f"Expected 'methods' to be of {', '.join(METHODS)} (got {', '.join(unknown) or 'none'})"
        )
    least = len(ProceduralShapes.class_names)
    if num_shapes < least:
        raise ValueError(f"Expected 'num_shapes' to be at least {least} (got {num_shapes})")
    if lr is not None:
        check_number(lr, "lr", above=0)
    style()  # raises now, not after the first method, if matplotlib is missing
    started, folder = time.monotonic(), Path(output)
    say(f"The backbone is '{WEIGHTS}', which ships with the package.")
    data = _make_data(num_shapes, num_points, seed)
    say(
        f"\nTuning on {len(data.train_set):,} labeled shapes of {data.num_classes} classes: "
        f"{', '.join(data.class_names)}"
    )
    methods = list(dict.fromkeys(methods))
    found: dict[str, Outcome] = {}
    outcomes: list[Outcome] = []
    models: dict[str, PeftModel] = {}
    figures: dict[str, tuple[str, Figure]] = {}
    # Continue existing runs first. If one was started with other options, it raises before the
    # report is overwritten.
    begun = [method for method in methods if (folder / method).exists()]
    for method in dict.fromkeys([*begun, *methods]):
        say(f"\n{method}")
        found[method], models[method] = _tune(method, data, folder, epochs, lr, seed)
        if len(found) < len(begun):
            continue
        # Write after each method, so that an interrupted demo leaves a report.
        outcomes = [found[name] for name in methods if name in found]
        figures = draw_pictures(outcomes, models, data)
        _write(folder, outcomes, figures, data)
    say()
    for line in as_lines(outcomes):
        say(line)
    say("One seed, a small test set: a difference of a few per cent means nothing here.\n")
    for picture in save_pictures(figures, folder):
        say(f"picture  {picture}")
    _predict(data, folder, methods[0])
    say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes: open {folder / REPORT}")
    return {outcome.method: outcome.report for outcome in outcomes}


def _make_data(num_shapes: int, num_points: int, seed: int) -> ShapeDataModule:
    say("making labeled shapes")
    sizes = {"train": num_shapes, "val": max(1, num_shapes // 2), "test": 2 * num_shapes}
    # In memory, because generating a shape takes longer than training on it.
    train, val, test = (
        list(ProceduralShapes(split, size, num_points, seed)) for split, size in sizes.items()
    )
    return ShapeDataModule(
        train,
        val,
        test,
        class_names=ProceduralShapes.class_names,
        preprocessing=Preprocessing(num_points),
        augmentation=ScaleTranslate(),
        batch_size=min(16, max(2, num_shapes // 4)),
        num_views=4,
        seed=seed,
    )


def _tune(
    method: str,
    data: ShapeDataModule,
    folder: Path,
    epochs: int,
    lr: float | None,
    seed: int,
) -> tuple[Outcome, PeftModel]:
    """Train one method, or return the result of its earlier run."""
    started = time.monotonic()
    base = open_backbone(WEIGHTS, data.num_classes, {}, seed)
    bank = fill_bank(base, data, seed=seed) if make_config(method, {}).takes_memory_bank else None
    model = make_model(base, method, {}, bank, seed)
    cloud: Any = data.val_set[0]
    rate = lr if lr is not None else FULL_LR if method == "full_fine_tuning" else LARGE_LR
    report = fit(
        model,
        data,
        folder / method,
        # Frozen tokens can be cached between epochs, unless the method changes the patch embedding.
        options=FitOptions(
            lr=rate, cache="tokens" in model.precompute(pos=cloud.pos), logger="csv"
        ),
        trainer={"max_epochs": epochs, "enable_model_summary": False, "accelerator": "cpu"},
        resume=True,
        metadata={"weights": {"source": WEIGHTS, "seed": seed}},
    )
    counts = model.count_parameters()
    body = (p.numel() for name, p in base.named_parameters() if _is_body(name))
    outcome = Outcome(
        method=method,
        report=report,
        trained=counts.trainable,
        without_head=counts.without_head,
        backbone=sum(body),
        file_bytes=(folder / method / "adapter_model.safetensors").stat().st_size,
        bank_bytes=sum(p.stat().st_size for p in (folder / method).glob("memory_bank*")),
        seconds=time.monotonic() - started,
    )
    return outcome, model


def _write(
    folder: Path,
    outcomes: Sequence[Outcome],
    figures: "dict[str, tuple[str, Figure]]",
    data: ShapeDataModule,
) -> None:
    count = 0 if data.test_set is None else len(data.test_set)
    write_report(
        folder / REPORT,
        outcomes,
        figures,
        lead=(
            f"{len(data.train_set)} labeled shapes of {data.num_classes} classes, {count} unseen "
            f"ones to test, the backbone '{WEIGHTS}', "
            f"{len(outcomes)} method{'s' * (len(outcomes) > 1)}."
        ),
        notes=[
            "Each method keeps the epoch that was best on the validation shapes; the test shapes "
            "choose nothing. One seed, a small test set: a difference of a few per cent means "
            "nothing here. The table of accuracies in the documentation has real data, more seeds "
            "and a search of learning rates."
        ],
        commands=[
            f"pyg-peft predict {outcomes[0].method} shapes     # in the folder of this report",
            "pyg-peft fit --data FOLDER --output adapter      # a folder per class, your own files",
        ],
    )


def _is_body(name: str) -> bool:
    parts = name.split(".")
    return "peft" not in parts and parts[0] != "head"


def _predict(data: ShapeDataModule, folder: Path, method: str) -> None:
    """Load the saved adapter onto a new base and classify files."""
    say(f"\nThe adapter in {folder / method}, loaded again, on three files of unseen shapes:")
    if data.test_set is None:
        raise ValueError("Expected the data to have a test split (got none)")
    files: list[str] = []
    for number in range(3):
        item = data.test_set.dataset[number]
        path = folder / "shapes" / f"{data.class_names[int(item.y)]}_{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, item.pos.numpy())
        files.append(str(path))
    predict.run(str(folder / method), files)
