"""`pyg-peft pretrain` as a process of its own, killed at moments that nobody chose."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import environment, logged, pretrain

for needed in ("jsonargparse", "lightning", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")


def command(output: Path, data: str) -> list[str]:
    # Some checkpoints, not one a step, so that a kill undoes steps that are logged.
    options = ("epochs=40", "log_every=1", "checkpoint_minutes=0.01")
    fixed = [f"--options.{option}" for option in options]
    arguments = pretrain(data, output, *fixed, "--device=cpu")
    return [sys.executable, "-m", "pyg_peft.cli", *arguments]


def count_lines(folder: Path) -> int:
    """Whole lines of the log; the last one may be half written."""
    path = folder / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finish(output: Path, data: str) -> None:
    subprocess.run(command(output, data), env=environment(), check=True, stdout=subprocess.DEVNULL)


def kill_after(output: Path, data: str, moment: float) -> None:
    """Start the command, and kill it so many seconds after it has logged something new."""
    before = count_lines(output)
    child = subprocess.Popen(command(output, data), env=environment(), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while count_lines(output) <= before and child.poll() is None:
        assert time.monotonic() < limit, "nothing is logged"
        time.sleep(0.01)
    time.sleep(moment)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("data", ["procedural:80", "procedural:80/epoch"])
def test_three_random_kills_change_nothing(tmp_path: Path, data: str):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole, data)
    steps = count_lines(whole)
    moments = random.Random(0)
    for _ in range(3):
        kill_after(killed, data, moments.uniform(0.0, 0.8))
    assert 0 < count_lines(killed) < steps
    finish(killed, data)
    assert logged(killed) == logged(whole)
    first, second = (
        torch.load(folder / "checkpoint.pth", weights_only=True)["model"]
        for folder in (whole, killed)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
