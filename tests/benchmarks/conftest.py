"""The modules of the accuracy table's scripts."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy"
MODULES = (
    *("backbones", "plan", "plan_file", "provenance", "finished", "summary", "cells", "sections"),
    *("measured", "graph_sections", "table"),
)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    """The scripts' modules, imported as they import each other, and forgotten afterwards."""
    pytest.importorskip("yaml", reason="yaml is not installed")
    monkeypatch.syspath_prepend(FOLDER)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]
