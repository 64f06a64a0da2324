"""Adapter folders that are damaged, or well hashed and malformed: ``CheckpointError`` or right."""

import pytest
from fuzz.folders import DAMAGES, draw_folder, warm
from fuzz.runner import CASES, fuzz

pytest.importorskip("jsonargparse")

PAIRS = [
    *(("from_pretrained", damage) for damage in DAMAGES),
    ("MemoryBank.load", "bank"),
    ("predict", "fields"),
    ("predict", "header"),
    ("remove_unused", "bytes"),
    ("remove_unused", "fields"),
    ("remove_unused", "header"),
]


#: Opening a folder builds, checks and runs a model; the header alone does not.
CASES_OF = {pair: CASES if pair[0] in ("MemoryBank.load", "remove_unused") else CASES for pair in PAIRS}


@pytest.mark.parametrize(("opener", "damage"), PAIRS)
def test_adapter(opener: str, damage: str, record_property):
    name = f"{opener}, {damage}"
    fuzz(lambda draw: draw_folder(draw, opener, damage), record_property, name=name, cases=CASES_OF[opener, damage], warm=warm)
