"""A run that starts from a saved adapter, with its classes or with others."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SMALL, fit, write_set
from safetensors.torch import load_file

from pyg_peft.cli import main
from pyg_peft.datasets import NpzShapes, ProceduralShapes

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

LORA = ("--backbone", "random", "--method", "lora", "--method_args", '{"rank": 3}')
WITHOUT = ("--backbone_args", "--method_args", "--preprocessing.num_points", "--backbone")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("first")
    data = write_set(folder / "set.npz", 24)
    assert main(fit(data, folder / "adapter", *LORA, "--seed", "5", epochs=1)) == 0
    return folder / "adapter", data


def more(data: Path, output: Path, adapter: Path, *others: str) -> list[str]:
    """Arguments of a run from an adapter, without what is taken from it."""
    pairs = [SMALL[n : n + 2] for n in range(0, len(SMALL), 2) if SMALL[n] not in WITHOUT]
    kept = [text for pair in pairs for text in pair]
    ends = ["--trainer.max_epochs", "1", "--from_adapter", str(adapter), *others]
    return ["fit", "--data", str(data), "--output", str(output), *kept, *ends]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_with_the_same_classes_everything_is_kept(first, tmp_path, capsys):
    adapter, data = first
    # So little that the tensors stay where they were.
    out = tmp_path / "out"
    assert main(more(data, out, adapter, "--options.lr", "1e-12")) == 0
    assert "starts from the lora adapter" in capsys.readouterr().out
    before, after = tensors(adapter), tensors(out)
    assert before.keys() == after.keys()
    for key, tensor in after.items():
        if tensor.is_floating_point() and "running" not in key:
            torch.testing.assert_close(tensor, before[key], rtol=1e-5, atol=1e-7)
    run = json.loads((out / "result.json").read_text())["run"]
    assert run["from_adapter"] == {"folder": str(adapter), "head": "loaded"}
    assert run["method"] == "lora" and run["method_args"]["rank"] == 3
    assert run["preprocessing"]["num_points"] == 48
    assert main(["evaluate", str(out)]) == 0


def test_with_other_classes_the_head_is_new(first, tmp_path, capsys):
    adapter, _ = first
    shapes: Any = ProceduralShapes(num_shapes=48, num_points=64)
    rows = [row for row in range(48) if row % 12 < 4]
    NpzShapes.write(
        tmp_path / "four.npz",
        [shapes[row].pos.numpy() for row in rows],
        [row % 12 for row in rows],
        class_names=list("abcd"),
    )
    out = tmp_path / "out"
    assert main(more(tmp_path / "four.npz", out, adapter, "--options.lr", "1e-12")) == 0
    assert "with a new head" in capsys.readouterr().out
    before, after = tensors(adapter), tensors(out)
    assert before.keys() == after.keys()
    for key, tensor in after.items():
        if not key.startswith("head."):
            torch.testing.assert_close(tensor, before[key], rtol=1e-5, atol=1e-7)
    assert any(t.shape[:1] == (4,) for key, t in after.items() if key.startswith("head."))
    result = json.loads((out / "result.json").read_text())
    assert result["run"]["from_adapter"]["head"] == "new"
    assert main(["predict", str(out), str(save_cloud(tmp_path))]) == 0


def save_cloud(folder: Path) -> Path:
    import numpy as np

    np.save(folder / "cloud.npy", np.random.default_rng(0).random((60, 3)))
    return folder / "cloud.npy"


MISTAKES = [
    (("--method", "vpt"), "'method' to be that of 'from_adapter', 'lora' (got 'vpt')"),
    (("--method_args", '{"rank": 4}'), "no 'method_args' with 'from_adapter'"),
    (("--backbone_class", "PointNet"), "'backbone_class' to be that of 'from_adapter'"),
    (("--task", "segmentation"), "'task' to be that of 'from_adapter', 'classification'"),
    (("--backbone_args", '{"embed_dim": 48}'), "the base that '"),
    (("--from_adapter", "nowhere"), "'from_adapter' to be a folder with adapter_model"),
]


@pytest.mark.parametrize(("given", "message"), MISTAKES)
def test_mistakes_are_found_before_anything_is_written(first, tmp_path, capsys, given, message):
    adapter, data = first
    assert main(more(data, tmp_path / "out", adapter, *given)) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_resume_from_another_adapter_is_noticed(first, tmp_path, capsys):
    adapter, data = first
    out = tmp_path / "out"
    assert main(more(data, out, adapter)) == 0
    described = json.loads((out / "checkpoints" / "run.json").read_text())
    assert len(described["from_adapter"]) == 16
    copy = shutil.copytree(adapter, tmp_path / "copy")
    resume = ("--resume", "true")
    assert main(more(data, out, copy, *resume)) == 0  # what counts is its content
    assert main(more(data, out, out, *resume)) == 2
    assert "from_adapter" in capsys.readouterr().err
    assert main(fit(data, out, *LORA, *resume, epochs=1)) == 2
    assert "from_adapter" in capsys.readouterr().err


def test_the_default_method_must_fit_if_it_is_given(first, tmp_path, capsys):
    adapter, data = first
    assert main(more(data, tmp_path / "out", adapter, "--method", "point_peft")) == 2
    assert "'method' to be that of 'from_adapter', 'lora' (got 'point_peft')" in (
        capsys.readouterr().err
    )


def test_the_card_of_a_run(first, tmp_path):
    adapter, data = first
    out = tmp_path / "out"
    licenses = ("--license", "mit", "--data_license", "cc0-1.0")
    assert main(more(data, out, adapter, *licenses)) == 0
    card, result = (out / "README.md").read_text(), json.loads((out / "result.json").read_text())
    clouds = result["clouds"]
    for row in (
        "license of the adapter | mit",
        "license of the data | cc0-1.0",
        "data | set.npz",
        f"clouds | train {clouds['train']}, val {clouds['val']}, test {clouds['test']}",
        f"test | accuracy {result['test']['accuracy']:.4g}",
        "learning rate | 0.001",
        "epochs | 1, of which epoch 1 is kept",
    ):
        assert f"| {row}" in card
    assert str(tmp_path) not in card
