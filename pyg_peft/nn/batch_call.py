"""Calling any model on a batch of a loader, by the names of its parameters."""

import inspect
from typing import Any

from torch import nn

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call_on_batch(model: nn.Module, data: Any) -> Any:
    """Run a model on a PyG batch.

    A forward with a parameter ``pos`` or ``x`` gets, by name, whatever the batch has of its
    parameters, ``batch_size`` included; any other gets the batch itself.

    Args:
        model: any.
        data: a batch of a PyG loader.

    Raises:
        ValueError: if the batch lacks what a parameter without default needs.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> data = Batch.from_data_list([Data(x=torch.ones(2, 3))])
        >>> call_on_batch(torch.nn.Identity(), data) is data
        True
    """
    args, kwargs = batch_arguments(model, data)
    return model(*args, **kwargs)


def batch_arguments(model: nn.Module, data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What :func:`call_on_batch` calls a model with: for those who call another in its place."""
    described = getattr(getattr(model, "signature", None), "param_dict", None)
    if isinstance(described, dict):  # of a torch_geometric.nn.Sequential
        needed = dict.fromkeys(map(str, described), True)  # pyright: ignore[reportUnknownArgumentType]
    else:
        parameters = inspect.signature(model.forward).parameters
        needed = {
            name: p.default is inspect.Parameter.empty
            for name, p in parameters.items()
            if p.kind in _NAMED
        }
    if not {"pos", "x"} & set(needed):
        required = [name for name, is_needed in needed.items() if is_needed]
        if len(required) > 1:
            raise ValueError(
                f"Expected {type(model).__name__}.forward to take the batch alone, or 'pos' or 'x' "
                f"by name (got {', '.join(required)}): say how it is called, with 'call' where "
                "that is a parameter"
            )
        return (data,), {}
    # A batch without features has x = None, which models take for just that.
    has = {"batch_size": data.num_graphs, "x": None, **data.to_dict()}
    missing = [name for name, is_needed in needed.items() if is_needed and name not in has]
    if missing:
        raise ValueError(
            f"Expected 'loader' to yield batches with {', '.join(missing)}, which "
            f"{type(model).__name__}.forward needs (got {', '.join(sorted(data.keys()))})"
        )
    return (), {name: has[name] for name in needed if name in has}


__all__ = ["batch_arguments", "call_on_batch"]
