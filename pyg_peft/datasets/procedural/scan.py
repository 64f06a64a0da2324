"""What a scanner makes of a shape: one side, uneven density, gaps, noise along its rays."""

from dataclasses import dataclass

import numpy as np

from pyg_peft.datasets.procedural.draw import Draw
from pyg_peft.errors import check_number

# Points to start from, for each that is to remain: a sensor sees a third to two fifths of a ball, a
# fifth of a shape of many parts, and holes and thin far sides need a surplus of what is seen.
OVERSAMPLING = 8
_NEAR, _FAR = 2.5, 8.0  # of the sensor, in radii of the shape
# Radius of the sphere through which points are flipped, in farthest distances. Larger ones see more
# of what lies in hollows, and begin to see through the surface.
_FLIP = 30.0

# Beyond these, powers of distances and squares of positions leave the range of floats.
_MOST = {"density": 64, "noise": 1e6}


@dataclass(frozen=True)
class ScanEffects:
    """How far a shape is from a clean sample of its whole surface.

    Args:
        one_sided: probability that only the side that faces a sensor remains.
        max_holes: up to so many balls are left empty.
        hole_radius: largest radius of these, in radii of the shape.
        density: points thin out with this power of the distance to the sensor, which stands 2.5 to
            8 radii from the middle; 2 is that of rays of equal spacing on surfaces that face it, 0
            is even.
        noise: largest standard deviation of the error along the rays, in radii.

    Raises: ``ValueError`` for a probability outside [0, 1], anything negative or not finite, or a
        number of holes that is not whole; for a ``density`` above 64 or a ``noise`` above 1e6.
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
    """Take ``num_points`` of ``points`` as a sensor in a random place would.

    Args:
        draw: where the numbers come from.
        points: ``[n, 3]`` with n at least ``num_points``.
        num_points: how many remain. Where the sensor sees fewer, points of the holes make up for
            them first, then hidden ones.
        effects: what happens.

    Returns: ``[num_points, 3]``, moved and scaled so that all of ``points`` fill the unit ball.
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
    # The smallest of exponential times, at rates that fall with the distance: sampling without
    # replacement. One number of an array is 1 - [0, 1), so that its logarithm is finite.
    times = -np.log(1 - draw.array(len(points))) * distance**effects.density
    times /= times.max()
    chosen = np.argpartition(times + missing + 2.0 * hidden, num_points - 1)[:num_points]
    # Irwin-Hall: three uniform numbers are a bell of variance 1/4.
    bell = 2 * (draw.array(3, num_points).sum(axis=0) - 1.5)
    error = draw.uniform(0.0, effects.noise) * bell / distance[chosen]
    return points[chosen] + error[:, None] * ray[chosen]


def _visible(ray: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Hidden point removal (Katz, Tal and Basri 2007): flipped outwards through a sphere around the
    sensor, visible points lie on the convex hull.
    """
    from scipy.spatial import ConvexHull  # late: it is slow to load

    radius = _FLIP * distance.max()
    flipped = ray * (2 * radius / distance - 1)[:, None]
    corners = ConvexHull(np.concatenate([flipped, np.zeros((1, 3))])).vertices
    visible = np.zeros(len(ray) + 1, bool)
    visible[corners] = True
    return visible[:-1]


__all__ = ["OVERSAMPLING", "ScanEffects", "scan"]
