"""Reading a module's call by the names of its parameters."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn


@functools.cache
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(n for n, p in inspect.signature(forward).parameters.items() if p.kind in kinds)[1:]


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a call, positional or not; needs no name, so a compiler can follow."""
    return args[0] if args else next(iter(kwargs.values()))


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call to ``module``, positional ones under the names that its forward gives
    them.

    Raises:
        TypeError: If there are more positional arguments than named parameters.
    """
    if not args:
        return kwargs
    names = _parameters(type(module).forward)
    if len(args) > len(names):
        raise TypeError(
            f"Expected at most {len(names)} positional arguments for "
            f"{type(module).__name__}.forward (got {len(args)})"
        )
    return {**dict(zip(names, args, strict=False)), **kwargs}


__all__ = ["by_name", "first_input"]
