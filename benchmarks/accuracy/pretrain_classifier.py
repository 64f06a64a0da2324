"""Train a small classifier whose weights are the start of the other backbones' rows.

    python benchmarks/accuracy/pretrain_classifier.py

The configuration, pointnet2_modelnet10.yaml, names sizes, data and schedule. The epoch is chosen on
a validation part of the training split. The weights are not committed: this makes them again.
Printed is their SHA-256, which graphs.yaml pins; numbers of the run go to results/pretraining.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from cases import AUGMENTATIONS
from finished import write_record
from provenance import origin
from row import TRAINER
from run import quiet
from safetensors.torch import save

from pyg_peft import backbones as library
from pyg_peft import get_peft_model
from pyg_peft.datasets import NpzShapes
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.storage import write_atomic
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.run import FitOptions, fit
from pyg_peft.tuners import FullFineTuningConfig

HERE = Path(__file__).resolve().parent


def open_data(path: Path, training: dict[str, Any], seed: int) -> ShapeDataModule:
    """Official split; a part of the training split validates."""
    train, test = (NpzShapes(path, split, normalize=False) for split in ("train", "test"))
    return ShapeDataModule(
        train,
        None,
        test,
        class_names=train.class_names,
        preprocessing=Preprocessing(training["num_points"]),
        augmentation=AUGMENTATIONS[training["augmentation"]](),
        batch_size=training["batch_size"],
        val_fraction=training["val_fraction"],
        seed=seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=HERE / "pointnet2_modelnet10.yaml")
    parser.add_argument("--output", type=Path, default=HERE / "weights")
    parser.add_argument("--log", type=Path, default=HERE / "results" / "pretraining")
    args = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    started, config = time.monotonic(), yaml.safe_load(args.config.read_text())
    data = open_data(
        (args.config.parent / config["data"]).resolve(), config["training"], config["seed"]
    )
    torch.manual_seed(config["seed"])
    base = getattr(library, config["kind"])(data.num_classes, **config["sizes"])
    model = get_peft_model(base, FullFineTuningConfig())
    with tempfile.TemporaryDirectory() as scratch:
        report = fit(
            model,
            data,
            scratch,
            options=FitOptions(lr=config["lr"], logger="none"),
            trainer={**TRAINER, "max_epochs": config["epochs"]},
        )
    if report.test is None or report.val is None:
        raise ValueError("Expected the data to have a validation and a test split (got none)")
    state = {k: v.contiguous() for k, v in sorted(model.merge_and_unload().state_dict().items())}
    content = save(state)
    path = args.output / f"{args.config.stem}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))
    sha256 = hashlib.sha256(content).hexdigest()
    record = {
        "config": config,
        "sha256": sha256,
        "parameters": sum(p.numel() for p in base.parameters()),
        "kept_epoch": report.epoch,  # from 1; "epoch" of earlier records counts from 0
        "val": round(report.val.accuracy, 6),
        "test": round(report.test.accuracy, 6),
        "seconds": round(time.monotonic() - started, 1),
        **origin(),
    }
    write_record(args.log / f"{args.config.stem}.json", record)
    print(f"{path.name}: validation {report.val}, SHA-256 {sha256}")


if __name__ == "__main__":
    main()
