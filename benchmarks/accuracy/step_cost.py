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
from finished import write_record
from plan import Row, Slot
from plan_file import load_plan
from provenance import origin
from row import can_cache, measure_cost, open_clouds, open_model
from run import HERE, quiet, say


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
    data = open_clouds(plan, rows[0])
    models = {row.slot.method: open_model(plan, row, data) for row in rows}
    least: dict[str, dict[str, Any]] = {}
    for number in range(options.rounds):
        for method, model in models.items():
            found = measure_cost(model, data, can_cache(model, data))
            best = least.setdefault(method, found)
            for key in ("cpu_seconds", "peak_megabytes"):
                best[key] = min(best[key], found[key])
        say(f"round {number + 1} of {options.rounds}")
    for row in rows:  # so that the page can tell when it is out of date
        least[row.slot.method]["config"] = plan.config(row)
    record = {"task": task, "rounds": options.rounds, "methods": least, **origin()}
    write_record(options.output, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
