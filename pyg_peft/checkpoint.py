"""The adapter file: one folder, complete, checked by hash, and never half written.

::

    adapter/
      adapter_model.safetensors   every tensor of the adapter; its header holds the configuration
      and a SHA-256 adapter_config.json         the same configuration, for people and other tools
      to read memory_bank.HASH.safetensors  the bank that the adapter was trained with, if any
      README.md                   a model card

The header is what counts: a save that is killed between two files leaves a folder that still loads
as a whole, because each file is written under a temporary name and moved, and the tensors never
part from their configuration. This room knows no models: tensors and plain dictionaries go in and
come out.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import CheckpointError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
FORMAT = 1


@dataclass(frozen=True)
class AdapterFile:
    """What an adapter folder holds.

    Attributes:
        config: The configuration as plain JSON values.
        tensors: Every tensor by key, on the CPU.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def to_json(config: Mapping[str, Any]) -> str:
    """A configuration as text.

    Raises:
        TypeError: If a value is no plain JSON value; the path to the first one is named.
    """
    _check_json(config, "")
    return json.dumps(config, indent=2, sort_keys=True, allow_nan=False)


def bank_name(digest: str) -> str:
    """File name of a memory bank with this hash."""
    return f"memory_bank.{digest[:16]}.safetensors"


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values; the order of the mapping does not matter.

    Example:
        >>> import torch
        >>> a = {"w": torch.zeros(2)}
        >>> fingerprint(a) == fingerprint({"w": torch.zeros(2)})
        True
        >>> fingerprint(a) == fingerprint({"v": a["w"]})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode())
        # Viewed as bytes, so that bfloat16, which numpy does not know, is hashed too.
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data))
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, flush it to disk and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_adapter(
    folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: str
) -> None:
    """Write an adapter folder.

    Args:
        folder: Made if it does not exist; an adapter in it is replaced.
        tensors: Every tensor of the adapter.
        config: JSON-able values; ``format`` is added.
        card: Text of the model card.

    Raises:
        TypeError: If the configuration is not JSON-able; nothing is written then.
    """
    folder = Path(folder)
    text = to_json({"format": FORMAT, **config})
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    metadata = {"config": text, "sha256": _digest(text, contiguous)}
    write_atomically(folder / WEIGHTS, save(contiguous, metadata))
    write_atomically(folder / CONFIG, (text + "\n").encode())
    write_atomically(folder / CARD, card.encode())


def read_adapter(folder: str | Path) -> AdapterFile:
    """Read an adapter folder and check it.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        CheckpointError: If the file is foreign, truncated, changed, or of a later format.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"Expected an adapter folder with {WEIGHTS} in it (got '{folder}')")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected '{path}' to be a whole safetensors file ({what_is(path)}: {error})"
        ) from error
    if "config" not in metadata or "sha256" not in metadata:
        raise CheckpointError(
            f"Expected '{path}' to be written by pyg_peft (got a safetensors file of other origin)"
        )
    if _digest(metadata["config"], tensors) != metadata["sha256"]:
        raise CheckpointError(f"Expected '{path}' to match its SHA-256 (got changed content)")
    config = json.loads(metadata["config"])
    if config["format"] > FORMAT:
        raise CheckpointError(
            f"Expected '{path}' to be of format {FORMAT} or earlier (got {config['format']}; "
            "a newer pyg_peft reads it)"
        )
    return AdapterFile(config, tensors)


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str | Path
) -> None:
    """Raise unless both mappings have the same keys and shapes; the message names what differs.

    Raises:
        CheckpointError: With the first few missing, unknown and misshapen keys.
    """
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unknown {name}" for name in found if name not in expected]
    problems += [
        f"{name} of shape {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; {len(problems) - 8} more" if len(problems) > 8 else ""
        )
        raise CheckpointError(f"Expected '{source}' to fit the model (got {shown})")


def what_is(path: Path) -> str:
    """Say in a few words what kind of file this looks like."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a pickle, which is never opened here"
    if len(head) < 8:
        return "it is truncated"
    return "it is truncated or foreign"


def _check_json(value: Any, path: str) -> None:
    """Tuples count as lists; keys that are no strings would come back as strings."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"Expected '{path or 'config'}' to have str keys (got {key!r})")
            _check_json(item, f"{path}.{key}" if path else key)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_json(item, f"{path}.{index}")
    elif not (value is None or isinstance(value, (str, bool, int, float))):
        raise TypeError(
            f"Expected '{path}' to be a JSON value, so that it can be saved "
            f"(got {type(value).__name__})"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"Expected '{path}' to be finite, so that it can be saved (got {value})")


def _digest(config: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256((config + fingerprint(tensors)).encode()).hexdigest()


__all__ = [
    "CARD",
    "CONFIG",
    "WEIGHTS",
    "AdapterFile",
    "bank_name",
    "check_tensors",
    "fingerprint",
    "read_adapter",
    "to_json",
    "what_is",
    "write_adapter",
    "write_atomically",
]
