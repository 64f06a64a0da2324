"""Under autocast neighbors are those of full precision: positions are never rounded."""

from typing import Any

import pytest
import torch
from geometry_cases import FPS_BACKENDS, KNN_BACKENDS
from torch import Tensor

from pyg_peft.geometry import (
    ball_query,
    build_patches,
    build_structure,
    farthest_point_sample,
    interpolation_weights,
    knn,
    knn_graph,
    nearest_squared_distances,
    use_backend,
)
from pyg_peft.geometry.pyg.searches import pyg_knn

BATCH = torch.arange(2).repeat_interleave(150)


def cloud() -> Tensor:
    """Points so close to each other, and so far from the origin, that bfloat16 sees one point."""
    return torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) * 0.1 + 7


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def assert_equal(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_bfloat16_would_not_do():
    pos = cloud()
    assert not torch.equal(knn_graph(pos.bfloat16(), 4, BATCH), knn_graph(pos, 4, BATCH))


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_searches(backend: str):
    pos, query, query_batch = cloud(), cloud()[::3] + 0.01, BATCH[::3].contiguous()

    def search() -> list[Tensor]:
        return [
            knn(pos, query, 5, BATCH, query_batch),
            knn_graph(pos, 4, BATCH),
            ball_query(pos, query, 0.1, 6, BATCH, query_batch),
        ]

    with use_backend(backend):
        expected = search()
        with autocast():
            assert_equal(search(), expected)


@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_sampling(backend: str):
    with use_backend(backend):
        expected = farthest_point_sample(cloud(), 20, BATCH)
        with autocast():
            assert torch.equal(farthest_point_sample(cloud(), 20, BATCH), expected)


@pytest.mark.parametrize("backend", [*KNN_BACKENDS, *FPS_BACKENDS[1:2]])
def test_patches_and_structure(backend: str):
    def build() -> tuple[Tensor, ...]:
        patches = build_patches(cloud(), BATCH, num_centers=9, patch_size=7)
        made = build_structure(cloud(), BATCH, k=6)
        own = patches.points, patches.center, patches.index, patches.center_index
        back = made.interp_index, made.interp_weight, made.interp_ptr
        return (*own, made.center_index, made.edge_index, *back)

    with use_backend(backend):
        expected = build()
        with autocast():
            assert_equal(build(), expected)


def test_distances_and_weights():
    pos, query = cloud(), cloud()[:20] + 0.01
    edge_index = knn(pos, query, 3)

    def measure() -> tuple[Tensor, ...]:
        nearest = nearest_squared_distances(pos.view(2, 150, 3), query.view(2, 10, 3))
        return (*nearest, interpolation_weights(pos, query, edge_index))

    expected = measure()
    with autocast():
        assert_equal(measure(), expected)


def test_searches_among_features():
    """In many dimensions a product of matrices proposes, which autocast would round."""
    x = torch.randn(90, 64, generator=torch.Generator().manual_seed(0)) * 0.1 + 7
    ptr = torch.tensor([0, 50, 90])
    expected = pyg_knn(x, x, ptr, ptr, 4)
    with autocast():
        assert torch.equal(pyg_knn(x, x, ptr, ptr, 4), expected)
