"""How a tensor lies in memory never matters: every public function, every argument, every backend.

Law 12. Column-major positions are how most people load LiDAR: ``np.vstack([x, y, z]).T``.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from geometry_cases import FPS_BACKENDS, KNN_BACKENDS
from torch import Tensor

from pyg_peft import geometry
from pyg_peft.geometry.pyg import legacy as pyg_legacy
from pyg_peft.geometry.pyg.searches import pyg_fps, pyg_knn, pyg_nearest, pyg_radius
from pyg_peft.testing import layouts_of

SIZES = (400, 0, 200)

pytestmark = pytest.mark.usefixtures("every_warning")


class Case(NamedTuple):
    """A function, by its tensors; those named in ``equal`` are also tried with equal rows."""

    call: Callable[..., Any]
    tensors: tuple[str, ...]


def tensors_by_name() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
    pos = torch.randn(600, 3, generator=generator)
    query = pos[::5] + 0.01 * torch.randn(120, 3, generator=generator)
    query_batch = batch[::5].contiguous()
    edges = geometry.knn(pos, query, 3, batch, query_batch)
    weight = geometry.interpolation_weights(pos, query, edges)
    structure = geometry.build_structure(pos, batch, k=4)
    return {
        "pos": pos,
        "batch": batch,
        "query": query,
        "query_batch": query_batch,
        "x": torch.randn(600, 5, generator=generator),
        "edges": edges,
        "weight": weight,
        "ptr": torch.arange(0, 361, 3),
        "start": torch.tensor([7, 0, 401]),
        "candidates": torch.rand(600, generator=generator) > 0.3,
        "receivers": torch.rand(600, generator=generator) > 0.3,
        "graph": geometry.knn_graph(pos, 4, batch),
        "dense": torch.randn(3, 7, 4, generator=generator),
        "mask": torch.rand(3, 7, generator=generator) > 0.5,
        "sets": torch.randn(3, 40, 3, generator=generator),
        "targets": torch.randn(3, 30, 3, generator=generator),
        "center_index": structure.center_index,
        "edge_index": structure.edge_index,
        "interp_index": structure.interp_index,
        "interp_weight": structure.interp_weight,
        "features": torch.randn(200, 20, generator=generator),
        "borders": torch.tensor([0, 120, 200]),
    }


def made_by_hand(
    center_index: Tensor, edge_index: Tensor, interp_index: Tensor, interp_weight: Tensor
) -> geometry.Structure:
    return geometry.Structure(center_index, edge_index, interp_index, interp_weight)


SEARCHES = {
    "knn": Case(
        lambda pos, query, batch, query_batch: geometry.knn(pos, query, 16, batch, query_batch),
        ("pos", "query", "batch", "query_batch"),
    ),
    "knn_graph": Case(lambda pos, batch: geometry.knn_graph(pos, 8, batch), ("pos", "batch")),
    "ball_query": Case(
        lambda pos, query, batch, query_batch: geometry.ball_query(
            pos, query, 0.4, 9, batch, query_batch
        ),
        ("pos", "query", "batch", "query_batch"),
    ),
    "build_patches": Case(
        lambda pos, batch, x: geometry.build_patches(pos, batch, num_centers=20, patch_size=8, x=x),
        ("pos", "batch", "x"),
    ),
    "build_structure": Case(
        lambda pos, batch, receivers: geometry.build_structure(
            pos, batch, k=8, receivers=receivers
        ),
        ("pos", "batch", "receivers"),
    ),
    "pyg_knn": Case(lambda x, borders: pyg_knn(x, x, borders, borders, 5), ("features", "borders")),
    "pyg_knn of positions": Case(lambda pos: pyg_knn(pos, pos, None, None, 5), ("pos",)),
    "pyg_knn by direction": Case(lambda pos: pyg_knn(pos, pos, None, None, 5, True), ("pos",)),
    "pyg_radius": Case(
        lambda pos, query: pyg_radius(pos, query, None, None, 0.4), ("pos", "query")
    ),
    "pyg_nearest": Case(lambda pos, query: pyg_nearest(pos, query), ("pos", "query")),
    "legacy knn_graph": Case(
        lambda pos, batch: pyg_legacy.knn_graph(pos, 5, batch), ("pos", "batch")
    ),
    "legacy radius_graph": Case(
        lambda pos, batch: pyg_legacy.radius_graph(pos, 0.4, batch), ("pos", "batch")
    ),
}
SAMPLINGS = {
    "farthest_point_sample": Case(
        lambda pos, batch, start, candidates: geometry.farthest_point_sample(
            pos, 50, batch, start=start, candidates=candidates
        ),
        ("pos", "batch", "start", "candidates"),
    ),
    "default start": Case(
        lambda pos, batch: geometry.farthest_point_sample(pos, 50, batch), ("pos", "batch")
    ),
    "pyg_fps": Case(lambda x, borders: pyg_fps(x, borders, 0.2, False), ("features", "borders")),
}
OTHERS = {
    "authors_convention": Case(geometry.authors_convention, ("pos", "batch")),
    "offsets": Case(lambda batch: geometry.offsets(batch, 600), ("batch",)),
    "counts": Case(lambda batch: geometry.counts(batch, 600), ("batch",)),
    "to_dense": Case(lambda x, batch: geometry.to_dense(x, batch), ("x", "batch")),
    "to_flat": Case(geometry.to_flat, ("dense", "mask")),
    "interpolation_weights": Case(geometry.interpolation_weights, ("pos", "query", "edges")),
    "interpolate": Case(
        lambda x, edges, weight: geometry.interpolate(x, edges, weight, 120),
        ("x", "edges", "weight"),
    ),
    "interpolate by borders": Case(
        lambda x, edges, weight, ptr: geometry.interpolate(x, edges, weight, 120, ptr=ptr),
        ("x", "edges", "weight", "ptr"),
    ),
    "edge_structure": Case(geometry.edge_structure, ("pos", "graph")),
    "bipartite_structure": Case(geometry.bipartite_structure, ("pos", "query", "edges")),
    "chamfer_distance": Case(geometry.chamfer_distance, ("sets", "targets")),
    "chamfer_distance_l1": Case(geometry.chamfer_distance_l1, ("sets", "targets")),
    "nearest_squared_distances": Case(geometry.nearest_squared_distances, ("sets", "targets")),
    "scene_columns": Case(lambda pos: list(geometry.scene_columns(pos, 1.0)), ("pos",)),
    "grid_sample": Case(lambda pos, batch: geometry.grid_sample(pos, 0.5, batch), ("pos", "batch")),
    "Structure": Case(
        made_by_hand, ("center_index", "edge_index", "interp_index", "interp_weight")
    ),
}


def flat(result: Any) -> list[Tensor]:
    """Return all tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    if dataclasses.is_dataclass(result):
        result = [getattr(result, field.name) for field in dataclasses.fields(result)]
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in flat(part)]
    return []


