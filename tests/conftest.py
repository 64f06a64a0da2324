"""What every test relies on: checked shapes, one thread, golden data, and skips that are honest."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import shape_checks
import torch
from golden_case import GoldenCase

shape_checks.install("pyg_peft")

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared"
NO_SHARED = "no ../shared beside the repository"

EXTRAS = {
    *("fpsample", "pynanoflann", "lightning", "jsonargparse", "torchmetrics", "tensorboard"),
    *("trimesh", "plyfile", "laspy", "lazrs", "h5py", "matplotlib", "plotly", "huggingface_hub"),
    *("onnx", "onnxscript", "onnxruntime"),
}

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None)
# Ten times the cases of tests/fuzz, and new ones: HYPOTHESIS_PROFILE=nightly pytest tests/fuzz
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run tests marked slow")
    parser.addoption("--run-download", action="store_true", help="run tests marked download")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, rather than skip, what was not asked for: a skip then always means an absence."""
    unwanted = {
        "slow": not config.getoption("--run-slow"),
        "download": not config.getoption("--run-download"),
        "gpu": not torch.cuda.is_available(),
    }
    marks = [mark for mark, drop in unwanted.items() if drop]
    dropped = [item for item in items if any(item.get_closest_marker(mark) for mark in marks)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def forbidden_skip(reason: str) -> str | None:
    """Say why a test must not skip for ``reason`` on this machine, or return ``None``.

    Shared data that is there must be used, and an environment that promises a package (by
    ``PYG_PEFT_REQUIRE``, comma separated; ``extras`` stands for all of them) must test with it.
    """
    if SHARED.is_dir() and ("shared" in reason or "golden" in reason):
        return "the shared data is there"
    required = {name.strip() for name in os.environ.get("PYG_PEFT_REQUIRE", "").split(",")} - {""}
    if "extras" in required:
        required |= EXTRAS
    named = sorted(name for name in required if name in reason)
    return f"this environment promises {', '.join(named)}" if named else None


def _fail_if_forbidden(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    why = forbidden_skip(reason)
    if why is not None:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not skip, because {why}: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    _fail_if_forbidden(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    _fail_if_forbidden(report)
    return report


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of data beside the repository; skips where there is none."""
    if not SHARED.is_dir():
        pytest.skip(NO_SHARED)
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Callable[[str], GoldenCase]:
    """Open a golden case by name: the copy in ``tests/golden``, or else the shared one."""

    def load(case: str) -> GoldenCase:
        for folder in (HERE / "golden" / case, SHARED / "golden" / case):
            if folder.is_dir():
                return GoldenCase(folder)
        pytest.skip(f"golden case {case}: {NO_SHARED}")

    return load


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def every_warning():
    """Let torch warn each time, not once in a program, so that no test hides another's warning."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)
