"""Insert and remove prompts in a block's tokens: a prefix (cls token or nothing), then patches."""

from typing import Any

import torch
from torch import Tensor

from pyg_peft.tuners.engine.slot import Kwargs


def insert_prompts(x: Tensor, prompts: Tensor, kwargs: Kwargs) -> Tensor:
    """Insert prompts ``[B, P, C]`` directly before the patches of a block's input ``[B, L, C]``.

    Args:
        x: Tokens, the patches last.
        prompts: Prompts to insert.
        kwargs: Keyword arguments of the block's call. ``patches`` gives the number of patches.

    Raises:
        RuntimeError: If the block was called without ``patches``.
    """
    num_patches = _num_patches(kwargs)
    # A split, not two slices: in the backward each slice would allocate an array of the full size.
    before, patches = x.split([x.size(1) - num_patches, num_patches], dim=1)
    return torch.cat([before, prompts.to(x.dtype), patches], dim=1)


def remove_prompts(x: Tensor, num_prompts: int, kwargs: Kwargs) -> Tensor:
    """Remove the last ``num_prompts`` tokens before the patches."""
    num_patches = _num_patches(kwargs)
    sizes = [x.size(1) - num_patches - num_prompts, num_prompts, num_patches]
    before, _, patches = x.split(sizes, dim=1)
    return torch.cat([before, patches], dim=1)


def _num_patches(kwargs: Kwargs) -> int:
    patches: Any = kwargs.get("patches")
    if patches is None:
        raise RuntimeError(
            "Expected the block to be called with 'patches', which tell where prompts stand "
            "(got none): call the model, not its blocks"
        )
    return patches.num_centers


__all__ = ["insert_prompts", "remove_prompts"]
