"""The first command on one's own folder, and the way between Python and the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import environment

import pyg_peft
from pyg_peft import LinearProbeConfig, LoRAConfig, PeftModel, get_peft_model
from pyg_peft.backbones import DGCNN, PointMAE
from pyg_peft.cli import main
from pyg_peft.datasets import Preprocessing, read_points
from pyg_peft.errors import CheckpointError
from pyg_peft.loading import load
from pyg_peft.training.data.sources import open_source

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

FAST = [
    *("--method", "linear_probe", "--epochs", "2", "--lr", "0.01", "--device", "cpu"),
    *("--preprocessing.num_points", "32", "--options.logger", "none"),
]


def write_shapes(folder: Path, names: tuple[str, ...] = ("ball", "rod"), count: int = 10) -> Path:
    generator = np.random.default_rng(0)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for row in range(count):
            points = generator.normal(size=(40, 3)) * [1, 1, 1 + 3 * number]
            np.save(folder / name / f"{row}.npy", points)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of shapes, and the adapter that the first command makes of it."""
    place = tmp_path_factory.mktemp("first")
    shapes = write_shapes(place / "shapes")
    assert main(["fit", "--data", str(shapes), "--output", str(place / "out"), *FAST]) == 0
    return shapes, place / "out"


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def test_fit_evaluate_predict(run, capsys):
    shapes, adapter = run
    result = result_of(adapter)
    assert result["run"]["backbone"] == "point-mae-tiny"
    assert result["clouds"] == {"train": 14, "val": 2, "test": 4}
    assert main(["evaluate", str(adapter)]) == 0
    assert f"test accuracy {100 * result['test']['accuracy']:.2f} %" in capsys.readouterr().out
    assert main(["predict", str(adapter), str(shapes / "ball" / "0.npy")]) == 0
    assert "0.npy" in capsys.readouterr().out


def test_the_result_reproduces_the_run(run, tmp_path):
    shapes, adapter = run
    first = result_of(adapter)
    options = first["run"]
    names = ("method", "backbone", "batch_size", "val_fraction", "test_fraction", "test_seed")
    arguments = [f"--{name}={options[name]}" for name in (*names, "seed", "augmentation")]
    arguments += [f"--options.{k}={v}" for k, v in options["options"].items() if v is not None]
    arguments += [f"--preprocessing.num_points={options['preprocessing']['num_points']}"]
    arguments += [f"--epochs={options['trainer']['max_epochs']}", "--device=cpu"]
    again = tmp_path / "again"
    assert main(["fit", "--data", str(shapes), "--output", str(again), *arguments]) == 0
    second = result_of(again)
    for key in ("val", "test", "curves", "base_fingerprint", "method_settings", "versions"):
        assert second[key] == first[key], key
    assert second["run"]["data_fingerprint"] == options["data_fingerprint"]
    assert {"python", "torch", "torch_geometric", "lightning"} <= set(first["versions"])


def test_the_same_clouds_are_held_out_for_every_seed(tmp_path):
    splits = open_source(str(write_shapes(tmp_path / "shapes")))
    (one, _), (two, _) = splits.hold_out_test(0.2, 0), splits.hold_out_test(0.2, 0)
    other, _ = splits.hold_out_test(0.2, 1)
    ids = [[int(item.sample_id) for item in some.test] for some in (one, two, other)]
    assert ids[0] == ids[1] != ids[2]
    trained = {int(item.sample_id) for item in one.train}
    assert not trained & set(ids[0]) and len(trained) + len(ids[0]) == 20
    assert sorted(int(item.y) for item in one.test) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="without a test split"):
        one.hold_out_test()


def test_whole_groups_are_held_out(tmp_path):
    splits = open_source(str(write_shapes(tmp_path / "shapes")))
    groups = torch.arange(20) // 5
    held, rest = splits.hold_out_test(0.5, groups=groups)
    assert rest is not None and len(rest) == len(held.train)
    tested = {int(groups[int(item.sample_id)]) for item in held.test}
    assert not tested & set(rest.tolist())


def test_nothing_is_held_out_where_a_split_is_given(tmp_path, capsys):
    write_shapes(tmp_path / "shapes" / "train")
    write_shapes(tmp_path / "shapes" / "test", count=2)
    command = ["fit", "--data", str(tmp_path / "shapes"), "--output", str(tmp_path / "a"), *FAST]
    assert main(command) == 0
    assert result_of(tmp_path / "a")["run"]["test_fraction"] == 0
    assert "held out" not in capsys.readouterr().out
    assert main([*command[:3], "--output", str(tmp_path / "b"), "--test_fraction=0.1", *FAST]) == 2
    assert "'test_fraction' to be 0 for data with a test split" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_everything_is_trained_on_if_asked(tmp_path, capsys):
    shapes = write_shapes(tmp_path / "shapes")
    command = ["fit", "--data", str(shapes), "--output", str(tmp_path / "out"), *FAST]
    assert main([*command, "--test_fraction", "0", "--val_fraction", "0"]) == 0
    out = capsys.readouterr().out
    assert "20 clouds train, 0 validate, 0 test" in out
    assert "no test split: the result says nothing about other data" in out


