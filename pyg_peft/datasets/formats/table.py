"""Parsers of plain tables: .npy, .npz, .xyz, .txt."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyg_peft.datasets.formats.raw_points import RawPoints, from_columns, unit_color

_POSITIONS = ("pos", "xyz", "points")


def read_npy(path: Path, columns: Sequence[str] | None = None) -> RawPoints:
    """Read an array ``[n, 3 + c]``; ``columns`` names its columns."""
    return _from_array(np.load(path, allow_pickle=False), columns)


def read_npz(path: Path) -> RawPoints:
    """Read one cloud: ``pos`` (or ``xyz``, ``points``) ``[n, 3]`` and channels with ``n`` rows."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    found = [name for name in _POSITIONS if name in arrays]
    if not found:
        raise ValueError(f"no array {' or '.join(_POSITIONS)}, only {sorted(arrays)}")
    pos = arrays.pop(found[0])
    if pos.ndim == 3 or "offsets" in arrays:
        raise ValueError("this is a set of many clouds: open it with NpzShapes")
    if pos.ndim != 2 or pos.shape[1] != 3:
        raise ValueError(f"expected '{found[0]}' of shape [n, 3] (got {list(pos.shape)})")
    channels = {
        name: (unit_color(array) if name == "color" else array.astype(np.float32)).reshape(
            len(pos), -1
        )
        for name, array in arrays.items()
        if array.ndim in (1, 2) and len(array) == len(pos) and array.dtype.kind in "fiub"
    }
    return RawPoints(pos.astype(np.float64), channels)


def read_text(path: Path, columns: Sequence[str] | None = None) -> RawPoints:
    """Read lines of numbers between blanks, commas or semicolons; ``#`` and ``//`` are comments.

    A first line of words names the columns, unless ``columns`` does.
    """
    rows: list[list[float]] = []
    width = 0
    # Editors on Windows mark UTF-8 by a first character that is no number.
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.partition("#")[0].partition("//")[0]
            words = text.replace(",", " ").replace(";", " ").split()
            if not words:
                continue
            try:
                values = [float(word) for word in words]
            except ValueError:
                if rows or not {"x", "y", "z"} <= {word.lower() for word in words}:
                    shown = line.strip()[:40]
                    raise ValueError(f"line {number}: expected numbers (got {shown!r})") from None
                columns = columns or words
                continue
            width = width or len(values)
            if len(values) != width:
                raise ValueError(f"line {number}: expected {width} numbers (got {len(values)})")
            rows.append(values)
    return _from_array(np.array(rows, np.float64).reshape(len(rows), width or 3), columns)


def _from_array(array: np.ndarray, columns: Sequence[str] | None) -> RawPoints:
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"expected numbers [n, 3 or more] (got {array.dtype} {list(array.shape)})")
    if columns is None:
        # Nothing says whether three more columns are colours or normals, so they stay nameless.
        columns = ["x", "y", "z", *(f"column_{place}" for place in range(3, array.shape[1]))]
    if len(columns) != array.shape[1]:
        raise ValueError(f"expected a name for each of {array.shape[1]} columns (got {columns})")
    return from_columns(dict(zip(columns, array.T, strict=True)))


__all__ = ["read_npy", "read_npz", "read_text"]
