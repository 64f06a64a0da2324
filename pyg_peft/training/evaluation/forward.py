"""Run a model on a batch, in the same way for training, evaluation and scenes."""

from typing import Any

import torch
from torch import nn

from pyg_peft.model import PeftModel
from pyg_peft.nn.batch_call import batch_arguments
from pyg_peft.training.data.checks import check_text

# Precisions that keep coordinates in float32; "true" half precision would round them.
PRECISIONS = {
    "32": None,
    "32-true": None,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
}


def forward_batch(model: nn.Module, data: Any, **more: Any) -> Any:
    """Run a model on a PyG batch, with arguments chosen by the parameter names of its forward.

    A forward with a parameter ``pos`` or ``x`` gets, by name, the attributes of the batch that are
    its parameters, including ``batch_size``. Any other, such as ``forward(data)``, gets the batch.

    Args:
        model: Any model, or a ``PeftModel``, for which the forward of its base is used.
        data: A batch of a PyG loader.
        more: Further arguments of the model, which override those of the batch.

    Raises:
        ValueError: If the batch lacks a value for a required parameter, or several are required and
            none is ``pos`` or ``x``.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from pyg_peft.backbones import PointNet
        >>> data = Batch.from_data_list([Data(pos=torch.rand(9, 3)), Data(pos=torch.rand(5, 3))])
        >>> forward_batch(PointNet(4).eval(), data).shape
        torch.Size([2, 4])
    """
    args, kwargs = batch_arguments(base_of(model), data)
    return model(*args, **{**kwargs, **more})


def base_of(model: nn.Module) -> nn.Module:
    """Return the model whose forward has the arguments: a ``PeftModel``'s base, or ``model``."""
    # The module that torch.compile returns takes any arguments; this is the original module.
    inner: Any = getattr(model, "_orig_mod", model)
    return inner.base if isinstance(inner, PeftModel) else inner


def check_precision(precision: str) -> torch.dtype | None:
    """Return the autocast type of a precision, or ``None`` for no autocast.

    Raises:
        ValueError: If the precision would not keep positions in float32.
    """
    check_text(precision, "precision")
    if precision not in PRECISIONS:
        raise ValueError(
            f"Expected 'precision' to be one of {', '.join(PRECISIONS)}, which keep positions in "
            f"float32 (got {precision!r})"
        )
    return PRECISIONS[precision]


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


__all__ = ["PRECISIONS", "base_of", "check_precision", "device_of", "forward_batch"]
