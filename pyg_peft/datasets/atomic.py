"""Write an ``.npz`` file whole or not at all."""

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
    """Write a compressed ``.npz`` that a reader sees either complete or not yet.

    The bytes go to a temporary file in the same folder, which then takes the name in one step. A
    writer that is killed leaves the old file, and its temporary one until the next writer removes
    it; two writers wait for each other and leave one of the two results.

    Args:
        path: target; its folder is made if it is missing.
        arrays: name to array; object arrays are refused.
        leftovers: pattern of the files whose temporary ones are removed; by default of ``path``.

    Raises: ``ValueError`` for an array of Python objects.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype == object:
            raise ValueError(f"Expected '{name}' to be an array of numbers or text (got objects)")

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # given a path, numpy would add an ending to it
            np.savez_compressed(stream, **dict(arrays))  # pyright: ignore[reportArgumentType]

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.parent) as alone:
        if alone:  # what is there is of writers that are gone
            remove_leftovers(path.parent, leftovers or glob.escape(path.name))
        write_atomic(path, write)


__all__ = ["write_npz"]
