"""The table of scenes on the page of segmentation is that of the committed results."""

import json
from pathlib import Path

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
    # linear in the number of points: the largest costs no more per point than the smallest
    assert rows[-1]["cpu_microseconds_per_point"] < 1.3 * rows[0]["cpu_microseconds_per_point"]
