"""Reading a module's call by the names of its parameters."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)


@functools.cache
def _parameters(forward: Callable[..., Any], kinds: tuple[Any, ...]) -> tuple[str, ...]:
    # The first parameter is the module, whatever its name.
    _, *parameters = inspect.signature(forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind in kinds)


def parameter_names(module: nn.Module) -> tuple[str, ...]:
    """Names of what a module is called with, those that take positional arguments first.

    A ``torch_geometric.nn.Sequential`` names its arguments in a string of its own.
    """
    described = _described(module)
    return _parameters(type(module).forward, _NAMED) if described is None else described


def _described(module: nn.Module) -> tuple[str, ...] | None:
    """The parameters of a ``torch_geometric.nn.Sequential``."""
    described = getattr(getattr(module, "signature", None), "param_dict", None)
    return tuple(map(str, described)) if isinstance(described, dict) else None  # pyright: ignore[reportUnknownArgumentType]


def required_names(module: nn.Module) -> tuple[str, ...]:
    """Names of what a module cannot be called without."""
    if _described(module) is not None:
        return parameter_names(module)
    signature = inspect.signature(type(module).forward).parameters
    empty = inspect.Parameter.empty
    return tuple(n for n in parameter_names(module) if signature[n].default is empty)


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
    names = _described(module) or _parameters(type(module).forward, _POSITIONAL)
    if len(args) > len(names):
        raise TypeError(
            f"Expected at most {len(names)} positional arguments for "
            f"{type(module).__name__}.forward (got {len(args)})"
        )
    return {**dict(zip(names, args, strict=False)), **kwargs}


__all__ = ["by_name", "first_input", "parameter_names", "required_names"]
