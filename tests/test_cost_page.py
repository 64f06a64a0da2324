"""The page of costs says what the committed run measured; the limits hold on a step of today.

Time and memory are not measured here, where other programs run: what a step multiplies and what it
keeps for the backward pass are counted, and bound both from below.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("time", "time with geometry", "floor", "memory")


@pytest.fixture(scope="module")
def cost() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost", ROOT / "benchmarks" / "cost.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_repeats_the_committed_run():
    table = json.loads((ROOT / "benchmarks/results/cost.json").read_text())["table"]
    page = (ROOT / "docs/cost.md").read_text().splitlines()
    for method, row in table.items():
        numbers = " | ".join(f"{row[column]:.2f}" for column in COLUMNS)
        assert f"| {method} | {numbers} |" in page


def kept_bytes(step: Callable[[], None]) -> int:
    """Bytes that a step keeps for its backward pass, each memory once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())


def test_a_step_keeps_the_limits(cost: ModuleType):
    """Point-PEFT multiplies less than full fine-tuning and keeps less, by the limits of time."""
    steps = {name: cost.make_step(name, 2, False) for name in [cost.METHODS[0], *cost.LIMITS]}
    operations = {name: cost.operations(step) for name, step in steps.items()}
    kept = {name: kept_bytes(step) for name, step in steps.items()}
    for name, limit in cost.LIMITS.items():
        assert operations[name] <= limit * operations[cost.METHODS[0]], name
        assert kept[name] <= cost.MEMORY_LIMIT * kept[cost.METHODS[0]], name
