"""Reading of weight files of flat-cloud backbones, and inference of the model's sizes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pyg_peft.backbones.weights.checking import count_classes
from pyg_peft.backbones.weights.reading import State, join_names, read_state_dict
from pyg_peft.errors import CheckpointError

_TASK = ("decoder.", "head.")


@dataclass(frozen=True)
class OwnWeights:
    """Weights under this library's names, and the sizes inferred from them.

    Args:
        state: Names and tensors.
        num_classes: Number of classes of the head.
        fresh: Prefixes of keys that may be missing in the file.
        name: Name of the model, for error messages.
    """

    state: State
    num_classes: int
    fresh: tuple[str, ...]
    name: str

    def channels(self, part: str, mlp: str) -> tuple[tuple[int, ...], ...]:
        """Return the output widths of each level's layers ``part.N.mlp.lins.M.weight``.

        Args:
            part: Path of the list of levels.
            mlp: Regular expression for the path of the layers in a level.

        Raises:
            CheckpointError: If there is no such layer, or a level or layer is skipped.
        """
        pattern = re.compile(rf"{part}\.(\d+)\.(?:{mlp})\.lins\.(\d+)\.weight")
        found: dict[int, dict[int, int]] = {}
        for key, value in self.state.items():
            if match := pattern.fullmatch(key):
                # Nine digits are enough; a name may hold a number of thousands of digits.
                level, layer = int(match[1][:9]), int(match[2][:9])
                found.setdefault(level, {})[layer] = _rows(key, value)
        widths = [[layers[n] for n in sorted(layers)] for _, layers in sorted(found.items())]
        whole = sorted(found) == [*range(len(found))] and all(
            sorted(layers) == [*range(len(layers))] for layers in found.values()
        )
        if not found or not whole:
            raise CheckpointError(
                f"Expected 'source' to be a checkpoint of {self.name}, with every "
                f"'{part}.N.….lins.M.weight' from 0 on (got {join_names(self.state)})"
            )
        return tuple(tuple(level) for level in widths)

    def inputs(self, key: str) -> int:
        """Return the input width of the linear layer with the weight ``key``.

        Raises:
            CheckpointError: If there is no such matrix.
        """
        if key not in self.state or self.state[key].dim() != 2:
            raise CheckpointError(
                f"Expected 'source' to be a checkpoint of {self.name}, with a matrix '{key}' "
                f"(got {join_names(self.state)})"
            )
        return self.state[key].size(1)

    def has(self, prefix: str) -> bool:
        """Return whether there is a tensor under ``prefix``."""
        return any(key.startswith(prefix) for key in self.state)

    def head_channels(self) -> dict[str, Any]:
        """Return the constructor argument ``head_channels``, or nothing for a new head."""
        if "head." in self.fresh:
            return {}
        return {"head_channels": _head_widths(self.state)[:-1]}


def own_weights(
    source: str | Path | Mapping[str, Any],
    num_classes: int | None,
    *,
    name: str,
    segments: bool,
    rename: Callable[[State], State],
) -> OwnWeights:
    """Read the weights of a classifier or of a segmentation model.

    A file of the other task provides the encoder only; decoder and head are newly initialized.

    Args:
        source: File or mapping; see ``read_state_dict``.
        num_classes: Requested number of classes; ``None`` for that of the file.
        name: Name of the model, for error messages.
        segments: Whether the model is for segmentation and has a ``decoder``.
        rename: Function that translates published keys to this library's.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged.
        ValueError: If ``num_classes`` is missing or differs from the file's head.
    """
    state = rename(read_state_dict(source))
    fresh: tuple[str, ...] = ()
    if any(key.startswith("decoder.") for key in state) != segments:
        state = {key: value for key, value in state.items() if not key.startswith(_TASK)}
        fresh = _TASK
    widths = _head_widths(state)
    num_classes = count_classes(num_classes, widths[-1] if widths else None)
    return OwnWeights(state, num_classes, fresh if widths else (*fresh, "head."), name)


def _head_widths(state: State) -> tuple[int, ...]:
    """Return the output widths of the head's layers, or an empty tuple without a head."""
    found: dict[int, int] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"head\.lins\.(\d+)\.weight", key):
            found[int(match[1][:9])] = _rows(key, value)
    return tuple(found[layer] for layer in sorted(found))


def _rows(key: str, weight: Tensor) -> int:
    """Return the output width of a layer."""
    if weight.dim() != 2:
        raise CheckpointError(
            f"Expected 'source' to have a matrix in '{key}' (got a tensor of shape "
            f"{list(weight.shape)})"
        )
    return weight.size(0)


__all__ = ["OwnWeights", "own_weights"]
