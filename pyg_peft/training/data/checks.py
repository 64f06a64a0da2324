"""Check the types of arguments of the training functions."""

from collections.abc import Mapping
from typing import Any


def check_text(value: Any, name: str) -> None:
    """Raise unless ``value`` is text."""
    if not isinstance(value, str):
        raise TypeError(f"Expected '{name}' to be text (got {value!r})")


def check_kind(value: Any, name: str, kind: type, *, optional: bool = False) -> None:
    """Raise unless ``value`` is an instance of ``kind``, or ``None`` if it is optional."""
    if optional and value is None:
        return
    if not isinstance(value, kind):
        word = "a mapping" if kind is Mapping else f"a {kind.__name__}"
        raise TypeError(f"Expected '{name}' to be {word} (got {type(value).__name__})")


__all__ = ["check_kind", "check_text"]
