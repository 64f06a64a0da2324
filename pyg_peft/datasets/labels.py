"""Labels where data enter: whole numbers in their range, and one that means "not labeled"."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_peft.errors import described

#: A point with this label counts nowhere: not in the loss, not in a metric, not among the parts.
IGNORE_INDEX = -1
# The largest values of integer types, by which other programs mark what has no label.
_MARKS = (255, 65535, 2**31 - 1, 2**32 - 1)
_MOST_UNNAMED = 100_000  # classes or parts that nothing names


def check_labels(
    values: Any, what: str, *, least: int = 0, most: int | None = None, remedy: str = ""
) -> np.ndarray:
    """Return labels of any numeric type as int64, in the shape that they have.

    Args:
        values: an array, a tensor, a list or a number. Floating-point values have to be whole.
        what: is checked, for the message; a name is to come in its quotation marks.
        least: smallest label, often :data:`IGNORE_INDEX`.
        most: largest label, if it is known.
        remedy: is added to the message for a label out of range.

    Raises: ``TypeError`` for what is no number; ``ValueError`` for fractions, NaN, and labels out
        of range.
    """
    array = numeric_array(values, what)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind == "f" and not (whole := array == np.floor(array)).all():
        wrong = array[~whole].flat[0]
        raise ValueError(f"Expected {what} to be whole numbers (got {wrong})")
    low, high = array.min(), array.max()
    limit = 2**62 if most is None else most
    if low < least or high > limit:
        span = f"in [{least}, {most}]" if most is not None else f"at {least} or above"
        raise ValueError(f"Expected {what} to lie {span} (got {low} to {high}){remedy}")
    return array.astype(np.int64)


def numeric_array(values: Any, what: str) -> np.ndarray:
    """Return real numbers of any form as an array.

    Args:
        values: an array, a dense tensor, a list or a number.
        what: is checked, for the message; a name is to come in its quotation marks.

    Raises: ``TypeError`` for what is no number; ``ValueError`` for a tensor that is sparse, nested,
        or without values.
    """
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_nested or values.device.type == "meta":
            raise ValueError(
                f"Expected {what} to be a dense tensor that holds values (got {described(values)} "
                f"of the layout {values.layout} on {values.device})"
            )
        if values.is_complex():
            raise TypeError(f"Expected {what} to be labels (got the type {values.dtype})")
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:  # rows of different lengths
        raise TypeError(f"Expected {what} to be labels (got {described(values)})") from error
    if array.dtype.kind not in "iufb":
        raise TypeError(f"Expected {what} to be labels (got the type {array.dtype})")
    return array


def check_unnamed(labels: np.ndarray, what: str, remedy: str) -> None:
    """Raise if labels that nothing names seem to end in a mark for "not labeled", or are too high.

    Each number up to the highest label becomes a class or a part.

    Args:
        labels: all of them.
        what: is checked, for the message.
        remedy: is added to the message.
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
