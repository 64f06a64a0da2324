"""The table of scenes is that of the committed results; work grows with the number of points."""

import json
from pathlib import Path

import torch

from pyg_peft.geometry import scene_columns

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_shows_the_results():
    page = (ROOT / "docs" / "segmentation.md").read_text()
    results = json.loads((ROOT / "benchmarks" / "results" / "scene.json").read_text())
    rows = results["sizes"]
    assert [row["points"] for row in rows] == [100_000, 300_000, 1_000_000]
    for row in rows:
        memory = row["peak_mb_after"] - row["peak_mb_before"]
        line = (
            f"| {row['points']:,} | {row['blocks']} | {row['cpu_seconds']:.1f} s | "
            f"{row['cpu_microseconds_per_point']:.1f} µs | {memory} MB |"
        )
        assert line in page, line


def test_work_is_linear_in_the_number_of_points():
    """A model gets a point as often in a large scene as in a small one, and so many at once."""
    calls: list[float] = []
    for side in (8.0, 16.0, 32.0):
        generator = torch.Generator().manual_seed(0)
        extent = torch.tensor([side, side, 2.5])
        scene = torch.rand(int(50 * side * side), 3, generator=generator) * extent
        windows = [len(rows) for rows in scene_columns(scene, size=2.0, stride=1.5, max_points=128)]
        assert max(windows) <= 128
        calls.append(sum(windows) / len(scene))
    assert max(calls) < 1.3 * min(calls)
