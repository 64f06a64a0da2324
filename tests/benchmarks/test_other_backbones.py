"""Rows of the accuracy table on other backbones: weights, placement, labels of points, the page."""

import dataclasses
import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import environment
from safetensors.torch import save_file
from torch_geometric.data import Data

from pyg_peft import get_peft_model
from pyg_peft.backbones import PointNet, PointNetPlusPlus
from pyg_peft.trainable import trainable_parameters
from pyg_peft.tuners import METHODS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "accuracy"
SIZES: dict[str, Any] = {"channels": [[4, 6], [6, 8], [9, 10]], "head_channels": [7]}
GEOMETRY: dict[str, Any] = {"num_centers": [6, 3], "radii": [0.8, 2.0], "patch_sizes": [5, 4]}
PLAN = """
data: .
rates: [1.0e-3, 3.0e-3]
training: {{batch_size: 4, num_views: null, num_points: 32, val_fraction: 0.25,
           augmentation: rotate}}
variants:
  frozen_encoder: {{method: full_fine_tuning}}
  from_scratch: {{method: full_fine_tuning, weights: random}}
main: [full_fine_tuning, point_peft]
backbones:
  small:
    kind: PointNetPlusPlusSegmentation
    weights: weights.safetensors
    sha256: {sha256}
    sizes: {{num_centers: [6, 3], radii: [0.8, 2.0], patch_sizes: [5, 4],
            decoder_channels: [[8], [7], [6]], head_channels: [5]}}
    methods:
      full_fine_tuning: {{}}
      frozen_encoder: {{modules_to_save: [decoder, head]}}
      from_scratch: {{}}
      point_peft: {{target_modules: [levels.0], modules_to_save: [decoder, head],
                   bottleneck_channels: 4, attention_channels: 6}}
sets:
  halves: {{file: halves.npz, backbone: small, parts: true, seeds: 2, epochs: 2}}
"""


def write_halves(path: Path) -> None:
    """Clouds whose upper half is another part than their lower one."""
    clouds = np.random.default_rng(0).uniform(-1, 1, (16, 40, 3)).astype(np.float32)
    np.savez(
        path,
        xyz=clouds,
        seg=(clouds[:, :, 2] > 0).astype(np.uint8),
        label=np.zeros(16, int),
        class_names=np.array(["box"]),
        part_names=np.array(["bottom", "top"]),
        split=np.array([0] * 12 + [1] * 4),
    )


@pytest.fixture
def plan(modules: dict[str, Any], tmp_path: Path) -> Any:
    torch.manual_seed(0)
    model = PointNetPlusPlus(10, **SIZES, **GEOMETRY)
    weights = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(sha256=sha256))
    return modules["plan_file"].load_plan(path)


def rows_of(modules: dict[str, Any], plan: Any) -> list[Any]:
    return [modules["plan"].Row(slot, lr) for slot in plan.slots() for lr in plan.rates]


def test_only_what_fits_is_planned_and_weights_are_pinned(modules: dict[str, Any], plan: Any):
    slots = plan.slots()
    methods = ["full_fine_tuning", "point_peft", "frozen_encoder", "from_scratch"]
    assert list(dict.fromkeys(slot.method for slot in slots)) == methods
    configs = {row.slot.method: plan.config(row) for row in rows_of(modules, plan)}
    assert json.loads(json.dumps(configs)) == configs
    assert configs["point_peft"]["settings"]["target_modules"] == ["levels.0"]
    assert not configs["point_peft"]["bank"] and configs["point_peft"]["parts"]
    pinned = plan.backbones["small"].sha256
    assert configs["frozen_encoder"]["weights_hash"] == pinned
    assert configs["from_scratch"]["weights_hash"] == configs["from_scratch"]["weights"] == "random"
    plan.check_weights()
    other = dataclasses.replace(plan.backbones["small"], sha256="0" * 64)
    with pytest.raises(ValueError, match=rf"SHA-256 0{{64}} \(got {pinned}\)"):
        other.check_weights()
    with pytest.raises(ValueError, match=r"Expected 'kind' to be one of .* \(got PointNut\)"):
        modules["backbones"].Backbone.read({"kind": "PointNut"}, Path())


