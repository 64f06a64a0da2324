import itertools
from typing import Any

import pytest
import torch

from pyg_peft.datasets import ProceduralStream, ScanEffects
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.training.pretraining.corpus import Corpus, ViewOptions, random_view

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


def test_a_corpus_is_told_from_another():
    first, same = Corpus(clouds(40, 30)).identity(), Corpus(clouds(40, 30)).identity()
    assert first == same and first["clouds"] == 2
    moved = [cloud + 0.01 for cloud in clouds(40, 30)]
    mirrored = [cloud * torch.tensor([1.0, -1.0, 1.0]) for cloud in clouds(40, 30)]
    even = clouds(30, 30)
    assert Corpus(even).identity() != Corpus(even[::-1]).identity(), "rows key the views"
    for other in (clouds(40, 31), clouds(40, 30, 5), clouds(30, 40), moved, mirrored):
        assert Corpus(other).identity() != first
    # The last bits may differ, as between machines.
    nearly = [cloud * (1 + 1e-7) for cloud in clouds(40, 30)]
    assert Corpus(nearly).identity() == first


def test_a_view_of_an_epoch_is_of_its_own_shapes():
    stream = ProceduralStream(16, start=100, step=2)
    corpus, views = Corpus(clouds(9), [(stream, 2)]), ViewOptions(num_points=16)
    pos, batch = corpus.batch([2, 0], views, seed=1, epoch=3)
    assert batch.bincount().tolist() == [16, 9]
    shape: Any = stream.shape(100 + 2 * 7)
    expected = random_view(shape.pos, views, keyed_generator(1, "view", 3, 2))
    assert torch.equal(pos[:16], expected)
    with pytest.raises(ValueError, match="'streams' to have shapes"):
        Corpus([], [(stream, 0)])


@pytest.mark.parametrize("bad", [[], [torch.zeros(0, 3)], [torch.full((2, 3), float("nan"))]])
def test_bad_clouds(bad):
    with pytest.raises(ValueError, match="Expected 'clouds"):
        Corpus(bad)


def test_streams_are_told_apart_by_their_settings():
    streams = [
        ProceduralStream(16),
        ProceduralStream(16, start=1),
        ProceduralStream(16, step=2),
        ProceduralStream(16, difference_probability=0.5),
        ProceduralStream(16, difference_probability=0.51),  # cuts the same of the first shapes
        ProceduralStream(16, scan=ScanEffects()),
        ProceduralStream(16, scan=ScanEffects(one_sided=0.72)),
    ]
    found = [Corpus([], [(stream, 4)]).identity() for stream in streams]
    assert all(a != b for a, b in itertools.combinations(found, 2))
    assert Corpus([], [(ProceduralStream(16), 4)]).identity() == found[0]
    assert Corpus([], [(ProceduralStream(16), 5)]).identity() != found[0]


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"'clouds\[0\]' to be floating point"):
        Corpus([torch.ones(3, 3, dtype=torch.long)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_points", 0), ("tip_probability", 2.0), ("scale_low", 9.0)),
        *(("scale_high", float("inf")), ("tilt_degrees", float("nan")), ("shift", -0.1)),
    ],
)
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=name):
        ViewOptions(**{name: value})
