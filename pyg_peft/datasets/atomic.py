"""Write a file whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed ``.npz`` that a reader sees either complete or not yet.

    The bytes go to a temporary file in the same folder, which then takes the name in one step. A
    writer that is killed leaves the old file; two writers leave one of the two results.

    Args:
        path: target; its folder is made if it is missing.
        arrays: name to array; object arrays are refused.

    Raises: ``ValueError`` for an array of Python objects.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype == object:
            raise ValueError(f"Expected '{name}' to be an array of numbers or text (got objects)")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez_compressed(stream, **dict(arrays))  # pyright: ignore[reportArgumentType]
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp keeps it private; give it the usual mode
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


__all__ = ["write_npz"]
