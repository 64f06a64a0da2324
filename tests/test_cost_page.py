"""The page of costs says what the committed run measured; the limits hold on a step of today.

Time and memory are not measured here, where other programs run: what a step multiplies and what it
keeps for the backward pass are counted, and bound both from below.
"""

import importlib.util
import json
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


def count(cost: ModuleType, method: str) -> tuple[int, int]:
    """Operations of a step, and bytes that it keeps for its backward pass, each memory once."""
    step, kept = cost.make_step(method, 2, False), {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        operations = cost.operations(step)
    return operations, sum(kept.values())


def test_a_step_keeps_the_limits(cost: ModuleType):
    """Point-PEFT multiplies less than full fine-tuning, by the limits of time, and keeps less."""
    operations, kept = count(cost, cost.METHODS[0])
    for method, limit in cost.LIMITS.items():
        own_operations, own_kept = count(cost, method)
        assert own_operations <= limit * operations, method
        assert own_kept < kept, method
