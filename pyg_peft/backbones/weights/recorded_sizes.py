"""Read sizes of a model out of files, and bound them before a model is built."""

from pathlib import Path
from typing import Any

import torch

from pyg_peft.backbones.weights.stand_ins import harmless_types_allowed
from pyg_peft.errors import CheckpointError
from pyg_peft.tensor_file import short

# Far beyond any backbone. Sizes that a file claims are checked before a model is built.
MOST = {"embed_dim": 16_384, "depth": 256, "num_classes": 100_000, "head_channels": 65_536}
_MOST_OF_OTHERS = 1_000_000


def read_sizes(path: str | Path) -> dict[str, Any]:
    """Read the model's constructor arguments in a checkpoint of ``pyg_peft.training.pretrain``.

    The result is empty for other files.

    Args:
        path: Any file of weights.
    """
    if Path(path).suffix.lower() not in (".pth", ".pt"):
        return {}
    with harmless_types_allowed():
        state = torch.load(path, map_location="cpu", weights_only=True)
    identity = state.get("identity") if isinstance(state, dict) else None
    sizes = identity.get("model") if isinstance(identity, dict) else None
    if not isinstance(sizes, dict):
        return {}
    for name, value in sizes.items():
        if not isinstance(name, str) or not isinstance(value, (int, float)):
            raise CheckpointError(
                f"Expected 'identity.model' in '{path}' to hold numbers by name "
                f"(got {value!r} under {name!r})"
            )
    return dict(sizes)


def bounded_sizes(recorded: Any, kind: type[Any]) -> dict[str, Any]:
    """Return recorded constructor arguments, after checking that none is too large.

    Raises:
        CheckpointError: If an argument is missing, not a number, or too large; the message names
            it.
    """
    if not isinstance(recorded, dict) or "num_classes" not in recorded:
        raise CheckpointError(
            f"Expected 'backbone.config' to hold the arguments of {kind.__name__} "
            f"(got {short(recorded)})"
        )
    for name, value in recorded.items():
        most = MOST.get(name, _MOST_OF_OTHERS)
        if not _is_bounded(value, most):
            raise CheckpointError(
                f"Expected 'backbone.config.{name}' to be a number of at most {most:,}, or some of "
                f"them (got {short(value)})"
            )
    return dict(recorded)


def _is_bounded(value: Any, most: int, depth: int = 2) -> bool:
    """Return whether a size is a number of at most ``most``, or a short list of such sizes.

    Lists may be nested up to ``depth`` levels.
    """
    if isinstance(value, list):
        return (
            depth > 0 and len(value) <= 64 and all(_is_bounded(v, most, depth - 1) for v in value)
        )
    return isinstance(value, (int, float, type(None))) and (value or 0) <= most


__all__ = ["MOST", "bounded_sizes", "read_sizes"]
