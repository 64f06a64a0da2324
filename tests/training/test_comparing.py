"""Draws and statistics of comparisons."""

import math
from typing import Any

import pytest
import torch

pytest.importorskip("lightning", reason="lightning is not installed")

from pyg_peft.datasets import ProceduralShapes
from pyg_peft.training.comparing.answers import Answers
from pyg_peft.training.comparing.draws import draw, draw_episode, resample
from pyg_peft.training.comparing.statistics import (
    mean_and_spread,
    paired_difference,
    rank_methods,
)
from pyg_peft.training.data.sources import Splits

NAMES = ProceduralShapes.class_names


def shapes(per_class: int, split: str = "train") -> ProceduralShapes:
    return ProceduralShapes(split, num_shapes=per_class * len(NAMES), num_points=8)


def ids(dataset: Any) -> set[int]:
    return {int(item.sample_id) for item in dataset}


def whole(per_class: int = 10) -> Splits:
    return Splits(shapes(per_class), None, None, NAMES, whole=True)


# ---- statistics ---------------------------------------------------------------------------


def test_a_difference_by_hand():
    found = paired_difference([0.01, 0.02, 0.03])
    assert found.mean == pytest.approx(0.02) and found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.corrected is None and found.wide == found.error
    # t = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(t² + 2)
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2))


def test_the_corrected_error_by_hand():
    gaps = [0.01, 0.02, 0.03]
    found = paired_difference(gaps, resampled=gaps, ratio=0.25)
    assert found.corrected == pytest.approx(0.01 * math.sqrt(1 / 3 + 0.25)) == found.wide
    with pytest.raises(ValueError, match="'ratio' to be given"):
        paired_difference(gaps, resampled=gaps)
    with pytest.raises(ValueError, match="two differences or more"):
        paired_difference([0.1])


def test_equal_results_do_not_differ():
    assert paired_difference([0.0, 0.0]).p_value == 1.0
    assert paired_difference([0.1, 0.1]).p_value == 0.0
    assert mean_and_spread([0.5]) == (0.5, None)


@pytest.mark.parametrize(("methods", "quantile"), [(3, 2.343), (4, 2.569), (5, 2.728)])
def test_the_critical_difference_is_the_published_one(methods: int, quantile: float):
    """Table 5 of Demšar 2006."""
    scores = {str(number): [number + 0.1, number, number] for number in range(methods)}
    found = rank_methods(scores)
    expected = quantile * math.sqrt(methods * (methods + 1) / (6 * 3))
    assert found.critical_difference == pytest.approx(expected, abs=2e-3)
    assert found.ranks[str(methods - 1)] == 1.0 and found.ranks["0"] == methods
    assert found.p_value < 0.1


def test_ranks_of_equal_scores():
    found = rank_methods({name: [0.5, 0.7] for name in "abc"})
    assert set(found.ranks.values()) == {2.0} and found.p_value == 1.0
    with pytest.raises(ValueError, match="three methods or more"):
        rank_methods({"a": [1.0, 2.0], "b": [1.0, 2.0]})


# ---- draws ---------------------------------------------------------------------------


def test_without_a_test_split_each_seed_tests_other_clouds():
    drawn = [draw(whole(), seed, val_fraction=0.2, test_fraction=0.2) for seed in range(3)]
    assert all(one.resampled for one in drawn)
    assert len({frozenset(ids(one.val)) for one in drawn}) == 1
    assert len({frozenset(ids(one.test)) for one in drawn}) == 3
    for one in drawn:
        parts = [ids(part) for part in (one.train, one.val, one.test)]
        assert set.union(*parts) == ids(whole().train)
        assert sum(len(part) for part in parts) == len(whole().train)


def test_a_test_split_stays():
    splits = Splits(shapes(6), None, shapes(2, "test"), NAMES)
    drawn = [draw(splits, seed, val_fraction=0.3, test_fraction=0.2) for seed in range(2)]
    assert all(one.test is splits.test and not one.resampled for one in drawn)
    assert ids(drawn[0].val) != ids(drawn[1].val)
    fixed = Splits(shapes(6), shapes(2, "val"), shapes(2, "test"), NAMES)
    one = draw(fixed, 0, val_fraction=0.3, test_fraction=0.2)
    assert (one.train, one.val) == (fixed.train, fixed.val)
    half = Splits(shapes(6), shapes(2, "val"), None, NAMES)
    one = draw(half, 0, val_fraction=0.3, test_fraction=0.5)
    assert one.val is half.val and one.resampled and len(one.test) == len(one.train)


@pytest.mark.parametrize("tested", [True, False])
def test_shots(tested: bool):
    splits = Splits(shapes(8), None, shapes(2, "test") if tested else None, NAMES, not tested)
    drawn = [draw(splits, seed, val_fraction=0.2, test_fraction=0.2, shots=3) for seed in range(3)]
    for one in drawn:
        assert one.train.labels.bincount().tolist() == [3] * len(NAMES)
        assert one.val.labels.bincount().tolist() == [3] * len(NAMES)
        assert not ids(one.train) & ids(one.val) and one.resampled is not tested
        if not tested:
            assert not ids(one.test) & (ids(one.train) | ids(one.val))
            assert one.test.labels.bincount().tolist() == [2] * len(NAMES)
            assert ids(one.val) == ids(drawn[0].val), "no test of another seed"
    assert len({frozenset(ids(one.train)) for one in drawn}) == 3


def test_too_few_shots_are_named():
    for shots in (10, 9):
        with pytest.raises(ValueError, match=rf"got {shots} of the 10 clouds of '{NAMES[0]}'"):
            draw(whole(10), 0, val_fraction=0.2, test_fraction=0.2, shots=shots)
    one = draw(whole(10), 0, val_fraction=0.2, test_fraction=0.2, shots=8)
    assert len(one.val) == len(one.test) == len(NAMES)


def test_a_single_cloud_per_class_gives_no_test():
    with pytest.raises(ValueError, match="three clouds or more"):
        draw(whole(1), 0, val_fraction=0.2, test_fraction=0.2)


def test_groups_stay_together():
    labels = torch.arange(60) % 3
    groups = torch.arange(60) // 6
    parts = resample(labels, 0.25, 0.2, 1, groups=groups)
    found = [set(groups[rows].tolist()) for rows in parts]
    assert all(found) and not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


def test_an_episode():
    splits = Splits(shapes(6), None, shapes(3, "test"), NAMES)
    found = draw_episode(splits, ways=4, shots=2, queries=3, number=1)
    assert len(found.class_names) == 4 and set(found.class_names) <= set(NAMES)
    assert len(found.train) == 8 and len(found.test) == 12 and not found.whole
    assert {int(item.y) for item in found.test} == {0, 1, 2, 3}


# ---- answers ---------------------------------------------------------------------------


def test_the_most_confident_mistakes_come_first():
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    answers = Answers(torch.tensor([1, 1, 0, 1]), probabilities)
    assert [one.row for one in answers.mistakes(5)] == [0, 2, 3]
    first = answers.mistakes(1)[0]
    assert (first.true, first.predicted) == (1, 0) and first.confidence == pytest.approx(0.9)
    assert answers.evaluation.confusion.tolist() == [[0, 1], [2, 1]]
