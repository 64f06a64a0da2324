"""Files of named tensors (``.pth``, ``.t7``, ``.safetensors``, ``.npz``), whose code never runs."""

import pickle
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pyg_peft.errors import CheckpointError

State = dict[str, Tensor]

# Folders inside a file that hold the weights, in the order in which they are looked for.
_WRAPPERS = ("base_model", "state_dict", "model_state_dict", "model")
# Prefixes that training wrappers leave on every key.
_WRAPPER_PREFIXES = ("module.", "base_model.")


def read_state_dict(source: str | Path | Mapping[str, Any]) -> State:
    """Read named tensors from a file, or take them from a mapping.

    Files are ``.pth``, ``.pt`` or ``.t7`` (read with ``weights_only=True``: no code of theirs
    runs), ``.safetensors``, or ``.npz``. A dictionary that holds the weights under ``base_model``,
    ``state_dict``, ``model_state_dict`` or ``model`` beside an optimizer and the like is unwrapped;
    prefixes that training wrappers put on every key (``module.``, ``base_model.``) are removed.

    Args:
        source: path of the file, or a mapping from names to tensors or arrays.

    Returns:
        Names and tensors, on the CPU if they come from a file.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is damaged, of another kind, or does not hold named tensors.
    """
    if isinstance(source, Mapping):
        label, content = "a mapping", source
    else:
        path = Path(source)
        label, content = f"'{path}'", _read_file(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"Expected 'source' to hold named tensors (got {type(content).__name__} in {label})"
        )
    state: State = {}
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                "Expected 'source' to hold named tensors "
                f"(got {type(value).__name__} under {key!r} in {label})"
            )
        state[key] = value
    return _strip_wrapper_prefixes(state)


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> State:
    """Remove ``prefix`` from the keys that begin with it; the others stay as they are.

    Raises:
        CheckpointError: if two keys become the same.
    """
    stripped = {key.removeprefix(prefix): value for key, value in state.items()}
    if len(stripped) < len(state):
        twice = [key for key in state if key.startswith(prefix) and key[len(prefix) :] in state]
        raise CheckpointError(
            f"Expected 'source' to hold each tensor once (got {join_names(twice)} "
            f"with and without the prefix '{prefix}')"
        )
    return stripped


def join_names(keys: Iterable[str], limit: int = 8) -> str:
    """Quote the first ``limit`` names and count the rest, for a message."""
    keys = list(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(f"'{key}'" for key in keys[:limit]) + more


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"Expected 'source' to be a file (got '{path}')")
    try:
        match path.suffix:
            case ".pth" | ".pt" | ".t7":
                with _numpy_scalars_allowed():
                    return torch.load(path, map_location="cpu", weights_only=True)
            case ".safetensors":
                return load_file(path)
            case ".npz":
                # numpy leaves a file of its own open when the archive is cut off
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    return {key: archive[key] for key in archive.files}
            case _:
                raise CheckpointError(
                    "Expected 'source' to end in .pth, .pt, .t7, .safetensors or .npz "
                    f"(got '{path.name}')"
                )
    except CheckpointError:
        raise
    except _DAMAGE as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"Expected 'source' to be an intact {path.suffix} file of tensors "
            f"(got {type(error).__name__} in '{path}': {reason})"
        ) from error


# What torch, safetensors and numpy raise for files that are cut off or are not what they say.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    LZMAError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def _numpy_scalars_allowed() -> AbstractContextManager[Any]:
    """Let ``weights_only`` read the NumPy numbers that the authors' files keep as their metrics.

    They hold a type and a few bytes, and run nothing.
    """
    scalar: Any = np.float64(0.0).__reduce__()[0]
    types = [type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return torch.serialization.safe_globals([*((scalar, name) for name in names), np.dtype, *types])


def _strip_wrapper_prefixes(state: State) -> State:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPER_PREFIXES:
            if any(key.startswith(prefix) for key in state):
                state = strip_prefix(state, prefix)
                stripped = True
    return state


__all__ = ["State", "join_names", "read_state_dict", "strip_prefix"]
