"""The model card of an adapter: its header, its facts, and the example in it, which runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tuned import Way, tiny_base

import pyg_peft
from pyg_peft import LinearProbeConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.checkpoint import CARD, WEIGHTS, read_adapter
from pyg_peft.datasets import Preprocessing
from pyg_peft.loading import open_backbone
from pyg_peft.tuners.engine.card import model_card, with_repo

RANDOM = {"weights": {"source": "random", "seed": 0}}
PREPARED = {**Preprocessing(num_points=64, up_axis="y").to_dict(), **RANDOM}
SMALL = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 8, "patch_size": 8}
FACTS: dict[str, Any] = {
    "license": "CC-BY-4.0",
    "data": "chairs",
    "data_license": "in-house",
    "clouds": {"train": 1400, "val": 20, "test": 40},
    "val": {"accuracy": 0.81254, "count": 20},
    "test": {"accuracy": 0.8, "count": 40},
    "learning_rate": 0.001,
    "epochs": 50,
    "kept_epoch": 31,
    "scanner": ["a", "b"],
}


def write(folder: Path, **more: Any) -> str:
    """The card of a small adapter."""
    Way("lora").awake().save_pretrained(folder, **more)
    return (folder / CARD).read_text(encoding="utf-8")


def header_of(card: str) -> dict[str, Any]:
    yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load(card.split("---\n")[1])


def rows_of(card: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| (.*) \|$", card, re.MULTILINE))


def example_of(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


def test_facts_are_in_the_table(tmp_path: Path):
    card = write(tmp_path, class_names=list("abcd"), card=FACTS)
    rows = rows_of(card)
    assert rows["license of the adapter"] == "CC-BY-4.0" and rows["data"] == "chairs"
    assert rows["license of the data"] == "in-house"
    assert rows["clouds"] == "train 1,400, val 20, test 40" and rows["classes"] == "a, b, c, d"
    assert rows["validation"] == "accuracy 0.8125, count 20" and "0.8," in rows["test"]
    assert rows["learning rate"] == "0.001" and rows["epochs"] == "50, of which epoch 31 is kept"
    assert json.loads(rows["scanner"].replace("\\", "")) == ["a", "b"]
    assert read_adapter(tmp_path).config["card"] == FACTS


def test_what_is_unknown_is_said_as_unknown(tmp_path: Path):
    card = write(tmp_path)
    rows = rows_of(card)
    assert [rows[f"license of the {what}"] for what in ("adapter", "data")] == ["unknown"] * 2
    assert rows["data"] == "unknown" and "License of the base: unknown" in card
    assert "validation" not in rows and "card" not in read_adapter(tmp_path).config


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"license": "unknown"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        (
            "of our own: 'free'\n---",
            {"license": "other", "license_name": "of our own: 'free'\n---"},
        ),
    ],
)
def test_the_header_is_one_that_the_hub_takes(
    tmp_path: Path, given: str | None, expected: dict[str, str]
):
    card = write(tmp_path, card=None if given is None else {"license": given})
    header = header_of(card)
    assert {name: header[name] for name in header if name.startswith("license")} == expected
    assert header["library_name"] == "pyg_peft" and "peft" in header["tags"]
    hub: Any = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    assert hub.ModelCard(card).data.license == expected["license"]


def test_shipped_weights_come_with_their_terms(tmp_path: Path):
    source = {**Preprocessing().to_dict(), "weights": {"source": "point-mae-tiny", "seed": 0}}
    card = write(tmp_path, preprocessing=source)
    assert (
        "License: Apache-2.0" in card and "LDraw.org and its contributors, under CC BY 2.0" in card
    )
    other = write(tmp_path, preprocessing={"weights": {"source": "/home/me/[x].pth"}})
    assert "the file \\[x\\].pth" in other and "/home" not in other
    assert "License of the base: unknown" in other


def test_text_of_data_stays_text(tmp_path: Path):
    hostile = "a|b\n\n# c <img> [d](e) `f`\n```"
    facts = {"data": hostile, "license": hostile, "data_license": hostile, hostile: hostile}
    card = write(tmp_path, card={**facts, "val": {hostile: 1.0}, "clouds": 3})
    assert card.count("\n# ") == 1 and card.count("\n```") == 4
    assert header_of(card)["license_name"] == hostile
    table = card.split("---\n")[2]
    assert not any(mark in re.sub(r"\\.", "", table) for mark in ("<", "[d", "`f"))


CASES = {
    "PointMAE": SMALL,
    "PointMAESegmentation": SMALL | {"num_categories": 3, "num_levels": 1},
    "PointNet": {},
    "PointNetPlusPlus": {"in_channels": 2},
    "DGCNN": {"k": 4},
}


@pytest.mark.parametrize("name", CASES)
def test_the_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    base = open_backbone("random", 3, CASES[name], 0, BACKBONES[name])
    model = get_peft_model(base, LinearProbeConfig()).eval()
    model.save_pretrained(tmp_path / "adapter", preprocessing=PREPARED)
    example = example_of((tmp_path / "adapter" / CARD).read_text())
    assert "up_axis='y'" in example
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(example, found)
    rows = 64 if BACKBONES[name].task == "segmentation" else 1
    assert found["scores"].shape == (rows, 3) and "indices=" in capsys.readouterr().out


def test_the_example_of_shipped_weights_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = PointMAE.from_pretrained("point-mae-tiny", num_classes=2)
    get_peft_model(base, LinearProbeConfig()).save_pretrained(tmp_path / "org" / "name")
    example = with_repo(example_of((tmp_path / "org" / "name" / CARD).read_text()), "org/name")
    assert 'load("org/name")' in example
    monkeypatch.chdir(tmp_path)  # where the folder of that name takes precedence
    exec(example, {})


def test_the_example_for_a_model_of_ones_own(tmp_path: Path):
    Way("lora").awake().save_pretrained(tmp_path / "adapter")
    config = read_adapter(tmp_path / "adapter").config
    config["backbone"] = {"class": "MyModel", "config": None}
    example = example_of(model_card(config))
    assert "onto" not in example and "from_pretrained(base, " in example
    assert 'from_pretrained(base, "org/name")' in with_repo(example, "org/name")
    found = {"base": tiny_base()}
    exec(example.replace('"adapter"', repr(str(tmp_path / "adapter"))), found)
    assert isinstance(found["model"], pyg_peft.PeftModel)


def test_facts_that_change_nothing_else(tmp_path: Path):
    model = Way("lora").awake()
    model.save_pretrained(tmp_path / "with", card=FACTS)
    model.save_pretrained(tmp_path / "without")
    first, second = (read_adapter(tmp_path / name) for name in ("with", "without"))
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in second.tensors)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (["mit"], "'card' to be a mapping of facts by name"),
        ({1: "mit"}, "'card' to be a mapping of facts by name"),
        ({"license": 3}, r"'card.license' to be text \(got 3\)"),
        ({"data": object()}, "'card.data' to be text"),
        ({"x": object()}, "JSON"),
    ],
)
def test_mistakes(card: Any, message: str, tmp_path: Path):
    with pytest.raises(TypeError, match=message):
        write(tmp_path / "out", card=card)
    assert not (tmp_path / "out" / WEIGHTS).exists()
