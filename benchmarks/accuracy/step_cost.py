"""What a training step of each method costs, all in one sitting on one machine.

    python benchmarks/accuracy/step_cost.py

Every measurement is a process of its own, on one thread; the methods take turns, and the least time
of a method over all rounds counts. Frozen tokens are kept where a method allows it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from cases import open_case
from plan import Plan, Row, Slot
from plan_file import load_plan
from provenance import origin
from row import can_cache, measure_cost, open_base
from run import HERE, quiet, say, write

from pyg_peft.cli.method import make_model
from pyg_peft.model import PeftModel
from pyg_peft.nn import MemoryBank
from pyg_peft.training.data import ShapeDataModule


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=HERE / "plan.yaml")
    parser.add_argument("--task", default=None, help="a set of the plan, by default the first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "step_cost.json")
    options = parser.parse_args()
    plan = load_plan(options.plan)
    plan.check_weights()
    quiet()
    torch.set_num_threads(1)
    task = options.task or next(iter(plan.tasks))
    rows = [
        Row(Slot(task, method, 0, None), plan.rates_of(task, method)[0])
        for method in plan.methods
        if plan.fits(task, method)
    ]
    training, backbone = plan.config(rows[0])["training"], plan.backbone(task)
    axes = (0, 1, 2) if backbone is None else backbone.axes
    data = open_case(plan.data, plan.tasks[task], rows[0].slot, training, axes)
    models = {row.slot.method: make(plan, row, data) for row in rows}
    least: dict[str, dict[str, Any]] = {}
    for number in range(options.rounds):
        for method, model in models.items():
            found = measure_cost(model, data, can_cache(model, data))
            best = least.setdefault(method, found)
            for key in ("cpu_seconds", "peak_megabytes"):
                best[key] = min(best[key], found[key])
        say(f"round {number + 1} of {options.rounds}")
    for row in rows:  # so that the page can tell when it is out of date
        least[row.slot.method] |= {"lr": row.lr, "config": plan.config(row)}
    record = {"task": task, "rounds": options.rounds, "methods": least, **origin()}
    write(options.output, record)
    return 0


def make(plan: Plan, row: Row, data: ShapeDataModule) -> PeftModel:
    """The model of a row, before its training."""
    config = plan.config(row)
    base = open_base(plan, row, config["weights"], data.num_classes)
    bank = MemoryBank.from_loader(base, data.bank_dataloader()) if config["bank"] else None
    return make_model(base, config["method"], config["settings"], bank, row.slot.seed)


if __name__ == "__main__":
    sys.exit(main())
