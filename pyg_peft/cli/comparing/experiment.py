"""Define a comparison: its settings, its cells, and the files of their results."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.errors import CheckpointError
from pyg_peft.storage import write_atomic
from pyg_peft.training.runs.resuming import check_same

COMPARISON = "compare.json"
# Settings that may change when a comparison continues: results so far stay as they are.
_MAY_GROW = ("data", "methods", "seeds")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All settings of a comparison.

    Args:
        data: For each name of a data set, how it was given.
        methods: Names of the methods.
        seeds: Number of repetitions.
        rates: Learning rates of the search, the same for all methods.
        method_args: Settings of methods, by their names.
        training: Other settings that decide numbers, by the names of the command's options.
        preprocessing: Preprocessing of all clouds.
        device: Device of the model.
        fingerprints: A hash of the content of each data set.
        modules: Modules of the user's that register methods or data, for worker processes.
    """

    data: dict[str, str]
    methods: tuple[str, ...]
    seeds: int
    rates: tuple[float, ...]
    method_args: dict[str, dict[str, Any]]
    training: dict[str, Any]
    preprocessing: Preprocessing
    device: str = "cpu"
    fingerprints: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """Return everything that decides the numbers, as JSON values."""
        return {
            "data": {name: [spec, self.fingerprints[name]] for name, spec in self.data.items()},
            "methods": {name: self.method_args.get(name, {}) for name in self.methods},
            "seeds": self.seeds,
            "rates": list(self.rates),
            "training": self.training,
            "preprocessing": self.preprocessing.to_dict(),
        }


@dataclass(frozen=True)
class Cell:
    """One training run of a comparison."""

    data: str
    method: str
    seed: int
    lr: float

    def __str__(self) -> str:
        return f"{self.data} {self.method} seed {self.seed} lr {self.lr:g}"


@dataclass(frozen=True)
class Job:
    """A piece of work: train a cell, or test the adapter that its training saved."""

    cell: Cell
    tests: bool


