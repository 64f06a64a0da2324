"""Reading of tensor files (``.pth``, ``.t7``, ``.safetensors``, ``.npz``) without running code."""

import math
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pyg_peft.backbones.weights.stand_ins import ArrayStandIn, harmless_types_allowed
from pyg_peft.errors import CheckpointError, printable
from pyg_peft.tensor_file import check_plain, foreign_kind

State = dict[str, Tensor]

# Keys of dictionaries that hold the weights inside a file, in the order of the search.
_WRAPPERS = (
    *("base_model", "state_dict", "model_state_dict", "model_state", "model", "module"),
    *("net", "network", "weights", "params"),
)
_MOST_WRAPPERS = 16
# Prefixes that training wrappers put on every key.
_WRAPPER_PREFIXES = ("_forward_module.", "module.", "base_model.", "model.")
# The number of models that torch's AveragedModel has averaged; its weights are under "module.".
_AVERAGED, _AVERAGES = "n_averaged", "module."
# Names that compilers and sharding insert anywhere in a key.
_WRAPPER_SEGMENTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Endings of files of torch.save; ".tar" only after one of these.
_PICKLED = (".pth", ".pt", ".t7", ".bin", ".ckpt")
# Limits of the unpacked size of an archive: a multiple of its length, or a number of bytes. Weights
# hardly compress.
_MOST_TIMES, _FREE_BYTES = 100, 1 << 26


def read_state_dict(source: str | Path | Mapping[str, Any]) -> State:
    """Read named tensors from a file, or take them from a mapping.

    Supported files are ``.pth``, ``.pt``, ``.pth.tar``, ``.t7``, ``.bin`` and ``.ckpt`` (read with
    ``weights_only=True``, so no code in them runs), ``.safetensors``, and ``.npz``, in lower or
    upper case. Nested dictionaries that hold the weights under ``state_dict``, ``model``,
    ``base_model`` and similar keys, next to an optimizer, arguments or metrics, are unwrapped.
    Names that training wrappers put on keys (``module.``, ``model.``, ``base_model.``,
    ``_forward_module.``, ``_orig_mod.``) are removed in any order. Of an ``AveragedModel``, its
    averaged weights are read, and the number ``n_averaged`` is left out.

    Args:
        source: Path of the file, or mapping from names to tensors or arrays.

    Returns:
        The tensors by name, on the CPU if they come from a file.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged, has another format, or does not hold named tensors.
    """
    if isinstance(source, Mapping):
        label, content = "a mapping", source
    else:
        path = Path(source)
        label, content = f"'{path}'", _read_file(path)
    content = _unwrap(content)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"Expected 'source' to hold named tensors (got {type(content).__name__} in {label})"
        )
    return _strip_wrappers({key: _tensor(key, value, label) for key, value in content.items()})


