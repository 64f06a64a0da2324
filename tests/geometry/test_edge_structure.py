"""Structures from given edges: by hand, symmetric, and honest about bad input."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.geometry import bipartite_structure, edge_structure, interpolate, knn_graph


def cloud(num_points: int, seed: int) -> tuple[Tensor, Tensor]:
    pos = torch.randn(num_points, 3, generator=torch.Generator().manual_seed(seed)).double()
    return pos, knn_graph(pos, 3)


def spread(z: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
    made = edge_structure(pos, edge_index)
    return interpolate(z, made.interp_index, made.interp_weight, len(pos), ptr=made.interp_ptr)


def test_by_hand():
    pos = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 4, 0]], dtype=torch.float64)
    made = edge_structure(pos, torch.tensor([[2, 1, 0], [0, 0, 1]]), eps=0.0)
    assert made.center_index.tolist() == [0, 1, 2]
    assert made.edge_index.tolist() == [[0, 2, 1, 1, 0, 2], [0, 0, 0, 1, 1, 2]]
    assert (made.degree, made.max_degree, made.num_rows) == (None, 3, 3)
    # The edges of point 0 are 4 and 2 long, 10 is their mean square: 1/10, 1/26, 1/14.
    expected = torch.tensor([1 / 10, 1 / 26, 1 / 14]).double()
    weight = made.interp_weight[made.interp_index[1] == 0]
    torch.testing.assert_close(weight, expected / expected.sum())
    torch.testing.assert_close(made.interp_weight[3:5], torch.tensor([2 / 3, 1 / 3]).double())
    assert float(made.interp_weight[5]) == 1.0  # alone with itself, at no distance
    assert float(edge_structure(pos, torch.tensor([[2], [0]])).interp_weight[-1]) == 1.0


def test_bipartite_by_hand():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 9, 9]]).double()
    query = torch.tensor([[0.0, 0, 0], [2, 0, 0]]).double()
    made = bipartite_structure(pos, query, torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert made.structure.edge_index.tolist() == [[3, 2, 3], [0, 0, 1]]
    assert made.structure.interp_index.tolist() == [[0, 1], [0, 1]]
    x = torch.tensor([[1.0], [3.0]]).double()
    lifted = interpolate(x, made.lift_index, made.lift_weight, 3, ptr=made.lift_ptr)
    torch.testing.assert_close(lifted, torch.tensor([[1.0], [2.0], [0.0]]).double())


@given(num_points=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_symmetries(num_points: int, seed: int):
    pos, edge_index = cloud(num_points, seed)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num_points, 2, generator=generator).double()
    out = spread(z, pos, edge_index)
    shuffled = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    torch.testing.assert_close(spread(z, pos, shuffled), out)
    loops = torch.arange(num_points).expand(2, -1)
    torch.testing.assert_close(spread(z, pos, torch.cat([edge_index, loops], dim=1)), out)
    order = torch.randperm(num_points, generator=generator)
    moved = spread(z[order], pos[order], order.argsort()[edge_index])
    torch.testing.assert_close(moved, out[order])
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator).double())
    torch.testing.assert_close(spread(z, pos @ rotation + 1.0, edge_index), out)
    ones = spread(torch.ones_like(z), pos, edge_index)
    torch.testing.assert_close(ones, torch.ones_like(z))


def test_degenerate():
    none = torch.empty(2, 0, dtype=torch.long)
    alone = edge_structure(torch.zeros(1, 3), none)
    assert alone.edge_index.tolist() == [[0], [0]] and alone.degree == 1
    assert edge_structure(torch.zeros(0, 3), none).center_index.numel() == 0
    same = edge_structure(torch.ones(3, 3), torch.tensor([[0, 1, 2], [1, 2, 0]]))
    torch.testing.assert_close(same.interp_weight, torch.full((6,), 0.5))
    bare = bipartite_structure(torch.zeros(2, 3), torch.zeros(1, 3), none)
    assert bare.structure.max_degree == 0 and bare.lift_weight.numel() == 0


def test_positions_get_gradients():
    pos, edge_index = cloud(7, 0)
    pos.requires_grad_()
    spread(torch.arange(7.0).double()[:, None], pos, edge_index).square().sum().backward()
    assert pos.grad is not None and bool(pos.grad.isfinite().all() & (pos.grad != 0).any())


@pytest.mark.parametrize(
    ("edge_index", "error", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.long), ValueError, r"shape \[2, E\] .got \[3, 2\]"),
        (torch.eye(2).to_sparse(), ValueError, "sparse_coo"),
        (torch.zeros(2, 2), TypeError, "an integer tensor .got torch.float32"),
    ],
)
def test_bad_edges(edge_index: Tensor, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        edge_structure.__wrapped__(torch.zeros(3, 3), edge_index)  # type: ignore[attr-defined]


def test_a_structure_of_edges_is_a_structure():
    pos, edge_index = cloud(6, 1)
    made = edge_structure(pos, edge_index)
    assert made.degree == 4 and replace(made, degree=None).max_degree == 4
