from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pyg_peft.nn.neighbor_max import neighbor_max


def make_proj(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    proj = nn.Linear(weight.size(1), weight.size(0), dtype=weight.dtype)
    with torch.no_grad():
        proj.weight.copy_(weight)
        proj.bias.copy_(torch.zeros_like(proj.bias) if bias is None else bias)
    return proj


def test_by_hand():
    x = torch.tensor([[1.0, 5.0], [2.0, 0.0]])
    member = torch.tensor([[0, 1], [1, 1], [0, 0]])
    hidden = torch.tensor([[[0.0, 0.0], [0.0, 3.0]], [[1.0, 0.0], [0.0, 7.0]], [[9.0, 9.0]] * 2])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    proj = make_proj(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.5, 1.0]))
    found = neighbor_max(x, hidden, proj, member, mask)
    assert found.tolist() == [[2.5, 7.0], [3.5, 1.0], [0.0, 0.0]]


@given(
    num_rows=st.integers(1, 6),
    num_sets=st.integers(0, 5),
    size=st.integers(1, 7),
    masked=st.booleans(),
    sets_at_once=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_equals_a_plain_maximum(
    num_rows: int, num_sets: int, size: int, masked: bool, sets_at_once: int, seed: int
):
    with patch("pyg_peft.nn.neighbor_max._CACHED_ELEMENTS", sets_at_once * size * 3):
        check_against_a_plain_maximum(num_rows, num_sets, size, masked, seed)


def check_against_a_plain_maximum(
    num_rows: int, num_sets: int, size: int, masked: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    x, hidden = draw(num_rows, 3).requires_grad_(), draw(num_sets, size, 2).requires_grad_()
    proj = make_proj(draw(3, 2), draw(3))
    member = torch.randint(num_rows, (num_sets, size), generator=generator)
    mask = torch.rand(num_sets, size, generator=generator) < 0.6 if masked else None
    found = neighbor_max(x, hidden, proj, member, mask)
    value = x[member] + proj(hidden)
    if mask is not None:
        value = value.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    expected = value.max(dim=1).values
    if mask is not None:
        expected = expected.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
    torch.testing.assert_close(found, expected)
    weight = draw(*found.shape)
    trained = (x, hidden, proj.weight, proj.bias)
    for got, want in zip(
        torch.autograd.grad((found * weight).sum(), trained),
        torch.autograd.grad((expected * weight).sum(), trained, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want)


def test_first_of_equals_gets_the_gradient():
    x = torch.ones(3, 1, requires_grad=True)
    proj = make_proj(torch.zeros(1, 1))
    neighbor_max(x, torch.zeros(1, 3, 1), proj, torch.tensor([[2, 0, 1]])).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [0.0, 0.0, 1.0]


def test_not_a_number_stays_one():
    x = torch.tensor([[torch.nan], [1.0]])
    hidden = torch.full((1, 2, 1), torch.nan)  # attention spreads it over the neighborhood
    found = neighbor_max(x, hidden, make_proj(torch.ones(1, 1)), torch.tensor([[1, 0]]))
    assert found.isnan().all()


def test_many_members():
    x = torch.arange(40000.0).unsqueeze(1).requires_grad_()
    member, proj = torch.arange(40000).unsqueeze(0), make_proj(torch.zeros(1, 1))
    found = neighbor_max(x, torch.zeros(1, 40000, 1), proj, member)
    found.sum().backward()
    assert found.item() == 39999.0
    assert x.grad is not None and x.grad.nonzero().tolist() == [[39999, 0]]


def test_keeps_nothing_of_a_row_for_every_member():
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x, hidden = torch.randn(40, 64, requires_grad=True), torch.randn(20, 16, 4, requires_grad=True)
    member = torch.randint(40, (20, 16))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        neighbor_max(x, hidden, nn.Linear(4, 64), member)
    assert kept and max(kept) < 20 * 16 * 64


def test_half_precision_of_one_side_only():
    x, hidden = torch.randn(5, 6, requires_grad=True), torch.randn(3, 4, 2, dtype=torch.bfloat16)
    hidden.requires_grad_()
    found = neighbor_max(x, hidden, nn.Linear(2, 6), torch.randint(5, (3, 4)))
    found.sum().backward()
    assert found.dtype == torch.float32
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("masked", [False, True])
def test_second_derivatives(masked: bool):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return drawn.requires_grad_()

    member = torch.randint(5, (4, 3), generator=generator)
    mask = torch.rand(4, 3, generator=generator) < 0.6 if masked else None

    def squared(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        proj = nn.Linear(2, 3)
        del proj.weight, proj.bias
        proj.weight, proj.bias = weight, bias  # type: ignore[assignment]
        return neighbor_max(x, hidden, proj, member, mask).square()

    inputs = (draw(5, 3), draw(4, 3, 2), draw(3, 2), draw(3))
    assert torch.autograd.gradcheck(squared, inputs)
    assert torch.autograd.gradgradcheck(squared, inputs)


def test_a_gradient_that_is_differentiated_is_the_same():
    x, hidden = torch.randn(40, 8, requires_grad=True), torch.randn(20, 6, 4, requires_grad=True)
    proj, member = nn.Linear(4, 8), torch.randint(40, (20, 6))
    inputs = (x, hidden, proj.weight, proj.bias)
    found = neighbor_max(x, hidden, proj, member).square().sum()
    once = torch.autograd.grad(found, inputs, retain_graph=True)
    again = torch.autograd.grad(found, inputs, create_graph=True)
    for got, want in zip(again, once, strict=True):
        torch.testing.assert_close(got, want)
