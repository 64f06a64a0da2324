"""Checks of labels: integers within a range, and one value that means "not labeled"."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_peft.errors import described

#: A point with this label is ignored in the loss, in metrics and in the list of parts.
IGNORE_INDEX = -1
# The largest values of integer types, which other programs use to mark unlabeled data.
_MARKS = (255, 65535, 2**31 - 1, 2**32 - 1)
_MOST_UNNAMED = 100_000  # classes or parts that nothing names


def check_labels(
    values: Any, what: str, *, least: int = 0, most: int | None = None, remedy: str = ""
) -> np.ndarray:
    """Return labels of any numeric type as int64, in their original shape.

    Args:
        values: An array, a tensor, a list or a number. Floating-point values must be whole.
        what: Description for error messages. Names must include their quotation marks.
        least: Smallest label, often :data:`IGNORE_INDEX`.
        most: Largest label, if it is known.
        remedy: Advice that is added to the message for labels out of range.

    Raises:
        TypeError: If ``values`` are not numeric.
        ValueError: If a label is a fraction, NaN, or out of range.
    """
    array = numeric_array(values, what)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind == "f" and not (whole := array == np.floor(array)).all():
        wrong = array[~whole].flat[0]
        raise ValueError(f"Expected {what} to be whole numbers (got {wrong})")
    low, high = array.min().item(), array.max().item()
    limit = 2**62 if most is None else most
    if low < least or high > limit:
        span = f"in [{least}, {most}]" if most is not None else f"at {least} or above"
        raise ValueError(f"Expected {what} to lie {span} (got {low} to {high}){remedy}")
    return array.astype(np.int64)


def numeric_array(values: Any, what: str) -> np.ndarray:
    """Return real numbers in any container as an array.

    Args:
        values: An array, a dense tensor, a list or a number.
        what: Description for error messages. Names must include their quotation marks.

    Raises:
        TypeError: If ``values`` are not numeric.
        ValueError: If a tensor is sparse, nested, or without values.
    """
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_nested or values.device.type == "meta":
            raise ValueError(
                f"Expected {what} to be a dense tensor that holds values (got {described(values)} "
                f"of the layout {values.layout} on {values.device})"
            )
        if values.is_complex():
            raise TypeError(f"Expected {what} to be numbers (got the type {values.dtype})")
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:  # rows of different lengths
        raise TypeError(f"Expected {what} to be numbers (got {described(values)})") from error
    if array.dtype.kind not in "iufb":
        raise TypeError(f"Expected {what} to be numbers (got the type {array.dtype})")
    return array


def check_unnamed(labels: np.ndarray, what: str, remedy: str) -> None:
    """Raise if labels without names seem to end in a mark for "not labeled", or are too high.

    Each number up to the highest label becomes a class or a part.

    Args:
        labels: All labels.
        what: Description for error messages.
        remedy: Advice that is added to the message.
    """
    highest = int(labels.max(initial=-1))
    if highest in _MARKS and not (labels == highest - 1).any():
        raise ValueError(
            f"Expected {what} to be labels without gaps (got {highest}, which often marks what has "
            f"no label): {remedy}"
        )
    if highest >= _MOST_UNNAMED:
        raise ValueError(
            f"Expected {what} to lie below {_MOST_UNNAMED:,} where nothing names them "
            f"(got {highest}): {remedy}"
        )


__all__ = ["IGNORE_INDEX", "check_labels", "check_unnamed", "numeric_array"]
