"""The commands, as a user runs them: small data, real files, processes that are killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SIZES, environment, fit, write_set
from safetensors.torch import load_file

from pyg_peft.cli import main
from pyg_peft.datasets import NpzShapes

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("fit")
    data = write_set(folder / "set.npz")
    assert main(fit(data, folder / "adapter")) == 0
    return folder / "adapter", data


def test_evaluate_gives_the_number_that_fit_gave(fitted, capsys):
    adapter, _ = fitted
    result = json.loads((adapter / "result.json").read_text())
    for split, name in (("test", "test"), ("val", "validation")):
        assert main(["evaluate", str(adapter), "--split", split]) == 0
        expected = f"{name} accuracy {100 * result[split]['accuracy']:.2f} %"
        assert expected in capsys.readouterr().out


def test_the_bank_holds_training_samples_only(fitted):
    adapter, data = fitted
    (path,) = adapter.glob("memory_bank*")
    held = set(load_file(path)["sample_id"].tolist())
    train = set(NpzShapes(data, "train").sample_ids.tolist())
    assert held < train, "neither test nor validation samples"
    assert len(held) == json.loads((adapter / "result.json").read_text())["bank_rows"]


def test_predict_reads_files_and_folders(fitted, tmp_path, capsys):
    adapter, data = fitted
    first: Any = NpzShapes(data, "test")[0]
    np.save(tmp_path / "cloud.npy", first.pos.numpy())
    (tmp_path / "mesh.off").write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    assert main(["predict", str(adapter), str(tmp_path), "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "cloud.npy" in out and "mesh.off" in out and out.count(" %") == 4


def test_predict_equals_evaluation_and_ignores_the_batch(fitted, tmp_path):
    from pyg_peft.cli import predict
    from pyg_peft.cli.saved import open_adapter

    adapter, data = fitted
    dataset: Any = NpzShapes(data, "test", normalize=False)
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"{number}.npy"))
        np.save(files[-1], dataset[number].pos.numpy())
    together = predict.run(str(adapter), files)
    for path, row in zip(files, together, strict=True):
        torch.testing.assert_close(predict.run(str(adapter), [path])[0][1], row[1])
    saved = open_adapter(str(adapter), None, {})
    item = saved.preprocessing.evaluation()(dataset[0])
    expected = saved.model(pos=item.pos).softmax(-1)[0]
    # a file's mean is taken away in float64 first, so the last bits may differ
    torch.testing.assert_close(together[0][1], expected, atol=1e-4, rtol=1e-4)


def test_inspect(fitted, capsys):
    assert main(["inspect", str(fitted[0])]) == 0
    out = capsys.readouterr().out
    assert "without the head" in out and "blocks.0-1" in out and "base fingerprint" in out
    assert (
        main(["inspect", "--method", "lora", "--backbone", "random", "--backbone_args", SIZES]) == 0
    )
    assert "blocks.0-1.attn.qkv" in capsys.readouterr().out


def test_a_configuration_file_and_print_config(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", *fit("set.npz", tmp_path)[1:], "--print_config"])
    text = capsys.readouterr().out
    assert "max_epochs: 2" in text
    path = tmp_path / "run.yaml"
    path.write_text(text)
    data = write_set(tmp_path / "set.npz")
    out = tmp_path / "out"
    assert main(["fit", "--config", str(path), "--data", str(data), "--output", str(out)]) == 0
    assert (out / "adapter_model.safetensors").is_file()


def test_a_folder_with_a_run_is_not_overwritten(fitted, capsys):
    adapter, data = fitted
    assert main(fit(data, adapter)) == 2
    assert "hold no run" in capsys.readouterr().err


def test_errors_are_one_line(capsys, tmp_path):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert main(["fit", "--data", "no_such.npz", "--output", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "no_such.npz" in err and "Traceback" not in err


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    """SIGKILL in the middle of an epoch; the resumed run ends with the same bits."""
    data = write_set(tmp_path / "set.npz")
    assert main(fit(data, tmp_path / "whole", epochs=4)) == 0

    command = [sys.executable, "-m", "pyg_peft.cli", *fit(data, tmp_path / "killed", epochs=4)]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    end = time.monotonic() + 120
    while not last.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert last.exists() and not (tmp_path / "killed" / "adapter_model.safetensors").exists()
    assert main(fit(data, tmp_path / "killed", "--resume", "true", epochs=4)) == 0

    whole, killed = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    results = [
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "more",
    [
        ("--trainer.precision", "bf16-mixed"),
        ("--num_views", "2", "--options.cache", "true"),
        ("--method", "lora", "--method_args", '{"rank": 2}', "--augmentation", "rotate"),
        ("--options.logger", "csv"),
    ],
    ids=["bf16", "cache", "lora", "csv"],
)
def test_variants_evaluate_to_their_own_number(tmp_path, more, capsys):
    data = write_set(tmp_path / "set.npz", 24)
    assert main(fit(data, tmp_path / "out", *more, epochs=1)) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "out")]) == 0
    expected = json.loads((tmp_path / "out" / "result.json").read_text())["test"]["accuracy"]
    assert f"test accuracy {100 * expected:.2f} %" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes(tmp_path):
    data = write_set(tmp_path / "set.npz")
    out = tmp_path / "out"
    more = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    command = [sys.executable, "-m", "pyg_peft.cli", *fit(data, out, *more)]
    subprocess.run(command, env=environment(), check=True, timeout=300)
    assert main(["evaluate", str(out)]) == 0
