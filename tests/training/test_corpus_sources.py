"""What `--data` of pre-training names: files, folders, public data sets, shapes that are made."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelnet_files import write_modelnet

from pyg_peft.datasets import NpzShapes, ProceduralStream, ScanEffects, ShapeFolder
from pyg_peft.training.pretraining.corpus_sources import open_corpus


def test_sources_are_joined(tmp_path):
    path = tmp_path / "set.npz"
    NpzShapes.write(path, [np.random.rand(n, 3) for n in (5, 7)], [0, 1], class_names=["a", "b"])
    corpus = open_corpus([str(path), "procedural:3"])
    assert [len(cloud) for cloud in corpus.clouds] == [5, 7, 1024, 1024, 1024]


def test_labels_do_not_matter_and_splits_do(tmp_path):
    path = tmp_path / "set.npz"
    points = [np.random.default_rng(n).random((n, 3)) for n in (5, 6, 7, 8)]
    names = ["train", "test", "train", "val"]
    NpzShapes.write(path, points, [0, 0, -1, 1], class_names=["a", "b"], split=names)
    assert [len(cloud) for cloud in open_corpus([str(path)]).clouds] == [5, 7]
    everything = open_corpus([str(path)], splits="all").clouds
    assert [len(cloud) for cloud in everything] == [5, 6, 7, 8]
    labeled: Any = NpzShapes(path)
    assert torch.equal(everything[1], labeled[1].pos), "normalized as the data set does"
    with pytest.raises(ValueError, match=r"Expected 'splits' .* \(got 'test'\)"):
        open_corpus([str(path)], splits="test")  # pyright: ignore[reportArgumentType]


def test_shapes_that_are_made():
    stream: Any = ProceduralStream(1500)
    clean = open_corpus(["procedural:2"], num_points=1500).clouds
    assert torch.equal(clean[1], stream.shape(1).pos)
    scans: Any = ProceduralStream(difference_probability=0.5, scan=ScanEffects())
    assert torch.equal(open_corpus(["scans:2"], num_points=8).clouds[1], scans.shape(1).pos)


def test_new_shapes_in_each_epoch():
    corpus = open_corpus(["procedural:2", "scans:3/epoch", "procedural:4/epoch"])
    assert len(corpus) == 9 and len(corpus.clouds) == 2
    # Each has a seed of its own, so that they share no solid.
    clean: Any = ProceduralStream()
    scans: Any = ProceduralStream(seed=1, difference_probability=0.5, scan=ScanEffects())
    other: Any = ProceduralStream(seed=2)
    for epoch in (0, 2):
        for row, expected in (
            (1, clean.shape(1)),
            (2, scans.shape(3 * epoch)),
            (4, scans.shape(3 * epoch + 2)),
            (5, other.shape(4 * epoch)),
            (8, other.shape(4 * epoch + 3)),
        ):
            assert torch.equal(corpus.cloud(row, epoch), expected.pos)
    for row in (-1, 9):
        with pytest.raises(IndexError, match=r"'row' to lie in \[0, 8\] \(got"):
            corpus.cloud(row, 0)


def test_streams_are_told_apart():
    specs = ("procedural:3/epoch", "scans:3/epoch", "procedural:4/epoch", "procedural:3")
    found = [open_corpus([spec]).identity() for spec in specs]
    assert open_corpus(["procedural:3/epoch"]).identity() == found[0]
    assert all(a != b for a, b in itertools.combinations(found, 2))


def test_meshes_of_a_public_data_set(tmp_path):
    spec = f"modelnet10:{write_modelnet(tmp_path / 'mn')}"
    clouds = open_corpus([spec], num_points=50).clouds
    assert [len(cloud) for cloud in clouds] == [100] * 30, "of the training split, from the faces"
    assert all(0.99 < cloud.norm(dim=1).max() < 1.01 for cloud in clouds)
    assert len(open_corpus([spec], splits="all", num_points=50)) == 40


def write_shapes(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, np.random.default_rng(number).random((number + 4, 3)))


def sizes(root: Path) -> list[int]:
    return [len(cloud) for cloud in open_corpus([str(root)]).clouds]


def test_folders_of_any_layout(tmp_path):
    flat, classes, splits = (tmp_path / name for name in ("flat", "classes", "splits"))
    write_shapes(flat, "a.npy", "deep/er/b.npy", ".hidden/c.npy", "notes.md.npy")
    assert sorted(sizes(flat)) == [4, 5, 7]
    write_shapes(classes, "bolt/1.npy", "nut/1.npy")
    assert sizes(classes) == [4, 5]
    (classes / "README.txt").write_text("Bolts and nuts.\n")
    assert sizes(classes) == [4, 5]
    # Nothing is learned from what is to test it.
    write_shapes(splits, "bolt/test/1.npy", "bolt/train/2.npy", "nut/train/3.npy")
    assert sizes(splits) == [5, 6]
    (cloud, *_) = open_corpus([str(flat)]).clouds
    assert cloud.norm(dim=1).max() == pytest.approx(1) and cloud.mean(dim=0).abs().max() < 1e-6
    # Read again, from the cache; a labeled data set of the same files does not take it.
    assert sorted(sizes(flat)) == [4, 5, 7]
    (flat / "a.npy").unlink()
    (flat / "notes.md.npy").unlink()
    assert sizes(flat) == [5]
    labeled: Any = ShapeFolder(flat)
    assert labeled.class_names == ("deep",) and labeled.labels.tolist() == [0]


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="to hold files of"):
        open_corpus([str(tmp_path)])
    write_shapes(tmp_path, "good.npy")
    (tmp_path / "bad.off").write_text("OFF\n")
    with pytest.raises(ValueError, match=r"to be readable \(got 1 that are not\):\n  bad.off"):
        open_corpus([str(tmp_path)])


@pytest.mark.parametrize(
    "spec",
    [
        "procedural:x",
        "procedural:0",
        "scans:0/epoch",
        "scans:2/batch",
        "no_such.npz",
        "somewhere",
        "modelnet10:",
    ],
)
def test_unknown_source(spec):
    with pytest.raises(ValueError, match="Expected 'data'"):
        open_corpus([spec])
