"""Augmentation by key: resuming, workers and views change nothing that they should not."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_peft.datasets import Augmented, Resample, SampleIds, ScaleTranslate, UpRotate

# PyG types an item as a union, on which no attribute can be read.
augment: Any = Augmented
with_ids: Any = SampleIds


def dataset(size: int = 6) -> SampleIds:
    generator = torch.Generator().manual_seed(0)
    items = [
        Data(pos=torch.randn(9, 3, generator=generator), y=torch.tensor([number % 2]))
        for number in range(size)
    ]
    return with_ids(items)


STEPS = T.Compose([Resample(7), T.Compose([UpRotate()]), T.RandomJitter(0.1), ScaleTranslate()])


def points(augmented: Any) -> Tensor:
    return torch.stack([augmented[number].pos for number in range(len(augmented))])


def test_an_item_depends_on_seed_epoch_and_sample_only():
    first = augment(dataset(), STEPS, seed=3)
    expected = points(first)
    torch.manual_seed(123)
    second = augment(dataset(), STEPS, seed=3)
    backwards = torch.stack([second[number].pos for number in reversed(range(6))]).flip(0)
    assert torch.equal(backwards, expected)
    subset = second[[4, 1]]
    assert torch.equal(subset[0].pos, expected[4])
    assert not torch.equal(points(augment(dataset(), STEPS, seed=4)), expected)
    second.set_epoch(1)
    assert not torch.equal(points(second), expected)


def test_the_global_generator_does_not_notice():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    points(augment(dataset(), STEPS))
    assert torch.equal(torch.rand(2), expected)


def test_a_resumed_run_equals_an_undisturbed_one():
    whole, resumed = augment(dataset(), STEPS), augment(dataset(), STEPS)
    seen = []
    for epoch in range(3):
        whole.set_epoch(epoch)
        seen.append(points(whole))
    resumed.set_epoch(2)
    assert torch.equal(points(resumed), seen[2])


def test_views_come_round():
    augmented = augment(dataset(), STEPS, num_views=2)
    seen = []
    for epoch in range(4):
        augmented.set_epoch(epoch)
        seen.append(points(augmented))
        assert augmented[0].view_id.tolist() == [epoch % 2]
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("copying", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_are_independent_and_complete(copying):
    augmented = augment(dataset(), Resample(4), seed=1)
    augmented.set_epoch(5)
    other = copying(augmented)
    assert other.epoch == 5
    assert torch.equal(points(other), points(augmented))
    other.set_epoch(6)
    assert augmented.epoch == 5
    assert other._epoch.is_shared()


def test_the_number_of_workers_does_not_matter_and_the_epoch_reaches_them():
    augmented = augment(dataset(), STEPS, seed=2)
    loader = DataLoader(augmented, batch_size=2, num_workers=2, persistent_workers=True)
    for epoch in (0, 4):
        augmented.set_epoch(epoch)
        batches = [batch.pos.reshape(-1, 7, 3) for batch in loader]
        assert torch.equal(torch.cat(batches), points(augmented))


def test_labels_and_names_pass_through():
    augmented = augment(dataset(), Resample(3))
    assert augmented.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert augmented[1::2].labels.tolist() == [1, 1, 1]
    assert augmented.class_names == ("0", "1")
    assert augmented.num_classes == 2


def test_plain_functions_are_keyed_too():
    def shift(data: Data) -> Data:
        data = copy.copy(data)
        data.pos = data["pos"] + torch.rand(3)
        return data

    augmented = augment(dataset(), shift)
    assert torch.equal(augmented[2].pos, augmented[2].pos)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="'num_views' to be >= 1"):
        augment(dataset(), Resample(3), num_views=0)
    with pytest.raises(ValueError, match="'epoch' to be >= 0"):
        augment(dataset(), Resample(3)).set_epoch(-1)
    bare = [Data(pos=torch.rand(4, 3), y=torch.tensor([0]))]
    with pytest.raises(ValueError, match=r"wrap it in SampleIds\(dataset\)"):
        augment(bare, Resample(3))[0]


def test_items_of_a_list_are_left_alone():
    item = Data(pos=torch.rand(4, 3), y=torch.tensor([0]))
    augment(with_ids([item]), lambda data: data)[0]
    assert "sample_id" not in item
    assert "view_id" not in item
