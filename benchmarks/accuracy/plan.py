"""What is to be measured: a committed plan, and the rows that follow from it in order."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones import Backbone

from pyg_peft.backbones.weights.shipped import SHIPPED
from pyg_peft.tuners import METHODS

ABSENT = "not here"


@dataclass(frozen=True)
class Method:
    """A method of the library with settings; ``weights`` of its own, or the plan's."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    bank: bool = True
    weights: str | None = None
    rates: tuple[float, ...] = ()  # its search, if not that of the set


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set and how it is split, repeated and trained on; see the plan for the keys."""

    file: str
    epochs: int
    seeds: int
    claim_seeds: int = 0  # repetitions of the methods of the claim, if not seeds
    methods: tuple[str, ...] = ()  # else all that the backbone takes
    options: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = ()  # the search, if not the plan's
    categories: tuple[str, ...] = ()  # of shapes whose points are labeled; else all
    per_class: int | None = None
    folds: tuple[int, ...] = ()
    test_fraction: float | None = None
    group_field: str | None = None
    ways: int | None = None
    shots: int | None = None
    queries: int = 20
    rates_of: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    parts: bool | None = None  # label the points
    backbone: str | None = None  # another one than the plan's Point-MAE


@dataclass(frozen=True)
class Slot:
    """One number of the table before its learning rate is known."""

    task: str
    method: str
    seed: int
    fold: int | None


@dataclass(frozen=True)
class Row:
    """One training run, one file of results."""

    slot: Slot
    lr: float

    @property
    def file(self) -> str:
        fold = "" if self.slot.fold is None else f"_fold{self.slot.fold}"
        return f"{self.slot.task}/{self.slot.method}/seed{self.slot.seed}{fold}_lr{self.lr:g}.json"


@dataclass(frozen=True)
class Plan:
    """The plan; ``rows_of`` says which runs a slot needs once others are known."""

    data: Path
    weights: str | None
    sizes: Mapping[str, Any]
    rates: tuple[float, ...]
    training: Mapping[str, Any]
    methods: Mapping[str, Method]
    main: tuple[str, ...]
    claim: tuple[str, ...]
    tasks: Mapping[str, Task]
    backbones: Mapping[str, Backbone] = field(default_factory=dict)

    def backbone(self, task: str) -> Backbone | None:
        """The task's own backbone, ``None`` where it is the plan's Point-MAE."""
        name = self.tasks[task].backbone
        return None if name is None else self.backbones[name]

    def fits(self, task: str, method: str) -> bool:
        """Whether the task wants the method, and its backbone takes it."""
        wanted, backbone = self.tasks[task].methods, self.backbone(task)
        return method in (wanted or self.methods) and (
            backbone is None or method in backbone.methods
        )

    def slots(self) -> list[Slot]:
        """Everything, main methods and the first three seeds first, then by task and seed."""
        ordered: list[tuple[tuple[int, ...], Slot]] = []
        for number, (task_name, task) in enumerate(self.tasks.items()):
            for place, name in enumerate(self.methods):
                if not self.fits(task_name, name):
                    continue
                seeds = task.claim_seeds if name in self.claim else 0
                for seed in range(seeds or task.seeds):
                    tier = 2 if seed >= 3 else 0 if name in self.main else 1
                    for fold in task.folds or (None,):
                        slot = Slot(task_name, name, seed, fold)
                        ordered.append(((tier, number, seed, place), slot))
        return [slot for _, slot in sorted(ordered, key=lambda entry: entry[0])]

    def search(self, slot: Slot) -> list[Row]:
        """The rows that choose the slot's learning rate: seed 0 of the same method and fold."""
        task = self.tasks[slot.task].rates_of or slot.task
        origin = Slot(task, slot.method, 0, slot.fold if self.tasks[task].folds else None)
        return [Row(origin, lr) for lr in self.rates_of(task, slot.method)]

    def rates_of(self, task: str, method: str) -> tuple[float, ...]:
        """The learning rates among which one is chosen."""
        if self.methods[method].rates:
            return self.methods[method].rates
        origin = self.tasks[task].rates_of or task
        return self.tasks[origin].rates or self.rates

    def config(self, row: Row) -> dict[str, Any]:
        """What the plan says of a row's numbers, as JSON-able values."""
        task, method = self.tasks[row.slot.task], self.methods[row.slot.method]
        backbone = self.backbone(row.slot.task)
        split = {k: v for k, v in vars(task).items() if k in _SPLITTING and v not in (None, (), {})}
        return {
            "task": row.slot.task,
            **{key: list(v) if isinstance(v, tuple) else v for key, v in split.items()},
            "method": method.method,
            **(self._own(method) if backbone is None else backbone.config(row.slot.method, method)),
            "training": {**self.training, **task.training},
            "epochs": task.epochs,
            "lr": row.lr,
            "seed": row.slot.seed,
            "fold": row.slot.fold,
        }

    def _own(self, method: Method) -> dict[str, Any]:
        weights = method.weights or self.weights
        assert weights is not None  # see load_plan
        return {
            "settings": dict(method.settings),
            "bank": method.bank and METHODS[method.method].takes_memory_bank,
            "weights": weights,
            "weights_hash": weights_hash(weights, self.sizes),
            # Shipped weights bring theirs, and the hash of random ones is made of them.
            **({"sizes": sizes_of(weights, self.sizes)} if is_file(weights) else {}),
        }

    def check_weights(self) -> None:
        """Raise unless the weights of all backbones are here, and are those of the plan.

        Raises:
            ValueError: they are not.
        """
        if self.weights and weights_hash(self.weights, self.sizes) == ABSENT:
            raise ValueError(
                f"Expected 'weights' of the plan to be shipped or a file (got {self.weights!r})"
            )
        for backbone in self.backbones.values():
            backbone.check_weights()


_SPLITTING = {
    *("file", "options", "parts", "categories", "per_class"),
    *("test_fraction", "group_field", "ways", "shots", "queries"),
}


def weights_hash(weights: str, sizes: Mapping[str, Any]) -> str:
    """What the base weights are, without reading their tensors."""
    if weights == "random":
        return str(sorted(sizes.items()))
    if weights in SHIPPED:
        return SHIPPED[weights].sha256
    path = Path(weights)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ABSENT


def is_file(weights: str) -> bool:
    return weights != "random" and weights not in SHIPPED


def sizes_of(weights: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments that these weights do not bring along."""
    if weights in SHIPPED:
        return {}
    unread = sizes if weights == "random" else ("num_heads", "num_centers", "patch_size")
    return {name: sizes[name] for name in unread}


def choose(slots: list[Slot], rows: str) -> Iterator[Slot]:
    """Those of ``slots`` that a filter like ``sydney:lora,psb`` names; all if it is empty."""
    wanted = [entry.split(":") for entry in rows.split(",") if entry]
    tasks, methods = {slot.task for slot in slots}, {slot.method for slot in slots}
    for task, *method in wanted:
        if task not in tasks or len(method) > 1 or not set(method) <= methods:
            raise ValueError(
                f"Expected 'rows' to name sets and methods as SET or SET:METHOD, of "
                f"{', '.join(sorted(tasks))} and {', '.join(sorted(methods))} "
                f"(got {':'.join([task, *method])})"
            )
    for slot in slots:
        if not wanted or any([slot.task] == w or [slot.task, slot.method] == w for w in wanted):
            yield slot
