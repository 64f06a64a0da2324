"""What every parser returns: coordinates in float64, named channels, and faces of a mesh."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Names under which formats store the three columns of one channel.
_TRIPLES = {
    "normal": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
    "color": (("red", "green", "blue"), ("r", "g", "b")),
}


@dataclass(frozen=True)
class RawPoints:
    """Points or vertices of one file, in the file's own coordinates.

    Args:
        pos: float64 ``[n, 3]``.
        channels: name to float32 ``[n, c]``. ``color`` is scaled to [0, 1], ``normal`` as stored.
        faces: triangles ``[f, 3]`` of a mesh, ``None`` for a cloud.
    """

    pos: np.ndarray
    channels: Mapping[str, np.ndarray]
    faces: np.ndarray | None = None


def from_columns(columns: Mapping[str, np.ndarray], faces: np.ndarray | None = None) -> RawPoints:
    """Group columns by name: x, y, z; normals; colours; anything else is a channel of its own.

    Integer colours become 0 to 1, see :func:`unit_color`.

    Args:
        columns: name to ``[n]`` array; names are compared in lower case, and a leading ``scalar_``
            (CloudCompare writes it) is ignored.
        faces: see :class:`RawPoints`.

    Raises: ``ValueError`` if x, y or z is missing, or for colours that are on no known scale.
    """
    named = {name.lower().removeprefix("scalar_"): array for name, array in columns.items()}
    missing = [axis for axis in "xyz" if axis not in named]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}, only {sorted(named)}")
    pos = np.stack([named.pop(axis).astype(np.float64) for axis in "xyz"], axis=1)
    channels: dict[str, np.ndarray] = {}
    for channel, spellings in _TRIPLES.items():
        for spelling in spellings:
            if all(name in named for name in spelling):
                triple = np.stack([named.pop(name) for name in spelling], axis=1)
                channels[channel] = unit_color(triple) if channel == "color" else _single(triple)
    for name, array in named.items():
        channels.setdefault(name, _single(array).reshape(len(pos), -1))
    return RawPoints(pos, channels, faces)


def unit_color(values: np.ndarray) -> np.ndarray:
    """Convert colours to float32, and integers to [0, 1].

    Unsigned integers of 8 and 16 bits are divided by the largest value of their type. The maximum
    of a wider type is no colour that anybody means, so there the values decide: up to 255 they are
    of 8 bits, up to 65,535 of 16.

    Args:
        values: all colours of a file, of any numeric type.

    Raises: ``ValueError`` if integers are negative or larger.
    """
    if values.dtype.kind not in "iu":
        return _single(values)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return _single(values / np.iinfo(values.dtype).max)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65535:
        raise ValueError(f"expected integer colours from 0 to 255 or 65535 (got {low} to {high})")
    return _single(values / (255 if high <= 255 else 65535))


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def fan(polygons: list[np.ndarray]) -> np.ndarray:
    """Cut polygons, given as arrays ``[f, sides]``, into triangles around their first corner."""
    cut = [np.zeros((0, 3), np.int64)]
    for corners in polygons:
        for last in range(2, corners.shape[1]):
            cut.append(corners[:, [0, last - 1, last]])
    return np.concatenate(cut).astype(np.int64)


def check_faces(faces: np.ndarray, num_vertices: int) -> None:
    """Raise if a triangle names a vertex that is not there."""
    if faces.size and (faces.min() < 0 or faces.max() >= num_vertices):
        wrong = faces.min() if faces.min() < 0 else faces.max()
        raise ValueError(f"a face names vertex {int(wrong)} of {num_vertices}")


__all__ = ["RawPoints", "check_faces", "fan", "from_columns", "unit_color"]
