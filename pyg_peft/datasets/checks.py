"""Checks of arguments that data sets and readers take."""

from collections.abc import Callable, Collection, Sequence
from typing import Any


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


__all__ = ["check_names", "check_transform"]
