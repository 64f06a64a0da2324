"""Scan effects one by one, on a ball, where the right answer is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pyg_peft.datasets import ProceduralShapes, ProceduralStream, ScanEffects
from pyg_peft.datasets.procedural.draw import Draw
from pyg_peft.datasets.procedural.scan import _FAR, _NEAR, OVERSAMPLING, _visible, scan

CLEAN = ScanEffects(one_sided=0.0, max_holes=0, density=0.0, noise=0.0)


def ball(size: int) -> np.ndarray:
    draw = Draw(0)
    points = np.stack([draw.direction() for _ in range(size)])
    return np.concatenate([points, -points])  # the mean is exactly zero, so that nothing moves


def sensor(key: int) -> np.ndarray:
    """Where the sensor of this key stands."""
    draw = Draw(key)
    return draw.uniform(_NEAR, _FAR) * draw.direction()


def seen(points: np.ndarray, place: np.ndarray) -> np.ndarray:
    """How far before its horizon each point of the unit ball is; negative behind it."""
    return points @ (place / np.linalg.norm(place)) - 1 / np.linalg.norm(place)


@pytest.mark.parametrize("key", range(5))
def test_without_effects_points_are_a_subset(key):
    points = ball(300)
    found = scan(Draw(key), points, 200, CLEAN)
    gap = np.linalg.norm(found[:, None] - points, axis=2).min(axis=1)
    assert found.shape == (200, 3) and gap.max() < 1e-12
    assert len(np.unique(found, axis=0)) == 200


@pytest.mark.parametrize("key", range(5))
def test_one_side_is_what_the_sensor_sees(key):
    points, place = ball(1536), sensor(key)
    visible = int((seen(points, place) > 0).sum())
    # No more than are visible are asked for, so that none must make up.
    size = int(0.8 * visible)
    found = scan(Draw(key), points, size, replace(CLEAN, one_sided=1.0))
    depth = seen(found, place)
    assert (depth > -0.2).all(), "points far behind the horizon"
    assert (depth < 0).mean() < 0.1
    assert depth.max() > 0.9 * seen(points, place).max()


def test_the_stream_has_enough_points_that_are_seen():
    """Hidden points make up where too few are seen; that must stay the exception."""
    stream: Any = ProceduralStream(OVERSAMPLING * 256)
    hidden = []
    for key in range(24):
        points = stream.shape(key).pos.double().numpy()
        points = points - points.mean(axis=0)
        points /= np.linalg.norm(points, axis=1).max()
        ray = points - sensor(key)
        visible = points[_visible(ray, np.linalg.norm(ray, axis=1))]
        found = scan(Draw(key), points, 256, replace(CLEAN, one_sided=1.0, density=2.0))
        gap = np.linalg.norm(found[:, None] - visible, axis=2).min(axis=1)
        hidden.append((gap > 1e-9).mean())
    assert np.mean(hidden) < 0.05 and np.median(hidden) == 0


def test_hidden_points_make_up_for_missing_ones():
    points = ball(40)
    found = scan(Draw(1), points, 80, ScanEffects(one_sided=1.0, max_holes=3))
    assert found.shape == (80, 3)


def test_holes_are_empty():
    points = ball(2000)
    effects = replace(CLEAN, max_holes=1, hole_radius=0.8)
    holes = 0
    for key in range(8):
        found = scan(Draw(key), points, 1500, effects)
        # The emptiest place of the ball: among all its points, the one farthest from what is left.
        gap = np.linalg.norm(points[:, None] - found, axis=2).min(axis=1).max()
        holes += gap > 0.2
    assert 2 <= holes <= 7, "none or one hole, as likely as not"


def test_far_sides_are_thin():
    points, key = ball(3000), 2
    place = sensor(key)
    towards = place / np.linalg.norm(place)
    even = scan(Draw(key), points, 1500, CLEAN) @ towards
    thin = scan(Draw(key), points, 1500, replace(CLEAN, density=2.0)) @ towards
    assert (even > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (thin > 0).mean() > 0.6


def test_noise_is_along_the_rays():
    points, key = ball(500), 4
    place = sensor(key)
    clean = scan(Draw(key), points, 400, CLEAN)
    noisy = scan(Draw(key), points, 400, replace(CLEAN, noise=0.05))
    moved, ray = noisy - clean, clean - place
    across = np.cross(moved, ray) / np.linalg.norm(ray, axis=1)[:, None]
    assert np.abs(across).max() < 1e-12
    error = (moved * ray).sum(axis=1) / np.linalg.norm(ray, axis=1)
    assert 0.001 < error.std() < 0.05 and abs(error.mean()) < 0.01


def test_labeled_shapes_can_be_scanned():
    sizes: dict[str, Any] = {"num_shapes": 12, "num_points": 256}
    whole: Any = ProceduralShapes(**sizes)
    seen: Any = ProceduralShapes(**sizes, scan=replace(CLEAN, one_sided=1.0))
    spread = []
    for number in range(12):
        item = seen[number]
        assert item.pos.shape == (256, 3) and int(item.y) == number
        spread.append([torch.pdist(one.pos).min() for one in (item, whole[number])])
    one_side, all_sides = torch.tensor(spread).mean(dim=0)
    assert one_side < all_sides, "as many points on less of the surface are closer together"


@pytest.mark.parametrize(
    "values",
    [
        *({"one_sided": 1.5}, {"max_holes": -1}, {"max_holes": 1.5}),
        *({"density": float("nan")}, {"density": float("inf")}, {"noise": -0.1}),
    ],
)
def test_mistakes_are_named(values):
    with pytest.raises(ValueError, match=f"Expected '{next(iter(values))}'"):
        ScanEffects(**values)
