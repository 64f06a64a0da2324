"""Folders as people have them: links, capitals, notes beside the classes, a damaged cache."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import ShapeFolder
from pyg_peft.datasets.folders.index import files_below

# PyG types an item as a union, on which no attribute can be read.
open_folder: Any = ShapeFolder


def fill(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, np.random.default_rng(number).normal(size=(10 + number, 3)))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "shapes", "bolt/1.npy", "bolt/2.npy", "nut/1.npy")


def test_columns_of_files_in_capitals(tmp_path):
    for name in ("a/1.TXT", "a/2.txt", "b/1.Xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("5 0 0 0\n7 3 0 0\n9 0 3 0\n")
    columns = ["intensity", "x", "y", "z"]
    dataset = open_folder(tmp_path, columns=columns, channels=["intensity"], normalize=False)
    for item in dataset:
        assert item.x.flatten().tolist() == [5, 7, 9]
        assert item.pos.tolist() == [[-1, -1, 0], [2, -1, 0], [-1, 2, 0]]


def test_linked_folders_and_files_are_shapes(root, tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", "screw/1.npy", "more/deep/2.npy", "3.npy")
    (root / "screw").symlink_to(elsewhere / "screw")
    (root / "nut" / "more").symlink_to(elsewhere / "more", target_is_directory=True)
    (root / "nut" / "9.npy").symlink_to(elsewhere / "3.npy")
    dataset = open_folder(root)
    assert dataset.class_names == ("bolt", "nut", "screw")
    assert dataset.files[2:] == ("nut/1.npy", "nut/9.npy", "nut/more/deep/2.npy", "screw/1.npy")
    # What a link leads to is part of the fingerprint, too.
    before = dataset[5].pos
    np.save(elsewhere / "screw" / "1.npy", np.random.default_rng(9).normal(size=(30, 3)))
    assert open_folder(root)[5].pos.shape != before.shape


def test_links_in_a_circle_end(root):
    (root / "bolt" / "up").symlink_to(root)
    (root / "nut" / "self").symlink_to(root / "nut")
    (root / "twin").symlink_to(root / "nut")
    names = [path.relative_to(root).as_posix() for path in files_below(root)]
    assert names == ["bolt/1.npy", "bolt/2.npy", "nut/1.npy", "twin/1.npy"]
    assert open_folder(root).class_names == ("bolt", "nut", "twin")


def test_notes_beside_the_classes_are_passed_over(root):
    (root / "README.txt").write_text("Shapes of bolts and nuts.\n")
    (root / "names.txt").write_text("bolt\nnut\n")
    np.save(root / "labels.npy", np.array([0, 0, 1]))
    np.savez(root / "set.npz", xyz=np.zeros((3, 5, 3)))
    dataset = open_folder(root)
    assert dataset.files == ("bolt/1.npy", "bolt/2.npy", "nut/1.npy")


@pytest.mark.parametrize(("name", "text"), [("a.txt", "1 2 3\n4 5 6\n"), ("a.off", "OFF\n1 0\n")])
def test_clouds_beside_the_classes_are_an_error(root, name, text):
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=rf"to lie in class folders \(got '{name}'\)"):
        open_folder(root)
    (root / name).unlink()
    # Another's notes in a class are no notes beside it: they would be a shape.
    (root / "bolt" / "readme.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"bolt/readme.txt: .*line 1: expected numbers"):
        open_folder(root)


@pytest.mark.parametrize("name", ["README.txt", "a.off", "b.npy"])
def test_a_folder_of_files_only(tmp_path, name):
    (tmp_path / name).write_text("what it is does not matter")
    with pytest.raises(ValueError, match=rf"\(got '{name}' and no folder with shapes\)"):
        open_folder(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_cache_is_made_anew(root, damage, caplog):
    whole = [item.pos for item in open_folder(root)]
    (path,) = (root / ".pyg_peft").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    changed = {"cut": content[:100], "flipped": content, "empty": b"", "other": b"\x80\x04N."}
    path.write_bytes(changed[damage])
    with caplog.at_level(logging.WARNING):
        again = open_folder(root)
    assert all(torch.equal(item.pos, pos) for item, pos in zip(again, whole, strict=True))
    assert "the cache is made anew" in caplog.text and path.name in caplog.text
    caplog.clear()
    open_folder(root)
    assert not caplog.text, "the next one finds it whole"


def test_how_files_were_read(root):
    assert open_folder(root, num_points=None).read_args == {"num_points": None}
    options = {"channels": ["normal"], "fill": 0.0, "columns": ["x", "y", "z"]}
    dataset = open_folder(root, num_points=32, **options, drop_invalid=True)
    assert dataset.read_args == {"num_points": 32, **options, "drop_invalid": True}
    assert dataset[:1].read_args == dataset.read_args
