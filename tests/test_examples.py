"""The page of examples lists every script; some run on data of a user's.

All run to their end in the environment `slow`, by `tests/support/run_examples.py`.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import environment
from modelnet_files import write_modelnet

from pyg_peft.datasets import NpzShapes

ROOT = Path(__file__).parents[1]
EPISODES = ["--ways", "2", "--shots", "3", "--episodes", "2", "--queries", "2"]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, folder: Path, *arguments: str) -> str:
    """Run an example in a process of its own and return what it prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(), check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_the_page_lists_it(script):
    assert f"`{script.name}`" in (ROOT / "docs" / "examples.md").read_text()


@pytest.mark.parametrize("name", ["modelnet_point_transformer.py", "modelnet_pointnet2.py"])
def test_with_the_modelnet_of_pyg(name, tmp_path):
    root = write_modelnet(tmp_path / "modelnet", num_train=4)
    told = run(name, tmp_path, "--data", str(root), "--epochs", "1")
    assert "point_peft: " in told and "lora: " in told


def test_few_shots_of_a_file_on_shipped_weights(tmp_path):
    clouds = np.random.default_rng(0).normal(size=(12, 64, 3))
    NpzShapes.write(tmp_path / "set.npz", list(clouds), [0, 1] * 6, class_names=["a", "b"])
    told = run("few_shot.py", tmp_path, "--data", "set.npz", "--epochs", "1", *EPISODES)
    assert told.startswith("linear_probe: ") and "\npoint_peft: " in told
