"""Eval mode for the time of a context: every mode comes back, adapters included."""

import pytest
import torch
from torch import nn

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.nn.eval_mode import eval_mode


@pytest.mark.parametrize("training", [True, False])
def test_every_mode_comes_back(training: bool):
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout().eval(), nn.Dropout()))
    net.training = training
    before = [m.training for m in net.modules()]
    with pytest.raises(KeyError), eval_mode(net):
        assert not any(m.training for m in net.modules())
        raise KeyError
    assert [m.training for m in net.modules()] == before


def test_a_model_with_adapters_keeps_its_base_from_training_while_disabled():
    """Its trained norm takes no statistics of the base, also after the context."""
    base = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    config = LoRAConfig(rank=1, target_modules=("0",), modules_to_save=("1",))
    model = get_peft_model(base, config).train()
    with eval_mode(model):
        assert not any(m.training for m in model.modules())
    assert model.training and base[1].training
    with model.disable_adapter():
        assert not base[1].training
        model(torch.randn(4, 3))
    assert base[1].training
    assert torch.equal(base.get_buffer("1.running_mean"), torch.zeros(3))
