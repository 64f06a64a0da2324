"""Checks of the arguments that data sets, splits and transforms take."""

import math
import numbers
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any


def check_number(value: Any, name: str) -> int:
    """Return an integer (also NumPy's); raise ``TypeError`` for anything else, ``True`` too."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected '{name}' to be an integer (got {value!r})")
    return operator.index(value)


def check_count(value: Any, name: str, *, least: int = 1) -> int:
    """Return an integer of at least ``least``; raise ``TypeError`` or ``ValueError``."""
    number = check_number(value, name)
    if number < least:
        raise ValueError(f"Expected '{name}' to be at least {least} (got {value})")
    return number


def check_real(value: Any, name: str, *, finite: bool = True) -> float:
    """Return a number, a finite one by default; raise ``TypeError`` or ``ValueError`` else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected '{name}' to be a number (got {value!r})")
    if finite and not math.isfinite(value):
        raise ValueError(f"Expected '{name}' to be finite (got {value!r})")
    return float(value)


def check_flag(value: Any, name: str) -> bool:
    """Return ``True`` or ``False``; raise ``TypeError`` for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected '{name}' to be True or False (got {value!r})")
    return value


def check_names(values: Any, name: str) -> Sequence[str]:
    """Return some strings; raise ``TypeError`` for anything else, one string too."""
    if isinstance(values, str) or not isinstance(values, Collection):
        raise TypeError(f"Expected '{name}' to be a list of names (got {values!r})")
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"Expected '{name}' to be a list of names (got {value!r} in it)")
    return tuple(values)


def check_transform(transform: Any, name: str = "transform") -> Callable[..., Any] | None:
    """Return a callable or ``None``; raise ``TypeError`` for anything else."""
    if transform is not None and not callable(transform):
        raise TypeError(f"Expected '{name}' to be a callable or None (got {transform!r})")
    return transform


__all__ = [
    "check_count",
    "check_flag",
    "check_names",
    "check_number",
    "check_real",
    "check_transform",
]
