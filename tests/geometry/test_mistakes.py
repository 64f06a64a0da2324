"""What a caller may get wrong in geometry: each mistake is named, and none reads foreign memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_peft import geometry
from pyg_peft.geometry import (
    ball_query,
    bipartite_structure,
    build_patches,
    build_structure,
    chamfer_distance,
    counts,
    edge_structure,
    farthest_point_sample,
    grid_sample,
    interpolate,
    interpolation_weights,
    knn,
    knn_graph,
    offsets,
    scene_columns,
    to_dense,
    to_flat,
)

POS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [9, 0, 0], [9, 1, 0]])
BATCH = torch.tensor([0, 0, 0, 1, 1])
X = torch.ones(5, 2)
EDGES = torch.tensor([[0, 1, 4], [0, 1, 2]])
WEIGHT = torch.tensor([1.0, 0.5, 0.5])


def edges(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


# ---- memory that is not ours ---------------------------------------------------------------------


def test_no_receiver_was_a_segmentation_fault():
    with pytest.raises(ValueError, match=r"'edge_index\[1\]' to name receivers in \[0, 0\)"):
        interpolate(torch.randn(3, 2).double(), EDGES % 3, WEIGHT.double(), num_points=0)
    none = torch.zeros(2, 0, dtype=torch.long)
    assert interpolate(torch.randn(3, 2).double(), none, none[0].double(), 0).shape == (0, 2)


@pytest.mark.parametrize(
    "ptr",
    [[0, -5, 3], [0, 2, 1, 3], [0, 1, 2, 4], [0, 1, 2, 2], [1, 2, 3], [0, 10**15, 3], [-1, 3], [0]],
)
def test_borders_that_read_out_of_bounds(ptr: list[int]):
    with pytest.raises(ValueError, match="'ptr' to rise from 0 to the number of edges, 3"):
        interpolate(X, EDGES, WEIGHT, 4, ptr=torch.tensor(ptr))


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (edges([0, -1, 4], [0, 1, 2]), r"'edge_index\[0\]' to name sources in \[0, 5\) \(got -1\)"),
        (edges([0, 1, 5], [0, 1, 2]), r"'edge_index\[0\]' to name sources in \[0, 5\) \(got 5\)"),
        (edges([0, 1, 4], [0, 1, 3]), r"'edge_index\[1\]' to name receivers in \[0, 3\) \(got 3\)"),
        (edges([0, 1, 4], [0, -7, 2]), r"'edge_index\[1\]' to name receivers in \[0, 3\) .got -7"),
        (edges([0, 1, 4]), r"'edge_index' to be of shape \[2, E\]"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda edge_index: interpolate(X, edge_index, WEIGHT, 3),
        lambda edge_index: interpolate(X, edge_index, WEIGHT, 3, ptr=torch.tensor([0, 1, 2, 3])),
        lambda edge_index: interpolation_weights(POS, POS[:3], edge_index),
        lambda edge_index: bipartite_structure(POS, POS[:3], edge_index),
    ],
)
def test_edges_to_nowhere(call: Callable[[Tensor], Any], edge_index: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        call(edge_index)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("value", [-1, 5])
def test_edges_of_a_structure_to_nowhere(row: int, value: int):
    edge_index = EDGES.clone()
    edge_index[row, 1] = value
    with pytest.raises(ValueError, match=rf"'edge_index\[{row}\]' to name .* \(got {value}\)"):
        edge_structure(POS, edge_index)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("center_index", [-1, 2], r"'center_index' to name rows from 0 on \(got -1\)"),
        ("edge_index", [[0, -1], [0, 1]], r"'edge_index\[0\]' to name rows from 0 on \(got -1\)"),
        ("interp_index", [[-1, 0], [0, 1]], r"'interp_index\[0\]' to name centers in \[0, 2\)"),
        ("interp_index", [[2, 0], [0, 1]], r"'interp_index\[0\]' to name centers .* \(got 2\)"),
        ("interp_index", [[1, 0], [0, -1]], r"'interp_index\[1\]' to name rows from 0 on"),
    ],
)
def test_a_structure_that_names_what_is_not_there(field: str, value: list[Any], message: str):
    fields: dict[str, Any] = {
        "center_index": torch.tensor([0, 2]),
        "edge_index": torch.tensor([[0, 1], [0, 1]]),
        "interp_index": torch.tensor([[1, 0], [0, 1]]),
        "interp_weight": torch.ones(2),
    }
    assert geometry.Structure(**fields).last_row == 2
    fields[field] = torch.tensor(value)
    with pytest.raises(ValueError, match=message):
        geometry.Structure(**fields)


def test_a_structure_of_more_rows_than_the_layer_is_given():
    from pyg_peft import GeometryAwareAdapter

    structure = build_structure(POS, k=2)
    with pytest.raises(ValueError, match=r"'rows' to have at least 5 elements \(got 4\)"):
        structure.to_rows(torch.arange(4))
    with pytest.raises(ValueError, match=r"'rows' to name rows in \[0, 6\) \(got 6\)"):
        structure.to_rows(torch.tensor([0, 1, 2, 3, 6]), 6)
    moved = geometry.Structure(
        torch.tensor([9]), torch.tensor([[9], [0]]), torch.tensor([[0], [1]]), torch.ones(1)
    )
    with pytest.raises(ValueError, match="'x' to have a row 9, which 'structure' names"):
        GeometryAwareAdapter(2, 1)(X, structure=moved)


# ---- types ---------------------------------------------------------------------------------------

ANY: Any = None
NO_GENERATOR: Any = 3


@pytest.mark.parametrize("value", ["3", 2.5, True, None, [3], torch.ones(2)])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda k: knn(POS, POS, k), "k"),
        (lambda k: knn_graph(POS, k), "k"),
        (lambda k: build_structure(POS, k=k), "k"),
        (lambda k: ball_query(POS, POS, 1.0, k), "max_num_neighbors"),
        (lambda k: farthest_point_sample(POS, k), "num_samples"),
        (lambda k: build_patches(POS, num_centers=k, patch_size=2), "num_centers"),
        (lambda k: build_patches(POS, num_centers=2, patch_size=k), "patch_size"),
        (lambda k: interpolate(X, EDGES, WEIGHT, k), "num_points"),
        (lambda k: offsets(BATCH, k), "num_nodes"),
        (lambda k: counts(BATCH, k), "num_nodes"),
        (lambda k: scene_columns(POS, 1.0, max_points=k), "max_points"),
    ],
)
def test_what_is_no_integer(call: Callable[[Any], Any], name: str, value: Any):
    with pytest.raises(TypeError, match=rf"Expected '{name}' to be an integer \(got "):
        call(value)


@pytest.mark.parametrize("value", ["3", 2.5, True, [3]])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda k: build_structure(POS, num_centers=k), "num_centers"),
        (lambda k: build_structure(POS, num_interp=k), "num_interp"),
        (lambda k: build_structure(POS, max_num=k), "max_num"),
        (lambda k: knn_graph(POS, 2, BATCH, batch_size=k), "batch_size"),
        (lambda k: grid_sample(POS, 1.0, BATCH, k), "batch_size"),
        (lambda k: offsets(BATCH, 5, k), "batch_size"),
        (lambda k: to_dense(X, BATCH, k), "batch_size"),
        (lambda k: to_dense(X, BATCH, max_num=k), "max_num"),
        (lambda k: edge_structure(POS, EDGES, max_degree=k), "max_degree"),
        (lambda k: bipartite_structure(POS, POS, EDGES, max_degree=k), "max_degree"),
    ],
)
def test_what_is_no_integer_where_none_may_stand(call: Callable[[Any], Any], name: str, value: Any):
    with pytest.raises(TypeError, match=rf"Expected '{name}' to be an integer \(got "):
        call(value)


@pytest.mark.parametrize("value", ["1", True, [1.0], torch.ones(2)])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda r: ball_query(POS, POS, r, 3), "radius"),
        (lambda r: build_structure(POS, ratio=r), "ratio"),
        (lambda r: interpolation_weights(POS, POS, EDGES, eps=r), "eps"),
        (lambda r: edge_structure(POS, EDGES, eps=r), "eps"),
        (lambda r: scene_columns(POS, r), "size"),
        (lambda r: scene_columns(POS, 1.0, stride=r), "stride"),
    ],
)
def test_what_is_no_number(call: Callable[[Any], Any], name: str, value: Any):
    with pytest.raises(TypeError, match=rf"Expected '{name}' to be a number \(got "):
        call(value)


@pytest.mark.parametrize("value", [[0, 0, 0, 1, 1], np.array([0, 0, 0, 1, 1]), "0"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda batch: knn(POS, POS, 2, batch, BATCH), "batch"),
        (lambda batch: knn(POS, POS, 2, BATCH, batch), "query_batch"),
        (lambda batch: knn_graph(POS, 2, batch), "batch"),
        (lambda batch: ball_query(POS, POS, 1.0, 2, batch, BATCH), "batch"),
        (lambda batch: farthest_point_sample(POS, 2, batch), "batch"),
        (lambda batch: geometry.authors_convention(POS, batch), "batch"),
        (lambda batch: build_patches(POS, batch, num_centers=2, patch_size=2), "batch"),
        (lambda batch: build_structure(POS, batch, k=2), "batch"),
        (lambda batch: offsets(batch, 5), "batch"),
        (lambda batch: counts(batch, 5), "batch"),
        (lambda batch: to_dense(X, batch), "batch"),
        (lambda start: farthest_point_sample(POS, 2, start=start), "start"),
        (lambda mask: farthest_point_sample(POS, 2, candidates=mask), "candidates"),
        (lambda mask: build_structure(POS, receivers=mask), "receivers"),
        (lambda mask: to_flat(X[None], mask), "mask"),
        (lambda x: to_dense(x), "x"),
        (lambda x: to_flat(x), "dense"),
        (lambda pos: knn(pos, POS, 2), "pos"),
        (lambda pos: knn(POS, pos, 2), "query"),
        (lambda pos: chamfer_distance(pos, POS[None]), "pos"),
        (lambda pos: chamfer_distance(POS[None], pos), "target"),
        (lambda pos: list(scene_columns(pos, 1.0)), "pos"),
        (lambda x: interpolate(x, EDGES, WEIGHT, 3), "x"),
        (lambda x: build_patches(POS, num_centers=2, patch_size=2, x=x), "x"),
        (lambda index: interpolate(X, index, WEIGHT, 3), "edge_index"),
        (lambda index: edge_structure(POS, index), "edge_index"),
        (lambda weight: interpolate(X, EDGES, weight, 3), "weight"),
        (lambda ptr: interpolate(X, EDGES, WEIGHT, 3, ptr=ptr), "ptr"),
    ],
)
def test_what_is_no_tensor(call: Callable[[Any], Any], name: str, value: Any):
    with pytest.raises(TypeError, match=rf"Expected '{name}' to be a tensor \(got "):
        call(value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: knn_graph(POS.to("meta"), 2), ValueError, "'pos' to hold values"),
        (lambda: build_structure(POS.to_sparse()), ValueError, "'pos' to be a dense tensor"),
        (lambda: chamfer_distance(POS[None].to("meta"), POS[None]), ValueError, "'pos' to hold"),
        (lambda: knn_graph(POS, 2, BATCH.float()), TypeError, "'batch' to be an integer tensor"),
        (lambda: knn_graph(POS, 2, BATCH.bool()), TypeError, "'batch' to be an integer tensor"),
        (lambda: to_flat(X[None], torch.ones(1, 5)), TypeError, "'mask' to be a Boolean tensor"),
        (
            lambda: farthest_point_sample(POS, 2, candidates=torch.ones(5)),
            ValueError,
            "'candidates' to be a Boolean tensor of shape",
        ),
        (
            lambda: farthest_point_sample(POS, 2, start=torch.tensor([True])),
            ValueError,
            "'start' to be 1 row numbers",
        ),
        (
            lambda: interpolation_weights(POS, POS.double(), EDGES),
            TypeError,
            "'query' to be of dtype torch.float32",
        ),
        (
            lambda: bipartite_structure(POS, POS.double(), EDGES),
            TypeError,
            "'query' to be of dtype torch.float32",
        ),
        (
            lambda: chamfer_distance(POS[None], POS[None].double()),
            TypeError,
            "'target' to be of dtype",
        ),
        (lambda: interpolate(X.long(), EDGES, WEIGHT, 3), TypeError, "'x' to be floating point"),
        (lambda: interpolate(X, EDGES, WEIGHT.long(), 3), TypeError, "'weight' to be floating"),
        (
            lambda: interpolate(X, EDGES, WEIGHT[:2], 3),
            ValueError,
            r"'weight' to be of shape \[3\]",
        ),
        (lambda: interpolate(X, EDGES.float(), WEIGHT, 3), TypeError, r"'edge_index' to be an int"),
        (lambda: interpolate(X[0], EDGES, WEIGHT, 3), ValueError, r"'x' to be of shape \[N, C\]"),
        (lambda: knn_graph(POS, 2, loop=ANY), TypeError, "'loop' to be True or False"),
        (lambda: geometry.available_backends(["knn"]), ValueError, "'task' to be"),  # type: ignore
        (lambda: geometry.use_backend(["x"]).__enter__(), ValueError, "'name' to be"),  # type: ignore
        (lambda: scene_columns(POS, 1e-9), ValueError, "'stride' to fit"),
        (lambda: scene_columns(POS, 1.0, generator=NO_GENERATOR), TypeError, "'generator' to be"),
        (lambda: offsets(torch.tensor([0, 10**12]), 2), ValueError, "'batch' to hold ids below"),
        (lambda: offsets(BATCH, 5, 10**12), ValueError, "'batch_size' to be at most"),
    ],
)
def test_what_else_is_named(call: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


def test_what_fits_is_taken():
    k: Any = np.int64(2)
    assert torch.equal(knn(POS, POS, k), knn(POS, POS, 2))
    small = BATCH.to(torch.uint8)
    assert torch.equal(knn_graph(POS, 2, small), knn_graph(POS, 2, BATCH))
    narrow = EDGES.int()
    assert torch.equal(interpolate(X, narrow, WEIGHT, 3), interpolate(X, EDGES, WEIGHT, 3))
    ptr = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    assert torch.equal(interpolate(X, narrow, WEIGHT, 3, ptr=ptr), interpolate(X, EDGES, WEIGHT, 3))
    masked = EDGES.to(torch.uint8)  # which torch takes for a mask
    assert torch.equal(
        edge_structure(POS, masked).edge_index, edge_structure(POS, EDGES).edge_index
    )
