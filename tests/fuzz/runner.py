"""How a test runs its cases: as many as the profile says, each in the sandbox, all counted."""

import json
import os
import re
import resource
from collections import Counter
from collections.abc import Callable, Mapping

import hypothesis
from fuzz.dice import Draw, draws
from fuzz.sandbox import Case, Limits, Sandbox, Verdict
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

#: Cases of each public name and reader: 200, or what the profile asks for beyond that; for a quick
#: look FUZZ_CASES says how many.
CASES = int(os.environ.get("FUZZ_CASES", 0)) or max(200, hypothesis.settings().max_examples)


class Finding(AssertionError):
    """A case with another outcome than a right answer or a documented error."""


def fuzz(
    draw_case: Callable[[Draw], Case],
    record: Callable[[str, object], None],
    *,
    name: str,
    cases: int = CASES,
    limits: Limits | None = None,
    warm: Callable[[], object] = lambda: None,
) -> None:
    """Draw cases and run them in a process of their own.

    Args:
        draw_case: makes one case.
        record: ``record_property`` of the test.
        name: what is fuzzed; for messages.
        cases: how many; the profile's number by default.
        limits: of each case.
        warm: see :class:`~fuzz.sandbox.Sandbox`.
    """
    count: Counter[str] = Counter()
    before = _processor_time()
    survey: dict[str, tuple[str, str]] = {}
    sandbox = Sandbox(limits, warm)
    collecting = "FUZZ_SURVEY" in os.environ

    # Nothing is shrunk: cases are small, and one that hangs would hang hundreds of times.
    @hypothesis.settings(
        max_examples=cases,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        report_multiple_bugs=False,
    )
    @hypothesis.given(st.integers(0, 2**63 - 1))
    def run(seed: int) -> None:
        case = draw_case(draws(seed))
        verdict = sandbox(case)
        count[verdict.outcome if verdict.good else "found"] += 1
        if verdict.good:
            return
        if collecting:
            survey.setdefault(_kind(verdict), (str(case), verdict.detail))
        else:
            raise Finding(f"{verdict.outcome}: {verdict.detail}\n  in {case}\n  seed: {seed}")

    try:
        run()
    finally:
        sandbox.close()
        record("fuzz", [(key, count[key]) for key in ("right", "refused", "found")])
        if collecting:
            seconds = _processor_time() - before
            _append(
                os.environ["FUZZ_SURVEY"], name, survey, {**count, "seconds": round(seconds, 2)}
            )


def _kind(verdict: Verdict) -> str:
    """Findings of one kind differ in numbers and names only."""
    text = re.sub(r"/tmp/\S+|0x[0-9a-f]+|-?\d+(\.\d+)?(e[+-]?\d+)?", "#", verdict.detail)
    return f"{verdict.outcome} {text[:90]}"


def _processor_time() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _append(
    path: str, name: str, survey: dict[str, tuple[str, str]], count: Mapping[str, float]
) -> None:
    with open(path, "a") as file:
        for kind, (case, detail) in survey.items():
            entry = {"name": name, "kind": kind, "case": case, "detail": detail}
            file.write(json.dumps(entry) + "\n")
        file.write(json.dumps({"name": name, "count": dict(count)}) + "\n")


__all__ = ["CASES", "Finding", "fuzz"]
