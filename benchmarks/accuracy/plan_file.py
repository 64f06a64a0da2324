"""Read a plan from its file."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from backbones import Backbone
from plan import Method, Plan, Task

from pyg_peft.tuners import METHODS

LISTS = ("folds", "rates", "categories", "methods")
TRAINING = {"batch_size", "num_views", "num_points", "val_fraction", "augmentation"}


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ValueError: a key is unknown, or a name is none of a method or a task.
    """
    content = yaml.safe_load(path.read_text())
    methods = {name: Method(name) for name in METHODS}
    keys = {entry.name for entry in fields(Plan)} - {"methods", "tasks"} | {"variants", "sets"}
    if strange := sorted(set(content) - keys):
        raise ValueError(f"Expected keys of {', '.join(sorted(keys))} (got {', '.join(strange)})")
    for name, values in content.get("variants", {}).items():
        own: dict[str, Any] = {**values, "rates": tuple(values.get("rates", ()))}
        methods[name] = Method(**own)
    main = tuple(content["main"])
    first = {name: methods[name] for name in main if name in methods}
    methods = {**first, **methods}  # in the order of the tables
    tasks: dict[str, Task] = {}
    names = {entry.name for entry in fields(Task)}
    for name, values in content["sets"].items():
        several = {key: tuple(values.get(key, ())) for key in LISTS}
        if strange := sorted(set(values) - names):
            raise ValueError(f"Expected '{name}' to have keys of {sorted(names)} (got {strange})")
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
    _check_weights(plan)
    _check_names(plan)
    return plan


def _check_weights(plan: Plan) -> None:
    bare = [name for name, task in plan.tasks.items() if task.backbone is None]
    if bare and plan.weights is None:
        raise ValueError(
            f"Expected 'weights', or a 'backbone' for each set (got neither for {', '.join(bare)})"
        )
    tasks = plan.tasks.items()
    if strange := [name for name, task in tasks if task.categories and not task.parts]:
        raise ValueError(f"Expected 'categories' of shapes with 'parts' (got some of {strange})")


def _check_names(plan: Plan) -> None:
    """Raise unless every method, set and backbone that the plan names is one of its own."""
    methods, tasks = plan.methods, plan.tasks
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
