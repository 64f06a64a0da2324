"""Farthest point sampling, equal in every backend up to ties, which have a test of their own."""

from typing import Any

import pytest
import torch
from geometry_cases import FPS_BACKENDS, Clouds, attains_maximum, points, ragged
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.geometry import authors_convention, farthest_point_sample, use_backend

LINE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [4, 0, 0]])


def rotation(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]


@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_by_hand(backend: str):
    with use_backend(backend):
        # The centroid is at 2.5: both ends are 2.5 away, and the lower row is taken.
        assert farthest_point_sample(LINE, 3).tolist() == [[0, 2, 1]]
        assert farthest_point_sample(LINE, 3, start=torch.tensor([1])).tolist() == [[1, 2, 0]]
        candidates = torch.tensor([False, True, False, True])
        picks = farthest_point_sample(LINE, 3, start=torch.tensor([0]), candidates=candidates)
        assert picks.tolist() == [[0, 3, 1]]


@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_ragged_by_hand(backend: str):
    batch = torch.tensor([1, 1, 3, 3])
    with use_backend(backend):
        picks = farthest_point_sample(LINE, 3, batch, batch_size=5)
    assert picks.tolist() == [[-1] * 3, [0, 1, -1], [-1] * 3, [2, 3, -1], [-1] * 3]


@pytest.mark.parametrize("backend", FPS_BACKENDS)
@settings(max_examples=60)
@given(clouds=ragged(max_points=20), authors=st.booleans())
def test_every_pick_is_as_far_as_can_be(backend: str, clouds: Clouds, authors: bool):
    c = clouds
    pos = c.pos.float() if backend == "fpsample" else c.pos
    start, candidates = None, torch.ones(pos.size(0), dtype=torch.bool)
    if authors:
        start, candidates = authors_convention(pos, c.batch, batch_size=c.batch_size)
    with use_backend(backend):
        picks = farthest_point_sample(
            pos, c.k, c.batch, start=start, candidates=candidates, batch_size=c.batch_size
        )
    assert picks.shape == (c.batch_size, c.k)
    for b, row in enumerate(picks.tolist()):
        members = (c.batch == b).nonzero().flatten().tolist()
        width = min(c.k, len(members))
        assert row[width:] == [-1] * (c.k - width)
        assert set(row[:width]) <= set(members)
        allowed = [member for member in members if candidates[member]]
        if width > 0 and start is not None:
            assert row[0] == int(start[b]) == members[0]
        if allowed:
            assert attains_maximum(pos, row[:width], allowed)
        elif width > 0:
            assert set(row[:width]) == {members[0]}


@settings(max_examples=60)
@given(clouds=ragged(max_points=20), authors=st.booleans())
def test_fpsample_settles_ties_as_the_dense_loop_does(clouds: Clouds, authors: bool):
    pytest.importorskip("fpsample", reason="fpsample is not installed")
    c, pos = clouds, clouds.pos.float()
    kwargs: dict[str, Any] = {}
    if authors:
        start, candidates = authors_convention(pos, c.batch, batch_size=c.batch_size)
        kwargs = {"start": start, "candidates": candidates}
    found = []
    for backend in ("dense", "fpsample"):
        with use_backend(backend):
            found.append(
                farthest_point_sample(pos, c.k, c.batch, batch_size=c.batch_size, **kwargs)
            )
    assert torch.equal(*found)


@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_backends_agree_where_nothing_ties(backend: str):
    pos = points("random", 900, torch.Generator().manual_seed(0), torch.float32)
    batch = torch.tensor([0] * 500 + [2] * 30 + [3] * 370)
    with use_backend("dense"):
        expected = farthest_point_sample(pos, 40, batch)
    with use_backend(backend):
        assert torch.equal(farthest_point_sample(pos, 40, batch), expected)


@settings(max_examples=40)
@given(clouds=ragged(["random"], max_points=20), seed=st.integers(0, 99))
def test_the_default_start_ignores_order_and_placement(clouds: Clouds, seed: int):
    c, pos = clouds, clouds.pos.double()
    # With two points both are equally far from the centroid.
    assume(not ((c.batch.bincount() == 2).any()))
    generator = torch.Generator().manual_seed(seed)
    order = (c.batch + torch.rand(pos.size(0), generator=generator)).argsort()
    expected = farthest_point_sample(pos, c.k, c.batch, batch_size=c.batch_size)
    permuted = farthest_point_sample(pos[order], c.k, c.batch, batch_size=c.batch_size)
    if pos.size(0) > 0:
        back = torch.where(permuted < 0, -1, order[permuted])
        assert torch.equal(back, expected)
    moved = pos @ rotation(seed).T + 3
    assert torch.equal(
        farthest_point_sample(moved, c.k, c.batch, batch_size=c.batch_size), expected
    )


@settings(max_examples=40)
@given(ragged(max_points=20))
def test_a_cloud_is_sampled_alone(clouds: Clouds):
    c = clouds
    picks = farthest_point_sample(c.pos, c.k, c.batch, batch_size=c.batch_size)
    for b in range(c.batch_size):
        rows = (c.batch == b).nonzero().squeeze(1)
        alone = farthest_point_sample(c.pos[rows], c.k)[0]
        if rows.numel() > 0:
            alone = torch.where(alone < 0, -1, rows[alone])
        assert torch.equal(picks[b], alone)


