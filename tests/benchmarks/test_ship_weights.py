"""A finished pre-training run becomes weights that load, with a card that says what they are."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import environment
from safetensors.torch import load_file

from pyg_peft.backbones import PointMAE, PointMAECompletion
from pyg_peft.backbones.weights import shipped
from pyg_peft.datasets import ProceduralStream
from pyg_peft.training.pretraining.corpus import Corpus, ViewOptions
from pyg_peft.training.pretraining.options import PretrainOptions
from pyg_peft.training.pretraining.run import pretrain

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy" / "ship_weights.py"
CARD = Path(shipped.__file__).parent.parent / "pretrained_weights" / "point_mae_tiny.md"
SIZES = {"embed_dim": 12, "depth": 1, "num_heads": 3, "num_centers": 6, "patch_size": 4}


@pytest.mark.slow
def test_a_run_is_shipped(tmp_path: Path):
    torch.manual_seed(0)
    network = PointMAECompletion(**SIZES, decoder_depth=1, decoder_num_heads=3, num_cloud_points=8)
    corpus = Corpus((torch.randn(24, 3) for _ in range(6)), [(ProceduralStream(24), 2)])
    views = ViewOptions(num_points=24)
    options = PretrainOptions(epochs=1, batch_size=4, log_every=1, views=views)
    pretrain(network, corpus, tmp_path / "run", options)
    command = [sys.executable, str(SCRIPT), "--run", str(tmp_path / "run"), "--name", "my-tiny"]
    (tmp_path / "data.md").write_text("Balls of one maker,\nand solids.\n")
    command += ["--data_text", str(tmp_path / "data.md"), "--config", "balls.yaml"]
    command += ["--weights_folder", str(tmp_path / "weights"), "--log_folder", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "weights" / "my_tiny.safetensors"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    card = path.with_suffix(".md").read_text()
    assert sha256 in card and sha256 in done.stdout
    assert "**Data**: 8 clouds an epoch, without labels. Balls of one maker,\n  and solids." in card
    assert "2 steps of 4 clouds (1 epochs)" in card and "Configuration: `balls.yaml`" in card
    assert "in float32, seed 0" in card and "distance 1, 24 points" in card
    # The shipped card was written before this script took the text of a file; it says the same.
    text = (SCRIPT.parent / "point_mae_tiny_data.md").read_text()
    assert " ".join(text.split()) in " ".join(CARD.read_text().split())
    assert (tmp_path / "my_tiny_log.jsonl").read_text().count("loss") == 2
    keep = {name: SIZES[name] for name in ("num_heads", "num_centers", "patch_size")}
    loaded = PointMAE.from_checkpoint(load_file(path), 5, **keep)
    torch.testing.assert_close(loaded.norm.weight, network.norm.weight, atol=1e-3, rtol=1e-3)
