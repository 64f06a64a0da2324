"""Structure: centers, members, and the way back."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from geometry_cases import Clouds, pairs, ragged, slow_knn
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from pyg_peft.geometry import Structure, build_structure, interpolate, interpolation_weights

LINE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [4, 0, 0]])


def test_by_hand():
    structure = build_structure(LINE, k=2, ratio=0.5, num_interp=1)
    assert structure.center_index.tolist() == [0, 2]
    assert structure.edge_index.tolist() == [[0, 1, 2, 3], [0, 0, 1, 1]]
    assert structure.interp_index.tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]
    assert structure.interp_weight.tolist() == [1.0] * 4
    assert (structure.degree, structure.interp_degree) == (2, 1)


@settings(max_examples=60)
@given(
    clouds=ragged(),
    k=st.integers(1, 6),
    centers=st.one_of(st.integers(1, 6), st.sampled_from([0.2, 0.5, 1.0])),
    num_interp=st.sampled_from([None, 1, 3]),
    some=st.booleans(),
)
def test_equals_loops(clouds: Clouds, k: int, centers, num_interp: int | None, some: bool):
    c = clouds
    by_ratio = isinstance(centers, float)
    sizing: dict[str, Any] = {"ratio": centers} if by_ratio else {"num_centers": centers}
    receivers = None
    if some:
        receivers = torch.rand(c.pos.size(0), generator=torch.Generator().manual_seed(0)) < 0.5
    structure = build_structure(
        c.pos,
        c.batch,
        k=k,
        num_interp=num_interp,
        receivers=receivers,
        batch_size=c.batch_size,
        **sizing,
    )
    sizes = torch.bincount(c.batch, minlength=c.batch_size).tolist()
    wanted = [math.ceil(centers * n) if by_ratio else min(centers, n) for n in sizes]
    cloud = c.batch[structure.center_index]
    assert torch.bincount(cloud, minlength=c.batch_size).tolist() == wanted
    assert bool((cloud.diff() >= 0).all())

    center_pos = c.pos[structure.center_index]
    assert pairs(structure.edge_index) == slow_knn(c.pos, center_pos, k, c.batch, cloud)

    rows = torch.arange(c.pos.size(0)) if receivers is None else receivers.nonzero().squeeze(1)
    back = slow_knn(center_pos, c.pos[rows], num_interp or 99, cloud, c.batch[rows])
    assert pairs(structure.interp_index) == [(j, int(rows[i])) for j, i in back]
    total = torch.zeros(c.pos.size(0), dtype=c.pos.dtype)
    total.index_add_(0, structure.interp_index[1], structure.interp_weight)
    torch.testing.assert_close(total[rows], torch.ones_like(total[rows]))

    for degree, receiver, count in (
        (structure.degree, structure.edge_index[1], cloud.numel()),
        (structure.interp_degree, torch.tensor([i for _, i in back]), rows.numel()),
    ):
        degrees = torch.bincount(receiver.long(), minlength=count).tolist()
        if count > 0:
            assert degree == (degrees[0] if len(set(degrees)) == 1 else None)


@settings(max_examples=30)
@given(clouds=ragged(["random"]), seed=st.integers(0, 99))
def test_symmetries(clouds: Clouds, seed: int):
    c, pos = clouds, clouds.pos.double()
    assume(not (c.batch.bincount() == 2).any())  # both points of a pair are equally central
    generator = torch.Generator().manual_seed(seed)
    order = (c.batch + torch.rand(pos.size(0), generator=generator)).argsort()
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    before = build_structure(pos, c.batch, k=3, batch_size=c.batch_size)
    after = build_structure(pos[order] @ rotation + 2, c.batch, k=3, batch_size=c.batch_size)
    after = after.to_rows(order)
    assert torch.equal(after.center_index, before.center_index)
    assert torch.equal(after.edge_index, before.edge_index)
    place = after.interp_index[1].argsort(stable=True)
    assert torch.equal(after.interp_index[:, place], before.interp_index)
    torch.testing.assert_close(after.interp_weight[place], before.interp_weight)


def test_to_rows_renames_nodes_and_leaves_center_numbers():
    structure = build_structure(LINE, k=2, ratio=0.5)
    rows = torch.tensor([10, 11, 12, 13])
    moved = structure.to_rows(rows)
    assert moved.center_index.tolist() == [10, 12]
    assert moved.edge_index.tolist() == [[10, 11, 12, 13], [0, 0, 1, 1]]
    assert torch.equal(moved.interp_index[0], structure.interp_index[0])
    assert torch.equal(moved.interp_index[1], structure.interp_index[1] + 10)
    assert moved.degree == structure.degree


def test_weights_are_differentiable_and_stay_in_their_cloud():
    pos = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    batch = torch.tensor([0] * 4 + [1] * 3)
    structure = build_structure(pos, batch, k=2)
    first = batch[structure.interp_index[1]] == 0
    (gradient,) = torch.autograd.grad(structure.interp_weight[first].square().sum(), pos)
    assert gradient[:4].abs().sum() > 0
    assert gradient[4:].eq(0).all()

    def weights(pos):
        centers = pos[structure.center_index]
        rows = structure.interp_index[1]
        edges = torch.stack([structure.interp_index[0], rows])
        return interpolation_weights(centers, pos, edges)

    assert torch.equal(weights(pos), structure.interp_weight)


def test_no_points_one_point_and_no_receivers():
    none = build_structure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), batch_size=2)
    assert none.center_index.shape == (0,)
    assert none.edge_index.shape == none.interp_index.shape == (2, 0)
    one = build_structure(torch.ones(1, 3))
    assert one.center_index.tolist() == [0]
    assert one.edge_index.tolist() == one.interp_index.tolist() == [[0], [0]]
    nobody = build_structure(LINE, receivers=torch.zeros(4, dtype=torch.bool))
    assert nobody.interp_index.shape == (2, 0)
    same = build_structure(torch.ones(4, 3), k=2)
    torch.testing.assert_close(same.interp_weight, torch.full((8,), 0.5))


def test_is_a_pytree_and_moves_between_devices():
    structure = build_structure(LINE)
    copied = pytree.tree_map_only(torch.Tensor, torch.clone, structure)
    assert isinstance(copied, Structure)
    assert copied.degree == structure.degree
    assert torch.equal(copied.interp_ptr, structure.interp_ptr)
    shapes = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.shape, structure)
    assert shapes.interp_ptr == (5,)
    moved = structure.to("meta")
    assert moved.edge_index.device.type == moved.interp_ptr.device.type == "meta"


def test_what_layers_share_is_worked_out_once():
    structure = Structure(
        center_index=torch.tensor([0, 2]),
        edge_index=torch.tensor([[0, 1, 2], [0, 0, 1]]),
        interp_index=torch.tensor([[1, 0, 1], [3, 0, 0]]),
        interp_weight=torch.tensor([1.0, 0.25, 0.75]),
    )
    assert structure.interp_index.tolist() == [[0, 1, 1], [0, 0, 3]]
    assert structure.interp_weight.tolist() == [0.25, 0.75, 1.0]
    assert structure.interp_ptr.tolist() == [0, 2, 2, 2, 3]
    assert (structure.max_degree, structure.num_rows) == (2, 4)
    z = torch.tensor([[4.0], [8.0]])
    edges, weight, ptr = structure.interp_index, structure.interp_weight, structure.interp_ptr
    out = interpolate(z, edges, weight, 6, ptr=ptr)
    assert out.flatten().tolist() == [7.0, 0.0, 0.0, 8.0, 0.0, 0.0]
    changed = replace(structure, interp_index=torch.tensor([[0, 0, 0], [2, 1, 0]]))
    assert changed.interp_ptr.tolist() == [0, 1, 2, 3, 3]


def test_interpolation_weights_keep_their_gradient_when_sorted():
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    structure = replace(
        build_structure(LINE.double(), k=2, num_centers=1),
        interp_index=torch.tensor([[0, 0], [3, 1]]),
        interp_weight=weight,
    )
    (gradient,) = torch.autograd.grad(structure.interp_weight[0], weight)
    assert gradient.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degree": 3}, r"to have 3 edges at each of 2 centers \(got 4 edges in all\)"),
        ({"edge_index": torch.tensor([[0, 1, 2, 3], [1, 1, 0, 0]])}, "to be sorted by center"),
        (
            {"edge_index": torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])},
            r"to name centers in \[0, 2\) \(got 0 to 2\)",
        ),
        (
            {"edge_index": torch.tensor([[0, 1, 2, 3], [-1, 0, 1, 1]])},
            r"to name centers in \[0, 2\) \(got -1 to 1\)",
        ),
        (
            {"edge_index": torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]])},
            r"to have 2 edges at each center \(got 3 at one\)",
        ),
        (
            {"edge_index": torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]]), "degree": None},
            r"to have at most 2 edges at each center \(got 3\)",
        ),
        ({"interp_weight": torch.ones(3)}, r"'interp_weight' to have 4 elements.*\(got 3\)"),
        ({"num_rows": 3}, r"'interp_index' to name rows below 3 \(got 3\)"),
    ],
)
def test_a_contradiction_is_found_when_it_is_built(changes: dict[str, Any], message: str):
    structure = build_structure(LINE, k=2, ratio=0.5, num_interp=1)
    with pytest.raises(ValueError, match=message):
        replace(structure, **changes)


def test_a_compiled_graph_must_be_told_the_sizes(monkeypatch: pytest.MonkeyPatch):
    structure = build_structure(LINE, k=2, ratio=0.5, num_interp=1)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(ValueError, match="'num_rows' to be given while a graph is compiled"):
        structure.to_rows(torch.arange(4))
    assert structure.to_rows(torch.arange(4), 6).interp_ptr.tolist() == [0, 1, 2, 3, 4, 4, 4]
    with pytest.raises(ValueError, match="'max_degree' to be given while a graph is compiled"):
        replace(structure, degree=None, max_degree=None)


BASE: dict[str, Any] = {"pos": LINE}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"k": 0}, ValueError, r"'k' to be >= 1 \(got 0\)"),
        ({"ratio": 0.0}, ValueError, r"'ratio' to lie in \(0, 1\] \(got 0.0\)"),
        ({"ratio": 1.5}, ValueError, r"'ratio' to lie in \(0, 1\] \(got 1.5\)"),
        ({"num_centers": 0}, ValueError, r"'num_centers' to be >= 1 \(got 0\)"),
        ({"num_interp": 0}, ValueError, r"'num_interp' to be >= 1 \(got 0\)"),
        ({"receivers": torch.ones(4)}, ValueError, "'receivers' to be a Boolean"),
        ({"pos": LINE.long()}, TypeError, "'pos' to be floating point"),
        ({"pos": LINE / 0}, ValueError, "'pos' to be finite"),
        ({"batch": torch.tensor([0, 1, 0, 1])}, ValueError, "'batch' to be sorted"),
    ],
)
def test_errors_name_the_argument(kwargs: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        build_structure(**(BASE | kwargs))


@pytest.mark.parametrize("name", ["degree", "interp_degree", "max_degree", "num_rows"])
def test_numbers_of_edges_are_whole(name: str):
    structure = build_structure(LINE, k=2, num_centers=2)
    with pytest.raises(TypeError, match=f"'{name}' to be an integer"):
        replace(structure, **{name: 2.5})
    with pytest.raises(ValueError, match=f"'{name}' to be >= 0"):
        replace(structure, **{name: -1})
