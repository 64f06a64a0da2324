"""Check and convert labels: whole numbers in their range, one per cloud or per point."""

from typing import Any

import torch
from torch import Tensor

from pyg_peft.datasets.labels import IGNORE_INDEX


def whole_labels(labels: Any, shape: str, count: int, name: str = "y") -> Tensor:
    """Return ``labels`` as ``long [count]``, if they are ``count`` whole numbers of any type.

    Args:
        labels: Labels of a batch, ``[count]`` or ``[count, 1]``.
        shape: What each label belongs to, for the message: "cloud" or "point".
        count: Expected number of labels.
        name: Name of the labels in the message.

    Raises:
        TypeError: If the labels are not a tensor, or boolean or complex.
        ValueError: If their number differs, or some are not whole numbers.
    """
    if not isinstance(labels, Tensor) or labels.dtype == torch.bool or labels.is_complex():
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"Expected '{name}' to hold a whole number for each {shape} (got {kind})")
    if labels.numel() != count or (labels.dim() > 1 and labels.numel() != labels.size(0)):
        raise ValueError(
            f"Expected '{name}' to hold a label for each of {count} {shape}s "
            f"(got the shape {list(labels.shape)})"
        )
    labels = labels.reshape(-1)
    if labels.is_floating_point() and not bool((labels == labels.floor()).all()):
        wrong = labels[labels != labels.floor()][0]
        raise ValueError(f"Expected '{name}' to hold whole numbers (got {float(wrong)})")
    return labels.long()


def target_rows(targets: Any, rows: int, width: int, name: str = "y") -> Tensor:
    """Return targets of a batch as float32 ``[rows, width]``.

    Args:
        targets: Numbers, ``[rows, width]`` or ``[rows * width]``.
        rows: Number of clouds.
        width: Number of targets of a cloud.
        name: Name of the targets in the message.

    Raises:
        TypeError: If the targets are not a tensor of numbers.
        ValueError: If their number differs, or one is NaN or infinite.
    """
    if not isinstance(targets, Tensor) or targets.is_complex():
        kind = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"Expected '{name}' to hold numbers for each cloud (got {kind})")
    shapes = [(rows, width), (rows * width,)]
    if tuple(targets.shape) not in shapes:
        raise ValueError(
            f"Expected '{name}' to hold {width} numbers for each of {rows} clouds "
            f"(got the shape {list(targets.shape)})"
        )
    targets = targets.float().reshape(rows, width)
    if not bool(targets.isfinite().all()):
        raise ValueError(f"Expected '{name}' to be finite (got NaN or infinity)")
    return targets


def check_range(labels: Tensor, count: int, name: str, ignore_index: int | None = None) -> None:
    """Raise unless all labels are in ``[0, count - 1]`` or equal ``ignore_index``.

    Raises:
        ValueError: If one is not.
    """
    wrong = (labels < 0) | (labels >= count)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        ignored = "" if ignore_index is None else f", or to be {ignore_index} to be ignored"
        raise ValueError(
            f"Expected '{name}' to hold labels in [0, {count - 1}]{ignored} "
            f"(got {int(labels[place])} at {place})"
        )


__all__ = ["IGNORE_INDEX", "check_range", "target_rows", "whole_labels"]
