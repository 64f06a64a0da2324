"""Draw training, validation and test clouds of one repetition of an experiment."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_peft.datasets import FewShotSubset, few_shot_episode, train_val_split
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.sample_ids import labels_of
from pyg_peft.training.data.sources import Splits


@dataclass(frozen=True)
class Draw:
    """Clouds of one repetition.

    Args:
        train: Training clouds.
        val: Validation clouds.
        test: Test clouds.
        resampled: Whether another seed gives other test clouds.
    """

    train: Any
    val: Any
    test: Any
    resampled: bool


def draw(
    splits: Splits,
    seed: int,
    *,
    val_fraction: float,
    test_fraction: float,
    shots: int | None = None,
    groups: Tensor | None = None,
) -> Draw:
    """Return the clouds of repetition ``seed``; the same for every method.

    A test split of the source is kept, and validation clouds are drawn from the training split by
    the seed. Without a test split, each seed draws other test clouds. The validation clouds are
    then the same for every seed, so that those that choose the learning rate are in no test.

    Args:
        splits: An opened source.
        seed: Number of the repetition.
        val_fraction: Share of the training split for validation, unless the source has a validation
            split.
        test_fraction: Share of all clouds for testing, unless the source has a test split.
        shots: Number of training clouds per class. As many others per class are used for
            validation; the test is the test split, or all clouds that are left.
        groups: Group number of each cloud of ``splits.train``. Groups are kept together.

    Raises:
        ValueError: If a class has too few clouds for ``shots``, or there is nothing to test on.
    """
    splits.check_train()
    labels = labels_of(splits.train)
    if shots is not None:
        return _draw_shots(splits, labels, seed, shots)
    if splits.test is not None:
        if splits.val is not None:
            return Draw(splits.train, splits.val, splits.test, resampled=False)
        rows, val = train_val_split(labels, val_fraction, seed, groups=groups)
        return Draw(splits.train[rows], splits.train[val], splits.test, resampled=False)
    if splits.val is not None:
        # The validation split is fixed anyway.
        rows, test = train_val_split(labels, test_fraction, 1 + seed, groups=groups)
        return Draw(splits.train[rows], splits.val, splits.train[test], resampled=True)
    rows, val, test = resample(labels, test_fraction, val_fraction, seed, groups=groups)
    if len(test) == 0:
        raise ValueError(
            f"Expected a class with three clouds or more, to take a test from (got {len(labels)} "
            "clouds): give more clouds, or a test split"
        )
    return Draw(splits.train[rows], splits.train[val], splits.train[test], resampled=True)


def draw_episode(splits: Splits, *, ways: int, shots: int, queries: int, number: int) -> Splits:
    """Return the n-way k-shot task with a number, as splits for training and testing.

    Args:
        splits: An opened source. The queries are drawn from its test split, if it has one.
        ways: Number of classes.
        shots: Number of training clouds per class.
        queries: Number of test clouds per class.
        number: Number of the task.

    Raises:
        ValueError: See :func:`~pyg_peft.datasets.few_shot_episode`.
    """
    splits.check_train()
    held = splits.train if splits.test is None else splits.test
    drawn = few_shot_episode(
        labels_of(splits.train),
        num_ways=ways,
        num_shots=shots,
        num_queries=queries,
        episode=number,
        query_labels=None if splits.test is None else labels_of(held),
    )
    train = FewShotSubset(splits.train, drawn.support, drawn.classes)
    test = FewShotSubset(held, drawn.query, drawn.classes)
    names = tuple(splits.class_names[label] for label in drawn.classes)
    return Splits(train, None, test, names)


def resample(
    labels: Tensor,
    test_fraction: float,
    val_fraction: float,
    seed: int,
    *,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the training, validation and test rows of resampling ``seed``.

    The validation rows are the same for every seed, so those that choose the learning rate are in
    no test. The models that are compared on them, of seed 0, train on test rows of other seeds.

    Args:
        labels: One label per cloud, ``[N]``.
        test_fraction: Share of all clouds for testing.
        val_fraction: Share of all clouds for validation.
        seed: Number of the resampling.
        groups: Group number per cloud, ``[N]``. Groups are kept together.
    """
    rest, val = train_val_split(labels, val_fraction, 0, groups=groups)
    share = test_fraction * len(labels) / len(rest)
    kept = None if groups is None else groups[rest]
    train, test = train_val_split(labels[rest], share, 1 + seed, groups=kept)
    return rest[train], val, rest[test]


def _draw_shots(splits: Splits, labels: Tensor, seed: int, shots: int) -> Draw:
    fixed = splits.test is None  # validation clouds of one seed must not be test clouds of another
    train, val, rest = [], [], []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        if splits.val is None:
            key = ("validation shots", label) if fixed else ("validation shots", seed, label)
            rows = rows[torch.randperm(len(rows), generator=keyed_generator(*key))]
            spared = min(shots, len(rows) - shots - int(fixed))
            val.append(rows[: max(0, spared)])
            rows = rows[max(0, spared) :].sort().values
        order = torch.randperm(len(rows), generator=keyed_generator("shots", seed, label))
        train.append(rows[order[:shots]])
        rest.append(rows[order[shots:]])
        short = len(train[-1]) < shots or (splits.val is None and len(val[-1]) == 0)
        if short or (fixed and len(rest[-1]) == 0):
            parts = ["training", *(["validation"] * (splits.val is None)), *(["test"] * fixed)]
            name = splits.class_names[label]
            raise ValueError(
                f"Expected 'shots' to leave each class clouds for {', '.join(parts)} "
                f"(got {shots} of the {int((labels == label).sum())} clouds of {name!r})"
            )
    held = splits.train[torch.cat(val).sort().values] if splits.val is None else splits.val
    test = splits.train[torch.cat(rest).sort().values] if fixed else splits.test
    return Draw(splits.train[torch.cat(train).sort().values], held, test, resampled=fixed)


__all__ = ["Draw", "draw", "draw_episode", "resample"]
