"""Parser of .pcd files: text, binary and compressed binary."""

from array import array
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np

from pyg_peft.datasets.formats.claims import stream_lines
from pyg_peft.datasets.formats.lzf import decompress
from pyg_peft.datasets.formats.raw_points import RawPoints, from_columns

_TYPES = {
    f"{kind}{size}": f"<{kind.lower()}{size}"
    for kind, sizes in (("F", (4, 8)), ("I", (1, 2, 4, 8)), ("U", (1, 2, 4, 8)))
    for size in sizes
}
_MOST_FIELDS = 1024


def read_pcd(path: Path) -> RawPoints:
    """Read a .pcd file of version 0.7. Packed ``rgb`` and ``rgba`` become ``color``.

    Fields with a count above one (descriptors) are skipped.
    """
    content = path.read_bytes()
    header, start = _header(content)
    names, dtype = _layout(header)
    size = int(_one(header, "POINTS"))
    if size < 0:
        raise ValueError(f"header: expected POINTS not to be negative (got {size})")
    storage = _one(header, "DATA").lower()
    if storage == "ascii":
        text = TextIOWrapper(BytesIO(content[start:]), encoding="ascii", errors="replace")
        table = _text(text, dtype, size, content[:start].count(b"\n"))
    elif storage == "binary":
        table = _records(content[start:], dtype, size)
    elif storage == "binary_compressed":
        packed, full = np.frombuffer(content, "<u4", 2, start).tolist()
        block = content[start + 8 : start + 8 + packed]
        if len(block) != packed:
            raise ValueError(f"expected {packed} packed bytes for {size} points (got {len(block)})")
        if full != size * dtype.itemsize:
            raise ValueError(
                f"expected {size * dtype.itemsize} unpacked bytes for {size} points (got {full})"
            )
        table = _columns(decompress(block, full), dtype, size)
    else:
        raise ValueError(f"expected DATA ascii, binary or binary_compressed (got {storage!r})")
    columns = {name: table[name] for name in names if table[name].ndim == 1}
    for name in ("rgb", "rgba"):
        if name in columns and not {"red", "green", "blue"} & set(columns):
            packed = np.ascontiguousarray(columns.pop(name))
            # A float whose bits, not value, are the color. Some writers use integers instead.
            bits = packed.astype(np.float32).view(np.uint32) if packed.dtype.kind == "f" else packed
            for channel, shift in (("red", 16), ("green", 8), ("blue", 0)):
                columns[channel] = (bits.astype(np.uint32) >> shift).astype(np.uint8)
    return from_columns(columns)


def _header(content: bytes) -> tuple[dict[str, list[str]], int]:
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = content.find(b"\n", start)
        if end < 0:
            raise ValueError("the header has no DATA line")
        words = content[start:end].decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
        start = end + 1
    return header, start


def _one(header: dict[str, list[str]], key: str) -> str:
    if len(header.get(key, [])) != 1:
        raise ValueError(f"header: expected one value for {key} (got {header.get(key)})")
    return header[key][0]


def _layout(header: dict[str, list[str]]) -> tuple[list[str], np.dtype]:
    names = header.get("FIELDS", [])
    counts = header.get("COUNT", ["1"] * len(names))
    sizes, kinds = header.get("SIZE", []), header.get("TYPE", [])
    if not 0 < len(names) <= _MOST_FIELDS or not (
        len(names) == len(sizes) == len(kinds) == len(counts)
    ):
        raise ValueError(
            f"header: expected FIELDS, SIZE, TYPE and COUNT of one length, at most {_MOST_FIELDS}"
        )
    fields = []
    for place, (name, size, kind, count) in enumerate(
        zip(names, sizes, kinds, counts, strict=True)
    ):
        if f"{kind}{size}" not in _TYPES:
            raise ValueError(
                f"header: expected TYPE and SIZE of {name} to be of {', '.join(_TYPES)} (got "
                f"{kind}{size})"
            )
        if int(count) < 1:
            raise ValueError(f"header: expected COUNT of {name} to be positive (got {count})")
        # Padding fields are all called "_", but a record needs distinct names.
        label = name if names.count(name) == 1 else f"{name}{place}"
        shape = () if int(count) == 1 else (int(count),)
        fields.append((label, _TYPES[f"{kind}{size}"], shape))
    dtype = np.dtype(fields)
    return list(dtype.names or ()), dtype


def _text(body: TextIOWrapper, dtype: np.dtype, size: int, before: int) -> np.ndarray:
    width = sum(dtype[name].itemsize // dtype[name].base.itemsize for name in dtype.names or ())
    rows, found = array("d"), 0
    for number, line in stream_lines(body):
        words = line.split()
        if not words:
            continue
        try:
            rows.extend([float(word) for word in words])
        except ValueError:
            shown = line.strip()[:40]
            raise ValueError(f"line {before + number}: expected numbers (got {shown!r})") from None
        if len(words) != width:
            raise ValueError(f"line {before + number}: expected {width} numbers (got {len(words)})")
        found += 1
    if found != size:
        raise ValueError(f"expected {size} points (got {found} lines)")
    table = np.zeros(size, dtype)
    values = np.frombuffer(rows, np.float64).reshape(size, width)
    start = 0
    for name in dtype.names or ():
        step = dtype[name].itemsize // dtype[name].base.itemsize
        part = _as_type(values[:, start : start + step], dtype[name].base, name)
        table[name] = part if dtype[name].shape else part[:, 0]
        start += step
    return table


def _as_type(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    if dtype.kind in "iu":
        known = np.iinfo(dtype)
        fits = (values >= known.min) & (values <= known.max) & (values == np.floor(values))
        if not fits.all():
            wrong = float(values[~fits][0])
            raise ValueError(f"expected {name} to hold integers of type {dtype} (got {wrong:g})")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        return values.astype(dtype)


def _records(body: bytes, dtype: np.dtype, size: int) -> np.ndarray:
    if len(body) < size * dtype.itemsize:
        raise ValueError(f"expected {size * dtype.itemsize} bytes of points (got {len(body)})")
    return np.frombuffer(body, dtype, size)


def _columns(body: bytes, dtype: np.dtype, size: int) -> np.ndarray:
    """Return the table of a compressed file, which stores field by field, not point by point."""
    table = np.zeros(size, dtype)
    start = 0
    for name in dtype.names or ():
        step = size * dtype[name].itemsize
        part = np.frombuffer(body[start : start + step], dtype[name].base)
        table[name] = part.reshape(size, *dtype[name].shape)
        start += step
    return table


__all__ = ["read_pcd"]
