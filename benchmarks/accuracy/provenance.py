"""What stood behind a row: the library's defaults spelled out, the data, the code, the machine."""

import functools
import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from plan import Plan, Row

from pyg_peft.training.fitting.options import FitOptions
from pyg_peft.tuners import METHODS

PACKAGES = ("pyg_peft", "torch", "torch_geometric", "lightning", "numpy")
HERE = Path(__file__).resolve().parent


def fit_options(row: Row) -> FitOptions:
    """How every row trains, but for what the plan says."""
    return FitOptions(lr=row.lr, logger="none")


def resolve(plan: Plan, row: Row) -> dict[str, Any]:
    """All settings of the method and the optimizer, those that the plan leaves open too.

    A row that says otherwise was made when the library had other defaults.
    """
    config, fit = plan.config(row), asdict(fit_options(row))
    for name in ("cache", "logger"):  # change no weights
        del fit[name]
    method = METHODS[config["method"]].from_dict(config["settings"])
    # Rows without these were trained with a last batch left out that was not full, and of epochs
    # with equal accuracy they kept the first; the page says so.
    rules = {"every_cloud": True, "equal_epochs": "lower validation loss"}
    settings = {"method": method.to_dict(), "fit": fit, "training": rules}
    return json.loads(json.dumps(settings))  # as a file holds it: lists, no tuples


def is_current(plan: Plan, row: Row, record: dict[str, Any]) -> bool:
    """Whether the row's defaults and data are those of today, as far as its record tells them.

    Rows from before these were recorded pass, and so does what was made of data that are not here.
    """
    data = data_file(plan, row)
    recorded = record.get("data_sha256")
    same = recorded is None or not data.is_file() or recorded == _seen(data)
    return same and agrees(record.get("resolved", {}), resolve(plan, row))


def agrees(recorded: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether both say the same where both say something: a new setting starts out neutral."""
    return all(
        recorded[part][name] == value
        for part in recorded.keys() & now.keys()
        for name, value in now[part].items()
        if name in recorded[part]
    )


def describe(plan: Plan, row: Row) -> dict[str, Any]:
    """What a finished row says of its origin."""
    return {
        "resolved": resolve(plan, row),
        "data_sha256": sha256(data_file(plan, row)),
        **origin(),
    }


def data_file(plan: Plan, row: Row) -> Path:
    return plan.data / plan.tasks[row.slot.task].file


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_seen = functools.cache(sha256)  # a page reads hundreds of rows of a few files


def origin() -> dict[str, Any]:
    """The code and the machine that run now."""
    return {
        "commit": commit(),
        "machine": {
            "system": platform.system(),
            "machine": platform.machine(),
            "processor": processor(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit of this checkout, marked if tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def processor() -> str:
    """Its name, as the kernel or else Python tells it."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
