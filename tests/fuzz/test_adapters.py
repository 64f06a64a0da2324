"""Adapter folders that are damaged, or well hashed and malformed: ``CheckpointError`` or right."""

import pytest
from fuzz.folders import DAMAGES, draw_folder, warm
from fuzz.runner import fuzz

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


@pytest.mark.parametrize(("opener", "damage"), PAIRS)
def test_adapter(opener: str, damage: str, record_property):
    name = f"{opener}, {damage}"
    fuzz(lambda draw: draw_folder(draw, opener, damage), record_property, name=name, warm=warm)
