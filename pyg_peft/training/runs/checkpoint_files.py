"""Files that training goes on from: whole or not at all, with the one before kept beside them."""

import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from pyg_peft.errors import CheckpointError
from pyg_peft.storage import write_atomic

logger = logging.getLogger(__name__)


def save_checkpoint(state: Any, path: Path, *, keep_previous: bool = False) -> None:
    """Write what ``torch.save`` makes of ``state`` to ``path``, whole or not at all.

    Args:
        state: tensors and plain values.
        path: the file.
        keep_previous: keep what was there as :func:`previous_of` names it. Whoever is killed when,
            one of the two is whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    buffer = io.BytesIO()  # a file that torch writes itself fails with errors that say nothing
    torch.save(state, buffer)

    def write(temporary: Path) -> None:
        temporary.write_bytes(buffer.getbuffer())
        if keep_previous and path.exists():
            os.replace(path, previous_of(path))

    try:
        write_atomic(path, write)
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one in ``path`` is kept."""
    return path.with_name(f"{path.stem}_previous{path.suffix}")


def has_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint to go on from, damaged or not."""
    return path.exists() or previous_of(path).exists()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a file of ``torch.save`` that holds tensors and plain values; every byte is checked.

    Raises:
        CheckpointError: it is damaged or holds something else.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the bytes of '{damaged}' have changed")
        return torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes make torch fail in any way; all of them mean this.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"Expected '{path}' to be a whole checkpoint (got {type(error).__name__}: {reason})"
        ) from error


def read_latest(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint in ``path``, or the one before it where that is damaged or missing.

    A line of the log says so. Returns the path that was read too.

    Raises:
        CheckpointError: none of them is whole; the message is about ``path``.
    """
    before = previous_of(path)
    try:
        return path, read_checkpoint(path)
    except CheckpointError as error:
        try:
            found = read_checkpoint(before)
        except CheckpointError:
            raise error from None
        reason = error if path.exists() else f"'{path}' is missing"
        logger.warning("%s: going on from the checkpoint before it, '%s'", reason, before)
        return before, found


__all__ = [
    "has_checkpoint",
    "previous_of",
    "read_checkpoint",
    "read_latest",
    "save_checkpoint",
]
