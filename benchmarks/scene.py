"""Time and memory of labelling scenes of several sizes by sliding columns, with an adapter on.

    python benchmarks/scene.py --points 100000 300000 --output benchmarks/results/scene.json

A scene is a hall with walls and boxes, scanned at one density, so more points are more floor. Each
size runs in a process of its own, whose peak memory is read before (imports, model, scene) and
after.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_peft import PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.geometry import scene_columns
from pyg_peft.training.evaluation.scene import score_scene

DENSITY = 2000.0  # points per square metre of floor
COLUMN, STRIDE, MAX_POINTS, BATCH = 2.0, 1.5, 4096, 4
MODEL: dict[str, Any] = {
    "num_classes": 13,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "num_centers": 64,
    "patch_size": 32,
    "head_channels": 64,
}
METHOD: dict[str, Any] = {
    "bottleneck_channels": 8,
    "num_prompts": 4,
    "attention_channels": 12,
    "k": 8,
}


def hall(num_points: int) -> Tensor:
    """A square hall in metres: floor, four walls, and a box on every four square metres."""
    draw = torch.Generator().manual_seed(0)
    side = math.sqrt(num_points / DENSITY)
    pos = torch.rand(num_points, 3, generator=draw)
    pos[:, :2] *= side
    kind = torch.rand(num_points, generator=draw)
    pos[:, 2] = torch.where(kind < 0.6, 0.0, 3 * pos[:, 2])
    wall = kind > 0.85
    axis = torch.randint(2, (int(wall.sum()),), generator=draw)
    rows = wall.nonzero().squeeze(1)
    pos[rows, axis] = torch.randint(2, axis.shape, generator=draw).float() * side
    box = (kind > 0.6) & ~wall
    pos[box, :2] = (pos[box, :2] / 2).floor() * 2 + 0.6 * (pos[box, :2] % 2)
    return pos


def peak() -> float:
    """Most memory that this process has held so far, in megabytes."""
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def measure(num_points: int) -> dict[str, float]:
    """Label one scene."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = get_peft_model(PointMAESegmentation(**MODEL), PointPEFTConfig(**METHOD)).eval()
    settings: dict[str, Any] = {"size": COLUMN, "stride": STRIDE, "max_points": MAX_POINTS}
    # What a first call allocates for good belongs to the process, not to the scene.
    score_scene(model, hall(20_000), batch_size=BATCH, **settings)
    pos = hall(num_points)
    before = peak()
    wall, cpu = time.perf_counter(), time.process_time()
    probabilities = score_scene(model, pos, batch_size=BATCH, **settings)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = peak()
    assert probabilities.shape == (num_points, 13)
    blocks = [rows.numel() for rows in scene_columns(pos, COLUMN, stride=STRIDE)]
    return {
        "points": num_points,
        "side_m": round(math.sqrt(num_points / DENSITY), 2),
        "blocks": len(blocks),
        "points_seen": sum(blocks),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "cpu_microseconds_per_point": round(1e6 * cpu / num_points, 1),
        "peak_mb_before": round(before),
        "peak_mb_after": round(after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    default = Path(__file__).parent / "results" / "scene.json"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--single", type=int, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single is not None:
        print(json.dumps(measure(args.single)))
        return
    found: list[dict[str, float]] = []
    for number in args.points:
        command = [sys.executable, "-W", "ignore", __file__, "--single", str(number)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    content = {
        "columns": {"size_m": COLUMN, "stride_m": STRIDE, "max_points": MAX_POINTS},
        "batch_size": BATCH,
        "density_per_m2": DENSITY,
        "model": MODEL,
        "method": {"point_peft": METHOD},
        "threads": 1,
        "torch": torch.__version__.split("+")[0],
        "sizes": found,
    }
    args.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
