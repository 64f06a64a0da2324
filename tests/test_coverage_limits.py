"""The check of a coverage report fails under either limit, and names the worst files."""

import json
import sys
from pathlib import Path
from typing import Any

import check_coverage
import pytest


def summary(lines: int, branches: int) -> dict[str, int]:
    """Of 100 lines and 10 branches."""
    return {
        "covered_lines": lines,
        "num_statements": 100,
        "covered_branches": branches,
        "num_branches": 10,
    }


def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, totals: dict[str, int]) -> int:
    file: dict[str, Any] = {"summary": totals, "missing_lines": [7, 9]}
    file["missing_branches"] = [[3, -1]]
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"totals": totals, "files": {"pyg_peft/some.py": file}}))
    limits = ["--lines", "95", "--branches", "90"]
    monkeypatch.setattr(sys, "argv", ["check_coverage.py", str(path), *limits])
    return check_coverage.main()


@pytest.mark.parametrize(
    ("lines", "branches", "failed"), [(95, 9, 0), (94, 10, 1), (100, 8, 1), (90, 8, 1)]
)
def test_either_limit_fails(tmp_path, monkeypatch, capsys, lines, branches, failed):
    assert check(tmp_path, monkeypatch, summary(lines, branches)) == failed
    shown = capsys.readouterr().out
    assert f"{lines:.2f} % of lines" in shown and f"{10 * branches:.2f} % of branches" in shown
    if lines < 100:
        assert "pyg_peft/some.py: 7, 9" in shown
    if branches < 10:
        assert "pyg_peft/some.py: 3->-1" in shown


def test_a_report_without_branches_is_none(tmp_path, monkeypatch, capsys):
    totals = {"covered_lines": 100, "num_statements": 100}
    assert check(tmp_path, monkeypatch, totals) == 1
    assert "to count branches" in capsys.readouterr().out