class Results:
    """The finished cells of a comparison, one JSON file each.

    Args:
        folder: Folder of the comparison.
        experiment: Its settings.
    """

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.folder = folder
        self.experiment = experiment
        self._read: dict[Path, dict[str, Any]] = {}

    def file(self, job: Job) -> Path:
        """Return the file of a job's result."""
        cell = job.cell
        name = f"seed{cell.seed}_{'test' if job.tests else f'lr{cell.lr:g}'}.json"
        return self.folder / "cells" / cell.data / cell.method / name

    def adapter(self, cell: Cell) -> Path:
        """Return the folder of the adapter that a cell's training saves."""
        return self.folder / "adapters" / cell.data / cell.method / f"seed{cell.seed}_lr{cell.lr:g}"

    def get(self, job: Job) -> dict[str, Any] | None:
        """Return the result of a job, or ``None`` before it is there."""
        path = self.file(job)
        if path not in self._read:
            if not path.is_file():
                return None
            self._read[path] = read_json(path)
        return self._read[path]

    def chosen(self, data: str, method: str) -> float | None:
        """Return the learning rate that was best on validation; ``None`` before it is known.

        Of equal accuracies, the one with the lower validation loss is chosen, then the smaller
        rate. Test results are not used.
        """
        cells = [Cell(data, method, 0, lr) for lr in sorted(self.experiment.rates)]
        # Once the test has been made, adapters of other rates are gone.
        path = self.file(Job(cells[0], tests=True))
        if path.is_file():
            return float(read_json(path)["lr"])
        found = [self.get(Job(cell, tests=False)) for cell in cells]
        records = [record for record in found if record is not None]
        if len(records) < len(cells):
            return None
        vals = [record["val"] for record in records]
        best = max(range(len(vals)), key=lambda row: (vals[row]["accuracy"], -vals[row]["loss"]))
        return cells[best].lr

    def wanted(self) -> list[Job]:
        """Return the jobs that can be done now."""
        jobs: list[Job] = []
        for data in self.experiment.data:
            for method in self.experiment.methods:
                jobs += self._wanted(data, method)
        return jobs

    def _wanted(self, data: str, method: str) -> list[Job]:
        lr = self.chosen(data, method)
        if lr is None:
            search = [Job(Cell(data, method, 0, rate), False) for rate in self.experiment.rates]
            return [job for job in search if self.get(job) is None]
        jobs: list[Job] = []
        for seed in range(self.experiment.seeds):
            cell = Cell(data, method, seed, lr)
            test = Job(cell, tests=True)
            if self.get(test) is None:
                train = Job(cell, tests=False)
                trained = self.get(train) is not None and self.adapter(cell).is_dir()
                jobs.append(test if trained else train)
        return jobs

    def count(self) -> tuple[int, int]:
        """Return how many training runs are finished, and how many there are in all."""
        settings = self.experiment
        done, rows = 0, len(settings.data) * len(settings.methods)
        for data in settings.data:
            for method in settings.methods:
                lr = self.chosen(data, method)
                for rate in settings.rates:
                    done += self.file(Job(Cell(data, method, 0, rate), False)).is_file()
                for seed in range(1, settings.seeds):
                    if lr is not None:
                        done += self.file(Job(Cell(data, method, seed, lr), False)).is_file()
        return done, rows * (len(settings.rates) + settings.seeds - 1)

    def check(self) -> None:
        """Raise unless the folder is new, or belongs to a comparison with these settings.

        Raises:
            ValueError: If the folder is a file or holds something else.
            CheckpointError: If it belongs to another comparison; the message lists how it differs.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"Expected 'output' to be a folder (got the file '{self.folder}')")
        path = self.folder / COMPARISON
        if not path.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ValueError(
                    "Expected 'output' to be a new folder, or that of an earlier comparison "
                    f"(got '{self.folder}', which holds other files)"
                )
            return
        found, described = read_json(path), self.experiment.described()
        for key in ("data", "methods"):
            # A method or a data set may be added or left out; one that stays must be the same.
            here, now = found.get(key), described[key]
            if not isinstance(here, dict):
                raise CheckpointError(f"Expected '{path}' to hold '{key}' (got {type(here)})")
            shared = here.keys() & now.keys()
            check_same({k: here[k] for k in shared}, {k: now[k] for k in shared}, path)
        check_same(_fixed(found), _fixed(described), path)

    def begin(self) -> None:
        """Write the settings. Data sets and methods of earlier calls stay known."""
        path, described = self.folder / COMPARISON, self.experiment.described()
        if path.is_file():
            found = read_json(path)
            for key in ("data", "methods"):
                described[key] = {**found[key], **described[key]}
            described["seeds"] = max(found["seeds"], described["seeds"])
        text = json.dumps(described, indent=2) + "\n"
        write_atomic(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file does not hold one.
    """
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"Expected '{path}' to be a JSON file (got: {error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"Expected '{path}' to hold an object (got {type(found).__name__})")
    return found


def name_data(specs: Sequence[str]) -> dict[str, str]:
    """Return a short name for each data set, which can be the name of a folder.

    Raises:
        ValueError: If there is no data set, or one is given twice.
    """
    if not specs or len(set(specs)) != len(specs):
        raise ValueError(f"Expected 'data' to name different data sets (got {list(specs)})")
    names: dict[str, str] = {}
    for spec in specs:
        kind, _, rest = spec.partition(":")
        stem = kind if rest and not Path(spec).exists() else Path(spec).stem
        base = re.sub(r"\W+", "_", stem).strip("_")[:40] or "data"
        name, number = base, 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names[name] = spec
    return names


def _fixed(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key not in _MAY_GROW}


__all__ = [
    "COMPARISON",
    "Cell",
    "Experiment",
    "Job",
    "Results",
    "name_data",
    "read_json",
]
