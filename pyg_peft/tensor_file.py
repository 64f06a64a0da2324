"""Tensor files: identical bytes for identical content, and every byte is checked when read.

The format is a safetensors file with one header entry, ``pyg_peft``. The entry is 64 characters of
SHA-256, followed by a JSON object with the file's ``kind`` and its ``content``. There is only one
entry because safetensors writes several in an order that changes from call to call.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pyg_peft.errors import CheckpointError
from pyg_peft.storage import write_atomic

_ENTRY = "pyg_peft"
_HEX = 64
_DEPTH = 64  # maximum nesting of lists and objects in a header


def fingerprint(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the SHA-256 of a text and of the names, types, shapes and bytes of tensors.

    The order of the mapping, the memory layout and the device do not matter. The hash covers the
    text as a JSON string. Then follow, for each tensor in the order of the names, the JSON list of
    name, type and shape, and the bytes.

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
        check_plain(name, tensors[name])
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # Hashed as bytes, because numpy does not support bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_plain(name: str, tensor: Tensor) -> None:
    """Raise unless a tensor is dense and holds its values directly.

    Raises:
        TypeError: If the tensor is on the meta device, sparse, nested or quantized. The message
            names it.
    """
    if tensor.is_meta:
        raise TypeError(f"Expected '{name}' to have values (got a tensor on the meta device)")
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise TypeError(f"Expected '{name}' to be a dense tensor (got a {kind} one)")


def check_values(name: str, tensor: Tensor) -> None:
    """Raise unless a tensor holds integers, Booleans, or finite floating-point numbers.

    Raises:
        TypeError: If the tensor is complex, sparse, nested, quantized or without values. The
            message names it.
        ValueError: If the tensor holds NaN or an infinite number. The message names the first one.
    """
    check_plain(name, tensor)
    if tensor.is_complex():
        raise TypeError(f"Expected '{name}' to be of real numbers (got {tensor.dtype})")
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    # isfinite does not support 8-bit floating-point types.
    finite = torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor)
    if not bool(finite.all()):
        place = (~finite).nonzero()[0].tolist()
        value = float(tensor.detach()[tuple(place)])
        raise ValueError(f"Expected '{name}' to be finite (got {value} at {place})")


def write_tensors(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
) -> None:
    """Write tensors and JSON values to one file, completely or not at all.

    Args:
        path: The file to replace or create.
        kind: Description of what the file holds, for :func:`read_tensors`: ``"a memory bank"``.
        tensors: Tensors by name.
        content: JSON values. ``format`` is the format version of this kind of file.

    Raises:
        TypeError: If a tensor is complex, sparse, nested, quantized or without values.
        ValueError: If a tensor holds NaN or an infinite number. In both cases, nothing is written.
    """
    for name, tensor in tensors.items():
        check_values(name, tensor)
    text = json.dumps({"kind": kind, "content": content}, sort_keys=True, allow_nan=False)
    contiguous: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        # The format refuses tensors that share memory, such as keys that are the values too.
        if own.untyped_storage().data_ptr() in places:
            own = own.clone()
        places.add(own.untyped_storage().data_ptr())
        contiguous[name] = own
    whole = save(contiguous, {_ENTRY: fingerprint(contiguous, text) + text})
    write_atomic(path, lambda temporary: temporary.write_bytes(whole))


def read_tensors(
    path: str | Path, kind: str, newest: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read content and tensors from a file of :func:`write_tensors`, and check every byte.

    Args:
        path: The file.
        kind: Required kind of the file.
        newest: Latest format version that the caller supports.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, foreign, of another kind or of a later format, or
            if a tensor in it is complex or not finite.
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
    header = _read_json(entry[_HEX:], path)
    found, content = header.get("kind"), header.get("content")
    if found != kind:
        is_text = isinstance(found, str) and found.isprintable()
        shown = str(found)[:80] if is_text else short(found)
        raise CheckpointError(f"Expected '{path}' to hold {kind} (got {shown})")
    if not isinstance(content, dict):
        raise CheckpointError(
            f"Expected 'content' in '{path}' to be an object (got {short(content)})"
        )
    number = content.get("format")
    if type(number) is not int or number < 1:
        raise CheckpointError(
            f"Expected 'format' in '{path}' to be a positive integer (got {short(number)})"
        )
    if number > newest:
        raise CheckpointError(
            f"Expected '{path}' to be of format {newest} or earlier (got {short(number)}; "
            "a newer pyg_peft reads it)"
        )
    for name, tensor in tensors.items():
        try:
            check_values(name, tensor)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{error}, in '{path}'") from error
    return content, tensors


def read_content(path: Path) -> dict[str, Any]:
    """Return the unchecked content of a tensor file; an empty one for a file of other origin.

    Raises:
        CheckpointError: If the file is damaged or not a safetensors file.
    """
    entry, _ = _open(path, with_tensors=False)
    if entry is None:
        return {}
    content = _read_json(entry[_HEX:], path).get("content")
    if not isinstance(content, dict):
        raise CheckpointError(
            f"Expected 'content' in '{path}' to be an object (got {short(content)})"
        )
    return content


def _read_json(text: str, path: str | Path) -> dict[str, Any]:
    """Return the JSON object in a header."""
    try:
        header: Any = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Expected '{path}' to have a JSON header (got {error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(
            f"Expected '{path}' to have a JSON object as its header (got {short(header)})"
        )
    if _too_deep(header):
        raise CheckpointError(
            f"Expected the header of '{path}' to be nested at most {_DEPTH} deep (got more)"
        )
    return header


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not a JSON number")


def short(value: Any) -> str:
    """Return a shortened text of a value, which may be of any length and depth, for messages."""
    return reprlib.repr(value)


def _too_deep(value: Any) -> bool:
    """Return whether lists and objects are nested deeper than :data:`_DEPTH`, without recursion."""
    level: list[Any] = [value]
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner
    return bool(level)


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


def foreign_kind(path: Path) -> str | None:
    """Return what an unreadable file holds instead of tensors, with the remedy, or ``None``.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.pth"
        >>> _ = path.write_text("<!DOCTYPE html><html><body>Not found</body></html>")
        >>> foreign_kind(path)
        'a web page; download the file itself'
    """
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:  # the caller has the reason why it cannot be read
        return None
    if not head:
        return "an empty file; download it again"
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "a Git LFS pointer; run 'git lfs pull' in its repository"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page; download the file itself"
    return None


def _what_is(path: Path) -> str:
    """Return a short description of what kind of file this seems to be."""
    if (kind := foreign_kind(path)) is not None:
        return f"it is {kind}"
    with path.open("rb") as file:
        head = file.read(8)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a pickle, which is never opened here"
    if len(head) < 8:
        return "it is truncated"
    return "it is truncated or foreign"


__all__ = [
    "check_plain",
    "check_values",
    "fingerprint",
    "foreign_kind",
    "read_content",
    "read_tensors",
    "short",
    "write_tensors",
]
