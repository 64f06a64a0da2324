"""Write and read checkpoints, each completely or not at all, and keep the one before the last."""

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
    """Save ``state`` to ``path`` with ``torch.save``, completely or not at all.

    Args:
        state: Tensors and plain values.
        path: The file.
        keep_previous: Whether to keep the existing file under the name of :func:`previous_of`. At
            any time, even after a kill, one of the two is complete.

    Raises:
        OSError: If the disk is full, or the folder cannot be written to.
    """
    buffer = io.BytesIO()  # torch.save to a path would raise errors without a useful message
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
    """Return the path of the checkpoint before the one in ``path``."""
    return path.with_name(f"{path.stem}_previous{path.suffix}")


def has_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint to resume from, damaged or not."""
    return path.exists() or previous_of(path).exists()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a file of ``torch.save`` that holds tensors and plain values; every byte is checked.

    Raises:
        CheckpointError: If the file is damaged or holds something else.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the bytes of '{damaged}' have changed")
        return torch.load(path, map_location="cpu", weights_only=True)
    # PyTorch may raise any exception for damaged bytes.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"Expected '{path}' to be a whole checkpoint (got {type(error).__name__}: {reason})"
        ) from error


def read_latest(path: Path) -> tuple[Path, dict[str, Any]]:
    """Read the checkpoint in ``path``, or the one before it if that is damaged or missing.

    In the second case a warning is logged. The path that was read is also returned.

    Raises:
        CheckpointError: If neither is complete. The message is about ``path``.
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
