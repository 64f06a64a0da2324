"""Recipes that build the labeled classes and the free mixtures from parts."""

import math
from collections.abc import Callable

import numpy as np

from pyg_peft.datasets.procedural import parts as p
from pyg_peft.datasets.procedural.draw import Draw
from pyg_peft.datasets.procedural.parts import Part
from pyg_peft.datasets.procedural.union import mirrors, turns


def _sizes(draw: Draw, low: float = 0.35, high: float = 1.0) -> np.ndarray:
    return low + (high - low) * draw.array(3)


def _block(draw: Draw) -> list[Part]:
    outline = p.superellipse(draw.uniform(10, 30)) if draw.chance(0.5) else _square()
    return [p.lathe(p.frustum(), outline).place(_sizes(draw))]


def _drum(draw: Draw) -> list[Part]:
    return [p.lathe(p.frustum(), p.disc()).place(_sizes(draw))]


def _pebble(draw: Draw) -> list[Part]:
    body = p.lathe(p.bulge(draw.uniform(1.8, 2.6)), p.superellipse(draw.uniform(1.8, 2.6)))
    return [body.place(_sizes(draw))]


def _spire(draw: Draw) -> list[Part]:
    outline = p.disc() if draw.chance(0.5) else p.polygon(draw.integer(3, 6))
    flip = -1.0 if draw.chance(0.5) else 1.0
    body = p.lathe(p.frustum(1.0, draw.uniform(0.02, 0.4)), outline)
    return [body.place(_sizes(draw) * (1, 1, flip))]


def _wheel(draw: Draw) -> list[Part]:
    profile = p.ring(draw.uniform(0.1, 0.35), num_sides=draw.pick((4, 12)))
    size = _sizes(draw, 0.6) * (1, 1, draw.uniform(1.0, 4.0))
    return [p.lathe(profile, p.disc()).place(draw.rotation() @ np.diag(size))]


def _gear(draw: Draw) -> list[Part]:
    outline = p.star(draw.integer(4, 8), draw.uniform(0.35, 0.65))
    return [p.lathe(p.frustum(1.0, draw.uniform(0.7, 1.0)), outline).place(_sizes(draw))]


def _coil(draw: Draw) -> list[Part]:
    rounds = draw.uniform(1.5, 3.0)
    time = np.linspace(0, 1, 40)
    angle = 2 * math.pi * rounds * time
    radius = draw.uniform(0.5, 1.0) * (1 - draw.uniform(0, 0.5) * time)
    curve = np.stack([radius * np.cos(angle), radius * np.sin(angle), 2 * time - 1], axis=1)
    return [p.sweep(curve, draw.uniform(0.1, 0.2)).place(_sizes(draw, 0.6))]


def _vase(draw: Draw) -> list[Part]:
    knots = 0.4 + 0.6 * draw.array(5)
    radii = np.interp(np.linspace(0, 4, 10), np.arange(5), knots)
    profile = p.vessel(radii, draw.uniform(0.05, 0.12), draw.uniform(0.1, 0.3))
    outline = p.disc() if draw.chance(0.6) else p.polygon(draw.integer(4, 6))
    return [p.lathe(profile, outline).place(_sizes(draw))]


def _table(draw: Draw) -> list[Part]:
    size, thin = _sizes(draw, 0.5), draw.uniform(0.04, 0.12)
    top_outline = p.disc() if draw.chance(0.3) else _square()
    top = p.lathe(p.frustum(), top_outline).place((size[0], size[1], thin), (0, 0, size[2]))
    leg = draw.uniform(0.04, 0.12)
    inset = draw.uniform(0.5, 0.65)
    spot = (inset * size[0], inset * size[1], draw.uniform(-0.1, 0.1) * size[2])
    outline = p.disc() if draw.chance(0.5) else _square()
    legs = p.lathe(p.frustum(), outline).place((leg, leg, size[2]), spot, mirrors(0, 1))
    return [top, legs]


def _cross(draw: Draw) -> list[Part]:
    size = _sizes(draw, 0.6)
    width = draw.uniform(0.12, 0.3)
    outline = p.disc() if draw.chance(0.5) else _square()
    bar = p.lathe(p.frustum(), outline)
    axes = np.eye(3)
    found = [bar.place((width, width, size[2]))]
    for axis in (0, 1):
        matrix = np.roll(axes, axis + 1, axis=0) @ np.diag([width, width, size[axis]])
        found.append(bar.place(matrix))
    return found


def _mug(draw: Draw) -> list[Part]:
    radii = np.linspace(draw.uniform(0.5, 0.8), draw.uniform(0.5, 0.8), 4)
    body = p.lathe(p.vessel(radii, 0.07, 0.15), p.disc())
    angle = np.linspace(-0.5, 0.5, 16) * math.pi
    reach = draw.uniform(0.3, 0.5)
    high = draw.uniform(0.35, 0.7)
    zero = np.zeros_like(angle)
    curve = np.stack([reach * np.cos(angle), zero, high * np.sin(angle)], axis=1)
    curve[:, 0] += 0.95 * radii.mean()
    handle = p.sweep(curve, draw.uniform(0.06, 0.11))
    size = np.diag(_sizes(draw, 0.6))
    return [body.place(size), handle.place(size)]


