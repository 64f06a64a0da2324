"""Pre-train, tune, compare and predict: the whole walk in minutes, on a CPU, without a download.

Everything is learned from shapes that the package makes itself.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyg_peft.backbones import PointMAEPretraining
from pyg_peft.backbones.pretrained import POINT_MAE_FILES
from pyg_peft.cli import predict
from pyg_peft.cli.demo_pictures import draw_pictures
from pyg_peft.cli.method import fill_bank, make_config, make_model
from pyg_peft.cli.say import say
from pyg_peft.cli.weights import open_backbone
from pyg_peft.datasets import ScaleTranslate
from pyg_peft.training.corpus import ViewOptions, open_corpus
from pyg_peft.training.data import ShapeDataModule
from pyg_peft.training.fitting import FitOptions, FitReport, fit
from pyg_peft.training.preprocessing import Preprocessing
from pyg_peft.training.pretrain import CHECKPOINT, PretrainOptions, pretrain
from pyg_peft.training.sources import open_source

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

METHODS = ("point_peft", "linear_probe", "full_fine_tuning")
SIZES = {"embed_dim": 96, "depth": 4, "num_heads": 4, "num_centers": 32, "patch_size": 16}


def add_arguments(parser: "ArgumentParser") -> None:
    """Options from :func:`run`."""
    parser.add_function_arguments(run)


def run(
    output: str = "pyg_peft_demo",
    minutes: float = 1.0,
    num_shapes: int = 360,
    num_points: int = 512,
    epochs: int = 10,
    num_unlabelled: int = 2048,
    seed: int = 0,
) -> dict[str, FitReport]:
    """Show the walk.

    Args:
        output: folder of the adapters and pictures; a finished demo in it is shown again.
        minutes: time to pre-train, where the package ships no weights.
        num_shapes: labelled shapes to tune on; a quarter of it each validates and tests.
        num_points: points of a shape.
        epochs: passes over the labelled shapes, for each method.
        num_unlabelled: shapes to pre-train on.
        seed: of everything random.
    """
    started, folder = time.monotonic(), Path(output)
    weights = _weights(folder / "pretraining", minutes, num_points, num_unlabelled, seed)
    splits = open_source(f"procedural:{num_shapes}", num_points=num_points, seed=seed)
    data = ShapeDataModule.from_source(
        splits,
        data_args={},
        preprocessing=Preprocessing(num_points),
        augmentation=ScaleTranslate(),
        num_views=4,
        seed=seed,
    )
    say(
        f"\nTuning on {len(data.train_set):,} labelled shapes of {data.num_classes} classes: "
        f"{', '.join(data.class_names)}"
    )
    reports: dict[str, FitReport] = {}
    rows: list[tuple[str, int, int, FitReport, float]] = []
    for method in METHODS:
        say(f"\n{method}")
        base = open_backbone(weights, data.num_classes, {}, seed)
        takes_bank = make_config(method, {}).takes_memory_bank
        bank = fill_bank(base, data, seed=seed) if takes_bank else None
        model = make_model(base, method, {}, bank, seed)
        before = time.monotonic()
        # Frozen features can be kept between epochs; full fine-tuning freezes nothing.
        cache = method != "full_fine_tuning"
        reports[method] = fit(
            model,
            data,
            folder / method,
            options=FitOptions(cache=cache, logger="csv"),
            trainer={"max_epochs": epochs, "enable_model_summary": False, "accelerator": "cpu"},
            resume=True,
            metadata={"weights": {"source": weights, "seed": seed}},
        )
        counts = model.count_parameters()
        spent = time.monotonic() - before
        rows.append((method, counts.trainable, counts.without_head, reports[method], spent))
    _show_table(rows, folder)
    for picture in draw_pictures(reports, data, weights, seed, folder):
        say(f"picture  {picture}")
    _predict(data, folder)
    say(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    return reports


def _weights(
    folder: Path, minutes: float, num_points: int, num_unlabelled: int, seed: int
) -> str:
    """The weights to tune: shipped ones, or those of a short pre-training."""
    if POINT_MAE_FILES:
        name = next(iter(POINT_MAE_FILES))
        say(f"The backbone is '{name}', which ships with the package.")
        return name
    say(
        "The package ships no pre-trained weights yet. So a small Point-MAE is pre-trained first,\n"
        f"for {minutes:g} minutes, on unlabelled shapes. It shows the walk, not the accuracy of a "
        "large one."
    )
    corpus = open_corpus([f"procedural:{num_unlabelled}"])
    options = PretrainOptions(
        epochs=8,
        seed=seed,
        max_minutes=minutes,
        bf16=False,
        views=ViewOptions(num_points=num_points),
    )
    torch.manual_seed(seed)
    network = PointMAEPretraining(
        **SIZES, decoder_depth=1, decoder_num_heads=4, mask_ratio=0.7, drop_path=0.0
    )
    report = pretrain(network, corpus, folder, options)
    say(f"{report.step} steps in {60 * report.minutes:.0f} seconds, loss {report.loss:.4f}")
    return str(folder / CHECKPOINT)


def _show_table(rows: list[tuple[str, int, int, FitReport, float]], folder: Path) -> None:
    say(f"\n{'method':18s} {'trainable':>10s} {'without head':>13s} {'file':>9s} "
        f"{'seconds':>8s} {'validation':>11s} {'test':>8s}")
    for method, trainable, without_head, report, seconds in rows:
        size = (folder / method / "adapter_model.safetensors").stat().st_size / 1024
        test = 0.0 if report.test is None else 100 * report.test.accuracy
        say(f"{method:18s} {trainable:10,} {without_head:13,} {size:6,.0f} kB {seconds:8.0f} "
            f"{100 * report.val.accuracy:9.1f} % {test:6.1f} %")
    say("One seed and a small test set: differences of a few per cent mean nothing here.\n")


def _predict(data: ShapeDataModule, folder: Path) -> None:
    """Load the saved adapter onto a fresh base and classify files."""
    say(f"\nThe adapter in {folder / METHODS[0]}, loaded again, on three files of unseen shapes:")
    if data.test_set is None:
        raise ValueError("Expected the data to have a test split (got none)")
    files: list[str] = []
    for number in range(3):
        item = data.test_set.dataset[number]
        path = folder / "shapes" / f"{data.class_names[int(item.y)]}_{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, item.pos.numpy())
        files.append(str(path))
    predict.run(str(folder / METHODS[0]), files)
