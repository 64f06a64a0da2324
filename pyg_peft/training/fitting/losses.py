"""A loss of the user's own: found by its path, and checked before training."""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from pyg_peft.training.fitting.data_module import ShapeDataModule

Loss = Callable[[Tensor, Tensor], Tensor]
_PLAIN = (bool, int, float, str)


def find_loss(path: str, arguments: Mapping[str, Any] | None = None) -> Loss:
    """Import the loss that a user named.

    Only a person may give such a path, on the command line or in their own configuration file.

    Args:
        path: Path of a subclass of ``nn.Module``, which is constructed, or of a function.
        arguments: Arguments of the class, or further arguments of the function, by name.

    Raises:
        ValueError: If there is no such class or function, or the arguments do not fit.

    Example:
        >>> find_loss("torch.nn.CrossEntropyLoss", {"label_smoothing": 0.2}).label_smoothing
        0.2
    """
    module, _, name = path.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "Expected 'loss' to be the path of a class or function, such as "
            f"torch.nn.CrossEntropyLoss (got {path!r}: {error})"
        ) from error
    given = dict(arguments or {})
    if not isinstance(found, type):
        if not callable(found):
            raise ValueError(f"Expected 'loss' to name a class or function (got {path!r})")
        function: Any = functools.partial(found, **given) if given else found
        return function
    if not issubclass(found, nn.Module):
        raise ValueError(
            f"Expected 'loss' to name a subclass of torch.nn.Module, or a function (got {path!r}, "
            "a class of another kind)"
        )
    try:
        return found(**given)
    except TypeError as error:
        raise ValueError(
            f"Expected 'loss_args' to be arguments of '{path}' (got {given}: {error})"
        ) from error


def check_loss(loss: Any, data: ShapeDataModule) -> None:
    """Raise unless ``loss`` maps scores and labels of a training cloud to one number to minimize.

    Args:
        loss: A callable, or ``None``.
        data: The splits, whose task makes the labels.

    Raises:
        TypeError: If it is not callable, cannot be called with scores and labels, or does not
            return a tensor.
        ValueError: If it has parameters of its own, does not return one number with a gradient, or
            the task has settings that it would replace.
    """
    if loss is None:
        return
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"Expected 'loss' to be a callable (scores, labels) (got {loss!r})")
    trained = [n for n, _ in loss.named_parameters()] if isinstance(loss, nn.Module) else []
    if trained:
        raise ValueError(
            "Expected 'loss' to have no parameters, since only those of the adapter are trained "
            f"(got {', '.join(trained)})"
        )
    replaced = [n for n in ("class_weights", "label_smoothing") if n in data.task.to_dict()]
    if replaced:
        raise ValueError(
            f"Expected no {' and '.join(replaced)} in 'task_args' beside a 'loss', which replaces "
            "the one of the task (got both)"
        )
    own: Any = loss
    _try(own, data)


def _try(loss: Loss, data: ShapeDataModule) -> None:
    """Call the loss with scores of zero of one training cloud."""
    task = data.task
    item: Any = data.bank_dataloader().dataset[0]  # pyright: ignore[reportIndexIssue]
    batch: Any = Batch.from_data_list([item])
    rows = batch.num_nodes if task.head == "segmentation" else 1
    scores = torch.zeros(rows, task.num_outputs, requires_grad=True)
    known = task.known(scores, task.labels(batch, rows))
    if len(known[1]) == 0:
        return
    form = f"scores {list(known[0].shape)} and labels {list(known[1].shape)} of {known[1].dtype}"
    try:
        value = loss(*known)
    # A loss of the user's own may raise anything.
    except Exception as error:
        raise TypeError(
            f"Expected 'loss' to take {form} (got {type(error).__name__}: {error})"
        ) from error
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected 'loss' to return a tensor (got {type(value).__name__})")
    if value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"Expected 'loss' to return one number with a gradient, of {form} (got the shape "
            f"{list(value.shape)}, {'with' if value.requires_grad else 'without'} a gradient)"
        )


def describe_loss(loss: Any) -> str | None:
    """Return the path of a loss and its plain arguments as text; ``None`` without a loss.

    Example:
        >>> import torch
        >>> describe_loss(torch.nn.functional.mse_loss)
        'torch.nn.functional.mse_loss()'
    """
    if loss is None:
        return None
    settings: dict[str, Any] = {}
    if isinstance(loss, functools.partial):
        loss, settings = loss.func, dict(loss.keywords)
    elif not hasattr(loss, "__qualname__"):
        own = vars(loss) if hasattr(loss, "__dict__") else {}
        settings = {n: v for n, v in own.items() if isinstance(v, _PLAIN) and not n.startswith("_")}
        settings.pop("training", None)
    kind = loss if hasattr(loss, "__qualname__") else type(loss)
    shown = ", ".join(f"{name}={settings[name]!r}" for name in sorted(settings))
    return f"{kind.__module__}.{kind.__qualname__}({shown})"


__all__ = ["Loss", "check_loss", "describe_loss", "find_loss"]
