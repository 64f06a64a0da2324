"""A file of tensors: the same bytes for the same content, every byte checked when it is read.

It is a safetensors file whose header has one entry, ``pyg_peft``: 64 characters of SHA-256 and then
a JSON object with the file's ``kind`` and its ``content``. One entry, because safetensors writes
several in an order that changes from call to call.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import CheckpointError
from .storage import write_atomic

_ENTRY = "pyg_peft"
_HEX = 64


def fingerprint(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of a text and of names, types, shapes and bytes of tensors.

    The order of the mapping, memory layout and device do not matter. What is hashed: the text as a
    JSON string, then for each tensor in the order of the names the JSON list of name, type and
    shape, and its bytes.

    Example:
        >>> import torch
        >>> a = {"w": torch.zeros(2)}
        >>> fingerprint(a) == fingerprint({"w": torch.zeros(2)})
        True
        >>> fingerprint(a) == fingerprint({"v": a["w"]})
        False
    """
    digest = hashlib.sha256(json.dumps(text).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # Viewed as bytes, so that bfloat16, which numpy does not know, is hashed too.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
) -> None:
    """Write tensors and JSON values to one file, whole or not at all.

    Args:
        path: The file to replace or create.
        kind: What the file holds in words, for :func:`read_tensors`: ``"a memory bank"``.
        tensors: By name.
        content: JSON values; ``format`` among them is the number of the kind's format.
    """
    text = json.dumps({"kind": kind, "content": content}, sort_keys=True, allow_nan=False)
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    whole = save(contiguous, {_ENTRY: fingerprint(contiguous, text) + text})
    write_atomic(path, lambda temporary: temporary.write_bytes(whole))


def read_tensors(
    path: str | Path, kind: str, newest: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read content and tensors of a file of :func:`write_tensors`, and check every byte.

    Args:
        path: The file.
        kind: What it has to be.
        newest: The latest format that the caller knows.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, foreign, of another kind or of a later format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"Expected '{path}' to be a file (got nothing there)")
    entry, tensors = _open(Path(path), with_tensors=True)
    if entry is None:
        raise CheckpointError(
            f"Expected '{path}' to be written by pyg_peft (got a safetensors file of other origin)"
        )
    if entry[:_HEX] != fingerprint(tensors, entry[_HEX:]):
        raise CheckpointError(
            f"Expected '{path}' to match its SHA-256 (got changed content: the file is damaged)"
        )
    header = json.loads(entry[_HEX:])
    content: dict[str, Any] = header["content"]
    if header["kind"] != kind:
        raise CheckpointError(f"Expected '{path}' to hold {kind} (got {header['kind']})")
    if content["format"] > newest:
        raise CheckpointError(
            f"Expected '{path}' to be of format {newest} or earlier (got {content['format']}; "
            "a newer pyg_peft reads it)"
        )
    return content, tensors


def read_content(path: Path) -> dict[str, Any]:
    """The content of a file of tensors, unchecked; empty for a file of other origin.

    Raises:
        CheckpointError: It is damaged or no safetensors file.
    """
    entry, _ = _open(path, with_tensors=False)
    try:
        return {} if entry is None else json.loads(entry[_HEX:])["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"Expected '{path}' to have a JSON header ({error})") from error


def _open(path: Path, *, with_tensors: bool) -> tuple[str | None, dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            entry = (file.metadata() or {}).get(_ENTRY)
            names = file.keys() if with_tensors else []
            return entry, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected '{path}' to be a whole safetensors file ({_what_is(path)}: {error})"
        ) from error


def _what_is(path: Path) -> str:
    """Say in a few words what kind of file this looks like."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a pickle, which is never opened here"
    if len(head) < 8:
        return "it is truncated"
    return "it is truncated or foreign"


__all__ = ["fingerprint", "read_content", "read_tensors", "write_tensors"]
