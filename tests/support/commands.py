"""Small data and small models for tests that run commands."""

import json
import os
from pathlib import Path
from typing import Any

from pyg_peft.datasets import NpzShapes, ProceduralShapes

SIZES = '{"embed_dim": 24, "depth": 2, "num_heads": 3, "num_centers": 8, "patch_size": 8}'
SMALL = [
    *("--backbone", "random", "--backbone_args", SIZES),
    *("--method_args", '{"k": 3, "num_prompts": 4}'),
    *("--preprocessing.num_points", "48", "--batch_size", "8"),
    *("--options.logger", "none", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu"),
]

# Of `pyg-peft pretrain`: the smallest model that has all parts.
PRETRAINING = [
    *("--model.embed_dim=12", "--model.depth=1", "--model.num_heads=3", "--model.num_centers=6"),
    *("--model.patch_size=4", "--model.decoder_depth=1", "--model.decoder_num_heads=3"),
    *("--model.num_cloud_points=8", "--options.batch_size=8", "--options.views.num_points=64"),
    "--threads=1",
]


def write_set(path: Path, number: int = 48) -> Path:
    """Three classes with a test split, written to one file."""
    shapes: Any = ProceduralShapes(num_shapes=12 * number // 3, num_points=64)
    rows = [row for row in range(len(shapes)) if row % 12 < 3][:number]
    NpzShapes.write(
        path,
        [shapes[row].pos.numpy() for row in rows],
        [row % 12 for row in rows],
        class_names=list(shapes.class_names[:3]),
        split=["test" if n >= 2 * number // 3 else "train" for n in range(len(rows))],
    )
    return path


def fit(data: object, output: Path, *more: str, epochs: int = 2) -> list[str]:
    """Arguments of ``pyg-peft fit`` on a small model."""
    ends = ["--trainer.max_epochs", str(epochs), *more]
    return ["fit", "--data", str(data), "--output", str(output), *SMALL, *ends]


def pretrain(data: str, output: Path, *more: str) -> list[str]:
    """Arguments of ``pyg-peft pretrain`` with a small model."""
    return ["pretrain", "--data", data, "--output", str(output), *PRETRAINING, *more]


def logged(folder: Path) -> list[dict[str, float]]:
    """The log of a pre-training, without the times, which differ between runs."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def environment() -> dict[str, str]:
    """For a child process that runs a command."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
