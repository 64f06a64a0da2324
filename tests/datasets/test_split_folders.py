"""Folders of splits (issue 12, B6): their usual names, and what is neither splits nor classes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_peft.datasets import NpzShapes, ShapeFolder
from pyg_peft.datasets.folders.index import index_folder

open_folder: Any = ShapeFolder


def fill(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, np.random.default_rng(number).normal(size=(10, 3)))
    return root


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "valid"), ("train", "val")),
        (("train", "validation"), ("train", "val")),
        (("Train", "Test"), ("test", "train")),
        (("training", "testing"), ("test", "train")),
        (("TRAIN", "VAL", "TEST"), ("test", "train", "val")),
        (("test",), ("test",)),
    ],
)
def test_the_usual_names_of_splits(tmp_path, folders, splits):
    fill(tmp_path / "first", *(f"{folder}/{name}/1.npy" for folder in folders for name in "ab"))
    fill(tmp_path / "inside", *(f"{name}/{folder}/1.npy" for folder in folders for name in "ab"))
    for root in (tmp_path / "first", tmp_path / "inside"):
        index = index_folder(root)
        assert (index.splits, index.class_names) == (splits, ("a", "b"))
        assert open_folder(root, splits[-1]).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("train/a/1.npy", "test/a/1.npy", "stray/1.npy"), "beside other .*: stray, test, train"),
        (("train/a/1.npy", "eval/a/1.npy"), "beside other folders with shapes: eval, train"),
        (("train/1.npy", "test/2.npy"), "shapes without a class in 'test'"),
        (("val/a/1.npy", "valid/a/1.npy", "train/a/1.npy"), "two folders for one split"),
        (("train/test/1.npy", "train/val/1.npy"), "splits inside of splits"),
        (("train_set/a/1.npy", "test_set/a/1.npy"), "usual names .*got test_set, train_set"),
        (("trainset/a/1.npy", "Testset/a/1.npy"), "usual names .*got Testset, trainset"),
        (("train2017/a/1.npy", "val2017/a/1.npy"), "usual names .*got train2017, val2017"),
        (
            ("x-train/a/1.npy", "x-test/a/1.npy", "b/c/1.npy"),
            "usual names .*got b, x-test, x-train",
        ),
        (("train/a/1.npy", "Test/a/note.md.gz.npy.bak"), r"no shapes in \['Test'\]"),
    ],
)
def test_what_looks_like_splits_but_is_none(tmp_path, names, match):
    with pytest.raises(ValueError, match=match):
        open_folder(
            fill(tmp_path, *[name for name in names if name.endswith(".npy")])
            if "bak" not in names[-1]
            else _with_empty(tmp_path, names)
        )


def test_classes_may_be_called_like_splits(tmp_path):
    fill(tmp_path / "flat", "toy train/1.npy", "test tube/1.npy", "cup/1.npy")
    assert index_folder(tmp_path / "flat").class_names == ("cup", "test tube", "toy train")
    fill(tmp_path / "deep", "toy train/train/1.npy", "test tube/train/1.npy")
    assert index_folder(tmp_path / "deep").splits == ("train",)


def _with_empty(root: Path, names: tuple[str, ...]) -> Path:
    (root / names[-1]).parent.mkdir(parents=True)
    (root / names[-1]).write_text("no shape")
    return fill(root, *names[:-1])


def test_sources_of_test_shapes_only(tmp_path):
    pytest.importorskip("lightning")
    from pyg_peft.training import ShapeDataModule, open_source

    splits = open_source(str(fill(tmp_path / "s", "test/a/1.npy", "test/b/1.npy")))
    assert splits.train is None and len(splits.test) == 2 and not splits.whole
    with pytest.raises(ValueError, match=r"a training split \(got only test\)"):
        ShapeDataModule.from_source(splits, data_args={})
    held = splits.for_evaluation()
    assert len(held.test) == 2 and held.train is not None
    path = tmp_path / "set.npz"
    clouds = [np.random.rand(5, 3) for _ in range(2)]
    NpzShapes.write(path, clouds, [0, 1], class_names=["a", "b"], split=["test"] * 2)
    assert open_source(str(path)).train is None


def test_classes_that_cannot_be_learned_are_named(tmp_path, caplog):
    pytest.importorskip("lightning")
    from pyg_peft.training import open_source

    names = ["train/a/1.npy", "train/a/2.npy", "train/b/1.npy", "test/a/1.npy", "test/c/1.npy"]
    with caplog.at_level(logging.WARNING):
        open_source(str(fill(tmp_path, *names)))
    assert "no shape to train on, only others: c" in caplog.text
    assert "a single shape to train on: b" in caplog.text


def test_pretraining_leaves_test_shapes_alone(tmp_path):
    pytest.importorskip("lightning")
    from pyg_peft.training.pretraining.corpus_sources import open_corpus

    root = fill(tmp_path / "deep", "test/a/1.npy", "test/b/1.npy")
    with pytest.raises(ValueError, match=r"a training split \(got only test\)"):
        open_corpus([str(root)])
    assert len(open_corpus([str(root)], splits="all")) == 2
    flat = str(fill(tmp_path / "flat", "Train/1.npy", "Train/2.npy", "Test/1.npy"))
    assert len(open_corpus([flat])) == 2 and len(open_corpus([flat], splits="all")) == 3
