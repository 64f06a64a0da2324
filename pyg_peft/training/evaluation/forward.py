"""One way to run a model on a batch: as training, evaluation and scenes do."""

from typing import Any

from torch import nn

from pyg_peft.model import PeftModel
from pyg_peft.nn.batch_call import batch_arguments


def forward_batch(model: nn.Module, data: Any, **more: Any) -> Any:
    """Run a model on a PyG batch by the names of its parameters, or of its base's.

    A forward with a parameter ``pos`` or ``x`` gets, by name, whatever the batch has of its
    parameters, ``batch_size`` included; any other, such as ``forward(data)``, gets the batch.

    Args:
        model: a ``PeftModel``, whose base says what it takes, or any model.
        data: a batch of a PyG loader.
        more: further arguments of the model; they go before those of the batch.

    Raises:
        ValueError: the batch lacks what a parameter without default needs, or several are needed
            and none is ``pos`` or ``x``.

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
    """The model whose forward tells the arguments: the base of a ``PeftModel``, or ``model``."""
    # What torch.compile returns takes any arguments, and calls this.
    inner: Any = getattr(model, "_orig_mod", model)
    return inner.base if isinstance(inner, PeftModel) else inner


__all__ = ["base_of", "forward_batch"]
