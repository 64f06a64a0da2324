"""Sample the surface of a union of parts, minus cut-out solids, and warp the result."""

import math
from collections.abc import Sequence

import numpy as np

from pyg_peft.datasets.procedural.draw import Draw
from pyg_peft.datasets.procedural.parts import Part

# A point is interior only if it is inside the part shrunk by this factor. Otherwise facets of round
# parts would hide their own neighbors, and touching faces would be removed at random.
_SHRINK = 0.985
_MAX_ROUNDS = 40


def sample_union(
    draw: Draw, parts: list[Part], num_points: int, holes: Sequence[Part] = ()
) -> np.ndarray:
    """Sample points uniformly by area from the surface of a union of parts, minus holes.

    Args:
        draw: Source of the random numbers.
        parts: Solids. Points inside another one are removed.
        num_points: Number of points to return.
        holes: Solids that are cut out. Their own surface remains where it is inside a part.

    Raises:
        RuntimeError: If nearly the whole surface is hidden.
    """
    num_solid = sum(len(part.copies) for part in parts)
    parts = [*parts, *holes]
    corner, edges, area, owner = _triangles(parts)
    total = np.cumsum(area)
    maps = [(part, copy) for part in parts for copy in part.copies]
    first_copy = np.cumsum([0, *(len(part.copies) for part in parts)])
    counts = np.diff(first_copy)
    isometries = np.concatenate([part.copies for part in parts])
    inverses = [
        (np.linalg.inv(part.matrix).T / _SHRINK, part.shift, part.contains, copy)
        for part, copy in maps
    ]
    # Half of the wall of a hole is outside the parts.
    surplus, slack = (2.5, 64) if holes else (1.5 if len(maps) > 1 else 1.0, 8)
    kept, missing = [], num_points
    for _ in range(_MAX_ROUNDS):
        size = int(missing * surplus) + slack
        numbers = draw.array(4, size)
        triangle = np.searchsorted(total, numbers[0] * total[-1], side="right")
        triangle = np.minimum(triangle, len(total) - 1)
        # Fold the unit square onto the triangle.
        u, v = numbers[1], numbers[2]
        flip = u + v > 1
        u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
        pair = edges[triangle]
        points = corner[triangle] + u[:, None] * pair[:, 0] + v[:, None] * pair[:, 1]
        part_of = owner[triangle]
        if len(maps) > 1:
            copy_of = first_copy[part_of] + (numbers[3] * counts[part_of]).astype(np.int64)
            points = np.einsum("nij,nj->ni", isometries[copy_of], points)
            visible = np.ones(size, bool)
            cut = copy_of >= num_solid  # on the wall of a hole, visible inside a solid only
            walled = ~cut
            for number, (inverse, shift, contains, copy) in enumerate(inverses):
                rows = np.flatnonzero(visible & (copy_of != number))
                inside = rows[contains((points[rows] @ copy - shift) @ inverse)]
                if number < num_solid:
                    walled[inside] = True
                    inside = inside[~cut[inside]]
                visible[inside] = False
            points = points[visible & walled]
        kept.append(points[:missing])
        missing -= len(kept[-1])
        if missing == 0:
            return np.concatenate(kept) if len(kept) > 1 else kept[0]
    raise RuntimeError(
        f"Expected 'parts' to have a visible surface (got {num_points - missing} points of "
        f"{num_points} in {_MAX_ROUNDS} rounds)"
    )


def _triangles(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return corner, two edges, area (times copies) and part number of every triangle."""
    corners, edges, sizes = [], [], []
    for part in parts:
        world = part.surface @ part.matrix.T + part.shift
        a, b, c, d = world[:-1, :-1], world[1:, :-1], world[:-1, 1:], world[1:, 1:]
        corners += [a.reshape(-1, 3), d.reshape(-1, 3)]
        edges += [np.stack([b - a, c - a], axis=2), np.stack([b - d, c - d], axis=2)]
        sizes.append(2 * a.shape[0] * a.shape[1])
    edge = np.concatenate([pair.reshape(-1, 2, 3) for pair in edges])
    (ax, ay, az), (bx, by, bz) = edge[:, 0].T, edge[:, 1].T
    cross = (ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2
    owner = np.repeat(np.arange(len(parts)), sizes)
    copies = np.repeat([len(part.copies) for part in parts], sizes)
    return np.concatenate(corners), edge, np.sqrt(cross) * copies, owner


def mirrors(*axes: int) -> np.ndarray:
    """Return the copies that mirroring in each of these axes gives: 1, 2, 4 or 8."""
    signs = np.ones((1, 3))
    for axis in axes:
        other = signs.copy()
        other[:, axis] *= -1
        signs = np.concatenate([signs, other])
    return signs[:, :, None] * np.eye(3)


def turns(count: int) -> np.ndarray:
    """Return the copies of a ``count``-fold rotation about z."""
    angle = np.arange(count) * (2 * math.pi / count)
    matrix = np.zeros((count, 3, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 1, 0] = np.sin(angle)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    matrix[:, 2, 2] = 1.0
    return matrix


def warp(draw: Draw, points: np.ndarray, strength: float) -> np.ndarray:
    """Taper and twist along z, bend along x, then apply a random affine map.

    Args:
        draw: Source of the random numbers.
        points: Points ``[n, 3]``, about the size of the unit ball.
        strength: 0 leaves the points unchanged, 1 is strong.
    """
    taper, twist, bend = strength * (2 * draw.array(3) - 1) * (0.5, 0.8, 0.35)
    x, y, z = points.T
    factor = 1 + taper * z
    cos, sin = np.cos(twist * z), np.sin(twist * z)
    x, y = factor * (cos * x - sin * y), factor * (sin * x + cos * y)
    z = z + bend * x * x
    affine = np.eye(3) + strength * 0.25 * (2 * draw.array(3, 3) - 1)
    scale = np.exp(strength * 0.4 * (2 * draw.array(3) - 1))
    return np.stack([x, y, z], axis=1) @ (affine * scale).T


__all__ = ["mirrors", "sample_union", "turns", "warp"]
