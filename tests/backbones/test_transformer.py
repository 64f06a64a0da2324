"""The transformer block: by hand, by an oracle, and what its mask promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.backbones import Attention, Block, DropPath, Mlp
from pyg_peft.backbones.layers.transformer import attention_mask, drop_path_rates
from pyg_peft.geometry import Patches


def patches_with(mask: Tensor | None, num_clouds: int, num_centers: int) -> Patches:
    center = torch.zeros(num_clouds, num_centers, 3, dtype=torch.float64)
    index = torch.zeros(num_clouds, num_centers, dtype=torch.long)
    return Patches(center.unsqueeze(2), center, index.unsqueeze(2), index, mask)


@torch.no_grad()
def slow_attention(layer: Attention, x: Tensor, valid: Tensor) -> Tensor:
    """One cloud, one head, one row at a time."""
    width = layer.channels // layer.num_heads
    query, key, value = (x @ layer.qkv.weight.T).split(layer.channels, dim=1)
    rows = []
    for row in range(len(x)):
        heads = []
        for head in range(layer.num_heads):
            cut = slice(head * width, (head + 1) * width)
            score = torch.tensor(
                [float(query[row, cut] @ key[j, cut]) / math.sqrt(width) for j in range(len(x))]
            ).double()
            score[~valid] = -math.inf
            heads.append(score.softmax(0) @ value[:, cut])
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ layer.proj.weight.T + layer.proj.bias


def test_repr():
    assert repr(DropPath(0.25)) == "DropPath(drop_prob=0.25)"
    assert "channels=12, num_heads=3" in repr(Attention(12, 3))


@pytest.mark.parametrize("num_heads", [0, 5])
def test_heads_divide_the_width(num_heads):
    with pytest.raises(ValueError, match=rf"Expected 'num_heads' to .* \(got {num_heads}\)"):
        Attention(12, num_heads)


@pytest.mark.parametrize("drop_prob", [-0.1, 1.0, math.nan])
def test_drop_probability(drop_prob):
    with pytest.raises(ValueError, match=r"Expected 'drop_prob' to (lie in|be a finite)"):
        DropPath(drop_prob)


def test_mlp_by_hand():
    layer = Mlp(1, 2)
    with torch.no_grad():
        layer.fc1.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        layer.fc2.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.fc1.bias.zero_()
        layer.fc2.bias.fill_(5.0)
    gelu = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    expected = torch.tensor([[gelu + 2 * -(1 - gelu) + 5]])
    torch.testing.assert_close(layer(torch.ones(1, 1)), expected)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 999),
    num_heads=st.sampled_from([1, 2, 3]),
    num_tokens=st.integers(1, 6),
    data=st.data(),
)
def test_attention_against_an_oracle(seed, num_heads, num_tokens, data):
    torch.manual_seed(seed)
    layer = Attention(6, num_heads).double()
    valid = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=num_tokens, max_size=num_tokens))
    )
    valid[0] = True
    x = torch.randn(1, num_tokens, 6, dtype=torch.float64)
    expected = slow_attention(layer, x[0], valid)
    torch.testing.assert_close(layer(x, valid.view(1, 1, 1, -1))[0], expected)
    if valid.all():
        torch.testing.assert_close(layer(x)[0], expected)


def test_attention_mask_by_hand():
    mask = torch.tensor([[True, False], [False, False]])
    assert attention_mask(None, 3) is None
    keys = attention_mask(mask, 3)
    assert keys is not None
    assert keys[:, 0, 0].tolist() == [[True, True, False], [True, False, False]]
    # a cloud without any token attends to what is there, and nobody reads the result
    keys = attention_mask(mask, 2)
    assert keys is not None
    assert keys[:, 0, 0].tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match=r"at least the 2 tokens of 'patches' \(got 1\)"):
        attention_mask(mask, 1)


@settings(max_examples=20)
@given(seed=st.integers(0, 999), num_extra=st.integers(0, 3), data=st.data())
def test_masked_tokens_influence_no_other(seed, num_extra, data):
    torch.manual_seed(seed)
    block = Block(6, 2).double().eval()
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))[None]
    keep = torch.cat([torch.ones(1, num_extra, dtype=torch.bool), mask], dim=1)[0]
    x = torch.randn(1, num_extra + 4, 6, dtype=torch.float64, requires_grad=True)
    y = block(x, patches=patches_with(mask, 1, 4))
    assert y.isfinite().all()
    if keep.any():
        alone = block(x[:, keep])
        torch.testing.assert_close(y[:, keep], alone)
        (gradient,) = torch.autograd.grad(y[:, keep].sum(), x)
        assert not gradient[:, ~keep].any()
        assert gradient.isfinite().all()


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_permuting_tokens_permutes_the_output(seed):
    torch.manual_seed(seed)
    block = Block(6, 2).double().eval()
    x, order = torch.randn(2, 5, 6, dtype=torch.float64), torch.randperm(5)
    y = block(x)
    torch.testing.assert_close(block(x[:, order]), y[:, order])
    assert not torch.allclose(block(x + torch.eye(5, 6).double()), y)


def test_drop_path_keeps_whole_samples_and_the_expectation():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    y = layer(torch.ones(4000, 2, 3))
    assert y.flatten(1).unique(dim=1).size(1) == 1
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    x = torch.randn(3, 4)
    assert layer.eval()(x) is x


def test_rates_grow_linearly():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]


def test_gradients():
    torch.manual_seed(0)
    block = Block(4, 2).double()
    mask = torch.tensor([[True, False, True]])
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    patches = patches_with(mask, 1, 3)
    assert torch.autograd.gradcheck(lambda x: block(x, patches=patches)[:, [0, 2]], (x,))
    block(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in block.parameters())
