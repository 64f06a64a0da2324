"""Summarize the finished cells of a comparison: means, differences and ranks."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyg_peft.cli.comparing.experiment import Cell, Job, Results
from pyg_peft.training.comparing.statistics import (
    Difference,
    Ranks,
    mean_and_spread,
    paired_difference,
    rank_methods,
)


@dataclass(frozen=True)
class Outcome:
    """One method on one data set, at its chosen learning rate.

    Args:
        data: Name of the data set.
        method: Name of the method.
        lr: Learning rate that was chosen on validation.
        at_end: Whether it is the first or last of the search, so that a better one may lie outside.
        runs: What each seed's training recorded.
        tests: What each seed's test recorded.
        less: Difference to the reference in test accuracy; ``None`` for the reference itself, or
            with one seed.
    """

    data: str
    method: str
    lr: float
    at_end: bool
    runs: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    less: Difference | None

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of each seed."""
        return [test["test"]["accuracy"] for test in self.tests]

    @property
    def confusion(self) -> list[list[int]]:
        """Counts of all tests together; rows are true classes."""
        tables = [test["test"]["confusion"] for test in self.tests]
        return [
            [sum(cell) for cell in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)
        ]

    def of_tests(self, name: str) -> tuple[float, float | None]:
        """Return mean and standard deviation of a number of the tests."""
        return mean_and_spread([test["test"][name] for test in self.tests])

    def of_runs(self, name: str) -> tuple[float, float | None] | None:
        """Return mean and standard deviation of a number of the runs, or ``None`` without it."""
        values = [run[name] for run in self.runs if run.get(name) is not None]
        return mean_and_spread(values) if values else None

    def curve(self, name: str) -> list[float]:
        """Return a learning curve, as mean over the seeds."""
        curves = [run["curves"][name] for run in self.runs]
        return [statistics.mean(values) for values in zip(*curves, strict=True)]


Table = dict[str, dict[str, Outcome]]


def summarize(results: Results, reference: str) -> Table:
    """Return the outcomes of a finished comparison, by data set and method."""
    found: Table = {}
    for data in results.experiment.data:
        own = {method: _outcome(results, data, method) for method in results.experiment.methods}
        base = own[reference]
        found[data] = {
            method: one if method == reference else _compared(one, base)
            for method, one in own.items()
        }
    return found


def _outcome(results: Results, data: str, method: str) -> Outcome:
    lr = results.chosen(data, method)
    if lr is None:
        raise ValueError(f"Expected the runs of '{method}' on '{data}' to be finished (got some)")
    cells = [Cell(data, method, seed, lr) for seed in range(results.experiment.seeds)]
    runs, tests = ([_found(results, Job(cell, tests)) for cell in cells] for tests in (False, True))
    rates = results.experiment.rates
    return Outcome(
        data=data,
        method=method,
        lr=lr,
        at_end=len(rates) > 1 and lr in (min(rates), max(rates)),
        runs=runs,
        tests=tests,
        less=None,
    )


def _found(results: Results, job: Job) -> dict[str, Any]:
    record = results.get(job)
    if record is None:
        raise ValueError(f"Expected the run '{job.cell}' to be finished (got none)")
    return record


def _compared(one: Outcome, reference: Outcome) -> Outcome:
    pairs = zip(one.accuracies, reference.accuracies, strict=True)
    gaps = [ours - theirs for ours, theirs in pairs]
    if len(gaps) < 2:
        return one
    clouds = [run["clouds"] for run in one.runs]
    less = paired_difference(
        gaps,
        resampled=gaps if one.runs[0]["resampled"] else (),
        ratio=statistics.mean(size["test"] / size["train"] for size in clouds),
    )
    return replace(one, less=less)


def rank(table: Mapping[str, Mapping[str, Outcome]]) -> Ranks | None:
    """Return the ranks over data sets; ``None`` with one set or fewer than three methods."""
    methods: Sequence[str] = list(next(iter(table.values())))
    if len(table) < 2 or len(methods) < 3:
        return None
    return rank_methods(
        {name: [own[name].of_tests("accuracy")[0] for own in table.values()] for name in methods}
    )


__all__ = ["Outcome", "Table", "rank", "summarize"]
