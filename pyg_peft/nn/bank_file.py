"""Memory bank files: named tensors whose bytes are all verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pyg_peft.errors import CheckpointError
from pyg_peft.tensor_file import read_tensors, short, write_tensors

_KIND = "a memory bank"
_FORMAT = 1


def write_bank(
    path: Path, tensors: dict[str, Tensor], source: Mapping[str, Any] | None = None
) -> None:
    """Write the whole file, or nothing if an error occurs."""
    origin = {} if source is None else {"source": dict(source)}
    write_tensors(path, _KIND, tensors, {"format": _FORMAT, **origin})


def read_bank(
    path: Path, names: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return what :func:`write_bank` wrote; raise :class:`CheckpointError` for any other file.

    Args:
        path: Path of the file.
        names: Names of the tensors that a bank may have. The first one is required.
    """
    content, tensors = read_tensors(path, _KIND, _FORMAT)
    unknown = [name for name in tensors if name not in names]
    if unknown or names[0] not in tensors:
        raise CheckpointError(
            f"Expected '{path}' to hold a memory bank, tensors of {', '.join(names)} only "
            f"(got {', '.join(tensors) or 'none'})"
        )
    source = content.get("source")
    fits = isinstance(source, dict) and source.keys() == {"module", "pool"}
    if source is not None and not (fits and isinstance(source["module"], str)):
        raise CheckpointError(
            f"Expected 'source' in '{path}' to hold a 'module' and a 'pool' (got {short(source)})"
        )
    return tensors, source


__all__ = ["read_bank", "write_bank"]
