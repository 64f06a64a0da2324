"""Which clouds train, validate and test a row: none of them on two sides."""

import importlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import NpzShapes

NUM_CLASSES, PER_CLASS = 4, 15  # of each class, the last five are test clouds
TRAINING: dict[str, Any] = {
    "num_points": 8,
    "augmentation": "none",
    "num_views": 1,
    "batch_size": 4,
    "val_fraction": 0.2,
}


@pytest.fixture
def cases(modules: dict[str, Any]):
    pytest.importorskip("lightning", reason="lightning is not installed")
    yield importlib.import_module("cases")
    del sys.modules["cases"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file whose groups are pairs of neighboring clouds."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    place = np.tile(np.arange(PER_CLASS), NUM_CLASSES)
    NpzShapes.write(
        tmp_path / "set.npz",
        [rng.random((9, 3)) for _ in labels],
        labels,
        class_names=list("abcd"),
        split=np.where(place < 10, "train", "test").tolist(),
        group=(np.arange(len(labels)) // 2).tolist(),
    )
    return tmp_path


def open_rows(cases: Any, modules: dict[str, Any], folder: Path, seed: int, **task: Any) -> Any:
    """Row numbers in the file of the training, validation and test clouds, and the module."""
    case = modules["plan"].Task(file="set.npz", epochs=1, seeds=1, **task)
    slot = modules["plan"].Slot("some", "lora", seed, None)
    data = cases.open_case(folder, case, slot, TRAINING)
    sets = (data.plain_train_set, data.val_set, data.test_set)
    return [{int(item.sample_id) for item in one} for one in sets], data


def split_of(folder: Path, name: str) -> set[int]:
    whole: Any = NpzShapes(folder / "set.npz", name)
    return {int(item.sample_id) for item in whole}


@pytest.mark.parametrize("task", [{}, {"per_class": 6}, {"group_field": "group"}])
def test_an_official_split_stays(cases, modules, folder, task):
    (train, val, test), _ = open_rows(cases, modules, folder, 3, **task)
    assert test == split_of(folder, "test")
    assert not train & val and train | val <= split_of(folder, "train")
    assert len(train | val) == 4 * task.get("per_class", 10)


def test_groups_stay_whole(cases, modules, folder):
    (train, val, _), _ = open_rows(cases, modules, folder, 0, group_field="group")
    assert val and not {row // 2 for row in train} & {row // 2 for row in val}


def test_the_shapes_of_a_subset_are_the_same_for_all_seeds(cases, modules, folder):
    found = [open_rows(cases, modules, folder, seed, per_class=6)[0] for seed in (0, 1)]
    (train, val, _), (other, other_val, _) = found
    assert train | val == other | other_val and val != other_val
    assert Counter(row // PER_CLASS for row in train | val) == dict.fromkeys(range(4), 6)


def test_resamplings_share_the_validation_clouds_only(cases, modules, folder):
    splits = [open_rows(cases, modules, folder, seed, test_fraction=0.25)[0] for seed in range(4)]
    first_val = splits[0][1]
    for train, val, test in splits:
        assert val == first_val and len(train) + len(val) + len(test) == 60
        assert train | val | test == set(range(60)), "all clouds, none twice"
        assert len(test) == pytest.approx(15, abs=NUM_CLASSES)
    assert len({frozenset(test) for _, _, test in splits}) == 4


def test_an_episode_is_tested_on_the_test_split(cases, modules, folder):
    task = {"ways": 3, "shots": 2, "queries": 4}
    seen = []
    for seed in range(6):
        (train, val, test), data = open_rows(cases, modules, folder, seed, **task)
        assert len(train) == 6 and len(val) == len(test) == 12
        assert train | val <= split_of(folder, "train") and not train & val
        assert test <= split_of(folder, "test")
        names = [data.class_names[int(item.y)] for item in data.test_set]
        assert names == ["abcd"[int(item.sample_id) // PER_CLASS] for item in data.test_set]
        seen.append(frozenset(train))
    assert len(set(seen)) == 6, "an episode a seed"


def test_a_fixed_draw_of_each_class(cases):
    labels = torch.tensor([2, 0, 2, 0, 2, 0, 7])
    rows = cases.first_of_each(labels, 2)
    assert labels[rows].bincount().tolist() == [2, 0, 2, 0, 0, 0, 0, 1]
    assert torch.equal(rows, cases.first_of_each(labels, 2)) and rows.tolist() == sorted(rows)
