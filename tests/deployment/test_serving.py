"""The script on the page serves what the command exports."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_peft import PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.cli import main
from pyg_peft.datasets import Normalize
from pyg_peft.testing import randomize_

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
CLASSES = ["chair", "lamp", "table"]


@pytest.mark.slow
def test_the_script_of_the_page(tmp_path: Path):
    for package in ("jsonargparse", "lightning", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    base = PointMAE.from_pretrained("point-mae-tiny", num_classes=3)
    model = get_peft_model(base, PointPEFTConfig(bottleneck_channels=4, num_prompts=2))
    randomize_(model, torch.Generator().manual_seed(0))
    settings = {"num_points": None, "normalize": True, "up_axis": "z"}
    model.save_pretrained(tmp_path / "adapter", class_names=CLASSES, preprocessing=settings)
    path = str(tmp_path / "model.onnx")
    told = ["export", str(tmp_path / "adapter"), "--output", path, "--preprocessing", "true"]
    assert main(told) == 0
    (script,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "serve.py").write_text(script)
    lines: list[str] = []
    names: list[str] = []
    for number, size in enumerate((300, 150)):
        pos = 5 * torch.randn(size, 3, generator=torch.Generator().manual_seed(number))
        np.save(tmp_path / f"{number}.npy", pos.numpy())
        names.append(f"{number}.npy")
        with torch.no_grad():
            scores = model.eval()(pos=_normalized(pos))
        lines.append(f"{number}.npy   {CLASSES[int(scores.argmax())]}")
    command = [sys.executable, "serve.py", path, *names]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == lines


def _normalized(pos: torch.Tensor) -> torch.Tensor:
    from torch_geometric.data import Data

    prepared = Normalize()(Data(pos=pos)).pos
    assert prepared is not None
    return prepared
