"""Selection of the patches to hide from an autoencoder, and the clouds without them."""

import torch
from torch import Tensor

from pyg_peft.geometry import Patches
from pyg_peft.typing import Mask


def draw_mask(
    patches: Patches, mask_ratio: float, generator: torch.Generator | None = None
) -> Mask:
    """Draw a random mask that hides a share of each cloud's patches.

    Args:
        patches: Patches from ``build_patches``.
        mask_ratio: Share of hidden patches, rounded down to a whole number of each cloud's patches.
        generator: Random generator on any device; ``None`` for torch's default generator.

    Shapes:
        output (B, G), true where hidden.
    """
    num_clouds, num_centers, _ = patches.center.shape
    device = patches.center.device
    noise_device = device if generator is None else generator.device
    noise = torch.rand(num_clouds, num_centers, generator=generator, device=noise_device)
    noise = noise.to(device)
    num_valid = noise.new_full((num_clouds,), num_centers, dtype=torch.float64)
    if patches.mask is not None:
        noise = noise.masked_fill(~patches.mask, float("inf"))
        num_valid = patches.mask.sum(1).double()
    num_hidden = (num_valid * mask_ratio).floor().long()
    return noise.argsort(1).argsort(1) < num_hidden.unsqueeze(1)


def split_patches(patches: Patches, mask: Mask) -> tuple[Patches, Patches, Patches]:
    """Return the visible patches, the hidden ones, and both in this order, each padded.

    Args:
        patches: The ``G`` patches of each cloud.
        mask: ``[B, G]``, true where hidden.

    Returns:
        ``V`` visible, ``M`` hidden and ``V + M`` patches of each cloud, in the original order. Each
        is padded to the longest cloud.

    Raises:
        ValueError: If ``mask`` is not boolean or has another shape.
    """
    shape = patches.center.shape[:2]
    if mask.shape != shape or mask.dtype != torch.bool:
        raise ValueError(
            f"Expected 'mask' to be bool of shape {list(shape)} "
            f"(got {mask.dtype} of shape {list(mask.shape)})"
        )
    valid = torch.ones_like(mask) if patches.mask is None else patches.mask
    visible, visible_mask = _positions(valid & ~mask)
    hidden, hidden_mask = _positions(valid & mask)
    return (
        _select(patches, visible, visible_mask),
        _select(patches, hidden, hidden_mask),
        _select(
            patches,
            torch.cat([visible, hidden], dim=1),
            torch.cat([visible_mask, hidden_mask], dim=1),
        ),
    )


def _positions(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return index and mask ``[B, M]`` of each row's chosen positions, in order and padded."""
    num_chosen = chosen.sum(1)
    longest = int(num_chosen.max()) if chosen.size(0) else 0
    index = chosen.long().argsort(dim=1, descending=True, stable=True)[:, :longest]
    mask = torch.arange(longest, device=chosen.device) < num_chosen.unsqueeze(1)
    return index, mask


def _select(patches: Patches, index: Tensor, mask: Tensor) -> Patches:
    """Return the patches ``index [B, M]`` of each cloud, without a mask if all are valid."""
    rows = torch.arange(index.size(0), device=index.device).unsqueeze(1)
    return Patches(
        points=patches.points[rows, index],
        center=patches.center[rows, index],
        index=patches.index[rows, index],
        center_index=patches.center_index[rows, index],
        mask=None if bool(mask.all()) else mask,
        features=None if patches.features is None else patches.features[rows, index],
    )


__all__ = ["draw_mask", "split_patches"]
