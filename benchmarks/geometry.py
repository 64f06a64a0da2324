"""Time neighbor search and sampling against torch_cluster, and each backend against the default.

    python benchmarks/geometry.py --rounds 15

Contenders take turns within a round, so that a busy machine slows all of them alike; the table
holds the best time of each and its ratio to ours (above 1: slower than ours).
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_peft.geometry import (
    available_backends,
    farthest_point_sample,
    knn,
    knn_graph,
    use_backend,
)

RESULTS = Path(__file__).resolve().parent / "results" / "geometry.json"
PACKAGES = [
    *("torch", "torch_geometric", "scipy", "numpy", "fpsample", "pynanoflann"),
    *("torch_cluster", "pyg_lib"),
]
Contenders = dict[str, Callable[[], Any]]


def clouds(count: int, points: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(count * points, 3, generator=generator)
    return pos, torch.arange(count).repeat_interleave(points)


def forced(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with use_backend(name):
            return call()

    return run


def contenders(task: str, ours: Callable[[], Any], theirs: Callable[[], Any] | None) -> Contenders:
    entries: Contenders = {"ours": ours}
    if theirs is not None:
        entries["torch_cluster itself"] = theirs
    for name in available_backends(task):
        entries[f"backend {name}"] = forced(name, ours)
    return entries


def problems() -> dict[str, Contenders]:
    cluster: Any = None
    if importlib.util.find_spec("torch_cluster") is not None:
        cluster = importlib.import_module("torch_cluster")
    pos, batch = clouds(32, 2048)
    query = pos.view(32, 2048, 3)[:, :128].reshape(-1, 3)
    query_batch = torch.arange(32).repeat_interleave(128)
    few, few_batch = clouds(8, 2048)

    def theirs(call: Callable[[], Any]) -> Callable[[], Any] | None:
        return None if cluster is None else call

    return {
        "kNN: 32 clouds of 2048 points, 128 queries each, k 32": contenders(
            "knn",
            lambda: knn(pos, query, 32, batch, query_batch, batch_size=32),
            theirs(lambda: cluster.knn(pos, query, 32, batch, query_batch, batch_size=32)),
        ),
        "kNN graph: 8 clouds of 2048 points, k 16": contenders(
            "knn",
            lambda: knn_graph(few, 16, few_batch, batch_size=8),
            theirs(lambda: cluster.knn_graph(few, 16, few_batch, batch_size=8)),
        ),
        "FPS: 32 clouds of 2048 points to 128": contenders(
            "fps",
            lambda: farthest_point_sample(pos, 128, batch, batch_size=32),
            theirs(lambda: cluster.fps(pos, batch, 128 / 2048, False, batch_size=32)),
        ),
    }


def measure(entries: Contenders, rounds: int) -> dict[str, float]:
    best = dict.fromkeys(entries, float("inf"))
    for call in entries.values():
        call()
    for _ in range(rounds):
        for name, call in entries.items():
            begin = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def machine(threads: int) -> dict[str, Any]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package.replace("_", "-"))
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time geometry.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    # torch_cluster transposes a tensor on its way.
    warnings.filterwarnings("ignore", message=".*searchsorted", category=UserWarning)
    runs: list[dict[str, Any]] = []
    for threads in sorted(set(arguments.threads)):
        torch.set_num_threads(threads)
        run = {"machine": machine(threads), "rounds": arguments.rounds, "problems": {}}
        for problem, entries in problems().items():
            seconds = measure(entries, arguments.rounds)
            print(f"\n{problem} ({threads} threads)")
            for name, value in seconds.items():
                print(f"  {name:24} {value * 1e3:8.1f} ms  {value / seconds['ours']:6.2f}")
            ratios = {name: round(value / seconds["ours"], 3) for name, value in seconds.items()}
            milliseconds = {name: round(value * 1e3, 2) for name, value in seconds.items()}
            run["problems"][problem] = {"milliseconds": milliseconds, "ratio_to_ours": ratios}
        runs.append(run)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
