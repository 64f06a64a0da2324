"""Shapes that are made in a second on one core, plain, cut and scanned.

    python benchmarks/procedural.py

The kinds take turns, and the best round of each counts.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pyg_peft.datasets import ProceduralShapes, ProceduralStream, ScanEffects

RESULTS = Path(__file__).resolve().parent / "results" / "procedural.json"
EFFECTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with holes": {"difference_probability": 1.0},
    "scanned": {"scan": ScanEffects()},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", type=int, default=200, help="of each kind and round")
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers: dict[str, Any] = {}
    for name, effects in EFFECTS.items():
        makers[f"labelled, {name}"] = ProceduralShapes(num_points=options.points, **effects).get
        makers[f"stream, {name}"] = ProceduralStream(options.points, **effects).shape
    best: dict[str, float] = {}
    for number in range(options.rounds):
        for name, make in makers.items():
            begun = time.process_time()
            for index in range(number * options.shapes, (number + 1) * options.shapes):
                make(index)
            rate = options.shapes / (time.process_time() - begun)
            best[name] = max(best.get(name, 0.0), rate)
    for name, rate in best.items():
        print(f"{name:22} {rate:6.0f} shapes a second")
    record = {
        "points": options.points,
        "shapes_a_second": {name: round(rate) for name, rate in best.items()},
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "torch")},
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
