"""Run a model on a batch, in the same way for training, evaluation and scenes."""

from typing import Any

from torch import nn

from pyg_peft.model import PeftModel
from pyg_peft.nn.batch_call import batch_arguments


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


__all__ = ["base_of", "forward_batch"]
