"""The checks that every public border shares: they take what is meant, and name what is not."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft import errors
from pyg_peft.errors import (
    check_batch,
    check_channels,
    check_count,
    check_finite,
    check_flag,
    check_index,
    check_number,
    check_pos,
    check_reach,
    check_tensor,
)

COMPLEX = torch.zeros(2, dtype=torch.complex64)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_are_taken_whatever_their_type(value: Any):
    found = check_count(value)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize("value", ["3", 2.5, 3.0, True, np.True_, torch.tensor(True), None, [3]])
def test_what_is_no_whole_number_is_named(value: Any):
    with pytest.raises(TypeError, match=r"Expected 'k' to be an integer \(got "):
        check_count(value)


def test_the_bounds_of_a_whole_number():
    assert check_count(0, "k", least=0) == check_count(0, "k", least=0, most=2) == 0
    with pytest.raises(ValueError, match=r"Expected 'k' to be >= 1 \(got 0\)"):
        check_count(0)
    with pytest.raises(ValueError, match=r"Expected 'k' to lie in \[1, 4\] \(got 5\)"):
        check_count(5, most=4)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int16(1), torch.tensor(1.0)])
def test_numbers_are_taken_whatever_their_type(value: Any):
    assert check_number(value, "radius", least=0) == 1


@pytest.mark.parametrize("value", ["1", True, None, [1.0], 1j, torch.ones(2), torch.tensor(True)])
def test_what_is_no_number_is_named(value: Any):
    with pytest.raises(TypeError, match=r"Expected 'radius' to be a number \(got "):
        check_number(value, "radius")


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-1, {"least": 0}, r"to be >= 0 \(got -1\)"),
        (0, {"above": 0}, r"to be > 0 \(got 0\)"),
        (1.5, {"above": 0, "most": 1}, r"to lie in \(0, 1\] \(got 1.5\)"),
        (2, {"least": 0, "most": 1}, r"to lie in \[0, 1\] \(got 2\)"),
        (math.nan, {}, r"to be a finite number \(got nan\)"),
        (math.nan, {"least": 0, "infinite": True}, r"to be >= 0 \(got nan\)"),
        (math.inf, {"least": 0}, r"to be >= 0 \(got inf\)"),
    ],
)
def test_the_bounds_of_a_number(value: float, bounds: dict[str, Any], message: str):
    with pytest.raises(ValueError, match="Expected 'r' " + message):
        check_number(value, "r", **bounds)


def test_infinity_where_it_is_allowed():
    assert check_number(math.inf, "r", least=0, infinite=True) == math.inf


def test_flags():
    assert check_flag(True, "loop") and not check_flag(False, "loop")
    for value in (1, None, "yes", torch.tensor(True)):
        with pytest.raises(TypeError, match="Expected 'loop' to be True or False"):
            check_flag(value, "loop")


@pytest.mark.parametrize(
    ("value", "wanted", "error", "message"),
    [
        (np.zeros(3), {}, TypeError, r"a tensor \(got numpy.ndarray; use torch.from_numpy\)"),
        ([0, 1], {}, TypeError, r"a tensor \(got list; use torch.tensor\)"),
        (None, {}, TypeError, r"a tensor \(got None\)"),
        (torch.eye(3).to_sparse(), {}, ValueError, r"a dense tensor \(got torch.sparse_coo\)"),
        (torch.zeros(3, device="meta"), {}, ValueError, "to hold values"),
        (torch.zeros(2), {"shape": ("N", 3)}, ValueError, r"shape \[N, 3\] \(got \[2\]\)"),
        (torch.zeros(2, 4), {"shape": ("N", 3)}, ValueError, r"shape \[N, 3\] \(got \[2, 4\]\)"),
        (torch.zeros(2, 4), {"shape": (..., 3)}, ValueError, r"shape \[..., 3\]"),
        (torch.zeros(2), {"kind": "int"}, TypeError, "an integer tensor .got torch.float32"),
        (torch.zeros(2).bool(), {"kind": "int"}, TypeError, "an integer tensor .got torch.bool"),
        (torch.zeros(2, dtype=torch.complex64), {"kind": "int"}, TypeError, "got torch.complex64"),
        (
            torch.zeros(2, dtype=torch.complex64),
            {"kind": "float"},
            TypeError,
            "floating point .got torch.comp",
        ),
        (torch.zeros(2).long(), {"kind": "float"}, TypeError, "floating point .got torch.int64"),
        (torch.zeros(2), {"kind": "bool"}, TypeError, "a Boolean tensor .got torch.float32"),
        (torch.zeros(2), {"device": torch.device("meta")}, ValueError, "to be on meta"),
    ],
)
def test_what_is_no_such_tensor_is_named(
    value: Any, wanted: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=f"Expected 'mask' to be .*{message}|Expected 'mask' {message}"):
        check_tensor(value, "mask", **wanted)


def test_tensors_that_fit():
    x = torch.zeros(2, 5, 3)
    assert check_tensor(x, "x", shape=(..., 3), kind="float", device=x.device) is x
    assert check_tensor(x, "x", shape=("B", 5, "C")) is x
    meta = torch.zeros(3, device="meta")
    assert check_tensor(meta, "x", values=False) is meta
    check_channels(meta, 3)


def test_integers_that_name_rows():
    index = torch.tensor([0, 2], dtype=torch.int32)
    assert check_index(index, "index", 3).dtype == torch.long
    assert check_index(index.new_tensor([-1]), "index", 3, least=-1).tolist() == [-1]
    assert check_index(index[:0], "index", 0).numel() == 0
    with pytest.raises(ValueError, match=r"'index' to name rows in \[0, 2\) \(got 2\)"):
        check_index(index, "index", 2)
    with pytest.raises(ValueError, match=r"'index' to name centers from 0 on \(got -5\)"):
        check_index(torch.tensor([-5]), "index", None, of="centers")
    with pytest.raises(TypeError, match="'index' to be an integer tensor"):
        check_index(torch.tensor([True]), "index", 2)


def test_the_first_row_that_is_not_finite_is_named():
    x = torch.zeros(3, 2)
    check_finite(x, "x")
    x[1, 0] = math.inf
    with pytest.raises(ValueError, match=r"'x' to be finite \(got \[inf, 0.0\] in row 1\)"):
        check_finite(x, "x")
    with pytest.raises(ValueError, match=r"'x' to be finite \(got NaN or infinity in row 0\)"):
        check_finite(torch.full((2, 9), math.nan), "x")


def test_positions_whose_squares_leave_their_precision_are_refused():
    for dtype, far in ((torch.float32, 1e15), (torch.bfloat16, 1e15), (torch.float64, 1e150)):
        check_reach(torch.full((2, 3), far / 100, dtype=dtype))
        with pytest.raises(ValueError, match=r"'pos' to lie within .* rescale the cloud"):
            check_reach(torch.full((2, 3), far, dtype=dtype))
    check_reach(torch.full((2, 3), 65504.0, dtype=torch.float16))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([0, 0, 1], TypeError, "'batch' to be a tensor .got list"),
        (torch.tensor([0, 1, 0]), ValueError, "'batch' to be sorted .*sort the points by it"),
        (torch.tensor([0j, 0, 0]), TypeError, "'batch' to be an integer tensor"),
        (torch.tensor([0, 0, 10**12]), ValueError, "'batch' to hold ids below 16777216"),
    ],
)
def test_what_is_no_batch_is_named(batch: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        check_batch(batch, 3)


def test_positions():
    check_pos(torch.zeros(0, 3))
    with pytest.raises(TypeError, match=r"'pos' to be a tensor .got numpy.ndarray"):
        check_pos(np.zeros((2, 3)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"'pos' to be floating point .got torch.complex64"):
        check_pos(torch.zeros(2, 3, dtype=torch.complex64))


def test_what_was_given_is_told_in_short():
    assert errors.described("x" * 100) == f"'{'x' * 39}…"
    assert errors.described(torch.zeros(2)) == "a tensor of torch.float32, [2]"
    assert errors.described({}) == "dict"


@pytest.mark.parametrize("check", ["count", "number", "flag", "tensor", "index"])
def test_every_check_stays_in_one_graph(check: str):
    calls = {
        "count": lambda x, k: x[:, : check_count(k)],
        "number": lambda x, k: x * check_number(k / 2, "r", above=0, most=9),
        "flag": lambda x, k: x * check_flag(k > 1, "loop"),
        "tensor": lambda x, k: check_tensor(x, "x", shape=("N", 3), kind="float") * k,
        "index": lambda x, k: x[check_index(x[:, 0].long(), "index", k)],
    }
    torch.compiler.reset()
    compiled = torch.compile(calls[check], fullgraph=True, backend="eager")
    for x, k in ((torch.zeros(4, 3), 2), (torch.zeros(5, 3), 3), (torch.zeros(6, 3), 4)):
        assert torch.equal(compiled(x, k), calls[check](x, k))
