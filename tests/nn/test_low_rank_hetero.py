"""Low-rank updates of a weight per type."""

import math

import torch

from pyg_peft.nn import LowRankHeteroLinear


def test_each_type_begins_as_a_linear_layer_does(generator: torch.Generator):
    torch.manual_seed(0)
    module = LowRankHeteroLinear(100, 8, 4, 3)
    bound = 1 / math.sqrt(100)
    for down in module.down.detach():
        assert 0.9 * bound < float(down.abs().max()) <= bound
        assert float(down.mean().abs()) < 0.1 * bound
    assert not module.up.detach().any()
