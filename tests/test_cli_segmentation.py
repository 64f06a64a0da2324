"""The commands with a label per point."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import SIZES, fit

from pyg_peft.cli import main

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

HEAD = SIZES.replace("}", ', "num_levels": 2, "head_channels": 32, "num_categories": 2}')


def write_parts(path: Path) -> Path:
    draw = np.random.default_rng(0)
    xyz = draw.uniform(-1, 1, (18, 60, 3)).astype(np.float32)
    np.savez(
        path,
        xyz=xyz,
        seg=(xyz[:, :, 2] > 0).astype(np.int64),
        label=np.arange(18) % 2,
        split=np.array([0] * 14 + [1] * 4),
        class_names=np.array(["lamp", "mug"]),
        part_names=np.array(["bottom", "top"]),
    )
    return path


def test_fit_and_evaluate_parts(tmp_path, capsys):
    data, adapter = write_parts(tmp_path / "set.npz"), tmp_path / "adapter"
    command = fit(
        data, adapter, "--task", "segmentation", "--backbone=random", "--backbone_args", HEAD
    )
    assert main(command) == 0
    result = json.loads((adapter / "result.json").read_text())
    assert result["run"]["task"] == "segmentation"
    assert 0 <= result["test"]["instance_iou"] <= 1
    capsys.readouterr()
    assert main(["evaluate", str(adapter), "--batch_size", "1", "--per_class", "true"]) == 0
    out = capsys.readouterr().out
    assert f"instance mIoU {100 * result['test']['instance_iou']:.2f} %" in out
    assert "bottom" in out
    assert main(["predict", str(adapter), str(data)]) != 0


def test_other_tasks_are_refused(tmp_path, capsys):
    data = write_parts(tmp_path / "set.npz")
    assert main(fit(data, tmp_path / "adapter", "--task", "detection")) != 0
    assert "'task' to be one of classification, multi_label, regression, segmentation" in "".join(
        capsys.readouterr()
    )
