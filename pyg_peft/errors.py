"""Errors with a name of their own, and the checks that every public border shares.

A user's mistake is a built-in ``ValueError`` or ``TypeError`` that reads
``Expected 'name' to be … (got …)``. The classes below exist where a caller may want to catch one
kind.
"""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor


class CheckpointError(ValueError):
    """A file of weights does not fit: damaged, foreign, of another base, or with leftover keys."""


class PlacementError(ValueError):
    """A method cannot be put on this model: nothing matched, or a match cannot carry it."""


class MissingExtraError(ImportError):
    """An optional package is needed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"'{package}' is needed here and not installed: pip install 'pyg-peft[{extra}]'"
        )
        self.package = package
        self.extra = extra


def check_pos(pos: Tensor, name: str = "pos") -> None:
    """Raise unless ``pos`` is a finite floating-point ``[N, 3]`` tensor.

    Values are not read while a graph is being compiled: that would break it.
    """
    if pos.dim() != 2 or pos.size(1) != 3:
        raise ValueError(f"Expected '{name}' to be of shape [N, 3] (got {list(pos.shape)})")
    if not pos.is_floating_point():
        raise TypeError(f"Expected '{name}' to be floating point (got {pos.dtype})")
    if torch.compiler.is_compiling():
        return
    if not bool(torch.isfinite(pos).all()):
        row = int((~torch.isfinite(pos)).any(dim=1).nonzero()[0])
        raise ValueError(f"Expected '{name}' to be finite (got {pos[row].tolist()} in row {row})")


def check_batch(
    batch: Tensor | None,
    num_nodes: int,
    batch_size: int | None = None,
    *,
    device: torch.device | None = None,
    name: str = "batch",
) -> None:
    """Raise unless ``batch`` is ``None`` or a sorted, non-negative integer vector of its length."""
    if batch is None:
        return
    if batch.dim() != 1 or batch.numel() != num_nodes:
        raise ValueError(
            f"Expected '{name}' to be of shape [{num_nodes}] (got {list(batch.shape)})"
        )
    if batch.is_floating_point() or batch.dtype == torch.bool:
        raise TypeError(f"Expected '{name}' to be an integer tensor (got {batch.dtype})")
    if device is not None and batch.device != device:
        raise ValueError(f"Expected '{name}' to be on {device} (got {batch.device})")
    if torch.compiler.is_compiling() or num_nodes == 0:
        return
    if bool((batch[1:] < batch[:-1]).any()):
        raise ValueError(f"Expected '{name}' to be sorted (got a smaller id after a larger one)")
    if int(batch[0]) < 0:
        raise ValueError(f"Expected '{name}' to be non-negative (got {int(batch[0])})")
    if batch_size is not None and int(batch[-1]) >= batch_size:
        raise ValueError(
            f"Expected '{name}' to hold ids below batch_size {batch_size} (got {int(batch[-1])})"
        )


def check_channels(x: Tensor, channels: int, name: str = "x") -> None:
    """Raise unless the last dimension of ``x`` is ``channels``."""
    if x.dim() == 0 or x.size(-1) != channels:
        raise ValueError(
            f"Expected '{name}' to have {channels} channels (got shape {list(x.shape)})"
        )


def nearest_paths(target: str, paths: Sequence[str]) -> str:
    """The paths that are most like one that does not exist, for a message, and the last child of
    the model, which mostly is its output layer.

    Example:
        >>> nearest_paths("lim", ["lin", "norm", "blocks", "head"])
        'lin, head'
        >>> nearest_paths("classifier", ["a", "b", "c", "d", "e", "f", "head"])
        'a, b, c, d, e, head'
    """
    name = target.rpartition(".")[2]
    near = difflib.get_close_matches(target, paths, n=4, cutoff=0.4)
    of_that_name = [path for path in paths if path.rpartition(".")[2] == name]
    likely = [*near, *of_that_name[:2]] or paths[:5]
    children = [path for path in paths if "." not in path]
    return ", ".join(dict.fromkeys([*likely, *children[-1:]])) or "none"


__all__ = [
    "CheckpointError",
    "MissingExtraError",
    "PlacementError",
    "check_batch",
    "check_channels",
    "check_pos",
]
