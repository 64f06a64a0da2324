"""Patches, as the published transformers cut them."""

from typing import Any

import pytest
import torch
from geometry_cases import Clouds, ragged, slow_knn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from pyg_peft.geometry import Patches, build_patches

SQUARE = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0.5]])


def test_by_hand():
    patches = build_patches(SQUARE, num_centers=2, patch_size=2, x=torch.eye(4))
    assert patches.center_index.tolist() == [[0, 2]]
    assert patches.index.tolist() == [[[0, 1], [2, 1]]]
    assert patches.center.tolist() == [[[1, 0, 0], [-1, 0, 0]]]
    assert patches.points.tolist() == [[[[0, 0, 0], [-1, 1, 0]], [[0, 0, 0], [1, 1, 0]]]]
    assert patches.mask is None
    assert patches.features is not None
    assert patches.features.argmax(-1).tolist() == patches.index.tolist()
    assert (patches.batch_size, patches.num_centers, patches.patch_size) == (1, 2, 2)


def test_starts_at_the_first_point_and_skips_points_near_the_origin():
    pos = torch.cat([SQUARE, torch.zeros(3, 3)])
    picks = build_patches(pos, num_centers=6, patch_size=1).center_index
    assert picks[0, 0] == 0
    assert not set(picks.flatten().tolist()) & {4, 5, 6}
    origin_first = torch.cat([torch.zeros(1, 3), SQUARE])
    assert build_patches(origin_first, num_centers=2, patch_size=1).center_index[0, 0] == 0


def test_small_and_empty_clouds_are_masked_and_filled():
    batch = torch.tensor([0, 0, 2, 2])
    patches = build_patches(SQUARE, batch, num_centers=3, patch_size=3, x=SQUARE, batch_size=4)
    assert patches.mask is not None
    assert patches.mask.tolist() == [
        [True, True, False],
        [False] * 3,
        [True, True, False],
        [False] * 3,
    ]
    # The nearest member, the center itself, fills up a patch.
    assert patches.index[0].tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    hidden = ~patches.mask
    assert patches.features is not None
    for tensor in (patches.points, patches.center, patches.features, patches.index):
        assert tensor[hidden].eq(0).all()
    assert patches.center_index[hidden].eq(0).all()


@settings(max_examples=60)
@given(clouds=ragged(), num_centers=st.integers(1, 6), patch_size=st.integers(1, 8))
def test_members_are_the_nearest_points(clouds: Clouds, num_centers: int, patch_size: int):
    c = clouds
    patches = build_patches(
        c.pos, c.batch, num_centers=num_centers, patch_size=patch_size, batch_size=c.batch_size
    )
    assert patches.points.shape == (c.batch_size, num_centers, patch_size, 3)
    sizes = torch.bincount(c.batch, minlength=c.batch_size).tolist()
    for b, size in enumerate(sizes):
        for g in range(num_centers):
            real = g < size
            assert patches.mask is None or bool(patches.mask[b, g]) == real
            if not real:
                continue
            row = int(patches.center_index[b, g])
            nearest = slow_knn(c.pos, c.pos[row : row + 1], patch_size, c.batch, torch.tensor([b]))
            expected = [neighbor for neighbor, _ in nearest]
            expected += expected[:1] * (patch_size - len(expected))
            assert patches.index[b, g].tolist() == expected
            assert torch.equal(patches.center[b, g], c.pos[row])
            assert torch.equal(patches.points[b, g], c.pos[expected] - c.pos[row])


@settings(max_examples=30)
@given(ragged(["random"]))
def test_a_cloud_is_cut_alone(clouds: Clouds):
    c = clouds
    patches = build_patches(c.pos, c.batch, num_centers=4, patch_size=3, batch_size=c.batch_size)
    for b in range(c.batch_size):
        alone = build_patches(c.pos[c.batch == b], num_centers=4, patch_size=3)
        assert torch.equal(patches.points[b], alone.points[0])
        assert torch.equal(patches.center[b], alone.center[0])


def test_translation_moves_the_centers_alone():
    pos = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 9
    before = build_patches(pos, num_centers=5, patch_size=4)
    after = build_patches(pos + 3, num_centers=5, patch_size=4)
    torch.testing.assert_close(after.points, before.points)
    torch.testing.assert_close(after.center, before.center + 3)
    moved = pos.clone()
    moved[before.index[0, 0, 1]] += 0.01
    assert not torch.equal(build_patches(moved, num_centers=5, patch_size=4).points, before.points)


def test_gradients_reach_points_and_features_of_their_cloud():
    pos = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    batch = torch.tensor([0] * 5 + [1] * 3)
    patches = build_patches(pos, batch, num_centers=4, patch_size=4, x=x)
    assert patches.features is not None
    out = patches.points[0].square().sum() + patches.center[0].sum() + patches.features[0].sum()
    for gradient in torch.autograd.grad(out, (pos, x)):
        assert gradient[:5].abs().sum() > 0
        assert gradient[5:].eq(0).all()


def test_no_points_at_all():
    patches = build_patches(
        torch.zeros(0, 3),
        torch.zeros(0, dtype=torch.long),
        num_centers=2,
        patch_size=3,
        x=torch.zeros(0, 5),
        batch_size=2,
    )
    assert patches.points.shape == (2, 2, 3, 3)
    assert patches.features is not None
    assert patches.features.shape == (2, 2, 3, 5)
    assert patches.mask is not None
    assert not patches.mask.any()


def test_is_a_pytree_and_moves_between_devices():
    patches = build_patches(SQUARE, num_centers=2, patch_size=2)
    doubled = pytree.tree_map_only(torch.Tensor, lambda t: 2 * t, patches)
    assert isinstance(doubled, Patches)
    assert torch.equal(doubled.points, 2 * patches.points)
    assert patches.to("meta").points.device.type == "meta"
    assert patches.to("meta").mask is None


BASE: dict[str, Any] = {"pos": SQUARE, "num_centers": 2, "patch_size": 2}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_centers": 0}, ValueError, r"'num_centers' to be >= 1 \(got 0\)"),
        ({"patch_size": 0}, ValueError, r"'patch_size' to be >= 1 \(got 0\)"),
        ({"x": torch.zeros(3, 1)}, ValueError, r"'x' to have 4 rows \(got 3\)"),
        ({"pos": SQUARE.long()}, TypeError, "'pos' to be floating point"),
        ({"pos": SQUARE / 0}, ValueError, "'pos' to be finite"),
        ({"batch": torch.tensor([0, 1, 0, 1])}, ValueError, "'batch' to be sorted"),
    ],
)
def test_errors_name_the_argument(kwargs: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        build_patches(**(BASE | kwargs))
