"""Few-shot episodes: seeded, disjoint, of the right size."""

from typing import Any

import pytest
import torch

from pyg_peft.datasets import Episode, FewShotSubset, ProceduralShapes, few_shot_episode

LABELS = torch.arange(400) % 8

# PyG types an item as a union, on which no attribute can be read.
take: Any = FewShotSubset


def test_sizes_and_disjointness():
    task = few_shot_episode(LABELS, num_ways=5, num_shots=10)
    assert task.classes == tuple(sorted(set(task.classes)))
    assert len(task.support) == 50
    assert len(task.query) == 100
    assert not set(task.support.tolist()) & set(task.query.tolist())
    for rows, each in ((task.support, 10), (task.query, 20)):
        assert LABELS[rows].reshape(5, each).tolist() == [[label] * each for label in task.classes]


def test_tasks_are_keyed_by_seed_and_number():
    def rows(**key: Any) -> list[int]:
        return few_shot_episode(LABELS, num_ways=3, num_shots=2, **key).support.tolist()

    assert rows(episode=4) == rows(episode=4)
    assert rows(episode=4) != rows(episode=5)
    assert rows(seed=1) != rows(seed=2)


def test_classes_with_too_few_samples_are_not_drawn():
    labels = torch.tensor([0] * 5 + [1] * 30 + [2] * 30)
    for episode in range(5):
        task = few_shot_episode(labels, num_ways=2, num_shots=10, episode=episode)
        assert task.classes == (1, 2)
    with pytest.raises(ValueError, match=r"3 classes with 10 shots and 20 queries \(got 2\)"):
        few_shot_episode(labels, num_ways=3, num_shots=10)


def test_queries_from_another_split():
    test = torch.tensor([3, 3, 1, 1, 5, 0])
    task = few_shot_episode(LABELS, num_ways=2, num_shots=3, num_queries=2, query_labels=test)
    assert task.classes == (1, 3)
    assert sorted(task.query.tolist()) == [0, 1, 2, 3]


def test_subset_renumbers():
    shapes = ProceduralShapes(num_shapes=36, num_points=8)
    task = Episode((2, 7), torch.tensor([2, 7, 14]), torch.tensor([19]))
    support = take(shapes, task.support, task.classes)
    assert support.class_names == ("coil", "pebble")
    assert support.labels.tolist() == [int(item.y) for item in support] == [0, 1, 0]
    assert [int(item.sample_id) for item in support] == [2, 7, 14]
    assert support[1:].labels.tolist() == [1, 0]
    assert support.num_classes == 2
    with pytest.raises(ValueError, match=r"'rows' to be of 'classes' \[2, 7\] \(got \[3\]\)"):
        take(shapes, torch.tensor([3]), task.classes)


@pytest.mark.parametrize("name", ["num_ways", "num_shots", "num_queries"])
def test_mistakes_are_named(name):
    sizes: dict[str, Any] = {"num_ways": 1, "num_shots": 1, "num_queries": 1, name: 0}
    with pytest.raises(ValueError, match=f"'{name}' to be >= 1"):
        few_shot_episode(LABELS, **sizes)
