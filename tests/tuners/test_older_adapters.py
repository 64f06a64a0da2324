"""Adapters that an older version saved load, and give the logits that it gave."""

import json
from pathlib import Path

import pytest
import torch
from older_adapters import ADAPTERS, LOGITS, base, logits

from pyg_peft import PeftModel
from pyg_peft.tuners import METHODS

SAVED = Path(__file__).parents[1] / "golden" / "adapters"


def test_there_is_one_of_each_method():
    assert {config.method for config in ADAPTERS.values()} == set(METHODS)
    assert sorted(path.name for path in SAVED.iterdir()) == sorted(ADAPTERS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_it_loads(name: str):
    model = PeftModel.from_pretrained(base(), SAVED / name)
    assert model.peft_config["default"].method == ADAPTERS[name].method
    expected = torch.tensor(json.loads((SAVED / name / LOGITS).read_text()))
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(logits(model), expected, rtol=1e-3, atol=1e-4)
