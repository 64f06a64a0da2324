"""The file of a memory bank: named tensors whose every byte is checked."""

from pathlib import Path

from torch import Tensor

from pyg_peft.tensor_file import read_tensors, write_tensors

_KIND = "a memory bank"
_FORMAT = 1


def write_bank(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the whole file or, if anything goes wrong, nothing."""
    write_tensors(path, _KIND, tensors, {"format": _FORMAT})


def read_bank(path: Path) -> dict[str, Tensor]:
    """Return what :func:`write_bank` wrote; raise :class:`CheckpointError` on anything else."""
    return read_tensors(path, _KIND, _FORMAT)[1]


__all__ = ["read_bank", "write_bank"]