def test_moving_a_point_changes_the_picks():
    moved = LINE.clone()
    moved[1, 0] = 9
    assert farthest_point_sample(LINE, 2).tolist() != farthest_point_sample(moved, 2).tolist()


def test_the_default_start_of_a_far_cloud():
    pos = LINE + 2.0**20
    assert farthest_point_sample(pos, 3).tolist() == farthest_point_sample(LINE, 3).tolist()


@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_degenerate_clouds(backend: str):
    none, no_batch = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    with use_backend(backend):
        assert farthest_point_sample(none, 2).tolist() == [[-1, -1]]
        assert farthest_point_sample(none, 2, no_batch).shape == (0, 2)
        assert farthest_point_sample(none, 2, no_batch, batch_size=2).tolist() == [[-1, -1]] * 2
        assert farthest_point_sample(torch.ones(1, 3), 2).tolist() == [[0, -1]]
        picks = farthest_point_sample(torch.ones(4, 3), 4)
        assert picks.shape == (1, 4)
        assert set(picks.flatten().tolist()) <= {0, 1, 2, 3}
        half = LINE.half().requires_grad_()
        assert farthest_point_sample(half, 3).tolist() == [[0, 2, 1]]


def test_authors_convention_compares_in_float32():
    limit = torch.tensor(1e-3).sqrt()
    pos = torch.tensor([[0.0, 0, 0], [float(limit), 0, 0], [0.0317, 0, 0]])
    start, candidates = authors_convention(pos)
    assert start.tolist() == [0]
    squares = (pos[:, 0] * pos[:, 0]).tolist()
    assert candidates.tolist() == [square > float(torch.tensor(1e-3)) for square in squares]
    start, _ = authors_convention(LINE, torch.tensor([1, 1, 3, 3]), batch_size=5)
    assert start[[1, 3]].tolist() == [0, 2]


BASE: dict[str, Any] = {"pos": LINE, "num_samples": 2}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, r"'num_samples' to be >= 1 \(got 0\)"),
        ({"pos": LINE.long()}, TypeError, "'pos' to be floating point"),
        ({"pos": LINE / 0}, ValueError, "'pos' to be finite"),
        ({"batch": torch.tensor([0, 1, 0, 1])}, ValueError, "'batch' to be sorted"),
        ({"start": torch.tensor([4])}, ValueError, r"'start' to lie in its cloud.*\(got 4\)"),
        ({"start": torch.tensor([0.0])}, ValueError, "'start' to be 1 row numbers"),
        ({"start": torch.tensor([0, 1])}, ValueError, "'start' to be 1 row numbers"),
        (
            {"candidates": torch.ones(3, dtype=torch.bool)},
            ValueError,
            "'candidates' to be a Boolean",
        ),
        ({"candidates": torch.ones(4)}, ValueError, "'candidates' to be a Boolean"),
    ],
)
def test_errors_name_the_argument(kwargs: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        farthest_point_sample(**(BASE | kwargs))


def test_fpsample_refuses_double_precision():
    pytest.importorskip("fpsample", reason="fpsample is not installed")
    with use_backend("fpsample"), pytest.raises(TypeError, match="'pos' to be float32"):
        farthest_point_sample(LINE.double(), 2)


@pytest.mark.parametrize("spacing", [0.1, 0.3, 1 / 3, 0.123])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_fall_alike_beside_other_clouds(spacing: float, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    for side in (2, 3, 5, 7):
        axis = torch.arange(side) * spacing + 0.05
        grid = torch.cartesian_prod(axis, axis, axis).to(dtype)  # eight corners are equally far
        grid = grid[torch.randperm(len(grid), generator=generator)]
        alone = farthest_point_sample(grid, 1)
        for beside in (10, 100, 1000):
            other = torch.randn(beside, 3, dtype=dtype, generator=generator)
            batch = torch.arange(2).repeat_interleave(torch.tensor([len(grid), beside]))
            both = farthest_point_sample(torch.cat([grid, other]), 1, batch)
            assert both[0].tolist() == alone[0].tolist()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_the_start_does_not_depend_on_the_unit(scale: float):
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(50, 3, dtype=torch.float64, generator=generator)
    start = farthest_point_sample(pos, 1).tolist()
    assert farthest_point_sample(pos * scale, 1).tolist() == start
    assert farthest_point_sample((pos * 3e-9).float(), 1).tolist() == start


@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_where_no_point_is_a_candidate_the_start_is_picked_again(backend: str):
    none = torch.zeros(LINE.size(0), dtype=torch.bool)
    with use_backend(backend):
        picks = farthest_point_sample(LINE, 3, start=torch.tensor([1]), candidates=none)
    assert picks.tolist() == [[1, 1, 1]]


def test_the_start_of_no_points_is_checked():
    with pytest.raises(TypeError, match="'start' to be a tensor"):
        farthest_point_sample(torch.zeros(0, 3), 3, start="first")  # type: ignore[arg-type]
