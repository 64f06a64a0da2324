"""Neighbors, equal in every backend to a slow loop."""

import math

import numpy as np
import pytest
import torch
from geometry_cases import KNN_BACKENDS, Clouds, pairs, points, ragged, slow_knn
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_peft.geometry import ball_query, knn, knn_graph, use_backend
from pyg_peft.geometry.search.tables import search_table, to_edges

LINE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]])


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_by_hand(backend: str):
    with use_backend(backend):
        assert knn(LINE, LINE[1:2], 2).tolist() == [[1, 0], [0, 0]]
        assert knn_graph(LINE, 1).tolist() == [[1, 0, 1], [0, 1, 2]]
        assert knn_graph(LINE, 2, loop=True).tolist() == [[0, 1, 1, 0, 2, 1], [0, 0, 1, 1, 2, 2]]
        # The ball's border belongs to it, and neighbors come nearest first.
        assert ball_query(LINE, LINE[1:2], 1.0, 8).tolist() == [[1, 0], [0, 0]]
        assert ball_query(LINE, LINE[1:2], 4.0, 2).tolist() == [[1, 0], [0, 0]]
        assert ball_query(LINE, LINE[1:2] + 0.5, 0.4, 8).tolist() == [[], []]


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@given(clouds=ragged())
def test_knn_equals_the_loop(backend: str, clouds: Clouds):
    c = clouds
    with use_backend(backend):
        found = knn(c.pos, c.query, c.k, c.batch, c.query_batch, batch_size=c.batch_size)
    assert pairs(found) == slow_knn(c.pos, c.query, c.k, c.batch, c.query_batch)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@given(clouds=ragged(), loop=st.booleans())
def test_knn_graph_equals_the_loop(backend: str, clouds: Clouds, loop: bool):
    c = clouds
    with use_backend(backend):
        found = knn_graph(c.pos, c.k, c.batch, loop=loop, batch_size=c.batch_size)
    assert pairs(found) == slow_knn(c.pos, c.pos, c.k, c.batch, c.batch, loop=loop)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@given(clouds=ragged(), radius=st.sampled_from([0.0, 0.1, 0.2, 1.0, math.sqrt(2), 2.0, 1e3]))
