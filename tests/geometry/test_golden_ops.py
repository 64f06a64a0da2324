"""Equality with what the CUDA packages of the published transformers compute."""

from collections.abc import Callable

import pytest
import torch
from geometry_cases import FPS_BACKENDS, KNN_BACKENDS
from golden_case import GoldenCase

from pyg_peft.geometry import (
    authors_convention,
    build_patches,
    chamfer_distance,
    chamfer_distance_l1,
    farthest_point_sample,
    knn,
    nearest_squared_distances,
    use_backend,
)

CASE = "ops_fps_knn_chamfer"
CLOUDS = [
    "torus",
    "box_with_origin_blob",
    "helix",
    "duplicates",
    "start_near_origin",
    "all_near_origin_but_two",
    "grid_ties",
    "boundary_norm",
]
#: Clouds in which some points are exactly equally far, so that a pick depends on the tie rule.
TIES = {"duplicates", "grid_ties", "all_near_origin_but_two", "boundary_norm"}

Golden = Callable[[str], GoldenCase]


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("backend", FPS_BACKENDS)
def test_picks(golden: Golden, backend: str, cloud: str):
    ref = golden(CASE).ref
    pos, expected = ref[f"{cloud}.points"], ref[f"{cloud}.fps_idx"]
    start, candidates = authors_convention(pos)
    with use_backend(backend):
        picks = farthest_point_sample(
            pos, expected.numel(), start=start, candidates=candidates
        ).squeeze(0)
    if backend in ("dense", "fpsample") or cloud not in TIES:
        assert torch.equal(picks, expected.long())
    else:
        assert picks.unique().numel() <= expected.numel()


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_neighbors(golden: Golden, backend: str, cloud: str):
    ref = golden(CASE).ref
    pos, picks = ref[f"{cloud}.points"], ref[f"{cloud}.fps_idx"].long()
    expected = ref[f"{cloud}.knn_idx"].long()
    with use_backend(backend):
        found = knn(pos, pos[picks], expected.size(1))
    index = found[0].view_as(expected)
    assert torch.equal(index, expected)
    distance = (pos[index] - pos[picks].unsqueeze(1)).norm(dim=-1)
    torch.testing.assert_close(distance, ref[f"{cloud}.knn_dist"], rtol=1e-6, atol=1e-7)


def test_patches_of_all_clouds_at_once(golden: Golden):
    ref = golden(CASE).ref
    clouds = [ref[f"{cloud}.points"] for cloud in CLOUDS]
    batch = torch.arange(len(clouds)).repeat_interleave(torch.tensor([len(c) for c in clouds]))
    patches = build_patches(torch.cat(clouds), batch, num_centers=64, patch_size=16)
    first = 0
    for b, cloud in enumerate(CLOUDS):
        assert torch.equal(patches.center_index[b] - first, ref[f"{cloud}.fps_idx"].long())
        assert torch.equal(patches.index[b] - first, ref[f"{cloud}.knn_idx"].long())
        first += len(clouds[b])
    assert patches.mask is None


def test_chamfer(golden: Golden):
    ref = golden(CASE).ref
    a, b = ref["chamfer.a"].double(), ref["chamfer.b"].double()
    forth, back = nearest_squared_distances(a, b)
    torch.testing.assert_close(forth, ref["chamfer.dist1"], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(back, ref["chamfer.dist2"], rtol=1e-12, atol=1e-14)
    l1, l2 = ref["chamfer.l1"].squeeze(), ref["chamfer.l2"].squeeze()
    torch.testing.assert_close(chamfer_distance(a, b), l2, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(chamfer_distance_l1(a, b), l1, rtol=1e-12, atol=1e-14)
    single = chamfer_distance(a.float(), b.float())
    torch.testing.assert_close(single.double(), l2, rtol=1e-6, atol=0)
