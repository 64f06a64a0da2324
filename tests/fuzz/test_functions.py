"""Every public name on odd arguments: a right answer, or an error that names the argument."""

import pytest
from fuzz.public import EXEMPT, PUBLIC, covered
from fuzz.runner import fuzz
from fuzz.strategies import ENTRIES, draw_case


def test_every_public_name_has_a_strategy_or_a_reason():
    missing = sorted(name for name in PUBLIC if not covered(name) and name not in EXEMPT)
    assert not missing, f"neither a strategy in tests/fuzz/entries nor an exemption: {missing}"
    stale = sorted(name for name in EXEMPT if name not in PUBLIC or covered(name))
    assert not stale, f"exempt, but not public or with a strategy: {stale}"


def test_no_strategy_is_for_a_name_that_is_gone():
    names = {name.rpartition(".")[2] for name in PUBLIC}
    gone = [name for name in ENTRIES if name.rpartition(".")[2].partition(" ")[0] not in names]
    assert not gone


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_function(name: str, record_property):
    fuzz(lambda draw: draw_case(draw, name), record_property, name=name)
