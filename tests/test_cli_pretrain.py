"""`pyg-peft pretrain`: both tasks, what it shows on its way, and that looking changes nothing."""

import json
import sys
from typing import Any

import commands
import pytest
import torch

from pyg_peft.cli import main

pytest.importorskip("jsonargparse", reason="jsonargparse is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def pretrain(folder, *options: str) -> int:
    return main(commands.pretrain("procedural:16", folder, "--options.epochs=2", *options))


def state(folder) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pth", weights_only=True)


def test_pictures_and_a_probe_on_the_way(tmp_path):
    watched, alone = tmp_path / "watched", tmp_path / "alone"
    assert pretrain(watched, "--look_every=1", "--probe=procedural:60") == 0
    assert pretrain(alone) == 0
    for name, tensor in state(alone)["model"].items():
        assert torch.equal(tensor, state(watched)["model"][name]), name
    names = sorted(path.name for path in watched.glob("*.png"))
    assert names == ["learning_curve.png", "reconstruction_001.png", "reconstruction_002.png"]
    entries = [json.loads(line) for line in (watched / "log.jsonl").read_text().splitlines()]
    probes = [entry for entry in entries if "probe_val_accuracy" in entry]
    assert [entry["step"] for entry in probes] == [2, 4]
    assert all(0.0 <= entry["probe_val_accuracy"] <= 1.0 for entry in probes)


def test_an_endless_stream_can_be_looked_at(tmp_path):
    options = ("--options.epochs=2", "--look_every=1")
    assert main(commands.pretrain("procedural:16/epoch", tmp_path, *options)) == 0
    assert (tmp_path / "reconstruction_002.png").read_bytes().startswith(b"\x89PNG")
    corpus = state(tmp_path)["identity"]["corpus"]["streams"]["0"]
    assert corpus["each_epoch"] == 16 and corpus["settings"]["seed"] == 0


def test_the_curve_stands_at_the_epochs_that_were_logged(tmp_path, monkeypatch):
    from pyg_peft.cli import pretrain_watch

    drawn = []
    real = pretrain_watch.plot_curves
    monkeypatch.setattr(
        pretrain_watch,
        "plot_curves",
        lambda *args, **kwargs: drawn.append(real(*args, **kwargs)) or drawn[-1],
    )
    lines = [{"epoch": 4, "loss": 2.0}, {"epoch": 8, "loss": 1.0}, {"epoch": 8, "loss": 0.5}]
    text = "".join(json.dumps({"step": 0, **line}) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text)
    pretrain_watch.draw_curve(tmp_path)
    (line,) = drawn[0].axes[0].lines
    assert list(line.get_xdata()) == [4, 8] and list(line.get_ydata()) == [2.0, 0.75]


def test_a_run_that_dies_has_a_curve_of_what_is_done(tmp_path, monkeypatch):
    from pyg_peft.cli.pretrain_watch import PretrainWatch

    real, drawn = PretrainWatch.__call__, tmp_path / "learning_curve.png"

    def die_at_the_second_look(self, model, epochs):
        if epochs == 2:
            raise KeyboardInterrupt
        return real(self, model, epochs)

    monkeypatch.setattr(PretrainWatch, "__call__", die_at_the_second_look)
    assert pretrain(tmp_path, "--look_every=1", "--options.log_every=1") == 130
    assert drawn.read_bytes().startswith(b"\x89PNG") and not (tmp_path / "checkpoint.pth").exists()


def test_the_published_task_alone(tmp_path):
    assert pretrain(tmp_path, "--task=masked") == 0
    assert not any(key.startswith(("completion", "cls")) for key in state(tmp_path)["model"])
    assert state(tmp_path)["identity"]["class"] == "PointMAEPretraining"


def test_errors(tmp_path, capsys):
    assert pretrain(tmp_path, "--task=guess") == 2
    assert pretrain(tmp_path, "--probe=procedural:60") == 2
    assert pretrain(tmp_path, "--look_every=0") == 2
    error = capsys.readouterr().err
    assert "'task' to be one of completion, masked (got 'guess')" in error
    assert "'look_every' to be given with 'probe'" in error
    assert "'look_every' to be >= 1 (got 0)" in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--threads=0", "'threads' to be >= 1 (got 0)"),
        ("--options.clip_norm=0", "'clip_norm' to be positive"),
        ("--data=[]", "'data' to name what to learn from (got nothing)"),
        (f"--data=procedural:{10**20}/epoch", "Expected COUNT to be at most 100,000,000"),
    ],
)
def test_mistakes_before_anything_is_written(tmp_path, capsys, option, message):
    assert pretrain(tmp_path / "out", option) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert pretrain(tmp_path / "out") == 2
    assert "'output' to be a folder (got the file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_pictures_need_matplotlib_from_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert pretrain(tmp_path / "out", "--look_every=1") == 2
    assert "'matplotlib' is needed here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["nonsense", "cuda:77", "xpu:9"])
def test_a_device_that_is_not_there(tmp_path, capsys, name):
    assert pretrain(tmp_path / "out", f"--device={name}") == 2
    assert f"Expected 'device' to be 'auto' or a device that is there (got '{name}'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_supported(tmp_path, capsys):
    assert pretrain(tmp_path / "out", "--device=meta") == 2
    assert "to be a CPU or a CUDA device (got 'meta')" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_run_on_a_gpu_goes_on_and_can_be_looked_at(tmp_path):
    assert pretrain(tmp_path, "--device=cuda", "--options.max_minutes=0") == 0
    watching = ("--look_every=1", "--probe=procedural:60")
    assert pretrain(tmp_path, "--device=cuda", *watching) == 0
    assert (tmp_path / "reconstruction_002.png").is_file()
