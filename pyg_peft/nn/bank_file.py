"""The file of a memory bank: named tensors whose every byte is checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pyg_peft.tensor_file import read_tensors, write_tensors

_KIND = "a memory bank"
_FORMAT = 1


def write_bank(
    path: Path, tensors: dict[str, Tensor], source: Mapping[str, Any] | None = None
) -> None:
    """Write the whole file or, if anything goes wrong, nothing."""
    origin = {} if source is None else {"source": dict(source)}
    write_tensors(path, _KIND, tensors, {"format": _FORMAT, **origin})


def read_bank(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return what :func:`write_bank` wrote; raise :class:`CheckpointError` on anything else."""
    content, tensors = read_tensors(path, _KIND, _FORMAT)
    return tensors, content.get("source")


__all__ = ["read_bank", "write_bank"]
