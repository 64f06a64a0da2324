"""Parsers of mesh files: .off, .obj and .stl."""

import codecs
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pyg_peft.datasets.formats.claims import text_lines
from pyg_peft.datasets.formats.raw_points import RawPoints, check_faces, fan

_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_off(path: Path) -> RawPoints:
    """Read an .off file with polygons and comments.

    The header without a separator that ModelNet uses, ``OFF490 518 0``, is supported. Colors of
    vertices (``COFF``) and faces are not read.
    """
    lines = _lines(path)
    number, header = next(lines, (1, ""))
    if not header.startswith(("OFF", "COFF")):
        raise ValueError(f"line {number}: expected the keyword OFF (got {header[:20]!r})")
    counts = header[header.index("OFF") + 3 :].split()
    if not counts:
        number, text = next(lines, (number, ""))
        counts = text.split()
    try:
        num_vertices, num_faces = int(counts[0]), int(counts[1])
    except (ValueError, IndexError):
        raise ValueError(f"line {number}: expected two counts (got {counts})") from None
    # No memory is allocated by count, because the count may be damaged.
    vertices: list[list[float]] = []
    for row in range(num_vertices):
        number, text = _take(lines, "a vertex", row, num_vertices)
        vertices.append(_floats(text.split(), number))
    polygons: dict[int, list[list[str]]] = {}
    for row in range(num_faces):
        number, text = _take(lines, "a face", row, num_faces)
        words = text.split()
        if not words[0].isdigit() or len(words) <= int(words[0]):
            raise ValueError(f"line {number}: expected a face with its corners (got {text[:40]!r})")
        polygons.setdefault(int(words[0]), []).append(words[1 : 1 + int(words[0])])
    faces = fan([np.array(rows, dtype=np.int64) for rows in polygons.values()])
    check_faces(faces, num_vertices)
    pos = np.array(vertices, dtype=np.float64).reshape(-1, 3)
    return RawPoints(pos, {}, faces if num_faces else None)


def read_obj(path: Path) -> RawPoints:
    """Read vertices, faces, and colors (if every vertex has one) of an .obj file.

    Relative (negative) corner numbers are supported. Texture coordinates, stored normals, materials
    and groups are not read.
    """
    vertices: list[list[float]] = []
    colors: list[list[float]] = []
    polygons: dict[int, list[list[int]]] = {}
    for number, text in _lines(path):
        words = text.split()
        if words[0] == "v":
            vertices.append(_floats(words[1:], number))
            if len(words) >= 7:
                colors.append(_floats(words[4:], number))
        elif words[0] == "f":
            try:
                corners = [int(word.split("/")[0]) for word in words[1:]]
            except ValueError:
                raise ValueError(f"line {number}: expected corners (got {text[:40]!r})") from None
            if len(corners) < 3 or 0 in corners:
                raise ValueError(f"line {number}: expected three corners or more (got {corners})")
            fixed = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            polygons.setdefault(len(fixed), []).append(fixed)
    pos = np.array(vertices, dtype=np.float64).reshape(-1, 3)
    faces = fan([np.array(rows) for rows in polygons.values()])
    check_faces(faces, len(pos))
    full = len(colors) == len(pos) > 0
    channels = {"color": np.array(colors, np.float32)} if full else {}
    return RawPoints(pos, channels, faces if len(faces) else None)


def read_stl(path: Path) -> RawPoints:
    """Read a binary or text .stl file. The stored normals are not used."""
    content = path.read_bytes()
    size = int.from_bytes(content[80:84], "little") if len(content) >= 84 else -1
    # Binary files may start with "solid" too, so the type is detected by the length.
    if size >= 0 and len(content) == 84 + 50 * size:
        corners = np.frombuffer(content, _STL_TRIANGLE, offset=84)["corners"]
    elif _starts_solid(content) and b"facet" in content.lower():
        found = [
            _floats(text.split()[1:], number)
            for number, text in _lines(path)
            if text.lower().startswith("vertex")
        ]
        if not found or len(found) % 3:
            raise ValueError(f"expected three corners for each facet (got {len(found)} in all)")
        corners = np.array(found).reshape(-1, 3, 3)
    else:
        raise ValueError(
            f"expected text from 'solid', or 84 + 50 bytes for each of {max(size, 0)} triangles "
            f"(got {len(content)} bytes)"
        )
    pos = corners.reshape(-1, 3).astype(np.float64)
    return RawPoints(pos, {}, np.arange(len(pos)).reshape(-1, 3))


def _starts_solid(content: bytes) -> bool:
    start = content[:1000].removeprefix(codecs.BOM_UTF8).lstrip()
    return start[:5].lower() == b"solid"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not empty; ``#`` starts a comment."""
    for number, line in text_lines(path):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text


def _take(lines: Iterator[tuple[int, str]], what: str, row: int, expected: int) -> tuple[int, str]:
    found = next(lines, None)
    if found is None:
        raise ValueError(f"the file ends: expected {what}, number {row + 1} of {expected}")
    return found


def _floats(words: list[str], number: int) -> list[float]:
    try:
        values = [float(word) for word in words[:3]]
    except ValueError:
        values = []
    if len(values) != 3:
        raise ValueError(f"line {number}: expected three numbers (got {' '.join(words)[:40]!r})")
    return values


__all__ = ["read_obj", "read_off", "read_stl"]
