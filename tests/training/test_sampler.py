import pytest

from pyg_peft.datasets import Augmented, ProceduralShapes, ScaleTranslate
from pyg_peft.training.data.sampler import KeyedSampler


def test_order_depends_on_seed_and_epoch_alone():
    sampler, again = (KeyedSampler(range(20), seed=3) for _ in range(2))
    list(sampler)
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert list(sampler) == list(again)
    again.set_epoch(2)
    assert list(sampler) != list(again)
    assert list(KeyedSampler(range(20), seed=4)) != list(KeyedSampler(range(20), seed=3))


def test_ranks_share_the_order_out_evenly():
    shares = [list(KeyedSampler(range(11), rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    seen = [row for share in shares for row in share]
    assert set(seen) == set(range(11)), "every sample is in the epoch"
    assert len(seen) == 12, "one of them twice, so that all ranks make as many steps"


def test_the_epoch_reaches_the_views():
    views = Augmented(ProceduralShapes(num_shapes=4, num_points=8), ScaleTranslate())
    KeyedSampler(views).set_epoch(5)
    assert views.epoch == 5


def test_errors():
    with pytest.raises(ValueError, match="Expected 'rank' to lie in \\[0, 1\\] \\(got 2\\)"):
        KeyedSampler(range(4), rank=2, world_size=2)
    with pytest.raises(ValueError, match="a sample for each of 3 processes"):
        KeyedSampler(range(2), world_size=3)
