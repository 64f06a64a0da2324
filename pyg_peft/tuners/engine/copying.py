"""Make ``copy.deepcopy`` keep the slot of layers whose own ``__deepcopy__`` would lose it.

``torch_geometric.nn.Linear`` of PyG 2.6 creates a new layer and copies weight and bias, but neither
children nor hooks. An attribute of the same name on the instance overrides that of the class.
"""

import copy
from functools import partial
from typing import Any

from torch import nn

_NAME = "__deepcopy__"


def copy_whole(module: nn.Module) -> None:
    """Make ``copy.deepcopy`` copy everything in ``module``, whatever its class does."""
    if hasattr(type(module), _NAME):
        module.__dict__[_NAME] = partial(_copied, module)


def copy_as_before(module: nn.Module) -> None:
    """Undo :func:`copy_whole`."""
    module.__dict__.pop(_NAME, None)


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    duplicate = module.__class__.__new__(module.__class__)
    memo[id(module)] = duplicate
    state = {name: value for name, value in module.__dict__.items() if name != _NAME}
    duplicate.__dict__.update(copy.deepcopy(state, memo))
    copy_whole(duplicate)
    return duplicate


__all__ = ["copy_as_before", "copy_whole"]