def _unwrap(content: Any) -> Any:
    """Return the innermost of the dictionaries that wrap weights."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        inner = [content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping)]
        if not inner:
            break
        content = inner[0]
    return content


def _tensor(key: Any, value: Any, label: str) -> Tensor:
    """Return a value as a tensor, after checking that all its values are present.

    Raises:
        CheckpointError: If it is not a tensor, or claims more values than it has.
    """
    try:
        if isinstance(value, ArrayStandIn):
            value = value.tensor()
        elif isinstance(value, np.ndarray):
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TypeError(type(value).__name__)
        check_plain(key, value)
        _check_numbers(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected 'source' to hold named tensors (got {error} under {key!r} in {label})"
        ) from error
    return value


def _check_numbers(value: Tensor) -> None:
    """Raise unless all numbers are real, and finite in float32."""
    if value.is_complex():
        raise TypeError(f"complex numbers, {value.dtype},")
    if value.is_floating_point():
        # Check each value of an expanded tensor only once.
        value = value[tuple(slice(1 if step == 0 else None) for step in value.stride())]
        wide = value.dtype == torch.float64 or value.element_size() == 1
        if not bool(torch.isfinite(value.float() if wide else value).all()):
            raise ValueError("NaN or infinity")


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> State:
    """Remove ``prefix`` from the keys that begin with it, and keep the others unchanged.

    Raises:
        CheckpointError: If two keys become the same.
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
    """Quote the first ``limit`` names and count the rest, for error messages."""
    keys = list(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(f"'{printable(key)}'" for key in keys[:limit]) + more


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"Expected 'source' to be a file (got '{path}')")
    name = path.name.lower()
    kind = name.removesuffix(".tar") if name.endswith(tuple(f"{k}.tar" for k in _PICKLED)) else name
    try:
        if kind.endswith(_PICKLED):
            _check_unpacked(path)
            with harmless_types_allowed(), warnings.catch_warnings():
                # A damaged file is reported by what follows.
                warnings.filterwarnings("ignore", "Detected pickle protocol")
                return torch.load(path, map_location="cpu", weights_only=True)
        if kind.endswith(".safetensors"):
            return load_file(path)
        if kind.endswith(".npz"):
            _check_unpacked(path)
            _check_arrays(path)
            # numpy would leave its own file open if the archive is truncated
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    except CheckpointError:
        raise
    except _DAMAGE as error:
        if (foreign := foreign_kind(path)) is not None:
            raise CheckpointError(
                f"Expected 'source' to be an intact {path.suffix} file of tensors "
                f"(got {foreign}: '{path}')"
            ) from error
        reason = printable(" ".join(_COLOR.sub("", str(error)).split()))
        if refused := _REFUSED.search(reason):
            raise CheckpointError(
                f"Expected 'source' to hold tensors and plain values (got an object of "
                f"'{refused[1] or refused[2]}' in '{path}', whose code is not run): load the file "
                "where that is trusted, and save the weights alone by "
                "torch.save(model.state_dict(), ...)"
            ) from error
        _, _, own = reason.rpartition("WeightsUnpickler error: ")
        raise CheckpointError(
            f"Expected 'source' to be an intact {path.suffix} file of tensors "
            f"(got {type(error).__name__} in '{path}': {own})"
        ) from error
    raise CheckpointError(
        f"Expected 'source' to end in {', '.join(_PICKLED)}, .pth.tar, .safetensors or .npz "
        f"(got '{path.name}')"
    )


def _check_unpacked(path: Path) -> None:
    """Raise if an archive claims to unpack to far more than its length."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if unpacked > max(_FREE_BYTES, _MOST_TIMES * size):
        raise CheckpointError(
            f"Expected '{path}' to unpack to at most {_MOST_TIMES} times its {size:,} bytes "
            f"(got {unpacked:,})"
        )


def _check_arrays(path: Path) -> None:
    """Raise if an array of an archive claims more values than its member holds."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                if file.read(6) != np.lib.format.MAGIC_PREFIX:
                    continue  # not an array, which is reported later
                file.seek(0)
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(file)
                held = member.file_size - file.tell()
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
                raise CheckpointError(
                    f"Expected '{member.filename}' in '{path}' to hold an array of shape "
                    f"{list(shape)} (got {held:,} bytes)"
                )


# Terminal colors, and torch's messages for classes that it refuses to read.
_COLOR = re.compile("\x1b\\[[0-9;]*m")
_REFUSED = re.compile(
    r"GLOBAL (\S+) (?:was not an allowed|whose module)"
    r"|(?:unrecognized function|via `add_safe_globals`,? but got) (\S+(?: '\S+)?)"
)
# Exceptions of torch, safetensors and numpy for truncated or mislabeled files.
_DAMAGE = (
    AttributeError,
    EOFError,
    IndexError,
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


def _strip_wrappers(state: State) -> State:
    for segment in _WRAPPER_SEGMENTS:
        if any(segment in key.split(".") for key in state):
            bare = [".".join(p for p in key.split(".") if p != segment) for key in state]
            if len(set(bare)) < len(bare):
                raise CheckpointError(
                    f"Expected 'source' to hold each tensor once (got {join_names(state)} with and "
                    f"without '{segment}')"
                )
            state = dict(zip(bare, state.values(), strict=True))
    stripped = True
    while stripped:
        stripped = False
        others = {key: value for key, value in state.items() if key != _AVERAGED}
        if others and all(key.startswith(_AVERAGES) for key in others):
            state = others
        for prefix in _WRAPPER_PREFIXES:
            if any(key.startswith(prefix) for key in state):
                state = strip_prefix(state, prefix)
                stripped = True
                break  # what is inside may be averaged weights again
    return state


__all__ = ["State", "join_names", "read_state_dict", "strip_prefix"]
