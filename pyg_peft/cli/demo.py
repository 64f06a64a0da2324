"""Tune, compare and predict in minutes, on a CPU, without a download.

The weights and the labeled shapes ship with the package: household shapes of eleven classes, about
fourteen of each to train on. Point-PEFT, full fine-tuning and a linear probe learn them with three
seeds. The folder given by --output receives report.html, which shows all results, and an adapter
folder for each method and seed.
"""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyg_peft.cli import predict
from pyg_peft.cli.demo_pictures import credits_of, draw_pictures, save_pictures, shown_rows
from pyg_peft.cli.demo_report import Outcome, Run, as_lines, verdict, write_report
from pyg_peft.cli.method import fill_bank, make_config, make_model
from pyg_peft.cli.say import say
from pyg_peft.datasets import NpzShapes, ScaleTranslate, keyed_generator
from pyg_peft.datasets.npz.furniture import FILE
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.errors import check_count, check_number
from pyg_peft.loading import open_backbone
from pyg_peft.model import PeftModel
from pyg_peft.storage import write_atomic
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.run import FitOptions, FitReport, fit
from pyg_peft.tuners import METHODS
from pyg_peft.viz.figure import style

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from matplotlib.figure import Figure

WEIGHTS = "point-mae-tiny"
REPORT = "report.html"
CREDITS = "CREDITS.md"
DEFAULT = ("point_peft", "linear_probe", "full_fine_tuning")
# Not searched, but for full fine-tuning: of 0.001 and 0.0003 the second was far better on the
# validation shapes of seed 0.
LARGE_LR, FULL_LR = 3e-3, 3e-4
NOTES = (
    "Test accuracies are means ± standard deviations over seeds. A seed changes the validation "
    "shapes, the order, the views and the new weights; the test shapes are the same. Training time "
    "is that of one seed: all epochs with their validation, computing frozen features once and, "
    "for Point-PEFT, filling its memory bank. The test is not in it.",
    "Each run keeps the epoch that was best on the validation shapes; the test shapes choose "
    "nothing. All methods have the same few epochs, and full fine-tuning gains most from more. The "
    "test set is small, and no learning rate is searched: the page on accuracy in the "
    "documentation has more data and a search.",
)


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`."""
    parser.add_function_arguments(run)


def run(
    output: str = "pyg_peft_demo",
    methods: Sequence[str] = DEFAULT,
    num_shapes: int | None = None,
    num_points: int = 1024,
    epochs: int = 5,
    lr: float | None = None,
    seeds: int = 3,
    seed: int = 0,
) -> dict[str, list[FitReport]]:
    """Run the demo.

    Args:
        output: Folder of the report, adapters and pictures. A finished demo in it is shown again;
            an interrupted one continues.
        methods: Methods to compare; the report shows details of the first.
        num_shapes: Number of labeled training shapes, at least four per class, and of test shapes;
            all by default.
        num_points: Number of points of a shape, 1,024 at most.
        epochs: Number of epochs of each run.
        lr: Learning rate; by default 0.0003 for full fine-tuning and 0.003 for the others.
        seeds: Number of runs of each method.
        seed: Random seed of the first run; the others count on from it.
    """
    methods = list(dict.fromkeys(methods))
    _check(methods, lr, seeds)
    style()  # raises now, not after the first method, if matplotlib is missing
    started, folder = time.monotonic(), Path(output)
    numbers = range(seed, seed + seeds)
    splits = {number: _make_data(num_shapes, num_points, number) for number in numbers}
    data = splits[seed]
    say(f"The backbone '{WEIGHTS}' and the shapes ship with the package.")
    say(
        f"\nTuning on {len(data.train_set) + len(data.val_set):,} labeled shapes of "
        f"{data.num_classes} classes: {', '.join(data.class_names)}"
    )
    found: dict[tuple[int, str], Run] = {}
    models: dict[str, PeftModel] = {}  # of the first seed
    figures: dict[str, tuple[str, Figure]] = {}
    outcomes: list[Outcome] = []
    cells = [(number, method) for number in numbers for method in methods]
    # Continue existing runs first. If one was started with other options, it raises before the
    # report is overwritten.
    begun = [cell for cell in cells if _folder(folder, *cell).exists()]
    written = 0
    for number, method in dict.fromkeys([*begun, *cells]):
        where = _folder(folder, number, method)
        found[number, method], model = _tune(method, splits[number], where, epochs, lr, number)
        say(f"{method}, seed {number}: {found[number, method]}")
        if number == seed:
            models[method] = model
        complete = [n for n in numbers if all((n, name) in found for name in methods)]
        # Write after each seed, so that an interrupted demo leaves a report.
        if len(found) >= len(begun) and len(complete) > written:
            written = len(complete)
            outcomes = [Outcome(name, [found[n, name] for n in complete]) for name in methods]
            figures = draw_pictures(outcomes, models, data)
            _write(folder, outcomes, figures, data)
    _show(outcomes)
    for picture in save_pictures(figures, folder):
        say(f"picture  {picture}")
    _predict(data, folder, _folder(folder, seed, methods[0]))
    say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes: open {folder / REPORT}")
    return {outcome.method: [run.report for run in outcome.runs] for outcome in outcomes}


def _check(methods: Sequence[str], lr: float | None, seeds: int) -> None:
    unknown = sorted(set(methods) - set(METHODS))
    if unknown or not methods:
        raise ValueError(
            f"Expected 'methods' to be of {', '.join(METHODS)} (got {', '.join(unknown) or 'none'})"
        )
    if lr is not None:
        check_number(lr, "lr", above=0)
    check_count(seeds, "seeds")


def _folder(folder: Path, seed: int, method: str) -> Path:
    return folder / method / f"seed_{seed}"


def _make_data(num_shapes: int | None, num_points: int, seed: int) -> ShapeDataModule:
    train: Any = NpzShapes.furniture("train", normalize=False)
    test: Any = NpzShapes.furniture("test", normalize=False)
    check_count(num_points, "num_points", most=train.fields["xyz"].shape[1])
    if num_shapes is not None:
        check_count(num_shapes, "num_shapes", least=4 * train.num_classes)
        train, test = (shapes[_spread(shapes.labels, num_shapes)] for shapes in (train, test))
    return ShapeDataModule(
        train,
        None,
        test,
        class_names=train.class_names,
        preprocessing=Preprocessing(num_points),
        augmentation=ScaleTranslate(),
        batch_size=8,
        val_fraction=0.2,
        groups=torch.from_numpy(train.field("group").astype(np.int64)),
        num_views=2,
        seed=seed,
    )


def _spread(labels: Tensor, count: int) -> Tensor:
    """Return the rows of ``count`` shapes, spread evenly over the classes; the same each time."""
    order = torch.randperm(len(labels), generator=keyed_generator("demo"))
    taken: dict[int, int] = {}
    turns: list[int] = []  # how many shapes of its class come before a shape
    for label in labels[order].tolist():
        turns.append(taken.setdefault(label, 0))
        taken[label] += 1
    first = torch.tensor(turns).argsort(stable=True)[:count]
    return order[first].sort().values


def _tune(
    method: str,
    data: ShapeDataModule,
    folder: Path,
    epochs: int,
    lr: float | None,
    seed: int,
) -> tuple[Run, PeftModel]:
    """Train one method with one seed, or return the result of its earlier run."""
    base = open_backbone(WEIGHTS, data.num_classes, {}, seed)
    started = time.monotonic()
    bank = fill_bank(base, data, seed=seed) if make_config(method, {}).takes_memory_bank else None
    seconds = time.monotonic() - started
    model = make_model(base, method, {}, bank, seed)
    cloud: Any = data.val_set[0]
    rate = lr if lr is not None else FULL_LR if method == "full_fine_tuning" else LARGE_LR
    report = fit(
        model,
        data,
        folder,
        # Frozen tokens can be cached between epochs, unless the method changes the patch embedding.
        options=FitOptions(
            lr=rate, cache="tokens" in model.precompute(pos=cloud.pos), logger="csv"
        ),
        trainer={
            "max_epochs": epochs,
            "enable_model_summary": False,
            "enable_progress_bar": sys.stdout.isatty(),
            "accelerator": "cpu",
        },
        resume=True,
        metadata={"weights": {"source": WEIGHTS, "seed": seed}},
    )
    counts = model.count_parameters()
    body = (p.numel() for name, p in base.named_parameters() if _is_body(name))
    run = Run(
        report=report,
        trained=counts.trainable,
        without_head=counts.without_head,
        backbone=sum(body),
        file_bytes=(folder / "adapter_model.safetensors").stat().st_size,
        bank_bytes=sum(p.stat().st_size for p in folder.glob("memory_bank*")),
        seconds=seconds + report.seconds,
    )
    return run, model


def _show(outcomes: Sequence[Outcome]) -> None:
    """Print the table, as wide as the terminal, and what it means."""
    width = shutil.get_terminal_size((200, 24)).columns
    say()
    for line in as_lines(outcomes, width):
        say(line)
    for text in (*verdict(outcomes), *NOTES):
        say()
        for line in textwrap.wrap(text, min(width, 100)):
            say(line)
    say()


def _write(
    folder: Path,
    outcomes: Sequence[Outcome],
    figures: "dict[str, tuple[str, Figure]]",
    data: ShapeDataModule,
) -> None:
    seeds = len(outcomes[0].runs)
    adapter = f"{outcomes[0].method}/seed_{data.seed}"
    write_report(
        folder / REPORT,
        outcomes,
        figures,
        lead=(
            f"{len(data.train_set) + len(data.val_set)} labeled household shapes of "
            f"{data.num_classes} classes, {outcomes[0].evaluation.count // seeds} unseen ones to "
            f"test, the backbone '{WEIGHTS}', {len(outcomes)} method{'s' * (len(outcomes) > 1)}, "
            f"{seeds} seed{'s' * (seeds > 1)}."
        ),
        notes=[*verdict(outcomes), *NOTES],
        commands=[
            f"pyg-peft predict {adapter} shapes     # in the folder of this report",
            "pyg-peft fit --data FOLDER --output adapter      # a folder per class, your own files",
        ],
        credits=[
            "The shapes are from the catalogs of Sweet Home 3D, sampled to points; "
            f"{CREDITS} beside this report names the license and the author of each. Shown here:",
            *credits_of(data),
        ],
    )
    text = (FILE.parent / "LICENSES.md").read_text("utf-8")
    write_atomic(folder / CREDITS, lambda path: path.write_text(text, "utf-8"))


def _is_body(name: str) -> bool:
    parts = name.split(".")
    return "peft" not in parts and parts[0] != "head"


def _predict(data: ShapeDataModule, folder: Path, adapter: Path) -> None:
    """Load the saved adapter onto a new base and classify files."""
    say(f"\nThe adapter in {adapter}, loaded again, on files of unseen shapes:")
    shapes: Any = data.test_set
    files: list[str] = []
    for row in shown_rows(data)[:3]:
        item = shapes.dataset[row]
        path = folder / "shapes" / f"{data.class_names[int(item.y)]}_{row}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, item.pos.numpy())
        files.append(str(path))
    predict.run(str(adapter), files)
