"""Check the sizes in a file's header against its length before memory is allocated."""

import os
from collections.abc import Iterator
from io import TextIOBase
from pathlib import Path
from typing import IO, BinaryIO

#: Content of up to this many bytes is allowed for a file of any length.
FREE_BYTES = 2**28
#: Larger content may be this many times as long as its file. Scans are compressed to a fifth or a
#: tenth. Constant labels are compressed more, but they are a small part of a file.
MOST_EXPANSION = 100
#: Maximum number of characters in a line of text. No point, polygon or list of names is longer.
MOST_CHARACTERS = 2**20


def check_expansion(expanded: int, stored: int, what: str) -> None:
    """Raise if the content of a compressed file is implausibly large.

    Args:
        expanded: Bytes in memory.
        stored: Bytes on disk.
        what: Description of the content for the error message.

    Raises:
        ValueError: If the content takes more than 256 MiB and more than 100 times the stored bytes.
    """
    if expanded > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise ValueError(
            f"expected {what} to take at most {MOST_EXPANSION} times the {stored} bytes of the "
            f"file, or {FREE_BYTES} bytes (got {expanded})"
        )


def file_size(stream: IO[bytes]) -> int:
    """Return the length of an open file. The read position does not change."""
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return size


def read_exactly(stream: BinaryIO | IO[bytes], size: int, what: str) -> bytes:
    """Return ``size`` bytes, or raise ``ValueError`` if the file ends before."""
    found = stream.read(size)
    if len(found) != size:
        raise ValueError(f"the file ends: expected {size} bytes of {what} (got {len(found)})")
    return found


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line of a file."""
    # Editors on Windows mark UTF-8 by a first character that does not belong to the content.
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        yield from stream_lines(stream)


def stream_lines(stream: TextIOBase | IO[str]) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line of an open text stream.

    Raises:
        ValueError: If a line has more than 2**20 characters. Splitting a line that is a whole file
            into words would take many times its length.
    """
    number = 0
    while line := stream.readline(MOST_CHARACTERS + 1):
        number += 1
        if len(line) > MOST_CHARACTERS:
            raise ValueError(f"line {number}: expected at most {MOST_CHARACTERS} characters")
        yield number, line


__all__ = ["check_expansion", "file_size", "read_exactly", "stream_lines", "text_lines"]
