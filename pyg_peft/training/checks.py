"""Checks of settings at the border of training: type and range, by the argument's name."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def check_whole(value: Any, name: str, least: int, *, optional: bool = False) -> None:
    """Raise unless ``value`` is an integer of at least ``least``.

    Args:
        value: what came.
        name: of the argument.
        least: the smallest that is allowed.
        optional: ``None`` is allowed too.

    Raises:
        TypeError: it is no integer; ``True`` is none here.
        ValueError: it is too small.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"Expected '{name}' to be an integer (got {value!r})")
    if value < least:
        wanted = {0: "not to be negative", 1: "to be positive"}.get(least, f"to be {least} or more")
        raise ValueError(f"Expected '{name}' {wanted} (got {value})")


def check_real(value: Any, name: str) -> None:
    """Raise unless ``value`` is a number; ``True`` is none here, NaN and infinity are."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise TypeError(f"Expected '{name}' to be a number (got {value!r})")


def check_flag(value: Any, name: str) -> None:
    """Raise unless ``value`` is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected '{name}' to be True or False (got {value!r})")


def check_text(value: Any, name: str) -> None:
    """Raise unless ``value`` is text."""
    if not isinstance(value, str):
        raise TypeError(f"Expected '{name}' to be text (got {value!r})")


def check_kind(value: Any, name: str, kind: type, *, optional: bool = False) -> None:
    """Raise unless ``value`` is an instance of ``kind``, or ``None`` where that is allowed."""
    if optional and value is None:
        return
    if not isinstance(value, kind):
        word = "a mapping" if kind is Mapping else f"a {kind.__name__}"
        raise TypeError(f"Expected '{name}' to be {word} (got {type(value).__name__})")


def check_items(value: Any, name: str) -> None:
    """Raise unless ``value`` can be asked for its length and for an item."""
    if isinstance(value, str) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise TypeError(
            f"Expected '{name}' to be a data set with a length and items "
            f"(got {type(value).__name__})"
        )


__all__ = [
    "check_flag",
    "check_items",
    "check_kind",
    "check_real",
    "check_text",
    "check_whole",
]
