"""The chamfer distances."""

import pytest
import torch

from pyg_peft.geometry import chamfer_distance, chamfer_distance_l1, nearest_squared_distances

DISTANCES = [chamfer_distance, chamfer_distance_l1]


def sets(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 3, generator=generator, dtype=torch.float64)


def test_by_hand():
    a = torch.tensor([[[0.0, 0, 0]]])
    b = torch.tensor([[[1.0, 0, 0], [0, 3, 0]]])
    forth, back = nearest_squared_distances(a, b)
    assert forth.tolist() == [[1]]
    assert back.tolist() == [[1, 9]]
    assert chamfer_distance(a, b).item() == 1 + 5
    assert chamfer_distance_l1(a, b).item() == (1 + 2) / 2


@pytest.mark.parametrize("distance", DISTANCES)
def test_equals_a_loop(distance):
    a, b = sets(3, 7), sets(3, 5, seed=1)
    root = distance is chamfer_distance_l1
    forth, back = [], []
    for one, other in zip(a, b, strict=True):
        forth += [min(float((p - q).norm()) for q in other) for p in one]
        back += [min(float((p - q).norm()) for p in one) for q in other]
    power = 1 if root else 2
    means = [sum(d**power for d in side) / len(side) for side in (forth, back)]
    expected = sum(means) / (2 if root else 1)
    assert distance(a, b).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_symmetries(distance):
    a, b = sets(2, 6), sets(2, 4, seed=1)
    expected = distance(a, b)
    rotation = torch.linalg.qr(sets(3, seed=2).reshape(3, 3))[0]
    torch.testing.assert_close(distance(b, a), expected)
    torch.testing.assert_close(distance(a.flip(1), b), expected)
    torch.testing.assert_close(distance(a @ rotation + 2, b @ rotation + 2), expected)
    assert distance(a, a).item() == 0
    assert not torch.isclose(distance(a, b + 0.1), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients(distance):
    a, b = sets(2, 4).requires_grad_(), sets(2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(distance, (a, b))
    distance(a, a.detach().clone()).backward()
    assert a.grad is not None
    assert a.grad.eq(0).all()  # finite where points coincide


def test_a_cloud_sees_no_other_cloud():
    a, b = sets(2, 4).requires_grad_(), sets(2, 3, seed=1)
    nearest_squared_distances(a, b)[0][0].sum().backward()
    assert a.grad is not None
    assert a.grad[1].eq(0).all()


def test_memory_of_the_backward_pass_is_that_of_the_pairs():
    saved: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    a = sets(1, 64).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        chamfer_distance(a, sets(1, 64, seed=1))
    assert max(saved) <= 64 * 3


def test_compiles_in_one_graph():
    a, b = sets(2, 6), sets(2, 4, seed=1)
    compiled = torch.compile(chamfer_distance, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), chamfer_distance(a, b))


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (sets(4), sets(1, 4), ValueError, r"'pos' to be of shape \[B, N, 3\]"),
        (sets(1, 4), sets(1, 0), ValueError, r"'target' to be of shape \[B, N, 3\] with N > 0"),
        (sets(1, 4), sets(2, 4), ValueError, r"'target' to hold 1 sets \(got 2\)"),
        (sets(1, 4).long(), sets(1, 4), TypeError, "'pos' to be floating point"),
        (sets(1, 4), sets(1, 4).float(), TypeError, "'target' to be of dtype"),
    ],
)
def test_errors_name_the_argument(a, b, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        chamfer_distance(a, b)
