"""Merged models: the whole model in a folder, with the logits of base and adapter."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyg_peft import LoRAConfig, VPTConfig, get_peft_model
from pyg_peft.backbones import PointMAE, PointNet
from pyg_peft.cli import main
from pyg_peft.deployment import load_merged, save_merged
from pyg_peft.errors import CheckpointError
from pyg_peft.loading import open_backbone
from pyg_peft.model import PeftModel
from pyg_peft.testing import randomize_

CLASSES = ["chair", "lamp", "table"]


def clouds() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "pos": torch.randn(80, 3, generator=generator),
        "batch": torch.arange(2).repeat(40).sort()[0],
    }


def adapted(config: LoRAConfig | VPTConfig) -> PeftModel:
    base = PointMAE.from_pretrained("point-mae-tiny", num_classes=3)
    model = get_peft_model(base, config)
    randomize_(model, torch.Generator().manual_seed(0))
    return model.eval()


def scores(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**clouds())


def test_it_gives_the_same_logits(tmp_path: Path):
    model = adapted(LoRAConfig(rank=2))
    expected = scores(model)
    settings = {"num_points": 40}
    merged = save_merged(model, tmp_path, class_names=CLASSES, preprocessing=settings).eval()
    torch.testing.assert_close(scores(merged), expected, rtol=1e-4, atol=1e-5)
    loaded = load_merged(tmp_path)
    assert torch.equal(scores(loaded), scores(merged))
    config = json.loads((tmp_path / "model_config.json").read_text())
    assert config["class_names"] == CLASSES and config["preprocessing"] == {"num_points": 40}
    # As weights of a base, of any command.
    again = open_backbone(str(tmp_path), 3, {}, 0).eval()
    assert torch.equal(scores(again), scores(loaded))
    assert open_backbone(str(tmp_path), 5, {}, 0).num_classes == 5


def test_prompts_are_refused(tmp_path: Path):
    with pytest.raises(NotImplementedError, match="vpt cannot be merged"):
        save_merged(adapted(VPTConfig(num_prompts=2)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_folders(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"a folder with model_config\.json"):
        load_merged(tmp_path)
    save_merged(adapted(LoRAConfig(rank=2)), tmp_path)
    path = tmp_path / "model_config.json"
    good = json.loads(path.read_text())
    for bad in (
        {**good, "fingerprint": "0" * 64},
        {**good, "backbone": {"class": "os.system", "config": good["backbone"]["config"]}},
        {**good, "backbone": {"class": 3, "config": {}}},
        {"format": 1},
        [],
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(CheckpointError):
            load_merged(tmp_path)


def test_the_command(tmp_path: Path, capsys):
    for package in ("jsonargparse", "lightning", "torchmetrics"):
        pytest.importorskip(package)
    adapted(LoRAConfig(rank=2)).save_pretrained(tmp_path / "lora", class_names=CLASSES)
    adapted(VPTConfig(num_prompts=2)).save_pretrained(tmp_path / "vpt", class_names=CLASSES)
    assert main(["merge", str(tmp_path / "lora"), "--output", str(tmp_path / "merged")]) == 0
    assert "merged model in " in capsys.readouterr().out
    expected = scores(
        PeftModel.from_pretrained(
            PointMAE.from_pretrained("point-mae-tiny", num_classes=3), tmp_path / "lora"
        )
    )
    merged = load_merged(tmp_path / "merged")
    torch.testing.assert_close(scores(merged), expected, rtol=1e-4, atol=1e-5)
    assert main(["merge", str(tmp_path / "vpt"), "--output", str(tmp_path / "none")]) == 2
    assert "pyg-peft export" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_sizes_of_a_merged_model_are_bounded(tmp_path: Path):
    model = get_peft_model(PointNet(4), LoRAConfig(target_modules=("levels.**.lins.*",)))
    save_merged(model.eval(), tmp_path)
    path = tmp_path / "model_config.json"
    config = json.loads(path.read_text())
    config["backbone"]["config"]["head_channels"] = [10**9]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"backbone\.config\.head_channels"):
        load_merged(tmp_path)
    with pytest.raises(CheckpointError, match=r"backbone\.config\.head_channels"):
        open_backbone(str(tmp_path), 4, {}, 0, PointNet)


def test_nothing_is_merged_if_a_value_is_no_json(tmp_path: Path):
    model = get_peft_model(PointNet(4), LoRAConfig(target_modules=("levels.**.lins.*",)))
    with pytest.raises(TypeError):
        save_merged(model, tmp_path, preprocessing={"a": object()})
    assert model.active_adapter == "default" and not list(tmp_path.iterdir())
