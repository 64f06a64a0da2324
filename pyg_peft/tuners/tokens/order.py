"""The order of a block's tokens: what stands in front (a cls token or nothing), then patches."""

from typing import Any

import torch
from torch import Tensor

from pyg_peft.tuners.engine.slot import Kwargs


def insert_prompts(x: Tensor, prompts: Tensor, kwargs: Kwargs) -> Tensor:
    """Set prompts ``[B, P, C]`` right in front of the patches of a block's input ``[B, L, C]``.

    Args:
        x: Tokens, the patches last.
        prompts: What is set in front of the patches.
        kwargs: Those of the block's call; ``patches`` tells how many patches there are.

    Raises:
        RuntimeError: If the block was called without ``patches``.
    """
    num_patches = _num_patches(kwargs)
    # A split, not two slices: each slice would fill an array of the whole size on the way back.
    before, patches = x.split([x.size(1) - num_patches, num_patches], dim=1)
    return torch.cat([before, prompts.to(x.dtype), patches], dim=1)


def remove_prompts(x: Tensor, num_prompts: int, kwargs: Kwargs) -> Tensor:
    """Take the last ``num_prompts`` tokens in front of the patches out again."""
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
