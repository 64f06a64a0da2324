"""Every example runs, on small input, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARGUMENTS = {
    "shapenet_part_segmentation.py": ["--epochs", "1", "--shapes", "16"],
    "train_loop.py": ["--epochs", "1", "--shapes", "24"],
}


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_example(script, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *ARGUMENTS.get(script.name, [])]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert "%" in done.stdout
    assert len(script.read_text().splitlines()) <= 80
