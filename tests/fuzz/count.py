"""Say how many cases the suite runs, test by test: ``python tests/fuzz/count.py``.

``HYPOTHESIS_PROFILE=nightly`` counts the nightly run. With a file of ``FUZZ_SURVEY`` as argument,
tell what was found instead, grouped by area.
"""

import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "support")]


def counts() -> dict[str, int]:
    """Cases of each test under the profile of the moment."""
    import hypothesis

    nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    hypothesis.settings.register_profile("count", max_examples=2000 if nightly else 100)
    hypothesis.settings.load_profile("count")
    from fuzz import public, test_adapters, test_readers
    from fuzz.files import READERS
    from fuzz.runner import CASES

    found = {f"functions: {name}": CASES for name in sorted(public.ENTRIES)}
    found |= {f"readers: {name}": test_readers.SLOW.get(name, CASES) for name in READERS}
    found |= {
        f"crafted files: {name}": len(reader.crafted())
        for name, reader in READERS.items()
        if reader.crafted is not dict
    }
    found |= {
        f"adapters: {' '.join(pair)}": test_adapters.CASES_OF[pair] for pair in test_adapters.PAIRS
    }
    return found


def report(path: str) -> str:
    """What a survey found, as a page: function, outcome, example."""
    kinds: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for line in Path(path).read_text().splitlines():
        entry = json.loads(line)
        if "kind" not in entry:
            continue
        where = re.search(r" at (\S+\.py:\d+)", entry["detail"])
        # One of a kind at one place is enough.
        key = where[1] if where else re.sub(r"\d+", "#", entry["kind"])[:60]
        kinds[entry["name"]].setdefault(key, (entry["detail"], entry["case"]))
    lines: list[str] = []
    for name, findings in sorted(kinds.items()):
        lines.append(f"\n### {name}\n")
        for detail, case in findings.values():
            shown = " ".join(detail.split())[:260]
            lines.append(f"- {shown}\n  - `{' '.join(case.split())[:420]}`")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1:
        print(report(sys.argv[1]))
        return
    found = counts()
    for name, number in found.items():
        print(f"{number:6,d}  {name}")
    print(f"{sum(found.values()):6,d}  in {len(found)} tests")


if __name__ == "__main__":
    main()
