"""Average the running statistics of batch norms over the processes of a distributed run."""

import torch.distributed as dist
from torch import Tensor, nn

from pyg_peft.model import PeftModel
from pyg_peft.training.data.checks import check_kind

_STATISTICS = ("running_mean", "running_var")


def average_batch_norms(model: PeftModel) -> None:
    """Average the running statistics of the trained batch norms over all processes.

    Each process updates them from its own clouds. Call this function after each epoch of a
    distributed loop, in every process. Then all processes evaluate and save the same adapter.
    ``fit`` calls it itself. In a single process it does nothing.

    Args:
        model: The model, with the adapter to train active. Only statistics of the active adapter
            change. The model itself must be passed, not the wrapper around it.

    Raises:
        TypeError: If ``model`` is not a ``PeftModel``.

    Example:
        >>> from pyg_peft import LinearProbeConfig, get_peft_model
        >>> from pyg_peft.backbones import PointMAE
        >>> base = PointMAE(4, embed_dim=24, depth=1, num_heads=3, num_centers=8, patch_size=4)
        >>> average_batch_norms(get_peft_model(base, LinearProbeConfig()))
    """
    check_kind(model, "model", PeftModel)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    for statistic in running_statistics(model).values():
        dist.all_reduce(statistic)
        statistic /= dist.get_world_size()


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return the running statistics that the active adapter of a model has of its own, by name."""
    active = getattr(model, "active_adapter", None)
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if (parts := name.split("."))[-1] in _STATISTICS
        and any(parts[n : n + 3] == ["peft", "adapters", active] for n in range(len(parts)))
    }


__all__ = ["average_batch_norms", "running_statistics"]
