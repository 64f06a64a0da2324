"""Reading of folders with a merged model: its weights and its constructor's arguments."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from pyg_peft.backbones.weights.reading import read_state_dict
from pyg_peft.errors import CheckpointError
from pyg_peft.tensor_file import fingerprint, short

#: File of the tensors, in the folder of a merged model.
WEIGHTS = "model.safetensors"
#: File of the backbone's class and arguments, and of the prediction's settings.
CONFIG = "model_config.json"


def is_merged(folder: str | Path) -> bool:
    """Return whether a path is a folder with a merged model."""
    return (Path(folder) / CONFIG).is_file()


def read_merged(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the backbone's ``class`` and ``config``, and the tensors, of a merged model.

    Raises:
        FileNotFoundError: If the folder holds no merged model.
        CheckpointError: If a file is damaged, or the two do not belong together.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"Expected a folder with {CONFIG} in it (got '{folder}')")
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        backbone: Any = config["backbone"]
        fits = isinstance(backbone["class"], str) and isinstance(backbone["config"], dict)
        digest = config["fingerprint"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"Expected '{path}' to be as 'pyg-peft merge' wrote it ({error})"
        ) from error
    if not fits:
        raise CheckpointError(
            f"Expected 'backbone' in '{path}' to have a class and its arguments "
            f"(got {short(backbone)})"
        )
    state = read_state_dict(Path(folder) / WEIGHTS)
    if fingerprint(state) != digest:
        raise CheckpointError(
            f"Expected '{Path(folder) / WEIGHTS}' to match its SHA-256 in {CONFIG} "
            "(got changed content: the file is damaged)"
        )
    return backbone, state


__all__ = ["CONFIG", "WEIGHTS", "is_merged", "read_merged"]
