"""Validation splits: stratified, seeded, and no group cut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_peft.datasets import train_val_split


def drawn(size: int, kinds: int, seed: int) -> torch.Tensor:
    return torch.randint(kinds, (size,), generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    train, val = train_val_split(labels, 0.2)
    assert labels[val].bincount(minlength=3).tolist() == [2, 1, 0]
    assert labels[train].bincount(minlength=3).tolist() == [8, 1, 1]


@given(st.integers(0, 60), st.integers(1, 5), st.integers(0, 99), st.floats(0.05, 0.95))
def test_parts_are_disjoint_complete_sorted_and_stratified(size, kinds, seed, fraction):
    labels = drawn(size, kinds, seed)
    train, val = train_val_split(labels, fraction, seed)
    assert torch.cat([train, val]).sort().values.tolist() == list(range(size))
    assert train.tolist() == sorted(train.tolist())
    for label in labels.unique():
        count = int((labels == label).sum())
        share = int((labels[val] == label).sum())
        assert abs(share - fraction * count) <= 1
        if count >= 2:
            assert 1 <= share < count


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 15), st.integers(0, 99))
def test_groups_are_never_cut(size, kinds, num_groups, seed):
    labels, groups = drawn(size, kinds, seed), drawn(size, num_groups, seed + 1)
    train, val = train_val_split(labels, 0.25, seed, groups=groups)
    assert torch.cat([train, val]).sort().values.tolist() == list(range(size))
    assert not set(groups[train].tolist()) & set(groups[val].tolist())


def test_small_groups_meet_the_aim():
    labels = torch.arange(400) % 4
    groups = torch.arange(400) // 8
    _, val = train_val_split(labels, 0.2, groups=groups)
    assert labels[val].bincount().tolist() == [20, 20, 20, 20]


def test_seed_decides():
    labels = torch.zeros(50, dtype=torch.long)
    first = train_val_split(labels, 0.3, seed=1)[1]
    assert torch.equal(first, train_val_split(labels, 0.3, seed=1)[1])
    assert not torch.equal(first, train_val_split(labels, 0.3, seed=2)[1])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"labels": torch.zeros(3), "fraction": 1.0}, "'fraction' to lie between 0 and 1"),
        ({"labels": torch.zeros(3, 1)}, r"'labels' to be of shape \[N\]"),
        ({"labels": torch.zeros(3), "groups": torch.zeros(2)}, r"'groups' to be of shape \[3\]"),
    ],
)
def test_mistakes_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        train_val_split(**arguments)
