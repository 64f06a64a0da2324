import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_peft.nn.neighbor_max import neighbor_max


def test_by_hand():
    x = torch.tensor([[1.0, 5.0], [2.0, 0.0]])
    member = torch.tensor([[0, 1], [1, 1], [0, 0]])
    change = torch.tensor([[[0.0, 0.0], [0.0, 6.0]], [[1.0, 0.0], [0.0, 7.0]], [[9.0, 9.0]] * 2])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    assert neighbor_max(x, change, member, mask).tolist() == [[2.0, 6.0], [3.0, 0.0], [0.0, 0.0]]


@given(
    num_rows=st.integers(1, 6),
    num_sets=st.integers(0, 5),
    size=st.integers(1, 7),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_a_plain_maximum(num_rows: int, num_sets: int, size: int, masked: bool, seed: int):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    change = torch.randn(num_sets, size, 3, dtype=torch.float64, generator=generator)
    change.requires_grad_()
    member = torch.randint(num_rows, (num_sets, size), generator=generator)
    mask = torch.rand(num_sets, size, generator=generator) < 0.6 if masked else None
    found = neighbor_max(x, change, member, mask)
    value = x[member] + change
    if mask is not None:
        value = value.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    expected = value.max(dim=1).values
    if mask is not None:
        expected = expected.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    weight = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    for got, want in zip(
        torch.autograd.grad((found * weight).sum(), (x, change)),
        torch.autograd.grad((expected * weight).sum(), (x, change), allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want)


def test_first_of_equals_gets_the_gradient():
    x = torch.ones(3, 1, requires_grad=True)
    neighbor_max(x, torch.zeros(1, 3, 1), torch.tensor([[2, 0, 1]])).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [0.0, 0.0, 1.0]


def test_not_a_number_stays_one():
    x = torch.tensor([[torch.nan], [1.0]])
    change = torch.full((1, 2, 1), torch.nan)  # attention spreads it over the neighbourhood
    assert neighbor_max(x, change, torch.tensor([[1, 0]])).isnan().all()


def test_many_members():
    x = torch.arange(40000.0).unsqueeze(1)
    member = torch.arange(40000).unsqueeze(0)
    assert neighbor_max(x, torch.zeros(1, 40000, 1), member).item() == 39999.0
