"""Simulate a scan of a shape: one side, uneven density, gaps, and noise along the rays."""

from dataclasses import dataclass

import numpy as np

from pyg_peft.datasets.procedural.draw import Draw
from pyg_peft.errors import check_number

# Number of initial points per point that is kept. A sensor sees a third to two fifths of a ball and
# a fifth of a shape with many parts. Holes and thin far sides need a surplus of visible points.
OVERSAMPLING = 8
_NEAR, _FAR = 2.5, 8.0  # distances of the sensor, in radii of the shape
# Radius of the sphere through which points are flipped, in units of the largest distance. A larger
# radius makes more points in hollows visible, but also points behind the surface.
_FLIP = 30.0

# Above these values, powers of distances and squares of positions overflow.
_MOST = {"density": 64, "noise": 1e6}


@dataclass(frozen=True)
class ScanEffects:
    """Strength of the effects that distinguish a scan from a clean sample of the whole surface.

    Args:
        one_sided: Probability that only the side facing a sensor remains.
        max_holes: Maximum number of balls in which all points are removed.
        hole_radius: Largest radius of these balls, in radii of the shape.
        density: Exponent with which the point density falls with the distance to the sensor. The
            sensor is 2.5 to 8 radii from the middle. 2 corresponds to rays of equal spacing on
            surfaces that face the sensor, 0 to even density.
        noise: Largest standard deviation of the error along the rays, in radii.

    Raises:
        ValueError: If a probability is outside [0, 1], a value is negative or not finite, or the
            number of holes is not an integer. Also if ``density`` is above 64 or ``noise`` is above
            1e6.
    """

    one_sided: float = 0.7
    max_holes: int = 3
    hole_radius: float = 0.3
    density: float = 2.0
    noise: float = 0.01

    def __post_init__(self) -> None:
        check_number(self.one_sided, "one_sided", least=0, most=1)
        for name in ("max_holes", "hole_radius", "density", "noise"):
            check_number(getattr(self, name), name, least=0, most=_MOST.get(name))
        if self.max_holes != int(self.max_holes):
            raise ValueError(f"Expected 'max_holes' to be a whole number (got {self.max_holes})")


def scan(draw: Draw, points: np.ndarray, num_points: int, effects: ScanEffects) -> np.ndarray:
    """Select ``num_points`` of ``points`` as a sensor at a random position would see them.

    Args:
        draw: Source of the random numbers.
        points: Points ``[n, 3]``, with n at least ``num_points``.
        num_points: Number of points to keep. If the sensor sees fewer, points of the holes are
            added first, then hidden points.
        effects: Strength of the effects.

    Returns:
        ``[num_points, 3]``, moved and scaled so that all of ``points`` would fill the unit ball.
    """
    points = points - points.mean(axis=0)
    points /= np.sqrt((points * points).sum(axis=1).max())
    sensor = draw.uniform(_NEAR, _FAR) * draw.direction()
    ray = points - sensor
    distance = np.sqrt((ray * ray).sum(axis=1))
    hidden = np.zeros(len(points), bool)
    if draw.chance(effects.one_sided):
        hidden = ~_visible(ray, distance)
    missing = np.zeros(len(points), bool)
    seen = np.flatnonzero(~hidden)
    for _ in range(draw.integer(0, effects.max_holes)):
        middle = points[seen[int(draw.uniform(0, len(seen)))]]
        radius = draw.uniform(0.3, 1.0) * effects.hole_radius
        missing |= ((points - middle) ** 2).sum(axis=1) < radius * radius
    # Sampling without replacement by the smallest exponential times, at rates that fall with the
    # distance. The numbers are 1 - [0, 1), so that their logarithm is finite.
    times = -np.log(1 - draw.array(len(points))) * distance**effects.density
    times /= times.max()
    chosen = np.argpartition(times + missing + 2.0 * hidden, num_points - 1)[:num_points]
    # Irwin-Hall: the sum of three uniform numbers has a bell-shaped density, of variance 1/4.
    bell = 2 * (draw.array(3, num_points).sum(axis=0) - 1.5)
    error = draw.uniform(0.0, effects.noise) * bell / distance[chosen]
    return points[chosen] + error[:, None] * ray[chosen]


def _visible(ray: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return which points are visible (hidden point removal, Katz, Tal and Basri 2007).

    Points are flipped outwards through a sphere around the sensor. Visible points are then on the
    convex hull.
    """
    from scipy.spatial import ConvexHull  # imported here because it is slow to load

    radius = _FLIP * distance.max()
    flipped = ray * (2 * radius / distance - 1)[:, None]
    corners = ConvexHull(np.concatenate([flipped, np.zeros((1, 3))])).vertices
    visible = np.zeros(len(ray) + 1, bool)
    visible[corners] = True
    return visible[:-1]


__all__ = ["OVERSAMPLING", "ScanEffects", "scan"]
