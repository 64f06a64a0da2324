"""The page of costs says what the committed run measured, and the limits hold there."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("time", "time with geometry", "floor", "memory")


def test_page_repeats_the_committed_run():
    table = json.loads((ROOT / "benchmarks/results/cost.json").read_text())["table"]
    page = (ROOT / "docs/cost.md").read_text().splitlines()
    for method, row in table.items():
        numbers = " | ".join(f"{row[column]:.2f}" for column in COLUMNS)
        assert f"| {method} | {numbers} |" in page


def test_committed_run_keeps_the_limits():
    table = json.loads((ROOT / "benchmarks/results/cost.json").read_text())["table"]
    limits = {"Point-PEFT, bank": 1.0, "Point-PEFT, no bank": 0.85, "Point-PEFT, cached": 0.6}
    for method, limit in limits.items():
        assert max(table[method]["time"], table[method]["time with geometry"]) <= limit
        assert table[method]["memory"] <= 0.8
