"""`pyg-peft pretrain` as a process of its own, killed at moments that nobody chose."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

for needed in ("jsonargparse", "lightning", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

SIZES = {
    "embed_dim": 12,
    "depth": 1,
    "num_heads": 3,
    "num_centers": 6,
    "patch_size": 4,
    "decoder_depth": 1,
    "decoder_num_heads": 3,
    "num_cloud_points": 8,
}


def command(output: Path) -> list[str]:
    sizes = [f"--model.{name}={value}" for name, value in SIZES.items()]
    # Some checkpoints, not one a step, so that a kill undoes steps that are logged.
    options = ["epochs=40", "batch_size=8", "log_every=1", "checkpoint_minutes=0.01"]
    fixed = [f"--options.{option}" for option in [*options, "views.num_points=64"]]
    run = ["-m", "pyg_peft.cli", "pretrain", "--data", "procedural:80", "--output", str(output)]
    return [sys.executable, *run, *sizes, *fixed, "--threads=1", "--device=cpu"]


def read_log(folder: Path) -> list[dict[str, float]]:
    path = folder / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def kill_after(output: Path, moment: float) -> None:
    """Start the command, and kill it so many seconds after it has logged something new."""
    before = len(read_log(output))
    child = subprocess.Popen(command(output), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while len(read_log(output)) <= before and child.poll() is None:
        assert time.monotonic() < limit, "nothing is logged"
        time.sleep(0.01)
    time.sleep(moment)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"


@pytest.mark.slow
def test_three_random_kills_change_nothing(tmp_path: Path):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL)
    steps = len(read_log(whole))
    moments = random.Random(0)
    for _ in range(3):
        kill_after(killed, moments.uniform(0.0, 0.8))
    assert 0 < len(read_log(killed)) < steps
    subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
    assert read_log(killed) == read_log(whole)
    first, second = (
        torch.load(folder / "checkpoint.pth", weights_only=True)["model"]
        for folder in (whole, killed)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
