"""`fit`, `evaluate` and `predict` of numbers and of several labels, and losses of one's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fit

pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from pyg_peft.cli import main

COLUMNS = {"regression": ("height", "width"), "multi_label": ("round", "hollow")}


def rows(task: str, count: int = 24) -> np.ndarray:
    numbers = np.arange(count)
    if task == "regression":
        return np.stack([10.0 + numbers, 0.5 * numbers], axis=1)
    return np.stack([numbers % 2, numbers % 3 == 0], axis=1).astype(float)


def clouds(count: int = 24) -> np.ndarray:
    return np.random.default_rng(0).random((count, 64, 3)).astype(np.float32)


def write_npz(path: Path, task: str) -> Path:
    codes = np.array([n >= 18 for n in range(24)], np.uint8)
    names = np.array(COLUMNS[task])
    np.savez(path, xyz=clouds(), target=rows(task), target_names=names, split=codes)
    return path


def write_folder(root: Path, task: str, split: bool = True) -> Path:
    root.mkdir()
    lines = [",".join(["file", *(["split"] if split else []), *COLUMNS[task]])]
    for number, (cloud, row) in enumerate(zip(clouds(), rows(task), strict=True)):
        np.save(root / f"{number:02d}.npy", cloud)
        name = [f"{number:02d}.npy", *(["test" if number >= 18 else "train"] if split else [])]
        lines.append(",".join([*name, *map(str, row)]))
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("form", ["npz", "folder"])
def test_fit_evaluate_predict(task: str, form: str, tmp_path: Path, capsys: Any):
    write = write_npz if form == "npz" else write_folder
    data = write(tmp_path / ("set.npz" if form == "npz" else "set"), task)
    adapter = tmp_path / "adapter"
    assert main(fit(data, adapter, "--task", task)) == 0
    result = json.loads((adapter / "result.json").read_text())
    assert result["chosen_by"] == ("val_mae" if task == "regression" else "val_map")
    settings = json.loads((adapter / "adapter_config.json").read_text())["preprocessing"]
    assert settings["task_name"] == task
    assert ("mean" in settings["task_settings"]) == (task == "regression")
    capsys.readouterr()
    assert main(["evaluate", str(adapter)]) == 0
    first = next(iter(result["test"]))
    said = capsys.readouterr().out
    assert f"{result['test'][first]:.4g}" in said or f"{100 * result['test'][first]:.2f}" in said
    np.save(tmp_path / "new.npy", clouds()[0])
    assert main(["predict", str(adapter), str(tmp_path / "new.npy")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COLUMNS[task])
    if task == "regression":  # in the units of the targets, not standardized
        assert 10 < float(said.split("height")[1].split()[0]) < 34


def test_a_folder_without_splits_and_files_that_are_not_named(tmp_path: Path, caplog: Any):
    from pyg_peft.training import open_targets

    root = write_folder(tmp_path / "set", "regression", split=False)
    np.save(root / "more.npy", clouds()[0])
    found = open_targets(str(root))
    assert found.whole and found.class_names == ("height", "width") and len(found.train) == 24
    assert "does not name are left out: more.npy" in caplog.text
    assert found.train[3].y.tolist() == [[13.0, 1.5]]
    torch.testing.assert_close(found.train[[3]].targets, torch.tensor([[13.0, 1.5]]).double())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,height\n00.npy,1\n", "first column of .* to be named 'file'"),
        ("file\n00.npy\n", "to have a column of targets"),
        ("file,height\n", r"to have rows \(got none"),
        ("file,height\n00.npy,tall\n", "line 2 of .* to hold a number for 'height'"),
        ("file,height\n00.npy,nan\n", "line 2 of .* to hold a number for 'height'"),
        ("file,height\n00.npy,1,5\n", "line 2 of .* to have 2 columns"),
        ("file,height\n00.npy,1\n00.npy,2\n", "line 3 of .* to name another file"),
        ("file,height\n../00.npy,1\n", "to name a file of its folder"),
        ("file,height\n99.npy,1\n", r"to exist \(got none under 99.npy"),
        ("file,height\n00.doc,1\n", "that ends in one of"),
        ("file,split,height\n00.npy,later,1\n", "to have the split train, val or test"),
        ("file,height,height\n00.npy,1,1\n", "to have different names"),
        ("", "to have a line of column names"),
    ],
)
def test_tables_that_do_not_fit(text: str, message: str, tmp_path: Path):
    from pyg_peft.datasets import TargetFolder

    root = write_folder(tmp_path / "set", "regression")
    (root / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        TargetFolder(root)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_are_separated_by(delimiter: str, tmp_path: Path):
    from pyg_peft.datasets import TargetFolder

    root = write_folder(tmp_path / "set", "regression")
    table = root / "labels.csv"
    table.write_text("\ufeff" + table.read_text().replace(",", delimiter))
    assert TargetFolder(root).target_names == ("height", "width")


MISTAKES = [
    (("--loss", "no_such_module.Loss"), "'loss' to be the path of a class or function"),
    (("--loss", "pathlib.Path"), "to name a subclass of torch.nn.Module, or a function"),
    (("--loss", "torch.nn.CrossEntropyLoss", "--loss_args", '{"x": 1}'), "'loss_args' to be"),
    (("--loss", "torch.nn.functional.relu"), "'loss' to return one number with a gradient"),
    (("--loss", "os.getcwd"), "'loss' to take scores"),
    (("--task_args", '{"nonsense": 1}'), "settings of the task 'classification'"),
    (("--task_args", '{"class_weights": "heavy"}'), "'class_weights' to be 'balanced'"),
    (("--task_args", '{"class_weights": {"x": 1}}'), "'class_weights' to name classes of"),
    (("--task_args", '{"class_weights": [1, 2]}'), "'class_weights' to hold 12 weights"),
    (("--options.patience", "0"), "'patience'"),
    (("--options.patience", "1", "--val_fraction", "0"), "'patience' to be None without"),
    (("--task", "regression"), "'data' with targets to be"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_write_nothing(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: Any
):
    output = tmp_path / "adapter"
    data = "procedural:24"
    if "--val_fraction" in options:
        from commands import write_set

        data = str(write_set(tmp_path / "set.npz"))
    assert main(fit(data, output, *options)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def test_a_loss_of_ones_own_is_recorded_and_asked_for_again(tmp_path: Path, capsys: Any):
    from commands import write_set

    data, output = write_set(tmp_path / "set.npz"), tmp_path / "adapter"
    own = ("--loss", "torch.nn.CrossEntropyLoss", "--loss_args", '{"label_smoothing": 0.1}')
    balanced = ("--balanced_sampling", "true")
    assert main(fit(data, output, *own, *balanced, epochs=1)) == 0
    run = json.loads((output / "result.json").read_text())["run"]
    assert run["loss"] == "torch.nn.CrossEntropyLoss" and run["balanced_sampling"] is True
    assert main(["evaluate", str(output)]) == 0
    capsys.readouterr()
    assert main(fit(data, output, "--resume", "true", epochs=1)) == 2
    assert 'loss "torch.nn.modules.loss.CrossEntropyLoss(' in capsys.readouterr().err
    assert main(fit(data, output, *own, *balanced, "--resume", "true", epochs=1)) == 0
