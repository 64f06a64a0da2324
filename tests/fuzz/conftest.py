"""The fuzz suite: every public name and every reader on odd input; two outcomes only.

=====================  ===========================================================================
``strategies.py``      how arguments are described, drawn and made odd; how a call is judged
``oracles.py``         right answers by brute force
``entries/``           one strategy for each public name, a module for each room
``mutations.py``       damage to files: bytes, text, arrays, JSON, tensors
``sandbox.py``         the process in which cases run, with limits of memory and time
``test_functions.py``  public functions, classes and configs; none may be left out
``test_readers.py``    readers of clouds, data sets, weights and results on damaged files
``test_adapters.py``   adapter folders and banks, hashed anew after the damage
``count.py``           how many cases each test runs: ``python tests/fuzz/count.py``
=====================  ===========================================================================

A case is right if its answer was checked, or if it ended in a documented error that names the
argument or the file. Anything else fails: a crash, a hang, NaN, a warning, an error of another
kind, a wrong answer. ``HYPOTHESIS_PROFILE=ci`` (the default) tries 200 cases of each, always the
same; ``nightly`` 2,000 new ones: ``HYPOTHESIS_PROFILE=nightly pytest tests/fuzz``.

``FUZZ_SURVEY=file`` collects all kinds of findings in a file instead of stopping at the first.
"""

import sys
from pathlib import Path

TESTS = str(Path(__file__).resolve().parent.parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)  # so that these files find each other as ``fuzz.…``


def pytest_terminal_summary(terminalreporter) -> None:
    """Tell how many cases ran, and how many of them were refused."""
    counts = [
        dict(entry)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, entry in report.user_properties
        if name == "fuzz"
    ]
    if counts:
        total = {key: sum(count[key] for count in counts) for key in ("right", "refused", "found")}
        terminalreporter.write_line(
            f"fuzz: {sum(total.values())} cases of {len(counts)} names and readers: "
            f"{total['right']} right, {total['refused']} refused, {total['found']} findings"
        )
