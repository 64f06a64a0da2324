"""What a training step costs: CPU time and memory of each method, as ratios to full fine-tuning.

Point-MAE-small (384 wide, 12 deep), 1,024 points in 64 patches of 32, one thread, AdamW. All
methods step in turn in one process, so that a drift of the machine's speed meets all of them; each
peak of memory is taken in a process of its own, less the level after the imports. The floor is the
number of multiplications that a method cannot avoid, counted on the same step, as a ratio too.

    python benchmarks/cost.py --rounds 5 --output benchmarks/results/cost.json
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_peft import (
    LinearProbeConfig,
    LoRAConfig,
    MemoryBank,
    PeftModel,
    PointPEFTConfig,
    get_peft_model,
)
from pyg_peft.backbones import PointMAE

NUM_POINTS, NUM_CLASSES, BANK_ROWS = 1024, 15, 2048
METHODS = [
    "full fine-tuning",
    "Point-PEFT, bank",
    "Point-PEFT, no bank",
    "Point-PEFT, cached",
    "LoRA",
    "linear probe",
]
LIMITS = {"Point-PEFT, bank": 1.0, "Point-PEFT, no bank": 0.85, "Point-PEFT, cached": 0.6}
MEMORY_LIMIT = 0.8  # of the same methods


def build(method: str) -> nn.Module:
    torch.manual_seed(0)
    base = PointMAE(NUM_CLASSES)
    if method == "full fine-tuning":
        return base  # as anyone would do it: the backbone itself, without this library's engine
    if method == "LoRA":
        return get_peft_model(base, LoRAConfig(rank=8))
    if method == "linear probe":
        return get_peft_model(base, LinearProbeConfig())
    bank = None
    if method != "Point-PEFT, no bank":
        keys = F.normalize(torch.randn(BANK_ROWS, base.embed_dim), dim=1)
        bank = MemoryBank(keys, sample_id=torch.arange(BANK_ROWS))
    return get_peft_model(base, PointPEFTConfig(), memory_bank=bank)


def make_step(method: str, batch_size: int, with_geometry: bool) -> Callable[[], None]:
    """A training step on a fixed batch."""
    model = build(method).train()
    generator = torch.Generator().manual_seed(1)
    pos = F.normalize(torch.randn(batch_size * NUM_POINTS, 3, generator=generator), dim=1)
    batch = torch.arange(batch_size).repeat_interleave(NUM_POINTS)
    y = torch.arange(batch_size) % NUM_CLASSES
    call: dict[str, Any] = {"pos": pos, "batch": batch}
    base: Any = model.base if isinstance(model, PeftModel) else model
    if not with_geometry:
        call = {"patches": base.make_patches(pos, batch)}
    if method == "Point-PEFT, cached":
        tuned: Any = model
        call = tuned.precompute(**call)  # what a cache holds: frozen tokens and query
        # With geometry, the patches' centers come from the cache too: nothing is left to do.
    if isinstance(model, PeftModel) and model.memory_bank is not None:
        call["sample_id"] = torch.arange(batch_size)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(**call), y).backward()
        optimizer.step()

    return step


def cpu_seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def operations(step: Callable[[], None]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops()


def resident(key: str) -> float:
    """``VmRSS`` or its peak ``VmHWM`` in MB, as the kernel accounts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"Expected {key} in /proc/self/status (got none)")


def measure_memory(method: str, batch_size: int) -> float:
    """Peak of a few steps in a process of its own, in MB above the level after import."""
    command = [sys.executable, __file__, "--memory-of", method, "--batch-size", str(batch_size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(batch_size: int, rounds: int) -> dict[str, Any]:
    table: dict[str, Any] = {method: {} for method in METHODS}
    for geometry in (False, True):
        steps = {method: make_step(method, batch_size, geometry) for method in METHODS}
        for step in steps.values():
            step()
        times: dict[str, list[float]] = {method: [] for method in METHODS}
        for _ in range(rounds):
            for method, step in steps.items():
                times[method].append(cpu_seconds(step))
        key = "time with geometry" if geometry else "time"
        for method in METHODS:
            pairs = zip(times[method], times[METHODS[0]], strict=True)
            table[method][key] = statistics.median(own / full for own, full in pairs)
        table[METHODS[0]]["seconds" + (" with geometry" if geometry else "")] = statistics.median(
            times[METHODS[0]]
        )
        if not geometry:
            floor = {method: operations(step) for method, step in steps.items()}
            for method in METHODS:
                table[method]["floor"] = floor[method] / floor[METHODS[0]]
    memory = {method: measure_memory(method, batch_size) for method in METHODS}
    for method in METHODS:
        table[method]["memory"] = memory[method] / memory[METHODS[0]]
    table[METHODS[0]]["megabytes"] = memory[METHODS[0]]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--memory-of", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        before = resident("VmRSS")
        step = make_step(options.memory_of, options.batch_size, with_geometry=False)
        for _ in range(3):
            step()
        print(resident("VmHWM") - before)
        return
    table = measure(options.batch_size, options.rounds)
    print(f"{'':22}{'time':>8}{'+geometry':>11}{'floor':>8}{'memory':>8}   limit on time")
    for method, row in table.items():
        print(
            f"{method:22}{row['time']:8.2f}{row['time with geometry']:11.2f}"
            f"{row['floor']:8.2f}{row['memory']:8.2f}   {LIMITS.get(method, '')}"
        )
    if options.output is not None:
        record = {
            "table": table,
            "batch_size": options.batch_size,
            "rounds": options.rounds,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=2) + "\n")
    for method, limit in LIMITS.items():
        row = table[method]
        slowest = max(row["time"], row["time with geometry"])
        if slowest > limit or row["memory"] > MEMORY_LIMIT:
            sys.exit(f"Expected {method} to keep {limit} of time and {MEMORY_LIMIT} of memory")


if __name__ == "__main__":
    main()
