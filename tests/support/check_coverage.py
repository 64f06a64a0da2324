"""Fail unless enough lines and enough branches were run; coverage.py's own limit mixes the two.

    coverage json -o coverage.json
    python check_coverage.py coverage.json --lines 95 --branches 90

The files that miss most are named, whether the check fails or not.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Of a summary: how many were run, and of how many.
KINDS = {
    "lines": ("covered_lines", "num_statements"),
    "branches": ("covered_branches", "num_branches"),
}


def share(summary: Mapping[str, int], kind: str) -> float:
    """Per cent of the lines or branches in a summary that were run."""
    covered, total = (summary[name] for name in KINDS[kind])
    return 100.0 * covered / total if total else 100.0


def worst(report: Mapping[str, Any], kind: str, number: int) -> list[str]:
    """The files that miss most lines or branches, worst first, with what they miss."""
    found: list[tuple[int, str]] = []
    for name, file in report["files"].items():
        covered, total = (file["summary"][key] for key in KINDS[kind])
        if total > covered:
            missing = file["missing_lines"]
            if kind == "branches":
                missing = [f"{start}->{end}" for start, end in file["missing_branches"]]
            percent = share(file["summary"], kind)
            listed = ", ".join(map(str, missing[:12])) + (", ..." if len(missing) > 12 else "")
            found.append((total - covered, f"{percent:5.1f} % of {total:4d}  {name}: {listed}"))
    return [line for _, line in sorted(found, key=lambda entry: -entry[0])[:number]]


def main() -> int:
    """Print both shares and the worst files; return 1 under either limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="of `coverage json`, with branches")
    parser.add_argument("--lines", type=float, required=True)
    parser.add_argument("--branches", type=float, required=True)
    parser.add_argument("--worst", type=int, default=12, help="how many files to name")
    given = parser.parse_args()
    report = json.loads(given.report.read_text())
    if not report["totals"].get("num_branches"):
        print(f"Expected '{given.report}' to count branches (got none)")
        return 1
    failed = False
    for kind in KINDS:
        percent, limit = share(report["totals"], kind), getattr(given, kind)
        is_low = percent < limit
        failed |= is_low
        print(
            f"{percent:.2f} % of {kind} are run ({'less than' if is_low else 'at least'} {limit})"
        )
        for line in worst(report, kind, given.worst):
            print(f"  {line}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
