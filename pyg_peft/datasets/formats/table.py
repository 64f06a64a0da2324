"""Parsers of plain tables: .npy, .npz, .xyz and .txt."""

import re
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pyg_peft.datasets.formats.arrays import load_archive, load_array
from pyg_peft.datasets.formats.claims import text_lines
from pyg_peft.datasets.formats.raw_points import RawPoints, from_columns, single, unit_color

_POSITIONS = ("pos", "xyz", "points")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_COMMA_INSIDE = re.compile(r"\d,\d")
_OTHER_SEPARATOR = re.compile(r"[^\s,;]\s*;|[^\s,;]\s+(?![\s,;])")


def read_npy(path: Path, columns: Sequence[str] | None = None, decimal: str = ".") -> RawPoints:
    """Read an array ``[n, 3 + c]`` with the column names ``columns``; ``decimal`` is ignored."""
    return _from_array(load_array(path), columns)


def read_npz(path: Path) -> RawPoints:
    """Read one cloud: ``pos`` (or ``xyz``, ``points``) ``[n, 3]`` and channels with ``n`` rows."""
    arrays = load_archive(path)
    found = [name for name in _POSITIONS if name in arrays]
    if not found:
        raise ValueError(f"no array {' or '.join(_POSITIONS)}, only {sorted(arrays)}")
    pos = arrays.pop(found[0])
    if pos.ndim == 3 or "offsets" in arrays:
        raise ValueError("this is a set of many clouds: open it with NpzShapes")
    if pos.ndim != 2 or pos.shape[1] != 3:
        raise ValueError(f"expected '{found[0]}' of shape [n, 3] (got {list(pos.shape)})")
    if pos.dtype.kind not in "fiu":
        raise ValueError(f"expected '{found[0]}' to hold real numbers (got {pos.dtype})")
    channels = {
        name: (unit_color(array) if name == "color" else single(array)).reshape(len(pos), -1)
        for name, array in arrays.items()
        if array.ndim in (1, 2) and len(array) == len(pos) and array.dtype.kind in "fiub"
    }
    numbers = frozenset(name for name in channels if arrays[name].dtype.kind in "iub")
    return RawPoints(pos.astype(np.float64), channels, None, numbers - {"color", "normal"})


def read_text(path: Path, columns: Sequence[str] | None = None, decimal: str = ".") -> RawPoints:
    """Read lines of numbers, separated by blanks, commas or semicolons.

    ``#`` and ``//`` start comments. Without ``columns``, a first line of words gives the column
    names. So does a comment that starts with ``//``, comes before the numbers, has as many words as
    there are columns, and includes x, y and z. CloudCompare writes such a comment, followed by a
    line with the number of points.

    Args:
        path: The file.
        columns: Names of the columns.
        decimal: ``"."``, or ``","`` for numbers such as ``1,25``. Columns can then be separated by
            blanks and semicolons only.
    """
    rows = array("d")
    width, count = 0, 0
    named: list[str] = []
    announced: int | None = None
    for number, line in text_lines(path):
        text, _, comment = line.partition("#")[0].partition("//")
        words = _words(text, decimal, number)
        if not words:
            if not count and not named:
                named = _names_in(comment)
            continue
        if not count and _are_names(words):
            columns = columns or words
            continue
        try:
            values = _numbers(words, decimal)
        except ValueError:
            shown = line.strip()[:40]
            raise ValueError(f"line {number}: expected numbers (got {shown!r})") from None
        if named and not count and announced is None and len(words) == 1 and words[0].isdecimal():
            announced = int(words[0])
            continue
        width = width or len(values)
        if len(values) != width:
            raise ValueError(f"line {number}: expected {width} numbers (got {len(values)})")
        rows.extend(values)
        count += 1
    if announced not in (None, count):
        raise ValueError(f"expected {announced} points (got {count} lines)")
    if columns is None and named and len(named) == width:
        columns = named
    return _from_array(np.array(rows).reshape(count, width or 3), columns)


def _names_in(comment: str) -> list[str]:
    """Return the column names of a comment; none if it is something else."""
    words = comment.replace(",", " ").replace(";", " ").split()
    return words if _are_names(words) else []


def _are_names(words: list[str]) -> bool:
    return {"x", "y", "z"} <= {word.lower() for word in words}


def _words(text: str, decimal: str, number: int) -> list[str]:
    """Return the words of a line; raise if a comma may be a separator or a decimal comma."""
    if decimal == ",":
        parts = text.replace(";", " ; ").split()
        separators = [";"]
    else:
        if "," in text and _is_ambiguous(text):
            raise ValueError(
                f"line {number}: expected commas to be the only separators (got "
                f"{text.strip()[:40]!r}); decimal=',' reads numbers with decimal commas"
            )
        parts = text.replace(";", " ; ").replace(",", " , ").split()
        separators = [";", ","]
    words = [part for part in parts if part not in separators]
    if len(words) < len(parts) and words:
        empty = any(
            one in separators and other in separators for one, other in pairwise(parts)
        ) or (parts[0] in separators)
        if empty:
            shown = text.strip()[:40]
            raise ValueError(f"line {number}: expected a number in each column (got {shown!r})")
    return words


def _is_ambiguous(text: str) -> bool:
    """Return whether commas are inside numbers (``1,25``, ``1,234.5``) between other separators."""
    if _COMMA_INSIDE.search(text) and _OTHER_SEPARATOR.search(text.strip().rstrip(";")):
        return True
    words = [word.strip(",") for word in text.replace(";", " ").split()]
    words = [word for word in words if word]
    return len(words) > 1 and any(map(_DECIMAL_COMMA.fullmatch, words))


def _numbers(words: list[str], decimal: str) -> list[float]:
    text = " ".join(words)
    # Python reads 1_000 as a number, but other programs do not.
    if "_" in text or (decimal == "," and "." in text):
        raise ValueError(text)
    return list(map(float, words if decimal == "." else text.replace(",", ".").split()))


def _from_array(values: np.ndarray, columns: Sequence[str] | None) -> RawPoints:
    if values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"expected numbers [n, 3 or more] (got {values.dtype} {list(values.shape)})"
        )
    if columns is None:
        # Three more columns may be colors or normals, so they get neutral names.
        columns = ["x", "y", "z", *(f"column_{place}" for place in range(3, values.shape[1]))]
    if len(columns) != values.shape[1]:
        raise ValueError(f"expected a name for each of {values.shape[1]} columns (got {columns})")
    if len(set(columns)) != len(columns):
        raise ValueError(f"expected columns with different names (got {list(columns)})")
    return from_columns(dict(zip(columns, values.T, strict=True)))


__all__ = ["read_npy", "read_npz", "read_text"]
