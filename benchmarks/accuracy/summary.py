"""Means, spreads and paired differences of finished rows."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finished import Results
from plan import Plan, Slot

from pyg_peft.training.comparing.statistics import Difference, paired_difference

Confusion = list[list[int]]


@dataclass(frozen=True)
class Summary:
    """One method on one set.

    Args:
        overall: test accuracy by seed, over all folds together; where points are labeled, the
            mean IoU over clouds.
        macro: mean of the classes' accuracies by seed; where points are labeled, of their IoUs.
        records: the rows, for what does not depend on the seed.
    """

    overall: dict[int, float]
    macro: dict[int, float]
    records: list[dict[str, Any]]


def summarize(results: Results, plan: Plan, task: str, method: str) -> Summary | None:
    """All seeds of which every fold is finished; ``None`` without any."""
    by_seed: dict[int, list[dict[str, Any] | None]] = {}
    for slot in plan.slots():
        if (slot.task, slot.method) == (task, method):
            by_seed.setdefault(slot.seed, []).append(results.record(slot))
    whole: dict[int, list[dict[str, Any]]] = {}
    for seed, found in by_seed.items():
        present = [record for record in found if record is not None]
        if len(present) == len(found):
            whole[seed] = present
    if not whole:
        return None
    scores = {seed: both_scores(records) for seed, records in sorted(whole.items())}
    return Summary(
        {seed: overall for seed, (overall, _) in scores.items()},
        {seed: macro for seed, (_, macro) in scores.items()},
        [record for records in whole.values() for record in records],
    )


def missing(results: Results, plan: Plan) -> list[Slot]:
    """Slots of the plan without a finished row at their chosen rate."""
    return [slot for slot in plan.slots() if results.record(slot) is None]


def add(records: Sequence[dict[str, Any]]) -> Confusion:
    """The confusion of several folds together."""
    tables = [record["test"]["confusion"] for record in records]
    return [[sum(cell) for cell in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]


def both_scores(records: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The two numbers of one seed, over its folds."""
    tests = [record["test"] for record in records]
    if "instance_iou" not in tests[0]:
        return accuracies(add(records))
    instance, part = ([test[key] for test in tests] for key in ("instance_iou", "mean_iou"))
    return statistics.mean(instance), statistics.mean(part)


def accuracies(confusion: Confusion) -> tuple[float, float]:
    """Overall accuracy, and the mean over the classes that occur."""
    right = [row[number] for number, row in enumerate(confusion)]
    support = [sum(row) for row in confusion]
    shares = [hits / size for hits, size in zip(right, support, strict=True) if size]
    return sum(right) / sum(support), sum(shares) / len(shares)


def compare(one: Summary, other: Summary) -> Difference | None:
    """``one`` less ``other``, seed by seed; ``None`` if they share fewer than two seeds.

    The resamplings of the corrected error are the seeds where each divides the clouds anew, and
    the folds, averaged over seeds, where these are the same for all seeds. There is none in
    few-shot episodes, whose few training clouds hardly overlap.
    """
    shared = sorted(one.overall.keys() & other.overall.keys())
    if len(shared) < 2:
        return None
    gaps = [one.overall[seed] - other.overall[seed] for seed in shared]
    resampled = (
        gaps if "test_fraction" in one.records[0]["config"] else fold_gaps(one, other, shared)
    )
    sizes = [record["clouds"] for record in one.records]
    ratio = statistics.mean(clouds["test"] / clouds["train"] for clouds in sizes)
    return paired_difference(gaps, resampled=resampled, ratio=ratio)


def of_shared_seeds(methods: Mapping[str, Summary]) -> dict[str, Summary]:
    """The methods by the seeds that all have, as a seed may have test clouds of its own.

    Nothing if they share none.
    """
    shared = set.intersection(*(set(one.overall) for one in methods.values()))
    if not shared:
        return {}
    return {
        name: Summary(
            {seed: one.overall[seed] for seed in sorted(shared)},
            {seed: one.macro[seed] for seed in sorted(shared)},
            [record for record in one.records if record["config"]["seed"] in shared],
        )
        for name, one in methods.items()
    }


def fold_gaps(one: Summary, other: Summary, seeds: Sequence[int]) -> list[float]:
    """``one`` less ``other`` in each fold, averaged over ``seeds``; empty without folds."""
    found: dict[int, list[float]] = {}
    for sign, summary in ((1, one), (-1, other)):
        for record in summary.records:
            config = record["config"]
            if config["fold"] is not None and config["seed"] in seeds:
                found.setdefault(config["fold"], []).append(sign * both_scores([record])[0])
    return [sum(scores) / len(seeds) for _, scores in sorted(found.items())]