def test_ball_query_equals_the_loop(backend: str, clouds: Clouds, radius: float):
    c = clouds
    with use_backend(backend):
        found = ball_query(
            c.pos, c.query, radius, c.k, c.batch, c.query_batch, batch_size=c.batch_size
        )
    expected = slow_knn(c.pos, c.query, c.k, c.batch, c.query_batch, radius=radius)
    assert pairs(found) == expected


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("kind", ["random", "grid", "fine grid", "duplicates", "far", "wide"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_agree_on_more_points(backend: str, kind: str, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    pos = points(kind, 700, generator, dtype)
    batch = torch.tensor([0] * 400 + [2] * 300)
    with use_backend("dense"):
        expected = knn_graph(pos, 9, batch)
    with use_backend(backend):
        assert torch.equal(knn_graph(pos, 9, batch), expected)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("scale", [1e-21, 1e-19, 1e18])
def test_order_holds_where_squares_nearly_leave_single_precision(backend: str, scale: float):
    """Below 1e-19 squares lose digits, and what they cannot tell apart goes by row."""
    pos = points("random", 60, torch.Generator().manual_seed(0), torch.float64)
    pos, batch = (pos * scale).float(), torch.zeros(60, dtype=torch.long)
    with use_backend(backend):
        assert pairs(knn_graph(pos, 5, batch)) == slow_knn(pos, pos, 5, batch, batch, loop=False)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("scale", [1e-155, 1e153, 1e200, 1e306])
def test_order_holds_where_squares_leave_double_precision(backend: str, scale: float):
    pos = points("random", 60, torch.Generator().manual_seed(0), torch.float64)
    pos, batch = torch.cat([pos[:30], pos[30:] * scale]), torch.zeros(60, dtype=torch.long)
    with use_backend("dense"):
        expected = knn_graph(pos, 40, batch)
    with use_backend(backend):
        assert torch.equal(knn_graph(pos, 40, batch), expected)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_nobody_is_lost_where_squares_are_infinite(backend: str):
    """As in PyG's own functions, which take points of any size: `knn` refuses these."""
    generator = torch.Generator().manual_seed(0)
    pos = 3e19 * torch.rand(45, 3, generator=generator)
    batch = torch.tensor([0] * 5 + [1] * 40)  # the first cloud is padded to the second
    with np.errstate(over="ignore"):
        expected = slow_knn(pos, pos, 8, batch, batch)
    ptr = torch.tensor([0, 5, 45])
    with use_backend(backend):
        assert pairs(to_edges(search_table(pos, pos, 8, ptr, ptr))) == expected


@settings(max_examples=40)
@given(clouds=ragged(["random"]), seed=st.integers(0, 99))
def test_permuting_points_permutes_neighbors(clouds: Clouds, seed: int):
    c = clouds
    order = torch.cat(
        [
            rows[torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(seed))]
            for b in range(c.batch_size)
            if (rows := (c.batch == b).nonzero().squeeze(1)) is not None
        ]
    )
    found = knn(c.pos[order], c.query, c.k, c.batch, c.query_batch, batch_size=c.batch_size)
    expected = knn(c.pos, c.query, c.k, c.batch, c.query_batch, batch_size=c.batch_size)
    assert torch.equal(torch.stack([order[found[0]], found[1]]), expected)


@given(ragged())
def test_a_cloud_is_searched_alone(clouds: Clouds):
    c = clouds
    found = knn(c.pos, c.query, c.k, c.batch, c.query_batch, batch_size=c.batch_size)
    for b in range(c.batch_size):
        rows = (c.batch == b).nonzero().squeeze(1)
        asked = (c.query_batch == b).nonzero().squeeze(1)
        alone = knn(c.pos[rows], c.query[asked], c.k)
        here = found[:, torch.isin(found[1], asked)]
        assert pairs(here) == pairs(torch.stack([rows[alone[0]], asked[alone[1]]]))


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("kind", ["random", "same"])
def test_one_tensor_may_be_divided_in_two_ways(backend: str, kind: str):
    pos = points(kind, 40, torch.Generator().manual_seed(0), torch.float32)
    batch, query_batch = torch.arange(40) // 20, torch.arange(40) // 30
    with use_backend(backend):
        found = knn(pos, pos, 3, batch, query_batch)
    assert pairs(found) == slow_knn(pos, pos, 3, batch, query_batch)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_moving_a_point_changes_its_neighbors(backend: str):
    pos = LINE.clone()
    with use_backend(backend):
        before = knn_graph(pos, 1)
        pos[0] = torch.tensor([4.5, 0, 0])
        assert not torch.equal(knn_graph(pos, 1), before)


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_clouds_far_apart_and_far_from_the_origin(backend: str):
    generator = torch.Generator().manual_seed(0)
    local = torch.randn(50, 3, generator=generator, dtype=torch.float64).float().double()
    batch = torch.arange(2).repeat_interleave(50)
    pos = torch.cat([local, local + 2.0**22])  # exact in float64
    with use_backend(backend):
        found = knn_graph(pos, 4, batch)
    alone = knn_graph(local, 4)
    assert torch.equal(found, torch.cat([alone, alone + 50], dim=1))


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_degenerate_clouds(backend: str):
    none, no_batch = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    one = torch.ones(1, 3)
    with use_backend(backend):
        assert knn(none, none, 3).shape == (2, 0)
        assert knn(none, one, 3).shape == (2, 0)
        assert knn(one, none, 3).shape == (2, 0)
        assert knn(none, none, 3, no_batch, no_batch).shape == (2, 0)
        assert knn(none, none, 3, no_batch, no_batch, batch_size=4).shape == (2, 0)
        assert knn(one, one, 3).tolist() == [[0], [0]]
        assert knn_graph(one, 3).shape == (2, 0)
        assert knn_graph(one, 3, loop=True).tolist() == [[0], [0]]
        # Coincident points crowd each other out of a search of k + 1: still no loop, still k.
        found = knn_graph(torch.ones(5, 3), 2)
        assert pairs(found) == [(1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2)] + [
            (j, i) for i in (3, 4) for j in (0, 1)
        ]


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_layout_and_precision_of_the_input(backend: str):
    wide = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    with use_backend(backend):
        assert torch.equal(knn_graph(wide[:, ::2], 3), knn_graph(wide[:, ::2].contiguous(), 3))
        for dtype in (torch.float16, torch.bfloat16):
            pos = wide[:, :3].to(dtype)
            assert torch.equal(knn_graph(pos, 3), knn_graph(pos.float(), 3))
        asked = wide[:, :3].clone().requires_grad_()
        assert not knn_graph(asked, 3).requires_grad
        batch = torch.zeros(20, dtype=torch.int32)
        assert torch.equal(knn_graph(wide[:, :3], 3, batch), knn_graph(wide[:, :3], 3))


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_chunks_change_nothing(backend: str, chunk: int, monkeypatch: pytest.MonkeyPatch):
    from pyg_peft.geometry import ordering
    from pyg_peft.geometry.search import candidates

    pos = points("grid", 60, torch.Generator().manual_seed(0), torch.float32)
    batch = torch.tensor([0] * 25 + [1] * 35)
    expected = slow_knn(pos, pos, 5, batch, batch)
    monkeypatch.setattr(candidates, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(ordering, "CHUNK_ELEMENTS", chunk)
    with use_backend(backend):
        assert pairs(knn(pos, pos, 5, batch, batch)) == expected


NAN = torch.tensor([[0.0, math.nan, 0]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: knn(LINE, LINE, 0), ValueError, r"'k' to be >= 1 \(got 0\)"),
        (lambda: knn_graph(LINE, 0), ValueError, r"'k' to be >= 1 \(got 0\)"),
        (lambda: knn(LINE.long(), LINE, 1), TypeError, "'pos' to be floating point"),
        (lambda: knn(LINE, LINE.long(), 1), TypeError, "'query' to be floating point"),
        (lambda: knn(LINE, LINE.double(), 1), TypeError, "'query' to be of dtype torch.float32"),
        (lambda: knn(NAN, LINE, 1), ValueError, "'pos' to be finite"),
        (lambda: knn(LINE, NAN, 1), ValueError, "'query' to be finite"),
        (lambda: knn(LINE[:, :2], LINE, 1), ValueError, r"'pos' to be of shape \[N, 3\]"),
        (
            lambda: knn_graph(LINE, 1, torch.tensor([0, 1, 0])),
            ValueError,
            "'batch' to be sorted",
        ),
        (
            lambda: knn(LINE, LINE, 1, torch.tensor([0, 0, 1]), torch.tensor([1, 0, 0])),
            ValueError,
            "'query_batch' to be sorted",
        ),
        (
            lambda: knn(LINE, LINE, 1, torch.tensor([0, 0, 1])),
            ValueError,
            "'batch' and 'query_batch' to be given together",
        ),
        (
            lambda: knn_graph(LINE, 1, torch.tensor([0, 0, 1]), batch_size=1),
            ValueError,
            "below batch_size 1",
        ),
        (
            lambda: knn_graph(LINE, 1, torch.tensor([0, 0, 1], device="meta")),
            ValueError,
            "'batch' to be on cpu",
        ),
        (lambda: ball_query(LINE, LINE, -1.0, 1), ValueError, "'radius' to be >= 0"),
        (lambda: ball_query(LINE, LINE, math.nan, 1), ValueError, "'radius' to be >= 0"),
        (
            lambda: ball_query(LINE, LINE, 1.0, 0),
            ValueError,
            r"'max_num_neighbors' to be >= 1 \(got 0\)",
        ),
    ],
)
def test_errors_name_the_argument(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
