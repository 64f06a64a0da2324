"""Precision: half is computed in float32, and what float32 cannot square is refused by name."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from geometry_cases import FPS_BACKENDS, KNN_BACKENDS
from torch import Tensor

from pyg_peft.geometry import (
    ball_query,
    bipartite_structure,
    build_patches,
    build_structure,
    chamfer_distance,
    chamfer_distance_l1,
    edge_structure,
    farthest_point_sample,
    grid_sample,
    interpolate,
    interpolation_weights,
    knn,
    knn_graph,
    nearest_squared_distances,
    scene_columns,
    use_backend,
)
from pyg_peft.geometry.pyg.searches import pyg_knn

HALVES = [torch.float16, torch.bfloat16]
LINE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0]])
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 0, 0, 5]])


def cloud(count: int = 12, scale: float = 1.0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_of_half_precision_are_those_of_single(dtype: torch.dtype):
    pos = cloud().to(dtype)
    for build in (
        lambda pos: build_structure(pos, k=4),
        lambda pos: edge_structure(pos, EDGES),
        lambda pos: bipartite_structure(pos, pos[:6], EDGES).structure,
    ):
        found, expected = build(pos), build(pos.float())
        assert found.interp_weight.dtype == dtype
        assert torch.equal(found.edge_index, expected.edge_index)
        assert torch.equal(found.interp_index, expected.interp_index)
        assert torch.equal(found.interp_weight, expected.interp_weight.to(dtype))
        assert bool(torch.isfinite(found.interp_weight).all())
    lift = bipartite_structure(pos, pos[:6], EDGES).lift_weight
    assert torch.equal(lift, bipartite_structure(pos.float(), pos[:6].float(), EDGES)[2].to(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_many_neighbors_are_counted_in_half_precision(dtype: torch.dtype):
    """Above 256 (2048) the halves cannot count by ones."""
    pos = cloud(3000).to(dtype)
    edges = torch.stack([torch.arange(1, 3000), torch.zeros(2999, dtype=torch.long)])
    assert edge_structure(pos, edges).max_degree == 3000


@pytest.mark.parametrize("dtype", HALVES)
def test_distances_of_half_precision(dtype: torch.dtype):
    pos, target = (300 * cloud(40)).to(dtype).view(2, 20, 3), (300 * cloud(30)).to(dtype)
    target = target.view(2, 15, 3)
    for distance in (chamfer_distance, chamfer_distance_l1):
        assert torch.equal(distance(pos, target), distance(pos.float(), target.float()))
        assert bool(torch.isfinite(distance(pos, target)))
    for found, expected in zip(
        nearest_squared_distances(pos, target),
        nearest_squared_distances(pos.float(), target.float()),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_searches_of_half_precision(backend: str, dtype: torch.dtype):
    pos = cloud(80).to(dtype)
    wide = pos.float()
    with use_backend(backend):
        assert torch.equal(knn(pos, pos[:9], 5), knn(wide, wide[:9], 5))
        assert torch.equal(ball_query(pos, pos, 0.5, 5), ball_query(wide, wide, 0.5, 5))
        assert torch.equal(ball_query(pos, pos, math.inf, 5), knn(wide, wide, 5))
        assert torch.equal(pyg_knn(pos, pos, k=5), pyg_knn(wide, wide, k=5))
        found = build_patches(pos, num_centers=5, patch_size=6)
        expected = build_patches(wide, num_centers=5, patch_size=6)
        assert torch.equal(found.index, expected.index)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_samples_of_half_precision(backend: str, dtype: torch.dtype):
    pos = cloud(80).to(dtype)
    with use_backend(backend):
        found = farthest_point_sample(pos, 9)
        assert torch.equal(found, farthest_point_sample(pos.float(), 9))
    columns = [rows.tolist() for rows in scene_columns(pos, 1.0)]
    assert columns == [rows.tolist() for rows in scene_columns(pos.float(), 1.0)]


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e20), (torch.float64, 1e200)])
@pytest.mark.parametrize(
    "call",
    [
        lambda pos: build_structure(pos, k=4),
        lambda pos: edge_structure(pos, EDGES),
        lambda pos: bipartite_structure(pos, pos[:6], EDGES),
        lambda pos: interpolation_weights(pos, pos[:6], EDGES),
        lambda pos: chamfer_distance(pos[None], pos[None]),
        lambda pos: chamfer_distance_l1(pos[None], pos[None]),
        lambda pos: list(scene_columns(pos, 1.0)),
        lambda pos: grid_sample(pos, 1.0),
    ],
)
def test_positions_that_cannot_be_squared_are_refused(
    call: Callable[[Tensor], Any], dtype: torch.dtype, scale: float
):
    with pytest.raises(ValueError, match=r"'pos' to lie within .*; rescale the cloud"):
        call((cloud().double() * scale).to(dtype))


SEARCHES = [
    lambda pos: knn(LINE.to(pos.dtype), pos, 2),
    lambda pos: knn(pos, LINE.to(pos.dtype), 2),
    lambda pos: knn_graph(pos, 2),
    lambda pos: ball_query(pos, pos, 1.0, 2),
    lambda pos: farthest_point_sample(pos, 2),
    lambda pos: build_patches(pos, num_centers=2, patch_size=2),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("search", SEARCHES)
def test_distances_that_overflow_are_refused(search: Callable[[Tensor], Any], dtype: torch.dtype):
    pos = LINE.clone()
    pos[1, 2] = -1e19
    message = r"' to lie within 4.6e\+18 of the origin.*\(got 1.0e\+19\); rescale .* pass float64"
    with pytest.raises(ValueError, match=message):
        search(pos.to(dtype))
    search(pos.double())  # squared distances are finite
    pos[1, 2] = -math.inf
    with pytest.raises(ValueError, match=r"' to be finite \(got .* in row 1\)"):
        search(pos.to(dtype))
    # Two opposite corners at the limit.
    for side in (1, -1):
        pos[0], pos[1] = side * 2.0**62, -side * 2.0**62
        search(pos.to(dtype))
    assert knn(pos, pos[:1], 4).tolist()[0] == [0, 2, 3, 1], "distances are finite, in order"


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e6, 2e13])
def test_weights_are_finite_at_every_other_scale(scale: float):
    pos = cloud(400, scale)
    for weight in (
        build_structure(pos, k=4, num_interp=None).interp_weight,
        edge_structure(pos, knn_graph(pos, 200)).interp_weight,
        edge_structure(pos, knn_graph(pos, 20), eps=0.0).interp_weight,
    ):
        assert bool(torch.isfinite(weight).all())
    assert bool(torch.isfinite(chamfer_distance(pos[None], -pos[None])))


@pytest.mark.parametrize("eps", [1e-40, 1e-30, 1e30, 1e300])
def test_an_eps_that_single_precision_cannot_hold_is_refused(eps: float):
    pos, edges = cloud(), EDGES
    with pytest.raises(ValueError, match=r"'eps' to lie in \[1.3e-26, 7.7e\+25\] for positions of"):
        interpolation_weights(pos, pos, edges, eps=eps)
    with pytest.raises(ValueError, match="'eps' to lie in"):
        edge_structure(pos, edges, eps=eps)


def test_the_distance_to_nothing_is_refused():
    for distance in (chamfer_distance, chamfer_distance_l1):
        with pytest.raises(ValueError, match=r"'pos' to be of shape \[B, N, 3\] with N > 0"):
            distance(torch.zeros(1, 0, 3), torch.zeros(1, 2, 3))
        with pytest.raises(ValueError, match=r"'target' to be of shape \[B, N, 3\] with N > 0"):
            distance(torch.zeros(1, 2, 3), torch.zeros(1, 0, 3))
        with pytest.raises(ValueError, match="'pos' to hold at least one set"):
            distance(torch.zeros(0, 2, 3), torch.zeros(0, 2, 3))
        with pytest.raises(ValueError, match="'target' to be finite"):
            distance(torch.zeros(1, 2, 3), torch.full((1, 2, 3), math.nan))


def test_directions_of_any_length():
    x = torch.nn.functional.normalize(cloud(30), dim=-1)
    expected = pyg_knn(x, x, k=4, cosine=True)
    for scale in (2.0**-120, 2.0**120):
        assert torch.equal(pyg_knn(x * scale, x * scale, k=4, cosine=True), expected)


def test_more_samples_than_points_take_no_longer():
    pos = cloud(5)
    for backend in ("dense",):
        with use_backend(backend):
            found = farthest_point_sample(pos, 200_000)
        assert found[0, :5].sort().values.tolist() == [0, 1, 2, 3, 4]
        assert bool((found[0, 5:] == -1).all())


def test_interpolation_in_half_precision():
    pos = cloud().half()
    weight = interpolation_weights(pos, pos[:6], EDGES)
    out = interpolate(torch.ones(12, 2).half(), EDGES, weight, 6)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out[:4], torch.ones(4, 2).half())
