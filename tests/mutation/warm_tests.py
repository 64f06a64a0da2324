"""Runs pytest again and again, each time in a fork of a process that has imported the rest.

Read by :mod:`mutants` as a process of its own: a request is one line of JSON on the standard input,
an answer one line on the standard output. The package itself is not imported before the fork, so a
changed file counts.
"""

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

IMPORTED = (
    *(
        "beartype",
        "hypothesis",
        "jaxtyping",
        "numpy",
        "safetensors.torch",
        "scipy.spatial",
        "torch",
    ),
    *("torch_geometric.data", "torch_geometric.loader", "torch_geometric.nn", "lightning"),
    *("torchmetrics", "jsonargparse", "trimesh", "plyfile", "laspy", "h5py", "xdist"),
)
MEMORY = 12 * 2**30  # a mutant that takes more fails
TIMEOUT = "timeout"


class Durations:
    """Writes down how long each test took, and whether it passed."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = self.tests.setdefault(report.nodeid, {"seconds": 0.0, "passed": True})
        entry["seconds"] += report.duration
        entry["passed"] &= not report.failed


def child(arguments: list[str], output: str, durations: str | None) -> int:
    """In the fork: run the tests, and return pytest's exit code."""
    os.setsid()
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    watch = Durations()
    code = int(pytest.main(arguments, plugins=[watch]))
    if durations is not None:
        Path(durations).write_text(json.dumps(watch.tests))
    sys.stdout.flush()
    return code


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request; ``code`` is pytest's, minus a signal, or ``"timeout"``."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = child(request["arguments"], request["output"], request.get("durations"))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        late = not done and time.monotonic() - begun > request["timeout"]
        if late:
            os.killpg(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
        if done or late:
            return {
                "code": TIMEOUT if late else os.waitstatus_to_exitcode(status),
                "seconds": time.monotonic() - begun,
                "cpu": used.ru_utime + used.ru_stime,  # says more than the other on a busy machine
            }
        time.sleep(0.02)


def main() -> None:
    """Import everything but the package, then answer until the input ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
