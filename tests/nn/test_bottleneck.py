import pytest
import torch
from torch import nn

from pyg_peft.nn import Bottleneck, quick_gelu
from pyg_peft.testing import (
    Clouds,
    assert_deepcopy_and_pickle,
    assert_gradients,
    assert_identity_at_init,
    random_clouds,
    randomize_,
)


def call(module: nn.Module, clouds: Clouds) -> torch.Tensor:
    return module(clouds.x)


def test_repr():
    assert repr(Bottleneck(8, 2, scale=0.7)).splitlines()[:2] == [
        "Bottleneck(",
        "  8, 2, scale=0.7",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "Expected 'channels' to be >= 1 (got 0)"),
        ({"bottleneck_channels": 0}, "Expected 'bottleneck_channels' to lie in [1, 8] (got 0)"),
        ({"bottleneck_channels": 9}, "Expected 'bottleneck_channels' to lie in [1, 8] (got 9)"),
        ({"dropout": 1.0}, "Expected 'dropout' to lie in [0, 1) (got 1.0)"),
    ],
)
def test_constructor_errors(arguments: dict[str, float], message: str):
    sizes = {"channels": 8, "bottleneck_channels": 2}
    with pytest.raises(ValueError) as error:
        Bottleneck(**{**sizes, **arguments})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_wrong_width():
    with pytest.raises(ValueError, match=r"Expected 'x' to have 8 channels \(got shape \[3, 1\]\)"):
        Bottleneck(8, 2)(torch.zeros(3, 1))


def test_reset_is_reproducible_and_does_not_seed():
    module = Bottleneck(8, 2)
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        module.reset_parameters()
        states.append({k: v.clone() for k, v in module.state_dict().items()})
    after = torch.rand(1)
    torch.manual_seed(3)
    module.reset_parameters()
    assert torch.equal(after, torch.rand(1))
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])


def test_by_hand():
    module = Bottleneck(2, 1, scale=0.5).double()
    with torch.no_grad():
        module.down.weight.copy_(torch.tensor([[1.0, 2.0]]))
        module.down.bias.fill_(-3.0)
        module.up.weight.copy_(torch.tensor([[2.0], [0.0]]))
        module.up.bias.copy_(torch.tensor([0.0, 4.0]))
    # 1 * 1 + 2 * 1 - 3 = 0, and quick_gelu(0) = 0, so only half of the bias is added.
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    gate = 1 / (1 + torch.tensor(-1.702, dtype=torch.float64).exp())
    expected = torch.tensor([[1.0, 3.0], [2.0 + float(gate), 3.0]], dtype=torch.float64)
    torch.testing.assert_close(module(x), expected)


def test_quick_gelu_is_a_sigmoid_gate():
    u = torch.linspace(-4, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(quick_gelu(u), u / (1 + (-1.702 * u).exp()))


def test_identity_at_init(generator: torch.Generator):
    clouds = random_clouds([5, 0, 3], generator=generator)
    module = Bottleneck(8, 3).double()
    assert_identity_at_init(module, clouds, reference=clouds.x, generator=generator, call=call)


def test_rows_do_not_see_each_other(generator: torch.Generator):
    module = randomize_(Bottleneck(8, 3).double(), generator)
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(module(x)[1, 3], module(x[1, 3]))


def test_dropout_acts_in_training_only(generator: torch.Generator):
    module = randomize_(Bottleneck(8, 8, dropout=0.5), generator)
    x = torch.randn(64, 8, generator=generator)
    assert not torch.equal(module.train()(x), module(x))
    assert torch.equal(module.eval()(x), module(x))


def test_gradients(generator: torch.Generator):
    module = randomize_(Bottleneck(8, 3).double(), generator)
    clouds = random_clouds([4], generator=generator)
    assert_gradients(module, clouds, call=call)
    x = clouds.x.requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


def test_state(generator: torch.Generator):
    module = randomize_(Bottleneck(8, 3).double(), generator)
    assert list(module.state_dict()) == ["down.weight", "down.bias", "up.weight", "up.bias"]
    assert_deepcopy_and_pickle(module, random_clouds([4], generator=generator), call=call)


@pytest.mark.parametrize("shape", [(0, 8), (8,), (2, 0, 8), (1, 8)])
def test_degenerate_shapes(shape: tuple[int, ...], generator: torch.Generator):
    module = randomize_(Bottleneck(8, 3), generator)
    assert module(torch.zeros(shape)).shape == shape


def test_low_precision(generator: torch.Generator):
    module = randomize_(Bottleneck(8, 3), generator)
    x = torch.randn(5, 8, generator=generator)
    expected = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.float32
    found = module.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
