"""Check the header of a .las or .laz file against the file before it is read.

laspy and lazrs do not check the header. A number of records sets the length of a loop. A number of
points or chunks sets the memory allocated, and a process that requests too much memory is killed.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pyg_peft.datasets.formats.claims import check_expansion, file_size, read_exactly

_RECORD, _EXTENDED_RECORD = 54, 60  # bytes before the content of a record
_LASZIP = (b"laszip encoded", 22204)
# Number of layers of each item of a layered point. The last item has one layer for each byte.
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
_LAYERED_BYTES = 14
_LAYERED = 3


@dataclass(frozen=True)
class Compression:
    """Compression settings of a .laz file.

    Args:
        kind: 2 for points in chunks, 3 for layers in chunks.
        chunk_size: Points per chunk.
        items: Type and size of each part of a point.
        record: The record with these settings, in the form that lazrs accepts.
    """

    kind: int
    chunk_size: int
    items: tuple[tuple[int, int], ...]
    record: bytes


def check_las(path: Path) -> None:
    """Raise unless the file holds everything that its header counts.

    Args:
        path: A .las or .laz file.

    Raises:
        ValueError: If a field is inconsistent. The message names the field.
    """
    with path.open("rb") as stream:
        size = file_size(stream)
        head = read_exactly(stream, min(size, 375), "header").ljust(375, b"\0")
        if head[:4] != b"LASF" or size < 227:
            raise ValueError("expected a header that begins with LASF and has 227 bytes or more")
        major, minor = head[24], head[25]
        header, start, records = struct.unpack_from("<HII", head, 94)
        kind, length, points = struct.unpack_from("<BHI", head, 104)
        least = 375 if minor >= 4 else 235 if minor == 3 else 227
        if major != 1 or not least <= header <= start <= size:
            raise ValueError(
                f"expected a header of version 1 and {least} bytes or more, and points behind it "
                f"in {size} bytes (got version {major}.{minor}, {header} bytes, points at {start})"
            )
        compression = _records(stream, header, start, records)
        if minor >= 4:
            first, count, points = struct.unpack_from("<QIQ", head, 235)
            _extended_records(stream, first, count, size)
        if kind & 0xC0 != 0x80:  # laspy reads other values as uncompressed points
            if points * length > size - start:
                raise ValueError(
                    f"expected {points} points of {length} bytes (got {size - start} bytes)"
                )
        elif compression is None:
            raise ValueError("expected a record that says how the points are compressed (got none)")
        elif points:
            _check_chunks(stream, compression, start, size, (points, length))


def is_compressed(path: Path) -> bool:
    """Return whether the points of a .las or .laz file are compressed."""
    with path.open("rb") as stream:
        head = stream.read(105)
    return len(head) == 105 and head[104] & 0xC0 == 0x80


def _records(stream: IO[bytes], header: int, start: int, count: int) -> Compression | None:
    if count * _RECORD > start - header:
        raise ValueError(f"expected {count} records before the points (got {start - header} bytes)")
    found, place = None, header
    for number in range(count):
        stream.seek(place)
        user, kind, length = struct.unpack("<2x16sHH32x", read_exactly(stream, _RECORD, "records"))
        place += _RECORD + length
        if place > start:
            raise ValueError(f"expected record {number} before the points (got {length} bytes)")
        if (user.split(b"\0")[0], kind) == _LASZIP and found is None:
            found = _compression(read_exactly(stream, length, "records"))
    return found


def _extended_records(stream: IO[bytes], place: int, count: int, size: int) -> None:
    if count and (place > size or count * _EXTENDED_RECORD > size - place):
        raise ValueError(f"expected {count} extended records at {place} of {size} bytes")
    for number in range(count):
        if place + _EXTENDED_RECORD > size:
            raise ValueError(f"expected extended record {number} at {place} of {size} bytes")
        stream.seek(place + 20)
        (length,) = struct.unpack("<Q", read_exactly(stream, 8, "extended records"))
        place += _EXTENDED_RECORD + length
        if place > size:
            raise ValueError(f"expected extended record {number} in the file (got {length} bytes)")


def _compression(record: bytes) -> Compression:
    if len(record) < 34:
        raise ValueError(f"expected 34 bytes or more about compression (got {len(record)})")
    kind, coder, chunk_size, count = struct.unpack_from("<HH8xI16xH", record)
    if kind not in (2, _LAYERED) or coder != 0 or chunk_size == 0 or len(record) < 34 + 6 * count:
        raise ValueError(
            f"expected compression of kind 2 or 3 in chunks (got kind {kind}, coder {coder}, "
            f"chunks of {chunk_size} points, {count} items in {len(record)} bytes)"
        )
    items = [struct.unpack_from("<HH", record, 34 + 6 * number) for number in range(count)]
    if kind == _LAYERED and not all(item in _LAYERS or item == _LAYERED_BYTES for item, _ in items):
        raise ValueError(f"expected items that have layers (got {items})")
    return Compression(kind, chunk_size, tuple(items), record)


def _check_chunks(
    stream: IO[bytes], compression: Compression, start: int, size: int, points: tuple[int, int]
) -> None:
    count, length = points
    width = sum(item[1] for item in compression.items)
    if width != length:
        raise ValueError(f"expected items of {length} bytes together (got {width})")
    check_expansion(count * length, size, "the points")
    stream.seek(start)
    (table,) = struct.unpack("<q", read_exactly(stream, 8, "points"))
    if table == -1:  # written to a stream without seeking
        stream.seek(size - 8)
        (table,) = struct.unpack("<q", read_exactly(stream, 8, "points"))
    if not start + 8 <= table <= size - 8:
        raise ValueError(f"expected the table of chunks behind {start} (got {table} of {size})")
    stream.seek(table)
    version, chunks = struct.unpack("<II", read_exactly(stream, 8, "the table of chunks"))
    # A chunk begins with an uncompressed point.
    most = (table - start - 8) // length + 1
    if version != 0 or not 0 < chunks <= most:
        raise ValueError(
            f"expected a table of version 0, of 1 to {most} chunks "
            f"(got version {version}, {chunks} chunks)"
        )
    for place, end in _chunks(stream, compression, start, table, count):
        if compression.kind == _LAYERED and end > place:
            _check_layers(stream, compression, place, end)


def _chunks(
    stream: IO[bytes], compression: Compression, start: int, table: int, points: int
) -> list[tuple[int, int]]:
    import lazrs  # which has no types

    stream.seek(start)
    vlr = lazrs.LazVlr(compression.record)  # pyright: ignore[reportAttributeAccessIssue]
    rows = lazrs.read_chunk_table(stream, vlr)  # pyright: ignore[reportAttributeAccessIssue]
    found, place, held = [], start + 8, 0
    for number, size in rows:
        held += number
        found.append((place, place + size))
        place += size
    if place != table or held < points:
        raise ValueError(
            f"expected chunks of {table - start - 8} bytes with {points} points together (got "
            f"{place - start - 8} with {held})"
        )
    return found


def _check_layers(stream: IO[bytes], compression: Compression, place: int, end: int) -> None:
    """Check a chunk of layers: a raw point, a point count, the layer sizes, and the layers."""
    layers = sum(_LAYERS.get(kind, width) for kind, width in compression.items)
    width = sum(width for _, width in compression.items)
    stream.seek(place + width)
    head = 4 + 4 * layers
    if place + width + head > end:
        raise ValueError(f"expected {layers} layers in a chunk of {end - place} bytes")
    sizes = struct.unpack(f"<4x{layers}I", read_exactly(stream, head, "a chunk"))
    if place + width + head + sum(sizes) != end:
        raise ValueError(
            f"expected layers of {end - place - width - head} bytes in a chunk (got {sum(sizes)})"
        )


__all__ = ["check_las", "is_compressed"]