def test_rows_on_point_mae_know_nothing_of_other_backbones(modules: dict[str, Any]):
    plan = modules["plan_file"].load_plan(FOLDER / "plan.yaml")
    for row in rows_of(modules, plan):
        assert not {"backbone", "parts"} & plan.config(row).keys()


def test_weights_go_into_the_encoder(plan: Any):
    backbone = plan.backbones["small"]
    stored = backbone.open(3, seed=0).state_dict()
    again, other = (backbone.open(3, seed=seed).state_dict() for seed in (0, 1))
    scratch = backbone.open(3, seed=0, scratch=True).state_dict()
    kept = "levels.0.conv.local_nn.lins.0.weight"
    fresh = "decoder.0.mlp.lins.0.weight"
    assert all(torch.equal(value, again[key]) for key, value in stored.items())
    assert torch.equal(stored[kept], other[kept]) and not torch.equal(stored[kept], scratch[kept])
    assert not torch.equal(stored[fresh], other[fresh])


def test_every_planned_method_fits_its_backbone(
    modules: dict[str, Any], shared_dir: Path, tmp_path: Path
):
    import yaml

    plan = modules["plan_file"].load_plan(FOLDER / "graphs.yaml")
    recipe = yaml.safe_load((FOLDER / "pointnet2_modelnet10.yaml").read_text())
    save_file(
        PointNetPlusPlus(10, **recipe["sizes"]).state_dict(), tmp_path / "weights.safetensors"
    )
    pos, batch = torch.rand(120, 3), torch.arange(4).repeat_interleave(30)
    for name, backbone in plan.backbones.items():
        if not backbone.path.is_relative_to(shared_dir.resolve()):  # weights that a script makes
            backbone = dataclasses.replace(backbone, folder=tmp_path, weights="weights.safetensors")
        trained: dict[str, dict[str, int]] = {}
        for method in backbone.methods:
            settings = backbone.config(method, plan.methods[method])["settings"]
            config = METHODS[plan.methods[method].method].from_dict(settings)
            model = get_peft_model(backbone.open(7, 0), config)
            assert model(pos=pos, batch=batch).shape == (120 if "parts" in name else 4, 7)
            counts = trained[method] = {"levels": 0, "decoder": 0, "head": 0}
            for path, parameter in trainable_parameters(model.base):
                counts[path.split(".")[0]] += parameter.numel()
        whole = trained["full_fine_tuning"]
        assert trained["linear_probe"]["levels"] == trained["linear_probe"]["decoder"] == 0
        for method in trained.keys() - {"linear_probe"}:
            assert trained[method]["decoder"] == whole["decoder"]  # new, so trained by all
        for method in ("lora", "point_peft"):
            assert 0 < trained[method]["levels"] < whole["levels"] / 5


def test_axes_are_put_in_the_order_of_the_weights(modules: dict[str, Any]):
    pytest.importorskip("lightning", reason="lightning is not installed")
    order = importlib.import_module("cases").OrderAxes((0, 2, 1))
    del sys.modules["cases"]
    data = Data(pos=torch.tensor([[1.0, 2.0, 3.0]]))
    assert order(data).pos.tolist() == [[1.0, 3.0, 2.0]]
    assert data.pos is not None and data.pos.tolist() == [[1.0, 2.0, 3.0]]


