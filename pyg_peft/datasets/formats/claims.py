"""What a file claims about its own size, held against its length before memory is taken."""

import os
from collections.abc import Iterator
from io import TextIOBase
from pathlib import Path
from typing import IO, BinaryIO

#: Content of up to this many bytes may come out of a file of any length.
FREE_BYTES = 2**28
#: Above it, content may be this many times as long as its file. Scans shrink to a fifth or a tenth,
#: constant labels more, but they are a small part of a file.
MOST_EXPANSION = 100
#: Characters of a line of text. No point, polygon or list of names is longer.
MOST_CHARACTERS = 2**20


def check_expansion(expanded: int, stored: int, what: str) -> None:
    """Raise if a compressed file says that it becomes far longer than files do.

    Args:
        expanded: bytes in memory.
        stored: bytes on disk.
        what: is to be read, for the message.

    Raises: ``ValueError`` for more than 256 MiB that are more than 100 times the stored bytes.
    """
    if expanded > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise ValueError(
            f"expected {what} to take at most {MOST_EXPANSION} times the {stored} bytes of the "
            f"file, or {FREE_BYTES} bytes (got {expanded})"
        )


def file_size(stream: IO[bytes]) -> int:
    """Length of an open file; where it is read next stays."""
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return size


def read_exactly(stream: BinaryIO | IO[bytes], size: int, what: str) -> bytes:
    """``size`` bytes, or ``ValueError`` where the file ends."""
    found = stream.read(size)
    if len(found) != size:
        raise ValueError(f"the file ends: expected {size} bytes of {what} (got {len(found)})")
    return found


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines of a file, from 1."""
    # Editors on Windows mark UTF-8 by a first character that is no part of the content.
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        yield from stream_lines(stream)


def stream_lines(stream: TextIOBase | IO[str]) -> Iterator[tuple[int, str]]:
    """Number and text of the lines of an open text, from 1.

    Raises: ``ValueError`` for a line of more than 2**20 characters; the words of one that is a
        whole file would take many times its length.
    """
    number = 0
    while line := stream.readline(MOST_CHARACTERS + 1):
        number += 1
        if len(line) > MOST_CHARACTERS:
            raise ValueError(f"line {number}: expected at most {MOST_CHARACTERS} characters")
        yield number, line


__all__ = ["check_expansion", "file_size", "read_exactly", "stream_lines", "text_lines"]
