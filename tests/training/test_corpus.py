from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import NpzShapes, ShapeFolder
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.training.corpus import Corpus, ViewOptions, open_corpus, random_view

PLAIN = {"tip_probability": 0.0, "tilt_degrees": 0.0, "shift": 0.0}


def clouds(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, generator=generator) for size in sizes]


def test_views_are_keyed_by_sample_and_epoch_not_by_batch():
    corpus, views = Corpus(clouds(40, 30, 9)), ViewOptions(num_points=20)
    pos, batch = corpus.batch([0, 2], views, seed=1, epoch=3)
    alone, _ = corpus.batch([2], views, seed=1, epoch=3)
    assert batch.bincount().tolist() == [20, 9]
    assert torch.equal(pos[20:], alone)
    other, _ = corpus.batch([2], views, seed=1, epoch=4)
    assert not torch.equal(alone, other)


def test_a_view_without_scale_is_a_rotation():
    (pos,) = clouds(25)
    views = ViewOptions(num_points=25, scale_low=1.0, scale_high=1.0, shift=0.0, tip_probability=1)
    seen = random_view(pos, views, keyed_generator(0))
    # the order of points is another one
    found, expected = (torch.pdist(points).sort().values for points in (seen, pos))
    torch.testing.assert_close(found, expected)


def test_without_tips_up_stays_up():
    (pos,) = clouds(25)
    views = ViewOptions(num_points=25, scale_low=1.0, scale_high=1.0, **PLAIN)
    seen = random_view(pos, views, keyed_generator(0))
    torch.testing.assert_close(seen[:, 2].sort().values, pos[:, 2].sort().values)


def test_orders_are_permutations_that_change_with_the_epoch():
    corpus = Corpus(clouds(*[4] * 9))
    assert sorted(corpus.order(0, 0).tolist()) == list(range(9))
    assert corpus.order(0, 0).tolist() != corpus.order(0, 1).tolist()
    assert corpus.order(0, 1).tolist() == corpus.order(0, 1).tolist()


def test_sources_are_joined(tmp_path):
    path = tmp_path / "set.npz"
    NpzShapes.write(path, [np.random.rand(n, 3) for n in (5, 7)], [0, 1], class_names=["a", "b"])
    corpus = open_corpus([str(path), "procedural:3"])
    assert [len(cloud) for cloud in corpus.clouds] == [5, 7, 1024, 1024, 1024]


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
    # Read again, from the cache; a labelled data set of the same files does not take it.
    assert sorted(sizes(flat)) == [4, 5, 7]
    (flat / "a.npy").unlink()
    (flat / "notes.md.npy").unlink()
    assert sizes(flat) == [5]
    labelled: Any = ShapeFolder(flat)
    assert labelled.class_names == ("deep",) and labelled.labels.tolist() == [0]


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="to hold files of"):
        open_corpus([str(tmp_path)])
    write_shapes(tmp_path, "good.npy")
    (tmp_path / "bad.off").write_text("OFF\n")
    with pytest.raises(ValueError, match=r"to be readable \(got 1 that are not\):\n  bad.off"):
        open_corpus([str(tmp_path)])


@pytest.mark.parametrize("spec", ["procedural:x", "no_such.npz", "somewhere"])
def test_unknown_source(spec):
    with pytest.raises(ValueError, match="Expected 'data'"):
        open_corpus([spec])


@pytest.mark.parametrize("bad", [[], [torch.zeros(0, 3)], [torch.full((2, 3), float("nan"))]])
def test_bad_clouds(bad):
    with pytest.raises(ValueError, match="Expected 'clouds"):
        Corpus(bad)


@pytest.mark.parametrize(
    ("name", "value"), [("num_points", 0), ("tip_probability", 2.0), ("scale_low", 9.0)]
)
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=name):
        ViewOptions(**{name: value})