def test_the_page_by_hand(modules: dict[str, Any], plan: Any, tmp_path: Path):
    hits = {"full_fine_tuning": (0.5, 0.6), "point_peft": (0.7, 0.9)}
    Results, generate = modules["finished"].Results, modules["table"].other_backbones
    assert generate({}, Results(tmp_path, plan), plan) == ""
    for row in rows_of(modules, plan):
        if row.slot.method not in hits:
            continue
        iou = hits[row.slot.method][row.slot.seed]
        best = row.lr == plan.rates[0]
        record: dict[str, Any] = {
            "config": plan.config(row),
            "clouds": {"train": 9, "val": 3, "test": 4},
            "classes": ["bottom", "top"],
            # The rate with more right points has the lower IoU, which counts.
            "val": {"accuracy": 0.4 if best else 0.9, "instance_iou": float(best), "loss": 1.0},
            "test": {"confusion": [[1, 0], [0, 1]], "instance_iou": iou, "mean_iou": iou / 2},
            "batch_of_one": {"clouds": 4, "other_classes": 0, "largest_difference": 1e-7},
            "parameters": {"trainable": 90, "head": 10, "decoder": 40},
        }
        record["parameters"]["trainable"] -= 30 * (row.slot.method == "point_peft")
        path = tmp_path / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    results = Results(tmp_path, plan)
    text = generate(modules["table"].collect(results, plan), results, plan)
    assert "2 parts; 9 clouds train, 3 validate, 4 test; 32 points" in text
    full = "| full_fine_tuning | 90 | 40 | 100.0 | 55.0 ± 7.1 | 27.5 ± 3.5 |  | 0.001 (end) | 2 |"
    peft = (
        "| point_peft | 60 | 10 | 25.0 | 80.0 ± 14.1 | 40.0 ± 7.1 | +25.0 ± 5.0 | 0.001 (end) | 2 |"
    )
    assert full in text and peft in text
    assert "4 of 8 runs of this plan are missing." in text


def run(script: str, *options: str, folder: Path) -> str:
    command = [sys.executable, str(FOLDER / script), *options]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=300, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_one_row_of_parts_from_end_to_end(plan: Any, tmp_path: Path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    write_halves(tmp_path / "halves.npz")
    options = ["--plan", "plan.yaml", "--results", "results", "--rows", "halves:point_peft"]
    run("run.py", *options, "--max_rows", "1", folder=tmp_path)
    (path,) = (tmp_path / "results").rglob("*.json")
    record = json.loads(path.read_text())
    assert record["clouds"] == {"train": 9, "val": 3, "test": 4}
    assert sum(map(sum, record["test"]["confusion"])) == 4 * 32
    assert 0 < record["test"]["instance_iou"] < 1
    assert len(record["val_curve"]) == 2
    assert record["val"]["instance_iou"] == pytest.approx(max(record["val_curve"]), abs=1e-4)
    assert record["batch_of_one"]["largest_difference"] < 1e-5
    counts, model = record["parameters"], plan.backbones["small"].open(2, 0)
    assert counts["decoder"] == sum(p.numel() for p in model.decoder.parameters())
    assert counts["without_head"] == counts["trainable"] - counts["decoder"] - counts["head"] > 0
    assert record["features_found"] == {}, "features of points are not kept"


@pytest.mark.slow
def test_pretraining_makes_weights_that_a_plan_can_pin(
    modules: dict[str, Any], shared_dir: Path, tmp_path: Path
):
    pytest.importorskip("lightning", reason="lightning is not installed")
    config = {
        "kind": "PointNet",
        "sizes": {"channels": [[4, 6], [6, 8]], "head_channels": [5], "transforms": False},
        "data": str(shared_dir / "data/tiny/tiny_modelnet10.npz"),
        "training": {
            "batch_size": 16,
            "num_points": 16,
            "val_fraction": 0.2,
            "augmentation": "rotate",
        },
        "epochs": 1,
        "lr": 1e-3,
        "seed": 0,
    }
    (tmp_path / "small.yaml").write_text(json.dumps(config))
    options = ["--config", "small.yaml", "--output", "weights", "--log", "log"]
    run("pretrain_classifier.py", *options, folder=tmp_path)
    record = json.loads((tmp_path / "log" / "small.json").read_text())
    entry = {
        "kind": "PointNet",
        "weights": "weights/small.safetensors",
        "sha256": record["sha256"],
        "methods": {},
    }
    backbone = modules["backbones"].Backbone.read(entry, tmp_path)
    backbone.check_weights()
    model = backbone.open(3, 0)
    assert isinstance(model, PointNet) and model.num_classes == 3
    assert record["parameters"] == sum(p.numel() for p in backbone.open(10, 0).parameters())
    statistics = model.state_dict()["levels.0.mlp.norms.0.module.running_mean"]
    assert statistics.abs().max() > 0  # it was trained, not only drawn
