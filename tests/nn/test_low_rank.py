import pytest
import torch
from torch import nn

from pyg_peft.nn import LowRankLinear
from pyg_peft.testing import (
    Clouds,
    assert_deepcopy_and_pickle,
    assert_gradients,
    random_clouds,
    randomize_,
)


def call(module: nn.Module, clouds: Clouds) -> torch.Tensor:
    return module(clouds.x)


def test_repr():
    assert repr(LowRankLinear(8, 4, 2)).splitlines()[1] == "  8, 4, rank=2, alpha=2.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "Expected 'in_channels' to be >= 1 (got 0)"),
        ({"out_channels": 0}, "Expected 'out_channels' to be >= 1 (got 0)"),
        ({"rank": 0}, "Expected 'rank' to lie in [1, 4] (got 0)"),
        ({"rank": 5}, "Expected 'rank' to lie in [1, 4] (got 5)"),
        ({"alpha": 0.0}, "Expected 'alpha' to be > 0 (got 0.0)"),
        ({"alpha": float("nan")}, "Expected 'alpha' to be > 0 (got nan)"),
        ({"dropout": -0.1}, "Expected 'dropout' to lie in [0, 1) (got -0.1)"),
    ],
)
def test_constructor_errors(arguments: dict[str, float], message: str):
    sizes = {"in_channels": 8, "out_channels": 4, "rank": 2}
    with pytest.raises(ValueError) as error:
        LowRankLinear(**{**sizes, **arguments})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_wrong_width():
    with pytest.raises(ValueError, match="Expected 'x' to have 8 channels"):
        LowRankLinear(8, 4, 2)(torch.zeros(3, 1))


def test_by_hand():
    module = LowRankLinear(2, 2, 1, alpha=3)
    with torch.no_grad():
        module.down.weight.copy_(torch.tensor([[1.0, -1.0]]))
        module.up.weight.copy_(torch.tensor([[2.0], [0.0]]))
    assert module(torch.tensor([[5.0, 3.0]])).tolist() == [[12.0, 0.0]]
    assert module.delta_weight().tolist() == [[6.0, -6.0], [0.0, 0.0]]


def test_zero_at_init_then_equal_to_its_matrix(generator: torch.Generator):
    module = LowRankLinear(8, 4, 3, alpha=1.5, dropout=0.3).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=generator)
    assert torch.equal(module(x), torch.zeros(2, 5, 4, dtype=torch.float64))
    randomize_(module, generator)
    torch.testing.assert_close(module(x), x @ module.delta_weight().T)
    assert torch.linalg.matrix_rank(module.delta_weight()) == 3


def test_gradients(generator: torch.Generator):
    module = randomize_(LowRankLinear(8, 4, 2).double(), generator)
    clouds = random_clouds([4], generator=generator)
    assert_gradients(module, clouds, call=call)
    assert torch.autograd.gradcheck(module, (clouds.x.requires_grad_(),))


def test_state(generator: torch.Generator):
    module = randomize_(LowRankLinear(8, 4, 2).double(), generator)
    assert list(module.state_dict()) == ["down.weight", "up.weight"]
    assert_deepcopy_and_pickle(module, random_clouds([4], generator=generator), call=call)


@pytest.mark.parametrize("shape", [(0, 8), (8,), (2, 0, 8)])
def test_degenerate_shapes(shape: tuple[int, ...]):
    assert LowRankLinear(8, 4, 2)(torch.zeros(shape)).shape == (*shape[:-1], 4)


def test_low_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LowRankLinear(8, 4, 2)(torch.zeros(3, 8)).dtype == torch.bfloat16
