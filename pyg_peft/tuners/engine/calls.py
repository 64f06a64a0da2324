"""Read the arguments of a module's call by parameter name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from pyg_peft.nn.batch_call import sequential_names

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)


@functools.cache
def _parameters(forward: Callable[..., Any], kinds: tuple[Any, ...]) -> tuple[str, ...]:
    # The first parameter is the module, whatever its name.
    _, *parameters = inspect.signature(forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind in kinds)


def parameter_names(module: nn.Module) -> tuple[str, ...]:
    """Return the parameter names of a module's forward, positional ones first.

    For a ``torch_geometric.nn.Sequential`` they are read from its signature string.
    """
    described = sequential_names(module)
    return _parameters(type(module).forward, _NAMED) if described is None else described


def required_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the required parameters of a module's forward."""
    if sequential_names(module) is not None:
        return parameter_names(module)
    signature = inspect.signature(type(module).forward).parameters
    empty = inspect.Parameter.empty
    return tuple(n for n in parameter_names(module) if signature[n].default is empty)


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the first argument of a call, positional or not, in a way that can be compiled."""
    return args[0] if args else next(iter(kwargs.values()))


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; positional ones get the names in the forward.

    Raises:
        TypeError: If there are more positional arguments than named parameters.
    """
    if not args:
        return kwargs
    names = sequential_names(module) or _parameters(type(module).forward, _POSITIONAL)
    if len(args) > len(names):
        raise TypeError(
            f"Expected at most {len(names)} positional arguments for "
            f"{type(module).__name__}.forward (got {len(args)})"
        )
    return {**dict(zip(names, args, strict=False)), **kwargs}


__all__ = ["by_name", "first_input", "parameter_names", "required_names"]
