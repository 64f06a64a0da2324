"""Folders of shapes: layouts, the cache and when it is renewed, unreadable files all at once."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_peft.datasets import NpzShapes, ShapeFolder
from pyg_peft.datasets.folders import cache as folder_cache

TRIANGLE = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 {} 0\n3 0 1 2\n"

# PyG types an item as a union, on which no attribute can be read.
open_folder: Any = ShapeFolder
open_set: Any = NpzShapes


def fill(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".off":
            path.write_text(TRIANGLE.format(number + 1))
        else:
            np.save(path, np.random.default_rng(number).normal(size=(10 + number, 3)))
    return root


FLAT = ("cup/a.off", "cup/b.npy", "bowl/a.off")
MODELNET = ("desk/train/d1.off", "desk/test/d2.off", "bed/train/b1.off", "bed/test/b2.off")
SPLIT_FIRST = ("train/desk/d1.off", "test/desk/d2.off", "train/bed/b1.off", "test/bed/b2.off")


def test_flat_layout(tmp_path):
    dataset = open_folder(fill(tmp_path, *FLAT, "cup/readme.md.bak.npy"), num_points=64)
    assert repr(dataset) == "ShapeFolder(4)"
    assert dataset.class_names == ("bowl", "cup")
    assert dataset.files == ("bowl/a.off", "cup/a.off", "cup/b.npy", "cup/readme.md.bak.npy")
    assert dataset.labels.tolist() == [0, 1, 1, 1]
    assert [int(item.sample_id) for item in dataset] == [0, 1, 2, 3]
    assert [item.num_nodes for item in dataset] == [64, 64, 11, 13]
    for item in dataset:
        assert item.pos.norm(dim=1).max() == pytest.approx(1)
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch.ptr.tolist() == [0, 64, 128, 139, 152]


@pytest.mark.parametrize("names", [MODELNET, SPLIT_FIRST])
def test_layouts_with_splits(tmp_path, names):
    fill(tmp_path, *names)
    train, test = open_folder(tmp_path, "train"), open_folder(tmp_path, "test")
    assert train.class_names == test.class_names == ("bed", "desk")
    assert train.labels.tolist() == test.labels.tolist() == [0, 1]
    assert not {int(i.sample_id) for i in train} & {int(i.sample_id) for i in test}
    assert len(open_folder(tmp_path)) == 4
    assert len(list((tmp_path / ".pyg_peft").iterdir())) == 1
    with pytest.raises(ValueError, match=r"of \['test', 'train'\] \(got 'val'\)"):
        open_folder(tmp_path, "val")


def test_the_cache_is_used_until_the_folder_changes(tmp_path, monkeypatch):
    fill(tmp_path, *FLAT)
    first = open_folder(tmp_path)[0].pos
    real, parsed = folder_cache.read_points, []

    def counted(path: Path, *arguments: Any, **options: Any) -> Data:
        parsed.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(folder_cache, "read_points", counted)
    assert torch.equal(open_folder(tmp_path)[0].pos, first)
    assert parsed == []
    (tmp_path / "bowl/a.off").write_text(TRIANGLE.format(9))
    assert not torch.equal(open_folder(tmp_path)[0].pos, first)
    assert len(parsed) == 3
    os.utime(tmp_path / "cup/a.off", (1, 1))
    open_folder(tmp_path)
    assert len(parsed) == 6
    (tmp_path / "cup/a.off").unlink()
    assert len(open_folder(tmp_path)) == 2
    open_folder(tmp_path, num_points=16)
    assert len(list((tmp_path / ".pyg_peft").glob("processed-*.npz"))) == 2
    open_folder(tmp_path, num_points=16)
    assert len(parsed) == 10


def test_where_the_cache_goes(tmp_path):
    root = fill(tmp_path / "shapes", *FLAT)
    plain = open_folder(root, cache=False)
    assert not (root / ".pyg_peft").exists()
    cached = open_folder(root, cache=tmp_path / "elsewhere")
    assert torch.equal(plain[0].pos, cached[0].pos)
    (path,) = (tmp_path / "elsewhere").glob("*.npz")
    as_set = open_set(path)
    assert as_set.class_names == cached.class_names
    assert torch.equal(as_set[2].pos, cached[2].pos)
    with pytest.raises(ValueError, match="'cache' to lie outside"):
        open_folder(root, cache=root / "processed")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose another folder by 'cache'"):
        open_folder(root, cache=tmp_path / "file")


def test_channels(tmp_path):
    fill(tmp_path, *FLAT)
    with pytest.raises(ValueError, match=r"(?s)got 1 that are not.*cup/b.npy.*\['normal'\]"):
        open_folder(tmp_path, channels=["normal"])
    dataset = open_folder(tmp_path, channels=["normal"], fill=0.0)
    assert dataset[0].x.abs()[0].tolist() == [0, 0, 1]
    assert not dataset[2].x.any()


def test_subset_is_fixed_and_coordinates_can_stay(tmp_path):
    fill(tmp_path, *FLAT)
    dataset = open_folder(tmp_path, num_points=5, normalize=False, cache=False)
    again = open_folder(tmp_path, num_points=5, normalize=False, cache=False)
    assert [item.num_nodes for item in dataset] == [5, 5, 5]
    assert torch.equal(dataset[2].pos, again[2].pos)
    whole = open_folder(tmp_path, num_points=None, normalize=False, cache=False)
    assert [item.num_nodes for item in whole] == [2048, 2048, 11]
    rows = {tuple(row) for row in whole[2].pos.tolist()}
    assert {tuple(row) for row in dataset[2].pos.tolist()} <= rows


def test_unreadable_files_are_listed_together(tmp_path):
    fill(tmp_path, *FLAT)
    (tmp_path / "cup/broken.off").write_text("OFF\n1 x 0\n")
    (tmp_path / "bowl/cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match="got 2 that are not") as caught:
        open_folder(tmp_path)
    assert "bowl/cut.npy: " in str(caught.value)
    assert "cup/broken.off: " in str(caught.value)
    assert "line 2: expected two counts" in str(caught.value)
    assert not (tmp_path / ".pyg_peft").exists()


@pytest.mark.parametrize(
    ("names", "arguments", "match"),
    [
        ((), {}, "to hold files of"),
        (("a.off",), {}, r"to lie in class folders \(got 'a.off' and no folder"),
        (("cup/train/a.off", "cup/b.off"), {}, r"to be in a split \(got 'cup/b.off'\)"),
        (FLAT, {"split": "train"}, r"'split' to be one that .* of \[\] \(got 'train'\)"),
        (FLAT, {"extensions": [".glb"]}, r"'extensions' to be of .* \(got \['.glb'\]\)"),
        (FLAT, {"num_points": 0}, "'num_points' to be >= 1"),
    ],
)
def test_mistakes_are_named(tmp_path, names, arguments, match):
    with pytest.raises(ValueError, match=match):
        open_folder(fill(tmp_path, *names), **arguments)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="'root' to be a folder"):
        open_folder(tmp_path / "absent")
