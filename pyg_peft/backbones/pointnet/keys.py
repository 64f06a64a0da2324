"""Translation of the published key names of PointNet to this library's."""

import re

from torch import Tensor

from pyg_peft.backbones.weights.reading import State
from pyg_peft.errors import CheckpointError

_VALUE = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
# From a layer of the published files to its level here, and its number in that level.
_PLACES = {1: (0, 0), 2: (0, 1), 3: (1, 0), 4: (1, 1), 5: (1, 2)}


def map_pointnet_keys(state: State) -> State:
    """Translate a published classifier's keys to those of :class:`PointNet`; keep all others.

    The supported layout is that of the learning3d collection, a PointNet without T-Nets:
    ``feature_model.conv1`` to ``conv5`` with ``feature_model.bn1`` to ``bn5``, then ``linear1`` to
    ``linear3`` with ``bn1`` and ``bn2``. Convolutions of width one become linear weights.

    Raises:
        CheckpointError: If two keys become the same.

    Example:
        >>> import torch
        >>> list(map_pointnet_keys({"feature_model.conv3.weight": torch.zeros(64, 64, 1)}))
        ['levels.1.mlp.lins.0.weight']
    """
    mapped: State = {}
    for key, value in state.items():
        name = _translate(key)
        if name in mapped:
            raise CheckpointError(
                f"Expected 'source' to hold '{name}' once (got '{key}' as a second one)"
            )
        mapped[name] = _matrix(value) if name != key else value
    return mapped


def _translate(key: str) -> str:
    if match := re.fullmatch(rf"feature_model\.(conv|bn)([1-5])\.{_VALUE}", key):
        level, layer = _PLACES[int(match[2])]
        return f"levels.{level}.mlp.{_layer(match[1], layer)}.{match[3]}"
    if match := re.fullmatch(rf"(linear|bn)([1-3])\.{_VALUE}", key):
        return f"head.{_layer(match[1], int(match[2]) - 1)}.{match[3]}"
    return key


def _layer(kind: str, layer: int) -> str:
    return f"norms.{layer}.module" if kind == "bn" else f"lins.{layer}"


def _matrix(weight: Tensor) -> Tensor:
    """Return a convolution of width one as a matrix, and any other tensor unchanged."""
    return weight.squeeze(2) if weight.dim() == 3 and weight.size(2) == 1 else weight


__all__ = ["map_pointnet_keys"]
