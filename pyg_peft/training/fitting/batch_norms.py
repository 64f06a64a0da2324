"""Check that no batch norm would be trained on a single value per channel."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch_geometric.data import Batch

from pyg_peft.model import PeftModel
from pyg_peft.nn.eval_mode import eval_mode
from pyg_peft.training.evaluation.forward import forward_batch
from pyg_peft.training.fitting.data_module import ShapeDataModule


def check_batch_norms(model: PeftModel, data: ShapeDataModule, world_size: int = 1) -> None:
    """Raise if training would give a batch norm one value per channel, from a single cloud.

    If the smallest batch holds one cloud, the model is run on one training cloud in eval mode,
    without changing it. Norms over points get many values of a cloud, and frozen norms compute no
    statistics.

    Args:
        model: The model, with the adapter to train active.
        data: The splits.
        world_size: Number of processes.

    Raises:
        ValueError: If training would do so. The message names the norm.
    """
    if data.smallest_batch(world_size) > 1:
        return
    batch: Any = Batch.from_data_list([data.bank_dataloader().dataset[0]])  # pyright: ignore[reportArgumentType]
    device = next(model.parameters()).device
    with eval_mode(model), ExitStack() as handles:
        model.train()  # which norms would be trained depends on the method
        for name, norm in model.named_modules():
            if isinstance(norm, _BatchNorm) and norm.training:
                refuse = _refuse_single(name, data, world_size)
                handles.callback(norm.register_forward_pre_hook(refuse).remove)
        with torch.no_grad():
            forward_batch(model.eval(), batch.to(device))


def _refuse_single(name: str, data: ShapeDataModule, world_size: int) -> Any:
    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if x.dim() > 1 and x.numel() == x.size(1):
            processes = f" in {world_size} processes" if world_size > 1 else ""
            raise ValueError(
                "Expected 'batch_size' to be 2 or more, and two training clouds for each process: "
                f"the batch norm '{name}' is trained, and takes its statistics over the clouds of "
                f"a batch (got a batch_size of {data.batch_size} and {len(data.train_set)} clouds"
                f"{processes}); take a larger batch, or a method that leaves it frozen"
            )

    return look


__all__ = ["check_batch_norms"]
