"""The maximum of groups: PyG's values, whatever the order, and a gradient that ties share."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import PointNetConv
from torch_geometric.typing import WITH_TORCH_SCATTER
from torch_geometric.utils import scatter

from pyg_peft.backbones.layers.segment_max import SegmentMax, segment_max


@given(
    index=st.lists(st.integers(0, 5), max_size=20),
    is_sorted=st.booleans(),
    needs_grad=st.booleans(),
    seed=st.integers(0, 999),
)
def test_values_are_those_of_scatter(index, is_sorted, needs_grad, seed):
    groups = torch.tensor(sorted(index) if is_sorted else index, dtype=torch.long)
    x = torch.randn(len(index), 3, generator=torch.Generator().manual_seed(seed))
    out = segment_max(x.requires_grad_(needs_grad), groups, 7)
    assert torch.equal(out, scatter(x, groups, 0, 7, reduce="max"))
    if needs_grad and index:
        ours = torch.autograd.grad(out.sum(), x, retain_graph=True)[0]
        theirs = torch.autograd.grad(scatter(x, groups, 0, 7, reduce="max").sum(), x)[0]
        assert torch.equal(ours, theirs)


def test_equal_maxima_share_the_gradient_unless_torch_scatter_gives_it_to_one():
    x = torch.tensor([[2.0], [2.0], [1.0]], requires_grad=True)
    segment_max(x, torch.zeros(3, dtype=torch.long), 1).sum().backward()
    assert x.grad is not None
    shares = [1.0, 0.0, 0.0] if WITH_TORCH_SCATTER else [0.5, 0.5, 0.0]
    assert x.grad.flatten().tolist() == shares


def test_torch_scatter_is_called(monkeypatch: pytest.MonkeyPatch):
    torch_scatter = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
    calls: list[str] = []
    theirs = torch_scatter.segment_csr

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(kwargs["reduce"])
        return theirs(*args, **kwargs)

    monkeypatch.setattr(torch_scatter, "segment_csr", counted)
    x = torch.randn(6, 3, requires_grad=True)
    out = segment_max(x, torch.tensor([0, 0, 1, 1, 1, 3]), 4)
    assert calls == ["max"]
    assert torch.equal(out[:2], torch.stack([x[:2].amax(0), x[2:5].amax(0)]))


@pytest.mark.parametrize("needs_grad", [False, True])
def test_pygs_layers_take_it_as_their_aggregation(needs_grad):
    pos = torch.randn(6, 3, requires_grad=needs_grad)
    edge_index = torch.tensor([[3, 1, 5, 0], [2, 0, 2, 4]])
    ours = PointNetConv(add_self_loops=False, aggr=SegmentMax())(None, pos, edge_index)
    theirs = PointNetConv(add_self_loops=False)(None, pos, edge_index)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("index", [[0, 0, 1, 3, 3], [3, 0, 1, 0, 3]])
def test_second_derivatives(index: list[int], generator: torch.Generator):
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator).requires_grad_()
    group = torch.tensor(index)

    def squared(x: Tensor) -> Tensor:
        return segment_max(x.square(), group, 5).square()

    assert torch.autograd.gradcheck(squared, x)
    assert torch.autograd.gradgradcheck(squared, x)


def test_a_gradient_that_is_differentiated_is_the_same(generator: torch.Generator):
    x = torch.randn(60, 4, dtype=torch.float64, generator=generator).requires_grad_()
    found = segment_max(x, torch.randint(9, (60,), generator=generator), 11)
    weight = torch.randn(11, 4, dtype=torch.float64, generator=generator)
    (once,) = torch.autograd.grad(found, x, weight, retain_graph=True)
    (again,) = torch.autograd.grad(found, x, weight, create_graph=True)
    assert torch.equal(once, again.detach())


@pytest.mark.skipif(WITH_TORCH_SCATTER, reason="torch_scatter gives one of the equals all of it")
@pytest.mark.parametrize("index", [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_equal_maxima_share_a_gradient_of_either_sign(
    index: list[int], create_graph: bool, sign: float
):
    """Torch's own kernel gave each of them all of a negative one."""
    x = torch.tensor([[2.0], [2.0], [1.0], [0.0], [5.0], [5.0]]).requires_grad_()
    out = segment_max(x, torch.tensor(index), 2).sum() * sign
    (grad,) = torch.autograd.grad(out, x, create_graph=create_graph)
    assert (sign * grad).flatten().tolist() == [0.5, 0.5, 0.0, 0.0, 0.5, 0.5]
