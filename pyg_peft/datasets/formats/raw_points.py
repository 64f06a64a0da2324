"""The result of every parser: coordinates in float64, named channels, and faces of a mesh."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Column names that formats use for the three columns of one channel.
_TRIPLES = {
    "normal": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
    "color": (("red", "green", "blue"), ("r", "g", "b")),
}


@dataclass(frozen=True)
class RawPoints:
    """Points or vertices of one file, in the file's own coordinates.

    Args:
        pos: Coordinates, float64 ``[n, 3]``.
        channels: Channels by name, float32 ``[n, c]``; float64 if float32 cannot hold a number.
            ``color`` is scaled to [0, 1], ``normal`` is as stored.
        faces: Triangles ``[f, 3]`` of a mesh, ``None`` for a cloud.
        categorical: Names of the channels whose values are category numbers (labels), which must
            not be interpolated.
    """

    pos: np.ndarray
    channels: Mapping[str, np.ndarray]
    faces: np.ndarray | None = None
    categorical: frozenset[str] = frozenset()


def from_columns(columns: Mapping[str, np.ndarray], faces: np.ndarray | None = None) -> RawPoints:
    """Group columns by name into x, y, z; normals; colors; and one channel for any other column.

    Integer colors are scaled to 0 to 1, see :func:`unit_color`. Other integers are categorical.

    Args:
        columns: ``[n]`` arrays by name. Names are compared in lower case. A leading ``scalar_`` (as
            in CloudCompare's files) is removed if the shorter name is free.
        faces: See :class:`RawPoints`.

    Raises:
        ValueError: If x, y or z is missing, if two names differ only in case, or if colors are on
            no known scale.
    """
    named = _by_name(columns)
    missing = [axis for axis in "xyz" if axis not in named]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}, only {sorted(named)}")
    pos = np.stack([named.pop(axis).astype(np.float64) for axis in "xyz"], axis=1)
    channels: dict[str, np.ndarray] = {}
    for channel, spellings in _TRIPLES.items():
        for spelling in spellings:
            if channel not in channels and all(name in named for name in spelling):
                triple = np.stack([named.pop(name) for name in spelling], axis=1)
                channels[channel] = unit_color(triple) if channel == "color" else single(triple)
    categorical = set()
    for name, array in named.items():
        free = f"scalar_{name}" if name in channels else name
        channels[free] = _narrow(array).reshape(len(pos), -1)
        if array.dtype.kind in "iub":
            categorical.add(free)
    return RawPoints(pos, channels, faces, frozenset(categorical))


def _by_name(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    lower = [name.lower() for name in columns]
    twice = sorted(name for name, count in Counter(lower).items() if count > 1)
    if twice:
        raise ValueError(f"expected columns with different names (got {twice} twice)")
    named: dict[str, np.ndarray] = {}
    for name, array in zip(lower, columns.values(), strict=True):
        short = name.removeprefix("scalar_")
        named[name if short in lower else short] = array
    return named


def unit_color(values: np.ndarray) -> np.ndarray:
    """Convert colors to float32, and integer colors to [0, 1].

    Unsigned integers of 8 and 16 bits are divided by the largest value of their type. The maximum
    of a wider type is never used as a color, so the scale depends on the values: up to 255 they are
    8-bit colors, up to 65,535 16-bit colors.

    Args:
        values: All colors of a file, of any numeric type.

    Raises:
        ValueError: If integers are negative or larger.
    """
    if values.dtype.kind not in "iu":
        return single(values)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return single(values / np.iinfo(values.dtype).max)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65535:
        raise ValueError(f"expected integer colors from 0 to 255 or 65535 (got {low} to {high})")
    return single(values / (255 if high <= 255 else 65535))


def single(values: np.ndarray) -> np.ndarray:
    """Convert numbers to float32. Infinity and NaN are kept.

    Raises:
        ValueError: If a finite number is too large for float32.
    """
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if narrow.size and values.dtype.kind == "f" and values.dtype.itemsize > 4:
        beyond = np.isinf(narrow) & np.isfinite(values)
        if beyond.any():
            raise ValueError(f"expected numbers that float32 can hold (got {values[beyond][0]:g})")
    return narrow


def _narrow(values: np.ndarray) -> np.ndarray:
    """Convert to float32, or keep numbers that it cannot hold: files mark missing ones by them."""
    try:
        return single(values)
    except ValueError:
        return values


def fan(polygons: list[np.ndarray]) -> np.ndarray:
    """Split polygons, given as arrays ``[f, sides]``, into triangles around their first corner."""
    cut = [np.zeros((0, 3), np.int64)]
    for corners in polygons:
        for last in range(2, corners.shape[1]):
            cut.append(corners[:, [0, last - 1, last]])
    return np.concatenate(cut).astype(np.int64)


def triangles_of_strips(corners: np.ndarray) -> np.ndarray:
    """Return the triangles ``[f, 3]`` of strips, one for each corner and the two before it.

    Args:
        corners: Vertex numbers, ``[n]``. -1 begins a new strip.
    """
    corners = corners.astype(np.int64)
    if len(corners) < 3:
        return np.zeros((0, 3), np.int64)
    place = np.arange(len(corners))
    begin = np.maximum.accumulate(np.where(corners == -1, place + 1, 0))
    windows = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    whole = begin[2:] <= place[:-2]
    odd = (place[:-2] - begin[2:]) % 2 == 1
    windows[odd] = windows[odd][:, [1, 0, 2]]  # so that all face the same side
    return windows[whole]


def check_faces(faces: np.ndarray, num_vertices: int) -> None:
    """Raise if a triangle refers to a vertex that does not exist."""
    if faces.size and (faces.min() < 0 or faces.max() >= num_vertices):
        wrong = faces.min() if faces.min() < 0 else faces.max()
        raise ValueError(f"a face names vertex {int(wrong)} of {num_vertices}")


__all__ = [
    "RawPoints",
    "check_faces",
    "fan",
    "from_columns",
    "single",
    "triangles_of_strips",
    "unit_color",
]
