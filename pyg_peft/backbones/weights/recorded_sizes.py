"""Read the sizes of the model from a checkpoint of a pre-training run."""

from pathlib import Path
from typing import Any

import torch

from pyg_peft.backbones.weights.stand_ins import harmless_types_allowed
from pyg_peft.errors import CheckpointError


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


__all__ = ["read_sizes"]
