"""Adapter folders that are damaged, or well hashed and malformed: ``CheckpointError`` or right."""

import pytest
from fuzz.folders import DAMAGES, draw_folder, warm
from fuzz.runner import CASES, fuzz

PAIRS = [
    *(("from_pretrained", damage) for damage in DAMAGES),
    ("MemoryBank.load", "bank"),
    ("predict", "fields"),
    ("predict", "header"),
    ("remove_unused", "bytes"),
    ("remove_unused", "fields"),
    ("remove_unused", "header"),
]


#: Each opener gets its 200 in all; the one that everybody calls gets more.
SHARES = {
    ("from_pretrained", "header"): 4,
    ("predict", "fields"): 2,
    ("predict", "header"): 2,
    **{("remove_unused", damage): 3 for damage in DAMAGES},
    **{("from_pretrained", damage): 2 for damage in ("tensors", "bank")},
    ("from_pretrained", "bytes"): 4,
}
CASES_OF = {pair: CASES // SHARES.get(pair, 1) + 1 for pair in PAIRS}


@pytest.mark.parametrize(("opener", "damage"), PAIRS)
def test_adapter(opener: str, damage: str, record_property):
    if opener == "predict":
        pytest.importorskip("lightning")
    name = f"{opener}, {damage}"
    fuzz(
        lambda draw: draw_folder(draw, opener, damage),
        record_property,
        name=name,
        cases=CASES_OF[opener, damage],
        warm=warm,
    )
