"""Write ``.npz`` files atomically."""

import glob
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pyg_peft.storage import exclusive, remove_leftovers, write_atomic


def write_npz(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    leftovers: str | None = None,
) -> None:
    """Write a compressed ``.npz`` file atomically: readers see the complete file or none.

    The data are written to a temporary file in the same folder, which is then renamed in one step.
    If a writer is killed, the old file stays. Its temporary file stays too, until the next writer
    removes it. Two writers wait for each other and leave one of the two results.

    Args:
        path: Target file. Its folder is created if it is missing.
        arrays: Arrays by name. Object arrays are refused.
        leftovers: Pattern of the files whose temporary files are removed. By default, those of
            ``path``.

    Raises:
        ValueError: If an array holds Python objects.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype == object:
            raise ValueError(f"Expected '{name}' to be an array of numbers or text (got objects)")

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # given a path, numpy would add a suffix
            np.savez_compressed(stream, **dict(arrays))  # pyright: ignore[reportArgumentType]

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.parent) as alone:
        if alone:  # temporary files belong to writers that were killed
            remove_leftovers(path.parent, leftovers or glob.escape(path.name))
        write_atomic(path, write)


__all__ = ["write_npz"]