def check(case: Case) -> None:
    tensors = {name: tensors_by_name()[name] for name in case.tensors}
    expected = flat(case.call(*tensors.values()))
    assert expected, "nothing was returned, so nothing is compared"
    for name, tensor in tensors.items():
        for layout, value in layouts_of(tensor).items():
            found = flat(case.call(*(tensors | {name: value}).values()))
            for one, other in zip(found, expected, strict=True):
                assert torch.equal(one, other), f"{name} is {layout}"


def test_no_public_function_is_left_out():
    """What takes tensors is tried below; the rest takes none, or is a record of results."""
    tried = {case.split()[0] for case in [*SEARCHES, *SAMPLINGS, *OTHERS]}
    other = {"BipartiteStructure", "Patches", "PygOps", "available_backends", "use_backend"}
    other |= {"GridSample"}
    other |= {"enable_pyg_ops", "pyg_ops_enabled", "pyg_ops_worker_init"}
    assert set(geometry.__all__) - tried == other
    assert all(not inspect.isbuiltin(getattr(geometry, name)) for name in other)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("name", SEARCHES)
def test_searches(name: str, backend: str):
    with geometry.use_backend(backend):
        check(SEARCHES[name])


@pytest.mark.parametrize("backend", FPS_BACKENDS)
@pytest.mark.parametrize("name", SAMPLINGS)
def test_samplings(name: str, backend: str):
    with geometry.use_backend(backend):
        check(SAMPLINGS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str):
    check(OTHERS[name])


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_equal_points_that_share_one_memory(backend: str):
    one = torch.tensor([[0.1, 0.2, 0.3]])
    batch = torch.zeros(1, dtype=torch.long).expand(50)
    with geometry.use_backend(backend):
        expected = geometry.knn_graph(one.repeat(50, 1), 4, batch.contiguous())
        assert torch.equal(geometry.knn_graph(one.expand(50, 3), 4, batch), expected)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("wide", [True, False])
def test_positions_as_people_load_them(backend: str, wide: bool):
    generator = np.random.default_rng(0)
    if wide:  # coordinates and more out of one file
        pos = torch.from_numpy(generator.normal(size=(600, 7)))[:, :3]
    else:
        x, y, z = generator.normal(size=(3, 600))
        pos = torch.from_numpy(np.vstack([x, y, z]).T)
    with geometry.use_backend(backend):
        for points in (pos, pos.float()):
            expected = geometry.knn(points.contiguous(), points[:32].contiguous(), 16)
            assert torch.equal(geometry.knn(points, points[:32], 16), expected)