def _cage(draw: Draw) -> list[Part]:
    size, width = _sizes(draw, 0.5), draw.uniform(0.05, 0.12)
    bar = p.lathe(p.frustum(), _square())
    found = []
    for axis in range(3):
        scale = np.full(3, width)
        scale[axis] = size[axis] + width
        shift = size.copy()
        shift[axis] = 0.0
        others = [other for other in range(3) if other != axis]
        found.append(bar.place(scale, shift, mirrors(*others)))
    return found


def _square() -> np.ndarray:
    return p.polygon(4)


RECIPES: dict[str, Callable[[Draw], list[Part]]] = {
    "block": _block,
    "cage": _cage,
    "coil": _coil,
    "cross": _cross,
    "drum": _drum,
    "gear": _gear,
    "mug": _mug,
    "pebble": _pebble,
    "spire": _spire,
    "table": _table,
    "vase": _vase,
    "wheel": _wheel,
}


def clutter(draw: Draw, count: int) -> list[Part]:
    """Return small solids around the middle, like clutter in scans of the real world."""
    found = []
    for _ in range(count):
        body = _any_lathe(draw)
        matrix = draw.rotation() * (draw.uniform(0.12, 0.35) * _sizes(draw, 0.4))
        found.append(body.place(matrix, draw.direction() * draw.uniform(0.3, 0.9)))
    return found


def mixture(draw: Draw) -> list[Part]:
    """Return one to five parts of any kind, some thin, some in symmetric copies."""
    found = []
    for _ in range(draw.integer(1, 5)):
        kind = draw.uniform(0, 1)
        if kind < 0.12:
            found += draw.pick(tuple(RECIPES.values()))(draw)
            continue
        body = _any_curve(draw) if kind < 0.3 else _any_lathe(draw)
        size = draw.log_uniform(0.25, 1.0) * _sizes(draw, 0.3)
        if draw.chance(0.35):  # a plate or a rod
            size[draw.integer(0, 2)] *= draw.uniform(0.08, 0.3)
        matrix = np.diag(size)
        if draw.chance(0.3):
            matrix = draw.rotation() @ matrix
        shift = draw.direction() * draw.uniform(0, 0.9)
        copies = draw.pick(
            (np.eye(3)[None],) * 3 + (mirrors(0), mirrors(0, 1), turns(draw.integer(2, 5)))
        )
        found.append(body.place(matrix, shift, copies))
    return found


def carve(draw: Draw, parts: list[Part]) -> list[Part]:
    """Return one or two prisms or cylinders to cut out of ``parts``: bores, notches and bites.

    Each cuts through a point on the surface of a part. Two together are thinner than that part, so
    that they cannot remove all of it.
    """
    found = []
    for _ in range(draw.integer(1, 2)):
        part = draw.pick(parts)
        vertices = part.surface.reshape(-1, 3)
        # A cylinder along an axis cannot contain a body that is wider in two coordinates.
        width = np.sort(np.ptp(vertices, axis=0))[1]
        radius = draw.uniform(0.1, 0.24) * width
        size = np.array([radius, radius, draw.uniform(0.1, 1.2)])
        turned = np.roll(np.eye(3), draw.integer(0, 2), axis=0) @ np.diag(size)
        spot = vertices[int(draw.uniform(0, len(vertices)))]
        outline = draw.pick((p.disc(), _square(), p.polygon(3), p.polygon(6)))
        body = p.lathe(p.frustum(), outline)
        found.append(body.place(part.matrix @ turned, part.matrix @ spot + part.shift))
    return found


def _any_lathe(draw: Draw) -> Part:
    outline = draw.pick(
        (
            p.disc(),
            _square(),
            p.polygon(draw.pick((3, 6, 8))),
            p.superellipse(draw.log_uniform(0.8, 8)),
            p.star(draw.integer(2, 8), draw.uniform(0.1, 0.6)),
        )
    )
    profile = draw.pick(
        (
            p.frustum(),
            p.frustum(1.0, draw.uniform(0.0, 0.9)),
            p.bulge(draw.log_uniform(0.8, 8)),
            p.ring(draw.uniform(0.08, 0.4), num_sides=draw.pick((4, 12))),
            p.vessel(0.3 + 0.7 * draw.array(6), draw.uniform(0.05, 0.15), draw.uniform(0.1, 0.5)),
        )
    )
    return p.lathe(profile, outline)


def _any_curve(draw: Draw) -> Part:
    time = np.linspace(0, 1, 28)[:, None]
    phase, cycles = 2 * math.pi * draw.array(3), 2.5 * draw.array(3)
    curve = np.cos(phase + cycles * 2 * math.pi * time) * (0.3 + 0.7 * draw.array(3))
    curve = curve + (2 * time - 1) * draw.direction()
    return p.sweep(curve, draw.uniform(0.04, 0.2))


__all__ = ["RECIPES", "carve", "clutter", "mixture"]
