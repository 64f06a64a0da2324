"""The shapes that ship: their credits, what is left out, how they are made and opened by name."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import NpzShapes
from pyg_peft.datasets.npz.furniture import FILE
from pyg_peft.training.data.sources import check_recorded, open_source, shorthands

ROOT = Path(__file__).parents[2]
CREDITS = FILE.parent / "LICENSES.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "ship_furniture.py"
    spec = importlib.util.spec_from_file_location("ship_furniture", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shapes() -> Any:
    return NpzShapes.furniture()


def credit_lines() -> dict[str, list[str]]:
    lines = re.findall(r"^- (.*)$", CREDITS.read_text("utf-8"), re.MULTILINE)
    return {cells[0]: cells for cells in (line.split(" | ") for line in lines)}


def test_each_shape_has_its_credit_line(shapes):
    found, licenses = credit_lines(), shapes.fields["licence_names"]
    ids = shapes.field("ids").tolist()
    assert set(found) == set(ids) and len(ids) == len(set(ids)) == 307
    rows = zip(ids, shapes.field("creator"), shapes.field("licence"), strict=True)
    for name, creator, number in rows:
        assert creator in found[name][3] and found[name][-1] == licenses[number], name


def test_credits_name_licenses_and_changes(shapes):
    text = " ".join(CREDITS.read_text("utf-8").split())
    assert all(address in text for address in shapes.fields["licence_urls"])
    assert "Changed here: meshes flattened" in text and "Changed by pyg_peft: 25 shapes" in text
    assert "No author" in text and "winchester" not in text.lower()


def test_what_is_unclear_is_left_out(script, shapes):
    left_out = {name for names in script.LEFT_OUT.values() for name in names}
    assert len(left_out) == sum(map(len, script.LEFT_OUT.values())) == 25
    assert not left_out & set(shapes.field("ids").tolist())
    assert not re.search("ikea|samsung|apple", CREDITS.read_text("utf-8"), re.IGNORECASE)


def test_splits_are_of_whole_groups(shapes):
    train, test = NpzShapes.furniture("train"), NpzShapes.furniture("test")
    assert len(train) == 152 and len(test) == 155 and len(train) + len(test) == len(shapes)
    assert train.class_names == test.class_names and train.num_classes == 11
    assert not set(train.field("group")) & set(test.field("group"))
    for split in (train, test):
        assert int(torch.bincount(split.labels, minlength=11).min()) >= 5
    first: Any = train[0]
    pos = first.pos
    assert pos.shape == (1024, 3) and float(pos.norm(dim=1).max()) == pytest.approx(1)


def test_the_script_makes_the_shipped_files_again(script, shapes, shared_dir):
    folder = shared_dir / "data" / "furniture"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/furniture beside the repository")
    with np.load(folder / "furniture_demo.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    made = script.select(arrays)
    assert set(made) == set(shapes.fields)
    assert all(np.array_equal(made[name], shapes.fields[name]) for name in made)
    text = (folder / "LICENSES.md").read_text("utf-8")
    assert script.credits(text, made["ids"].tolist()) == CREDITS.read_text("utf-8")
    with pytest.raises(ValueError, match=r"to be in the set \(got no \['BlendSwap"):
        script.select({**arrays, "ids": arrays["ids"][::-1][:5]})
    with pytest.raises(ValueError, match=r"got none for \['foreign'\]"):
        script.credits(text, ["foreign"])


def test_by_name(tmp_path, monkeypatch):
    splits = open_source("furniture")
    assert (len(splits.train), splits.val, len(splits.test)) == (152, None, 155)
    assert "\n  furniture " in shorthands()
    check_recorded("furniture", {}, "result.json")
    with pytest.raises(ValueError, match="'data_args' to be arguments"):
        open_source("furniture", nonsense=1)
    # A folder of that name, which one could always name so, is the user's.
    monkeypatch.chdir(tmp_path)
    for name in ("chair", "lamp"):
        (tmp_path / "furniture" / name).mkdir(parents=True)
        np.save(tmp_path / "furniture" / name / "0.npy", np.random.rand(9, 3))
    assert open_source("furniture").class_names == ("chair", "lamp")
