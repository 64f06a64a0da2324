"""Adapter folders: one folder per adapter, checked by hash and written atomically.

=====================================  =============================================================
``adapter_model.safetensors``          every tensor; configuration and SHA-256 are in its header
``adapter_config.json``                the same configuration, for people and other tools to read
``memory_bank.HASH.safetensors``       the bank that the adapter was trained with, if any
``README.md``                          a model card
=====================================  =============================================================

The configuration is always read from the header, so that it is never separated from the tensors.
Each file is written under a temporary name and then renamed. A save that is killed between two
files therefore leaves a folder that can still be loaded. Two saves of the same adapter are
byte-identical. This module does not depend on models: it reads and writes tensors and plain
dictionaries.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_peft.errors import CheckpointError
from pyg_peft.storage import remove_leftovers, sync_folder, write_atomic
from pyg_peft.tensor_file import fingerprint, read_content, read_tensors, short, write_tensors

#: File of the tensors, in the folder of an adapter.
WEIGHTS = "adapter_model.safetensors"
#: File of the configuration.
CONFIG = "adapter_config.json"
#: File of the model card.
CARD = "README.md"
FORMAT = 1
_KIND = "an adapter"
_FIELDS = ("method", "settings", "backbone", "base_fingerprint", "memory_bank")
_HASH = re.compile(r"[0-9a-f]{64}")
_BANK = re.compile(r"memory_bank\.[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True)
class AdapterFile:
    """Content of an adapter folder.

    Attributes:
        config: The configuration as plain JSON values.
        tensors: Every tensor by key, on the CPU.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def to_json(config: Mapping[str, Any]) -> str:
    """Return a configuration as JSON text.

    Raises:
        TypeError: If a value is not a plain JSON value. The message has the path to the first one.
    """
    _check_json(config, "")
    return json.dumps(config, indent=2, sort_keys=True, allow_nan=False)


def bank_name(digest: str) -> str:
    """Return the file name of a memory bank with this hash."""
    return f"memory_bank.{digest[:16]}.safetensors"


def write_adapter(
    folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: str
) -> None:
    """Write an adapter folder.

    Args:
        folder: The folder, created if it is missing. An adapter in it is replaced.
        tensors: Every tensor of the adapter.
        config: JSON-able values. ``format`` is added.
        card: Text of the model card.

    Raises:
        TypeError: If the configuration is not JSON-able, or a tensor is complex, sparse or without
            values. Nothing is written then.
        ValueError: If a tensor is not finite. Nothing is written then.
    """
    folder = Path(folder)
    content = {"format": FORMAT, **config}
    text = to_json(content) + "\n"
    write_tensors(folder / WEIGHTS, _KIND, tensors, content)
    write_atomic(folder / CONFIG, lambda path: path.write_bytes(text.encode()))
    write_atomic(folder / CARD, lambda path: path.write_bytes(card.encode()))


def read_adapter(folder: str | Path) -> AdapterFile:
    """Read an adapter folder and check it.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        CheckpointError: If the file is foreign, truncated, changed, or of a later format.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"Expected an adapter folder with {WEIGHTS} in it (got '{folder}')")
    return AdapterFile(*read_tensors(path, _KIND, FORMAT))


def check_config(config: Mapping[str, Any], source: str | Path) -> None:
    """Raise unless a configuration has every field of an adapter, each of the right type.

    Args:
        config: Configuration read from a file. Its fields may hold anything, even if the hash is
            correct.
        source: Path of the file, for messages.

    Raises:
        CheckpointError: If a field is missing or of another type. The message names it.
    """

    def check(field: str, value: Any, fits: bool, wanted: str) -> None:
        if not fits:
            raise CheckpointError(
                f"Expected '{field}' in '{source}' to be {wanted} (got {short(value)})"
            )

    missing = [name for name in _FIELDS if name not in config]
    if missing:
        raise CheckpointError(
            f"Expected '{source}' to have the fields {', '.join(_FIELDS)} "
            f"(got none of the name {', '.join(missing)})"
        )
    method, backbone = config["method"], config["backbone"]
    check("method", method, isinstance(method, str), "a text")
    check("settings", config["settings"], isinstance(config["settings"], dict), "an object")
    check("backbone", backbone, isinstance(backbone, dict), "an object")
    kind, sizes = backbone.get("class"), backbone.get("config")
    check("backbone.class", kind, isinstance(kind, str), "a text")
    check("backbone.config", sizes, sizes is None or isinstance(sizes, dict), "an object or null")
    base, bank = config["base_fingerprint"], config["memory_bank"]
    check("base_fingerprint", base, _is_hash(base), "64 hexadecimal digits")
    check("memory_bank", bank, bank is None or _is_hash(bank), "64 hexadecimal digits or null")
    names = config.get("class_names")
    fits = names is None or (isinstance(names, list) and all(isinstance(n, str) for n in names))
    check("class_names", names, fits, "a list of texts or null")
    for field in ("preprocessing", "parameters", "card"):
        value = config.get(field)
        check(field, value, value is None or isinstance(value, dict), "an object or null")


def remove_unused(folder: str | Path) -> None:
    """Remove unreferenced memory banks, and temporary files that killed saves left behind.

    Call it after a save, and only while no other process saves into the folder. Banks that a copy
    of an adapter file refers to, under any name, are kept. If a file cannot be read, all banks are
    kept.
    """
    folder = Path(folder)
    sync_folder(folder)  # The new files must be on disk before old ones are removed.
    for name in (WEIGHTS, CONFIG, CARD, "memory_bank.*.safetensors"):
        remove_leftovers(folder, name)
    banks = {path for path in folder.iterdir() if _BANK.fullmatch(path.name)}
    try:
        contents = [read_content(path) for path in {*folder.glob("*.safetensors")} - banks]
    except CheckpointError:
        return
    hashes = [found.get("memory_bank") for found in contents]
    used = {bank_name(digest) for digest in hashes if isinstance(digest, str)}
    for path in banks:
        if path.name not in used:
            path.unlink()


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str | Path
) -> None:
    """Raise unless both mappings have the same keys, shapes and kinds of numbers.

    All floating-point types are equivalent, and so are all integer types.

    Raises:
        CheckpointError: If they differ. The message lists the first missing, unknown, misshapen and
            mistyped keys.
    """
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unknown {name}" for name in found if name not in expected]
    problems += [
        f"{name} of shape {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems += [
        f"{name} of {found[name].dtype} instead of {tensor.dtype}"
        for name, tensor in expected.items()
        if name in found and _kind(found[name]) != _kind(tensor)
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; {len(problems) - 8} more" if len(problems) > 8 else ""
        )
        raise CheckpointError(f"Expected '{source}' to fit the model (got {shown})")


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "float"
    return "complex" if tensor.is_complex() else "bool" if tensor.dtype == torch.bool else "int"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _check_json(value: Any, path: str) -> None:
    """Raise unless a value is JSON-able and finite. Tuples count as lists; keys must be strings."""
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


__all__ = [
    "CARD",
    "CONFIG",
    "WEIGHTS",
    "AdapterFile",
    "bank_name",
    "check_config",
    "check_tensors",
    "fingerprint",
    "read_adapter",
    "remove_unused",
    "to_json",
    "write_adapter",
]
