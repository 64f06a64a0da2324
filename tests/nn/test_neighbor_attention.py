import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.nn import NeighborAttention
from pyg_peft.testing import randomize_


def awake(channels: int = 5, seed: int = 0) -> NeighborAttention:
    module = NeighborAttention(channels, 6, num_heads=2).double()
    randomize_(module, torch.Generator().manual_seed(seed))
    return module


def test_repr():
    assert repr(NeighborAttention(8)).splitlines()[1] == "  8, 18, num_heads=6"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "Expected 'channels' to be >= 1 (got 0)"),
        ((8, 0), "Expected 'attention_channels' to be >= 1 (got 0)"),
        ((8, 18, 0), "Expected 'num_heads' to be >= 1 (got 0)"),
        ((8, 18, 4), "Expected 'num_heads' to divide attention_channels 18 (got 4)"),
    ],
)
def test_constructor_errors(arguments: tuple[int, ...], message: str):
    with pytest.raises(ValueError) as error:
        NeighborAttention(*arguments)
    assert str(error.value) == message


def test_wrong_width():
    with pytest.raises(ValueError, match=r"Expected 'x' to be of shape \[S, K, 8\]"):
        NeighborAttention(8)(torch.zeros(2, 3, 1))


def test_by_hand():
    module = NeighborAttention(2, 1, num_heads=1)
    module.norm.eps = 0.0
    with torch.no_grad():
        # No query, no key: all scores are zero, so the values are averaged. The norm turns a row
        # into +1 and -1, of which the value takes the first.
        module.qkv.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
        module.proj.weight.copy_(torch.tensor([[3.0], [6.0]]))
        module.proj.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([[[0.0, 2.0], [5.0, 1.0], [4.0, 3.0]]])  # values -1, 1, 1
    torch.testing.assert_close(module(x), torch.tensor([[[1.0, 3.0]] * 3]))
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(module(x, mask)[:, :2], torch.tensor([[[0.0, 1.0]] * 2]))


def slow(module: NeighborAttention, x: Tensor) -> Tensor:
    """The definition for one neighborhood, head after head, member after member."""
    width = module.attention_channels // module.num_heads
    rows = torch.nn.functional.layer_norm(x, x.shape[-1:], module.norm.weight, module.norm.bias)
    query, key, value = (rows @ module.qkv.weight.T).split(module.attention_channels, dim=-1)
    outs = []
    for j in range(len(x)):
        heads = []
        for head in range(module.num_heads):
            part = slice(head * width, (head + 1) * width)
            score = [query[j, part] @ key[m, part] for m in range(len(x))]
            weight = (torch.stack(score) / module.attention_channels**0.5).exp()
            heads.append((weight / weight.sum()) @ value[:, part])
        outs.append(module.proj.weight @ torch.cat(heads) + module.proj.bias)
    return torch.stack(outs)


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_equals_the_definition(sizes: list[int], seed: int):
    generator, module = torch.Generator().manual_seed(seed), awake(seed=seed)
    width = max([*sizes, 1])
    x = torch.randn(len(sizes), width, 5, dtype=torch.float64, generator=generator)
    mask = torch.arange(width) < torch.tensor(sizes).unsqueeze(1)
    found = module(x, mask)
    assert bool(torch.isfinite(found).all())
    for row, size in enumerate(sizes):
        if size:
            torch.testing.assert_close(found[row, :size], slow(module, x[row, :size]))
    if min(sizes) == width:
        assert torch.equal(module(x), found)


def test_projecting_before_gathering_is_the_same(generator: torch.Generator):
    module = awake()
    x = torch.randn(7, 5, dtype=torch.float64, generator=generator)
    member = torch.randint(7, (3, 4), generator=generator)
    early = module.proj(module.attend(module.project(x)[member]))
    torch.testing.assert_close(early, module(x[member]))


def test_gradients_with_an_empty_neighborhood(generator: torch.Generator):
    module = awake()
    x = torch.randn(3, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    assert torch.autograd.gradcheck(lambda value: module(value, mask)[mask], (x,))
    assert module(x, mask).sum().isfinite()


def test_state_keys():
    keys = ["norm.weight", "norm.bias", "qkv.weight", "proj.weight", "proj.bias"]
    assert list(NeighborAttention(8).state_dict()) == keys


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (1, 1, 5)])
def test_degenerate_shapes(shape: tuple[int, ...]):
    assert awake()(torch.zeros(shape, dtype=torch.float64)).shape == shape


def test_low_precision(generator: torch.Generator):
    module = awake().float()
    x = torch.randn(3, 4, 5, generator=generator)
    mask = torch.tensor([[True] * 4, [True, False, False, False], [False] * 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bool(torch.isfinite(module(x, mask)).all())
    found = module.bfloat16()(x.bfloat16(), mask)
    assert found.dtype == torch.bfloat16 and bool(torch.isfinite(found).all())


def test_padding_may_be_anything(generator: torch.Generator):
    attention, x = NeighborAttention(12, 6, 2), torch.randn(2, 4, 12, generator=generator)
    mask = torch.tensor([[True, True, False, True]]).expand(2, 4)
    expected = attention(x, mask)
    x[:, 2] = torch.nan
    assert torch.equal(attention(x, mask)[mask], expected[mask])