def test_a_folder_that_has_changed_is_not_split_anew(tmp_path, capsys):
    shapes = write_shapes(tmp_path / "shapes")
    adapter = str(tmp_path / "out")
    assert main(["fit", "--data", str(shapes), "--output", adapter, *FAST]) == 0
    np.save(shapes / "rod" / "more.npy", np.random.default_rng(1).normal(size=(40, 3)))
    for split in ("test", "val"):
        assert main(["evaluate", adapter, "--split", split]) == 2
        error = capsys.readouterr().err
        assert f"from which its {split} split was drawn (got other files or labels)" in error


def test_random_weights_are_asked_for_and_announced(tmp_path, capsys):
    shapes = write_shapes(tmp_path / "shapes")
    command = ["fit", "--data", str(shapes), "--output", str(tmp_path / "out"), *FAST]
    assert main([*command, "--backbone_class", "DGCNN"]) == 2
    assert "none ship for DGCNN (got None); 'random'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    sizes = '{"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 6, "patch_size": 4}'
    assert main([*command, "--backbone", "random", "--backbone_args", sizes]) == 0
    assert "random weights, which stay frozen and have learned nothing" in capsys.readouterr().out


def test_one_line_an_epoch_without_a_terminal(tmp_path):
    shapes = write_shapes(tmp_path / "shapes")
    command = [sys.executable, "-m", "pyg_peft.cli", "fit", "--data", str(shapes), *FAST]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        env=environment(),
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("epoch ")]) == 2
    assert len(lines) < 15 and not [line for line in lines if "\r" in line or "Tip" in line]
    assert not [line for line in lines if "TPU" in line or "GPU available" in line]


def test_tables_of_the_help_keep_their_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for source in ("FILE.npz", "FOLDER", "modelnet10:ROOT", "furniture", "procedural:COUNT"):
        assert len([line for line in lines if line.startswith(f"  {source} ")]) == 1


# ---- between Python and the command line ------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[PeftModel, Path]:
    """An adapter that was made in Python and saved with nothing but a folder."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    base = PointMAE.from_pretrained("point-mae-tiny", num_classes=2)
    model = get_peft_model(base, LoRAConfig(rank=2)).eval()
    model.save_pretrained(folder / "adapter")
    return model, folder / "adapter"


def test_load_in_one_line(saved):
    model, folder = saved
    pos, batch = torch.randn(90, 3), torch.arange(90) // 45
    expected = model(pos=pos, batch=batch)
    for loaded in (load(folder), pyg_peft.load(str(folder), backbone="point-mae-tiny")):
        assert not loaded.training
        assert torch.equal(loaded(pos=pos, batch=batch), expected)


def test_an_adapter_of_the_command_line_in_python(run):
    shapes, adapter = run
    cloud = Preprocessing(32).evaluation()(read_points(shapes / "ball" / "0.npy"))
    model = pyg_peft.load(adapter)
    assert model(pos=cloud.pos, batch=torch.zeros(32, dtype=torch.long)).shape == (1, 2)


def test_an_adapter_of_python_on_the_command_line(saved, tmp_path, capsys):
    _, folder = saved
    shapes = write_shapes(tmp_path / "shapes", ("class 0", "class 1"), count=2)
    assert main(["predict", str(folder), str(shapes / "class 1" / "0.npy")]) == 0
    captured = capsys.readouterr()
    assert "class 1" in captured.out and "num_points=1024" in captured.err
    assert main(["evaluate", str(folder), "--data", str(shapes)]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert main(["inspect", str(folder)]) == 0
    assert "'assumed': True" in capsys.readouterr().out


def test_preprocessing_is_recorded(saved, tmp_path):
    model, folder = saved

    def recorded(where: Path) -> Any:
        return json.loads((where / "adapter_config.json").read_text())["preprocessing"]

    default = {"num_points": 1024, "normalize": True, "up_axis": "z"}
    assert recorded(folder) == {**default, "assumed": True}
    model.save_pretrained(tmp_path / "given", preprocessing=Preprocessing(64, up_axis="y"))
    assert recorded(tmp_path / "given") == {"num_points": 64, "normalize": True, "up_axis": "y"}
    with pytest.raises(TypeError, match="'preprocessing' to be a Preprocessing or a mapping"):
        model.save_pretrained(tmp_path / "wrong", preprocessing=64)  # pyright: ignore
    assert not (tmp_path / "wrong").exists()


def test_other_bases_are_told_apart(saved, tmp_path):
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 6, "patch_size": 4}
    model = get_peft_model(PointMAE(2, **sizes), LinearProbeConfig())
    model.save_pretrained(tmp_path / "own")
    with pytest.raises(CheckpointError, match="does not record the weights of its base"):
        load(tmp_path / "own")
    other = get_peft_model(DGCNN(2), LinearProbeConfig())
    other.save_pretrained(tmp_path / "dgcnn")
    with pytest.raises(ValueError, match="since none ship for DGCNN"):
        load(tmp_path / "dgcnn")
    alone = torch.nn.Sequential(torch.nn.Linear(2, 2))
    lone = get_peft_model(alone, LoRAConfig(rank=1, target_modules=("0",), modules_to_save=()))
    lone.save_pretrained(tmp_path / "lone")
    with pytest.raises(CheckpointError, match=r"PeftModel\.from_pretrained onto a base"):
        load(tmp_path / "lone")
