"""A finished run goes on for more epochs, and says so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fit, write_set
from safetensors.torch import load_file

from pyg_peft.cli import main

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

MORE = ("--backbone", "random", "--method", "lora", "--method_args", '{"rank": 2}')


def run(data: Path, folder: Path, epochs: int, *more: str) -> int:
    return main(fit(data, folder, *MORE, *more, epochs=epochs))


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_more_epochs(tmp_path, capsys):
    data, folder = write_set(tmp_path / "set.npz", 24), tmp_path / "run"
    assert run(data, folder, 1) == 0
    first = load_file(folder / "adapter_model.safetensors")
    assert last(folder)["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-3  # end of warm-up
    capsys.readouterr()
    assert run(data, folder, 3, "--resume", "true") == 0
    assert "the run of 1 epochs was continued to 3" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert result["extended"] == [1]
    assert all(len(values) == 3 for values in result["curves"].values())
    # The end of the cosine over three epochs.
    assert last(folder)["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-9
    second = load_file(folder / "adapter_model.safetensors")
    assert any(not torch.equal(second[key], first[key]) for key in first)
    described = json.loads((folder / "checkpoints" / "run.json").read_text())
    assert described["trainer"]["max_epochs"] == 3 and described["extended"] == [1]
    # Once more with the same number: nothing is trained, and nothing changes.
    assert run(data, folder, 3, "--resume", "true") == 0
    again = load_file(folder / "adapter_model.safetensors")
    assert all(torch.equal(again[key], second[key]) for key in second)
    assert json.loads((folder / "result.json").read_text()) == result
    assert run(data, folder, 2, "--resume", "true") == 2
    assert "trainer.max_epochs 3 instead of 2" in capsys.readouterr().err
    # What a run in progress or a finished one looks like.
    capsys.readouterr()
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 epochs" in out and "continued from 1 to 3" in out and "blocks.0-1" in out
    (folder / "adapter_model.safetensors").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "val_accuracy" in out and "no adapter yet" in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"PK cut")
    assert main(["inspect", str(folder)]) == 0, "the checkpoint before the last one is read"
    assert "2 of 3 epochs" in capsys.readouterr().out
