"""What is to be measured: a committed plan, and the rows that follow from it in order."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from backbones import Backbone

from pyg_peft.backbones.pretrained import POINT_MAE_FILES
from pyg_peft.tuners import METHODS

ABSENT = "not here"
LISTS = ("folds", "rates", "categories", "methods")
TRAINING = {"batch_size", "num_views", "num_points", "val_fraction", "augmentation"}


@dataclass(frozen=True)
class Method:
    """A method of the library with settings; ``weights`` of its own, or the plan's."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    bank: bool = True
    weights: str | None = None


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
    categories: tuple[str, ...] = ()  # of shapes whose points are labelled; else all
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
        task = self._rated(slot.task)
        origin = Slot(task, slot.method, 0, slot.fold if self.tasks[task].folds else None)
        return [Row(origin, lr) for lr in self.rates_of(slot.task)]

    def rates_of(self, task: str) -> tuple[float, ...]:
        """The learning rates among which one is chosen for the task."""
        return self.tasks[self._rated(task)].rates or self.rates

    def _rated(self, task: str) -> str:
        return self.tasks[task].rates_of or task

    def config(self, row: Row) -> dict[str, Any]:
        """All that decides a row's numbers, as JSON-able values."""
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


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ValueError: a key is unknown, or a name is none of a method or a task.
    """
    content = yaml.safe_load(path.read_text())
    methods = {name: Method(name) for name in METHODS}
    methods |= {name: Method(**values) for name, values in content.get("variants", {}).items()}
    main = tuple(content["main"])
    first = {name: methods[name] for name in main if name in methods}
    methods = {**first, **methods}  # in the order of the tables
    tasks: dict[str, Task] = {}
    for name, values in content["sets"].items():
        several = {key: tuple(values.get(key, ())) for key in LISTS}
        settings: dict[str, Any] = {**values, **several}
        tasks[name] = Task(**settings)
    plan = Plan(
        data=(path.parent / content["data"]).resolve(),
        weights=content.get("weights"),
        sizes=content.get("sizes", {}),
        rates=tuple(float(rate) for rate in content["rates"]),
        training=content["training"],
        methods=methods,
        main=main,
        claim=tuple(content.get("claim", ())),
        tasks=tasks,
        backbones={
            name: Backbone.read(values, path.parent)
            for name, values in content.get("backbones", {}).items()
        },
    )
    for where in (plan.training, *(task.training for task in tasks.values())):
        if strange := sorted(set(where) - TRAINING):
            raise ValueError(f"Expected 'training' to have keys of {TRAINING} (got {strange})")
    bare = [name for name, task in tasks.items() if task.backbone is None]
    if bare and plan.weights is None:
        raise ValueError(
            f"Expected 'weights', or a 'backbone' for each set (got neither for {', '.join(bare)})"
        )
    if strange := [name for name, task in tasks.items() if task.categories and not task.parts]:
        raise ValueError(f"Expected 'categories' of shapes with 'parts' (got some of {strange})")
    known: dict[str, Mapping[str, Any]] = {
        "main": methods,
        "claim": methods,
        "rates_of": tasks,
        "method": METHODS,
    }
    known |= {"backbone": plan.backbones, "methods": methods, "methods of a set": methods}
    named = [("main", name) for name in plan.main]
    named += [("claim", name) for name in plan.claim]
    named += [("methods of a set", name) for task in tasks.values() for name in task.methods]
    named += [("rates_of", task.rates_of) for task in tasks.values() if task.rates_of]
    named += [("method", method.method) for method in methods.values()]
    named += [("backbone", task.backbone) for task in tasks.values() if task.backbone]
    named += [("methods", name) for one in plan.backbones.values() for name in one.methods]
    for key, name in named:
        if name not in known[key]:
            raise ValueError(f"Expected '{key}' to be one of {', '.join(known[key])} (got {name})")
    return plan


def weights_hash(weights: str, sizes: Mapping[str, Any]) -> str:
    """What the base weights are, without reading their tensors."""
    if weights == "random":
        return str(sorted(sizes.items()))
    if weights in POINT_MAE_FILES:
        return POINT_MAE_FILES[weights].sha256
    path = Path(weights)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ABSENT


def sizes_of(weights: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments that these weights do not bring along."""
    if weights in POINT_MAE_FILES:
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
