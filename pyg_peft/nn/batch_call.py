"""Calls of any model on a batch of a loader, by the names of its parameters."""

import inspect
from typing import Any

from torch import nn

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call_on_batch(model: nn.Module, data: Any) -> Any:
    """Run a model on a PyG batch.

    If the forward method has a parameter ``pos`` or ``x``, it is called by keyword with all
    attributes of the batch that are parameters of it, including ``batch_size``. Otherwise it is
    called with the batch itself.

    Args:
        model: Any model.
        data: Batch of a PyG loader.

    Raises:
        ValueError: If the batch lacks an attribute for a parameter without a default.

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
    """Return the arguments that :func:`call_on_batch` passes, for calls of another model."""
    described = sequential_names(model)
    if described is not None:
        needed = dict.fromkeys(described, True)
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
                f"by name (got {', '.join(required)}): pass a function 'call', where it is a "
                "parameter, to run the model"
            )
        return (data,), {}
    # A batch without features has x = None, which models accept as a missing input.
    has = {"batch_size": data.num_graphs, "x": None, **data.to_dict()}
    missing = [name for name, is_needed in needed.items() if is_needed and name not in has]
    if missing:
        raise ValueError(
            f"Expected 'loader' to yield batches with {', '.join(missing)}, which "
            f"{type(model).__name__}.forward needs (got {', '.join(sorted(data.keys()))})"
        )
    return (), {name: has[name] for name in needed if name in has}


def sequential_names(module: nn.Module) -> tuple[str, ...] | None:
    """Return the parameter names of a ``torch_geometric.nn.Sequential``; ``None`` for others.

    They come from its signature string, since its ``forward`` takes any arguments.
    """
    described = getattr(getattr(module, "signature", None), "param_dict", None)
    return tuple(map(str, described)) if isinstance(described, dict) else None  # pyright: ignore[reportUnknownArgumentType]


__all__ = ["batch_arguments", "call_on_batch", "sequential_names"]
