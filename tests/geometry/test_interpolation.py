"""Interpolation by inverse squared distance."""

import pytest
import torch

from pyg_peft.geometry import interpolate, interpolation_weights, knn


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    query = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return pos, query, knn(pos, query, 3)


def test_by_hand():
    pos = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
    edge_index = torch.tensor([[0, 1], [0, 0]])
    weight = interpolation_weights(pos, torch.tensor([[1.0, 0, 0]]), edge_index)
    torch.testing.assert_close(weight, torch.tensor([0.8, 0.2]))
    out = interpolate(torch.tensor([[1.0], [6.0]]), edge_index, weight, num_points=2)
    torch.testing.assert_close(out, torch.tensor([[2.0], [0.0]]))


def test_equals_a_loop():
    pos, query, edge_index = problem()
    x = torch.randn(6, 4, dtype=torch.float64)
    out = interpolate(x, edge_index, interpolation_weights(pos, query, edge_index), 5)
    for i in range(5):
        sources = [int(j) for j, receiver in edge_index.t() if receiver == i]
        inverse = [1 / (float((pos[j] - query[i]).square().sum()) + 1e-8) for j in sources]
        expected = sum(w * x[j] for w, j in zip(inverse, sources, strict=True)) / sum(inverse)
        torch.testing.assert_close(out[i], expected)


def test_weights_sum_to_one_and_a_coincident_point_takes_all():
    pos, query, edge_index = problem()
    query = query.clone()
    query[2] = pos[int(edge_index[0, 6])]
    edge_index = knn(pos, query, 3)
    weight = interpolation_weights(pos, query, edge_index)
    ones = interpolate(torch.ones(6, 1, dtype=torch.float64), edge_index, weight, 5)
    torch.testing.assert_close(ones, torch.ones(5, 1, dtype=torch.float64))
    assert weight[6] > 1 - 1e-6


def test_symmetries():
    pos, query, edge_index = problem()
    weight = interpolation_weights(pos, query, edge_index)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    moved = interpolation_weights(pos @ rotation + 1, query @ rotation + 1, edge_index)
    torch.testing.assert_close(moved, weight)
    order = torch.randperm(edge_index.size(1))
    shuffled = interpolation_weights(pos, query, edge_index[:, order])
    torch.testing.assert_close(shuffled, weight[order])
    assert not torch.allclose(interpolation_weights(pos, query + 0.1, edge_index), weight)


def test_gradients():
    pos, query, edge_index = problem()
    x = torch.randn(6, 2, dtype=torch.float64)

    def out(pos, query, x):
        return interpolate(x, edge_index, interpolation_weights(pos, query, edge_index), 5)

    inputs = tuple(t.requires_grad_() for t in (pos, query, x))
    assert torch.autograd.gradcheck(out, inputs)
    assert torch.autograd.gradgradcheck(out, inputs)


def test_no_edges():
    edge_index = torch.zeros(2, 0, dtype=torch.long)
    weight = interpolation_weights(torch.zeros(2, 3), torch.zeros(3, 3), edge_index)
    assert weight.shape == (0,)
    assert interpolate(torch.ones(2, 4), edge_index, weight, 3).tolist() == [[0.0] * 4] * 3


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"'eps' to be > 0 \(got 0\)"):
        interpolation_weights(*problem(), eps=0)
    borders = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"'num_points' to be at least 2 \(got 1\)"):
        interpolate(torch.ones(2, 4), torch.tensor([[0, 1]] * 2), torch.ones(2), 1, ptr=borders)


def test_sizes_and_borders_that_are_none():
    x, edge_index, weight = torch.ones(2, 1), torch.tensor([[0, 1], [0, 0]]), torch.ones(2)
    with pytest.raises(ValueError, match="Expected 'num_points' to be >= 0"):
        interpolate(x, edge_index, weight, -1)
    with pytest.raises(ValueError, match=r"\(got \[0, 3\]\)$"):
        interpolate(x, edge_index, weight, 1, ptr=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"\(got \[0, 3, 3, 3, 3, 3, 3, 3\] …\)$"):
        interpolate(x, edge_index, weight, 8, ptr=torch.tensor([0] + [3] * 8))
