"""Every cloud of an epoch is used once, in batches of one size."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from pyg_peft.training.data.batches import EvenBatches, batch_sizes
from pyg_peft.training.data.sampler import KeyedSampler


@given(count=st.integers(1, 400), batch_size=st.integers(1, 70), world=st.integers(1, 5))
def test_every_cloud_is_used_and_sizes_differ_by_one(count: int, batch_size: int, world: int):
    if count < world:
        return
    shares = [
        list(EvenBatches(KeyedSampler(range(count), 3, rank=rank, world_size=world), batch_size))
        for rank in range(world)
    ]
    assert {row for share in shares for batch in share for row in batch} == set(range(count))
    seen = sum(len(batch) for share in shares for batch in share)
    assert count <= seen < count + world, "no more than what makes all ranks equal"
    sizes = [[len(batch) for batch in share] for share in shares]
    assert all(share == sizes[0] for share in sizes), "ranks make the same steps"
    assert max(sizes[0]) - min(sizes[0]) <= 1
    assert max(sizes[0]) <= batch_size + (batch_size == 2)
    if batch_size > 1 and seen // world > 1:
        assert min(sizes[0]) > 1
    assert len(EvenBatches(KeyedSampler(range(count)), batch_size)) == len(
        batch_sizes(count, batch_size)
    )


def test_by_hand():
    assert batch_sizes(92, 32) == [31, 31, 30], "the example of the issue"
    assert batch_sizes(33, 32) == [17, 16] and batch_sizes(64, 32) == [32, 32]
    assert batch_sizes(3, 2) == [3] and batch_sizes(5, 2) == [3, 2] and batch_sizes(1, 8) == [1]
    assert batch_sizes(3, 1) == [1, 1, 1]
    # As versions did that left a last batch out.
    assert batch_sizes(92, 32, drop_last=True) == [32, 32]
    assert batch_sizes(9, 32, drop_last=True) == [9]


def clouds(count: int) -> list[Data]:
    torch.manual_seed(0)
    return [Data(pos=torch.rand(24, 3), y=torch.tensor([n % 2])) for n in range(count)]


def test_the_data_module_shows_all_training_clouds_in_each_epoch():
    pytest.importorskip("lightning", reason="lightning is not installed")
    from pyg_peft.training.fitting.data_module import ShapeDataModule

    data = ShapeDataModule(clouds(92), clouds(4), batch_size=32, class_names=["a", "b"])
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.batch_sampler.sampler.set_epoch(epoch)  # pyright: ignore
        rows = [batch.sample_id.tolist() for batch in loader]
        assert [len(batch) for batch in rows] == [31, 31, 30] and len(loader) == 3
        assert sorted(row for batch in rows for row in batch) == list(range(92))
    assert data.smallest_batch() == 30 and data.smallest_batch(world_size=3) == 31
