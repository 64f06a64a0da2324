"""Fill the accuracy table row by row, in as many sittings as it takes.

    python benchmarks/accuracy/run.py --max_minutes 30
    python benchmarks/accuracy/run.py --rows modelnet10_50:point_peft,sydney --workers 2
    python benchmarks/accuracy/run.py --list
    python benchmarks/accuracy/run.py --plan benchmarks/accuracy/graphs.yaml --max_minutes 60
    python benchmarks/accuracy/run.py --again modelnet10_50/lora/seed1_lr0.001.json

Rows that exist are skipped; each row is one file, written whole at its end. Important rows come
first. A learning rate is chosen once all rates of the grid have run with seed 0, on validation
clouds only; the other seeds take the chosen one. Every row runs in a process of its own; rows of
one call on the same clouds share what the frozen weights make of them. --again runs a finished row
anew and writes both numbers below results/again.
"""

import argparse
import logging
import multiprocessing
import multiprocessing.connection
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from finished import Results, on_validation, write_record
from plan import Plan, Row, Slot, choose
from plan_file import load_plan
from row import run_row

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=HERE / "plan.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--rows", default="", help="SET or SET:METHOD, comma separated")
    parser.add_argument("--max_minutes", type=float, default=30, help="start no row after that")
    parser.add_argument("--max_rows", type=int, default=None)
    parser.add_argument("--workers", type=int, default=1, help="rows at once, one thread each")
    parser.add_argument("--again", default=None, help="a finished row, as named in results/")
    parser.add_argument("--list", action="store_true", help="show what is done and what is next")
    options = parser.parse_args()
    plan = load_plan(options.plan)
    results = Results(options.results, plan)
    slots = list(choose(plan.slots(), options.rows))
    if options.list:
        show(results, slots)
        return 0
    plan.check_weights()
    quiet()
    with tempfile.TemporaryDirectory() as features:
        if options.again is not None:
            return repeat(plan, results, options.again, Path(features))
        return fill(plan, results, slots, options, Path(features))


def fill(plan: Plan, results: Results, slots: list[Slot], options: Any, features: Path) -> int:
    """Run what is missing of the slots, until the time is up."""
    end, failed, running = time.monotonic() + 60 * options.max_minutes, set[Row](), dict[Any, Row]()
    started = 0
    while True:
        busy = failed | set(running.values())
        todo = (row for slot in slots for row in results.wanted(slot) if row not in busy)
        row = next(todo, None)
        may_start = time.monotonic() < end and started != options.max_rows
        if row is not None and may_start and len(running) < options.workers:
            running[start(plan, row, options.results, features)] = row
            started += 1
            continue
        if not running:
            break
        multiprocessing.connection.wait([child.sentinel for child in running])
        for child in [child for child in running if not child.is_alive()]:
            child.join()
            row = running.pop(child)
            results.read(row)
            if row not in results:
                failed.add(row)
                say(f"{row.file}: failed (exit code {child.exitcode})")
                continue
            found = results[row]
            say(
                f"{row.file}: validation {100 * on_validation(found):.2f} %, "
                f"{found['seconds']:.0f} s"
            )
    left = sum(len(results.wanted(slot)) for slot in slots)
    say(f"{len(results)} rows are there, at least {left} to do, {len(failed)} failed")
    return 1 if failed else 0


def start(plan: Plan, row: Row, folder: Path, features: Path) -> Any:
    """A process that runs the row and writes its file."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=work, args=(plan, row, folder, features))
    child.start()
    return child


def work(plan: Plan, row: Row, folder: Path, features: Path) -> None:
    try:
        record = run_row(plan, row, features)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    write_record(folder / row.file, record)


def show(results: Results, slots: list[Any]) -> None:
    for row in results.stale:
        say(f"stale    {row.file}")
    for slot in slots:
        for row in results.wanted(slot):
            say(f"to do    {row.file}")
        if not results.wanted(slot) and results.chosen(slot) is None:
            say(f"waits    {slot}")
    say(f"{len(results)} rows are there")


def repeat(plan: Plan, results: Results, name: str, features: Path) -> int:
    """Run a finished row from its committed configuration, beside the numbers that it has."""
    row = next((row for row in results.rows() if row.file == name), None)
    if row is None:
        raise ValueError(f"Expected 'again' to name a finished row of the plan (got {name})")
    old, new = results[row], run_row(plan, row, features)
    for split in ("val", "test"):
        numbers = " and now ".join(f"{100 * r[split]['accuracy']:.2f} %" for r in (old, new))
        say(f"{split:5} {numbers}")
    record = {
        "row": name,
        **{
            when: {split: {"accuracy": r[split]["accuracy"]} for split in ("val", "test")}
            | {key: r.get(key) for key in ("commit", "machine", "versions")}
            for when, r in (("before", old), ("now", new))
        },
    }
    write_record(results.folder / "again" / name, record)
    return 0


def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
