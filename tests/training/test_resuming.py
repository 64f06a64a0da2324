"""A run with worker processes that is killed and goes on: the same bits as one undisturbed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import environment, fit, write_set
from safetensors.torch import load_file

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

EPOCHS = 4


def start(data: Path, folder: Path) -> subprocess.Popen[bytes]:
    more = ("--method", "lora", "--method_args", "{}", "--num_workers", "2", "--resume", "true")
    arguments = fit(data, folder, *more, epochs=EPOCHS)
    return subprocess.Popen(
        [sys.executable, "-m", "pyg_peft.cli", *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_after_an_epoch(data: Path, folder: Path) -> None:
    """SIGKILL right after the first epoch has been saved."""
    last = folder / "checkpoints" / "last.ckpt"
    child = start(data, folder)
    end = time.monotonic() + 120
    while not last.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)  # its workers notice, and end
    child.wait()
    assert last.exists() and not (folder / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path):
    data = write_set(tmp_path / "set.npz")
    assert start(data, tmp_path / "whole").wait() == 0
    kill_after_an_epoch(data, tmp_path / "killed")
    assert start(data, tmp_path / "killed").wait() == 0

    folders = [tmp_path / "whole", tmp_path / "killed"]
    whole, killed = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert results[0] == results[1]
