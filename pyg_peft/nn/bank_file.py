"""The file of a memory bank: named tensors whose every byte is checked."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyg_peft.errors import CheckpointError

_FORMAT = "pyg_peft.memory_bank"
_VERSION = "1"


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, whatever the order or device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_bank(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the whole file or, if anything goes wrong, nothing."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = {"format": _FORMAT, "version": _VERSION, "sha256": hash_tensors(tensors)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_bank(path: Path) -> dict[str, Tensor]:
    """Return what :func:`write_bank` wrote; raise :class:`CheckpointError` on anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected '{path}' to be a file (got nothing there)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError) as error:
        raise CheckpointError(f"Expected '{path}' to be a safetensors file ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"Expected '{path}' to be a memory bank (got format {metadata.get('format')!r})"
        )
    if metadata.get("version") != _VERSION:
        raise CheckpointError(
            f"Expected '{path}' to be of version {_VERSION} (got {metadata.get('version')!r})"
        )
    found = hash_tensors(tensors)
    if metadata.get("sha256") != found:
        raise CheckpointError(
            f"Expected '{path}' to have sha256 {metadata.get('sha256')} (got {found}): "
            "the file is damaged"
        )
    return tensors


__all__ = ["hash_tensors", "read_bank", "write_bank"]
