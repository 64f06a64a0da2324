"""The border between flat rows and the dense layout."""

import pytest
import torch
from geometry_cases import Clouds, ragged
from hypothesis import given

from pyg_peft.geometry import counts, offsets, to_dense, to_flat


def test_by_hand_with_a_gap_and_an_empty_cloud():
    batch = torch.tensor([0, 0, 2])
    assert offsets(batch, 3, batch_size=4).tolist() == [0, 2, 2, 3, 3]
    assert counts(batch, 3).tolist() == [2, 0, 1]
    dense, mask = to_dense(torch.tensor([[1.0], [2.0], [3.0]]), batch, max_num=3)
    assert dense.squeeze(-1).tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]
    assert mask.tolist() == [[True, True, False], [False] * 3, [True, False, False]]


def test_one_cloud_needs_no_batch():
    x = torch.randn(4, 2)
    dense, mask = to_dense(x)
    assert torch.equal(dense[0], x)
    assert mask.all()
    assert offsets(None, 4).tolist() == [0, 4]


@given(ragged())
def test_there_and_back(clouds: Clouds):
    dense, mask = to_dense(clouds.pos, clouds.batch, clouds.batch_size)
    assert dense.shape[:2] == mask.shape == (clouds.batch_size, mask.size(1))
    x, batch = to_flat(dense, mask)
    assert torch.equal(x, clouds.pos)
    assert torch.equal(batch, clouds.batch)
    assert torch.equal(mask.sum(1), counts(clouds.batch, x.size(0), clouds.batch_size))


def test_a_full_dense_tensor_needs_no_mask():
    x, batch = to_flat(torch.arange(6.0).view(2, 3, 1))
    assert x.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.tolist() == [0, 0, 0, 1, 1, 1]


def test_gradients_pass_and_stay_in_their_rows():
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    batch = torch.tensor([0, 0, 1, 3, 3])
    assert torch.autograd.gradcheck(lambda x: to_dense(x, batch)[0], x)
    dense, mask = to_dense(x, batch)
    (gradient,) = torch.autograd.grad(to_flat(dense, mask)[0][3].sum(), x)
    assert gradient.nonzero()[:, 0].unique().tolist() == [3]


def test_no_rows_and_no_clouds():
    dense, mask = to_dense(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), batch_size=2)
    assert dense.shape == (2, 0, 3)
    assert mask.shape == (2, 0)
    dense, mask = to_dense(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2, max_num=4)
    assert dense.shape == (2, 4, 3)
    assert not mask.any()
    assert offsets(torch.zeros(0, dtype=torch.long), 0).tolist() == [0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: offsets(torch.tensor([1, 0]), 2), ValueError, "'batch' to be sorted"),
        (lambda: offsets(torch.tensor([-1, 0]), 2), ValueError, "'batch' to be non-negative"),
        (lambda: offsets(torch.tensor([0.0, 1.0]), 2), TypeError, "'batch' to be an integer"),
        (lambda: offsets(torch.tensor([0]), 2), ValueError, r"'batch' to be of shape \[2\]"),
        (lambda: offsets(torch.tensor([0, 3]), 2, 3), ValueError, "below batch_size 3"),
        (lambda: offsets(None, 2, 3), ValueError, "'batch_size' to be 1 without a batch"),
        (lambda: offsets(torch.zeros(0).long(), 0, -1), ValueError, "'batch_size' to be >= 0"),
        (lambda: to_dense(torch.zeros(3, 1), max_num=2), ValueError, "'max_num' to be at least 3"),
        (
            lambda: to_flat(torch.zeros(2, 3, 1), torch.ones(2, 2, dtype=torch.bool)),
            ValueError,
            r"'mask' to be of shape \[2, 3\]",
        ),
    ],
)
def test_errors_name_the_argument(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
