"""Solids of which procedural shapes consist: lathes and sweeps, with surface and inside test.

A *lathe* turns a profile, a polyline of (radius, height), about z along an outline, which is the
radius as a function of the angle. Boxes, prisms, stars, cylinders, cones, ellipsoids,
superquadrics, tori, pipes, bowls and vases are lathes. A *sweep* moves a disc along a curve: coils,
arcs, handles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

_ANGLES = 48  # divisible by 3, 4, 6 and 8, so that the corners of those prisms are vertices
_THETA = np.arange(_ANGLES + 1) * (2 * math.pi / _ANGLES)
_CIRCLE = np.stack([np.cos(_THETA), np.sin(_THETA)], axis=1)
_IDENTITY = np.eye(3)[None]

Vector: TypeAlias = np.ndarray | tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """One placed solid: ``world = copies[c] @ (matrix @ local + shift)``.

    Args:
        surface: Local vertices of a grid of quadrilaterals, ``[K, J, 3]``.
        contains: Function that returns which of the local points ``[n, 3]`` are inside.
        matrix: Linear part of the placement, 3x3.
        shift: Translation.
        copies: Isometries about the origin, ``[c, 3, 3]``, one for each copy of the part.
    """

    surface: np.ndarray
    contains: Callable[[np.ndarray], np.ndarray]
    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(3))
    copies: np.ndarray = field(default_factory=lambda: _IDENTITY)

    def place(
        self, matrix: Vector, shift: Vector = (0.0, 0.0, 0.0), copies: np.ndarray = _IDENTITY
    ) -> "Part":
        """Return the part at another place. A vector as ``matrix`` is one scale per axis."""
        placed = np.asarray(matrix, float)
        placed = np.diag(placed) if placed.ndim == 1 else placed
        return Part(self.surface, self.contains, placed, np.asarray(shift, float), copies)


def lathe(profile: np.ndarray, outline: np.ndarray) -> Part:
    """Turn a profile about z.

    Args:
        profile: Closed or axis-to-axis polyline of (radius, height), ``[K, 2]``.
        outline: Radius factor at the 49 angles of a full turn (:func:`polygon` and others).
    """
    ring = outline[:, None] * _CIRCLE
    surface = np.empty((len(profile), len(ring), 3))
    surface[..., :2] = profile[:, None, :1] * ring
    surface[..., 2] = profile[:, 1:]
    low, high = profile.min(axis=0), profile.max(axis=0)
    closed = np.concatenate([profile, profile[:1]])
    r0, z0 = closed[:-1, 0], closed[:-1, 1]
    r1, z1 = closed[1:, 0], closed[1:, 1]
    flat = z0 == z1
    slope = (r1 - r0) / np.where(flat, 1.0, z1 - z0)

    def contains(points: np.ndarray) -> np.ndarray:
        # Even-odd rule in the plane (radius / outline, height), after a test of the bounds.
        inside = (points[:, 2] > low[1]) & (points[:, 2] < high[1])
        rows = np.flatnonzero(inside)
        near = points[rows]
        place = np.arctan2(near[:, 1], near[:, 0]) * (_ANGLES / (2 * math.pi)) % _ANGLES
        cell = place.astype(np.int64) % _ANGLES
        width = outline[cell] + (place - cell) * (outline[cell + 1] - outline[cell])
        radius = np.hypot(near[:, 0], near[:, 1]) / width
        keep = radius < high[0]
        inside[rows] = keep
        radius, height = radius[keep, None], near[keep, 2:]
        between = (z0 > height) != (z1 > height)
        crossed = between & (radius < r0 + slope * (height - z0))
        inside[rows[keep]] = crossed.sum(axis=1) % 2 == 1
        return inside

    return Part(surface, contains)


def sweep(curve: np.ndarray, radius: float, *, num_sides: int = 10) -> Part:
    """Move a disc along a curve that has no long vertical section.

    Args:
        curve: Polyline ``[K, 3]``.
        radius: Radius of the disc.
        num_sides: Facets around the tube.
    """
    tangent = np.gradient(curve, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # The axis along which the tangents are smallest gives frames that turn little.
    helper = np.zeros(3)
    helper[np.abs(tangent).max(axis=0).argmin()] = 1.0
    first = np.cross(tangent, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(tangent, first)
    angle = np.arange(num_sides + 1) * (2 * math.pi / num_sides)
    around = first[:, None] * np.cos(angle)[:, None] + second[:, None] * np.sin(angle)[:, None]
    rings = curve[:, None] + radius * around
    ends = np.broadcast_to(curve[[0, -1], None], (2, num_sides + 1, 3))
    surface = np.concatenate([ends[:1], rings, ends[1:]])
    low, high = curve.min(axis=0) - radius, curve.max(axis=0) + radius
    start, step = curve[:-1], np.diff(curve, axis=0)
    length = (step * step).sum(axis=1)

    def contains(points: np.ndarray) -> np.ndarray:
        inside = ((points > low) & (points < high)).all(axis=1)
        near = points[inside]
        along = (near @ step.T - (start * step).sum(axis=1)) / length
        along = np.clip(along, 0.0, 1.0)
        closest = start + along[..., None] * step
        gap = near[:, None] - closest
        distance = np.einsum("nkc,nkc->nk", gap, gap).min(axis=1, initial=np.inf)
        inside[inside] = distance < radius * radius
        return inside

    return Part(surface, contains)


def polygon(num_sides: int, *, turn: float = 0.0) -> np.ndarray:
    """Return the outline of a regular polygon whose corners are on the unit circle."""
    sector = 2 * math.pi / num_sides
    angle = (_THETA[:-1] + turn) % sector - sector / 2
    return _wrap(math.cos(sector / 2) / np.cos(angle))


def star(num_tips: int, depth: float) -> np.ndarray:
    """Return an outline that varies between 1 and ``1 - depth``, ``num_tips`` times."""
    return _wrap(1 - depth * (0.5 - 0.5 * np.cos(num_tips * _THETA[:-1])))


def superellipse(exponent: float) -> np.ndarray:
    """Return the outline ``|x|^p + |y|^p = 1``: 1 a rhombus, 2 a circle, large a square."""
    x, y = np.abs(_CIRCLE[:-1].T)
    return _wrap((x**exponent + y**exponent) ** (-1 / exponent))


def disc() -> np.ndarray:
    """Return the outline of a circle."""
    return np.ones(_ANGLES + 1)


def bulge(exponent: float, *, steps: int = 13) -> np.ndarray:
    """Return the profile ``r^p + |z|^p = 1``: 1 a double cone, 2 a ball, large a cylinder."""
    z = -np.cos(np.linspace(0, math.pi, steps))
    z[0], z[-1] = -1.0, 1.0
    return np.stack([(1 - np.abs(z) ** exponent) ** (1 / exponent), z], axis=1)


def frustum(bottom: float = 1.0, top: float = 1.0) -> np.ndarray:
    """Return the profile of a cylinder or a cone with both caps, heights -1 to 1."""
    return np.array([[0.0, -1.0], [bottom, -1.0], [top, 1.0], [0.0, 1.0]])


def ring(thickness: float, *, num_sides: int = 12) -> np.ndarray:
    """Return the profile of a torus of outer radius 1; four sides give a square cross-section."""
    angle = np.arange(num_sides + 1) * (2 * math.pi / num_sides) + math.pi / num_sides
    center = 1 - thickness
    return np.stack([center + thickness * np.cos(angle), thickness * np.sin(angle)], axis=1)


def vessel(radii: np.ndarray, wall: float, floor: float) -> np.ndarray:
    """Return the profile of an open vessel: up the outside (``radii``), then down the inside."""
    outside = np.stack([radii, np.linspace(-1, 1, len(radii))], axis=1)
    inside = outside[outside[:, 1] > floor - 1][::-1].copy()
    inside[:, 0] = np.maximum(inside[:, 0] - wall, 0.02)
    last = [[0.0, float(inside[-1, 1])]]
    return np.concatenate([[[0.0, -1.0]], outside, inside, last])


def _wrap(outline: np.ndarray) -> np.ndarray:
    return np.concatenate([outline, outline[:1]])


__all__ = [
    "Part",
    "bulge",
    "disc",
    "frustum",
    "lathe",
    "polygon",
    "ring",
    "star",
    "superellipse",
    "sweep",
    "vessel",
]
