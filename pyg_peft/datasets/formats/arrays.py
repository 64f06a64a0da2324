"""Read arrays from .npy and .npz files, whose headers are checked against the file size."""

import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from pyg_peft.datasets.formats.claims import check_expansion, file_size
from pyg_peft.errors import printable

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_ARRAYS = 1_000  # a set of clouds has some ten


def load_array(path: Path) -> np.ndarray:
    """Return the array of an .npy file. Nothing in it is unpickled.

    Raises:
        ValueError: If the header does not match the length of the file.
    """
    with path.open("rb") as stream:
        return _array(stream, file_size(stream), "the file")


def load_archive(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, stored or deflated. Nothing in it is unpickled.

    ``zipfile.BadZipFile`` and the other errors of that module are raised for a damaged archive.

    Raises:
        ValueError: If a member is not an array, or its header does not match its length. Also if
            the content takes more than 256 MiB and more than 100 times the length of the file, or
            has more than 1,000 members.
    """
    with path.open("rb") as stream:
        stored = file_size(stream)
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            _check_members(members, stored)
            arrays: dict[str, np.ndarray] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as content:
                    arrays[name] = _array(content, member.file_size, f"'{name}'")
            return arrays


def read_archive(path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
    """Call :func:`load_archive` and report every problem of the file as one error type.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read. The message names the file.
    """
    try:
        return load_archive(Path(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files make zipfile raise errors of any type
        what = printable(str(error)) or type(error).__name__
        raise ValueError(f"Expected '{path}' to be a readable .npz file (got: {what})") from error


def _check_members(members: list[zipfile.ZipInfo], stored: int) -> None:
    if len(members) > _MOST_ARRAYS:
        raise ValueError(f"expected at most {_MOST_ARRAYS:,} arrays (got {len(members):,})")
    names = Counter(member.filename for member in members)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise ValueError(f"expected members with different names (got {twice[:3]} twice)")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"expected '{member.filename}' to be stored or deflated")
    packed = sum(member.compress_size for member in members)
    if packed > stored:  # members that share bytes
        raise ValueError(f"expected members of {stored} bytes together (got {packed})")
    check_expansion(sum(member.file_size for member in members), stored, "the arrays")


def _array(stream: IO[bytes], size: int, what: str) -> np.ndarray:
    """Read an array that, with its header, takes exactly ``size`` bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"expected an array in {what} of format 1.0 or 2.0 (got {version})")
    shape, column_major, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError(f"expected numbers or text in {what} (got Python objects)")
    rest = size - stream.tell()
    wanted = prod(int(length) for length in shape) * dtype.itemsize
    if any(length < 0 for length in shape) or dtype.itemsize == 0 or wanted != rest:
        raise ValueError(
            f"expected the {rest} bytes of {what} to be an array of shape {list(shape)} and type "
            f"{dtype}, which takes {wanted}"
        )
    array = np.frombuffer(bytearray(stream.read(rest)), dtype)
    native = array.astype(dtype.newbyteorder("="), copy=False)  # torch takes no other byte order
    return native.reshape(shape, order="F" if column_major else "C")


__all__ = ["load_archive", "load_array", "read_archive"]
