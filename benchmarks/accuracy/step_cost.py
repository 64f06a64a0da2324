"""What a training step of each method costs, all in one sitting on one machine.

    python benchmarks/accuracy/step_cost.py

Every measurement is a process of its own, on one thread; the methods take turns. Of a method the
least time and the largest memory of all rounds count. Frozen tokens are kept where it allows that.
"""

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from finished import write_record
from plan import Row, Slot
from plan_file import load_plan
from provenance import origin
from row import open_clouds, open_model
from run import HERE, quiet, say

from pyg_peft.model import PeftModel
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training.comparing.features import can_cache
from pyg_peft.training.comparing.memory import peak_memory
from pyg_peft.training.fitting.data_module import ShapeDataModule


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
    costs: dict[str, dict[str, Any]] = {}
    for number in range(options.rounds):
        for method, model in models.items():
            found = measure_cost(model, data, can_cache(model, data))
            best = costs.setdefault(method, found)
            for key, keep in (("cpu_seconds", min), ("peak_mebibytes", max)):
                best[key] = keep(best[key], found[key])
        say(f"round {number + 1} of {options.rounds}")
    for row in rows:  # so that the page can tell when it is out of date
        costs[row.slot.method]["config"] = plan.config(row)
    record = {"task": task, "rounds": options.rounds, "methods": costs, **origin()}
    write_record(options.output, record)
    return 0


def measure_cost(model: PeftModel, data: ShapeDataModule, caches: bool) -> dict[str, Any]:
    """CPU seconds and peak memory of a training step, in a process of its own that then ends."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_step, args=(writer, model, data, caches))
    child.start()
    writer.close()
    try:
        return reader.recv()
    except EOFError as error:
        raise RuntimeError("Expected the measured steps to end (their process died)") from error
    finally:
        child.join()


def _step(writer: Any, model: PeftModel, data: ShapeDataModule, caches: bool) -> None:
    batch: Any = next(iter(data.train_dataloader()))
    call: dict[str, Any] = {"pos": batch.pos, "batch": batch.batch}
    if caches:
        call = model.precompute(**call)
    trained = [parameter for _, parameter in trainable_parameters(model)]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    times: list[float] = []
    with peak_memory(torch.device("cpu")) as peak:
        for _ in range(5):
            begun = time.process_time()
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(**call, sample_id=batch.sample_id), batch.y).backward()
            optimizer.step()
            times.append(time.process_time() - begun)
    if peak.mebibytes is None:
        raise RuntimeError("Expected a system that tells the memory of a process, as Linux does")
    writer.send(
        {
            "clouds": int(batch.num_graphs),
            "cpu_seconds": round(sorted(times)[len(times) // 2], 4),
            "peak_mebibytes": round(peak.mebibytes, 1),
            "cached": caches,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
