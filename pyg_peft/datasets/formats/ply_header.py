"""Check the header of a .ply file against the file before plyfile reads it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pyg_peft.datasets.formats.claims import file_size

_SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8", "i1", "u1", "b1"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16", "i2", "u2"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32", "i4", "u4", "f4"), 4),
    **dict.fromkeys(("double", "float64", "f8"), 8),
}
_FLOATS = ("float", "float32", "f4", "double", "float64", "f8")
_MOST_HEADER = 2**20


@dataclass
class _Element:
    name: str
    count: int
    #: Bytes of a row whose lists are empty.
    size: int = 0
    properties: list[str] = field(default_factory=list)


def check_ply(path: Path) -> None:
    """Raise unless the file is long enough for the rows that its header counts.

    Other problems of a header are reported by plyfile.

    Args:
        path: A .ply file.

    Raises:
        ValueError: If the rows of an element do not fit into the file. The message names the
            element.
    """
    with path.open("rb") as stream:
        size = file_size(stream)
        text, elements = _parse(stream)
        rest = size - stream.tell()
    for element in elements:
        names = element.properties
        # Text needs a digit and a separator per number. The last row may have no line end.
        least = element.count * (2 * len(names) if text else element.size)
        if element.count < 0 or (element.count and not names) or least > rest + int(text):
            raise ValueError(
                f"element '{element.name}': expected {rest} bytes to hold its rows (got "
                f"{element.count} rows of {len(names)} properties)"
            )
        rest -= least


def _parse(stream: IO[bytes]) -> tuple[bool, list[_Element]]:
    head = stream.read(_MOST_HEADER)
    end = b"\r\n" if head[3:5] == b"\r\n" else head[3:4]
    if head[:3] != b"ply" or end not in (b"\n", b"\r", b"\r\n"):
        raise ValueError("expected the first line to be 'ply'")
    text, elements, place = False, [], len(end) + 3
    while (stop := head.find(end, place)) >= 0:
        words = head[place:stop].decode("ascii", "replace").split()
        place = stop + len(end)
        if words[:1] == ["end_header"]:
            stream.seek(place)
            return text, elements
        if words[:1] == ["format"]:
            text = words[1:2] == ["ascii"]
        elif words[:1] == ["element"] and len(words) == 3:
            elements.append(_Element(words[1], int(words[2])))
        elif words[:1] == ["property"] and elements:
            elements[-1].size += _row_size(words)
            elements[-1].properties.append(words[-1])
    raise ValueError("the header has no line 'end_header'")


def _row_size(words: list[str]) -> int:
    """Return the bytes of a property in a row; for a list, those of its length only."""
    listed = words[1:2] == ["list"]
    kind = " ".join(words[2:3] if listed else words[1:2])
    if kind not in _SIZES or (listed and kind in _FLOATS):
        raise ValueError(f"expected a type of numbers (got '{' '.join(words)[:60]}')")
    return _SIZES[kind]


__all__ = ["check_ply"]
