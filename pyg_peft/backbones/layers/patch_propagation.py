"""From patch features back to clouds, by a mean, and to points, by interpolation."""

from torch import Tensor

from pyg_peft.geometry import Patches, interpolate, interpolation_weights, knn
from pyg_peft.geometry.layout import to_flat
from pyg_peft.typing import Batch, Features, Mask, Pos, Tokens


def mean_valid(x: Tokens, mask: Mask | None) -> Tensor:
    """Return the mean over each cloud's valid tokens, ``[B, G, C]`` to ``[B, C]``.

    Args:
        x: Tokens, zero where masked. The result is zero for a cloud without valid tokens.
        mask: True for valid tokens; ``None`` if all are valid.
    """
    if mask is None:
        return x.mean(dim=1)
    return x.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def patches_to_points(
    x: Tokens, patches: Patches, pos: Pos, batch: Batch | None = None, *, k: int = 3
) -> Features:
    """Interpolate patch features at points, weighted by inverse squared distance.

    Args:
        x: Features of the patches ``[B, G, C]``.
        patches: Patches with the centers of the features.
        pos: Points ``[N, 3]``.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        k: Number of nearest centers from which each point is interpolated.

    Returns:
        Features of the points ``[N, C]``.
    """
    center, center_batch = to_flat(patches.center, patches.mask)
    center_batch = None if batch is None else center_batch
    edges = knn(center, pos, k, center_batch, batch, batch_size=patches.batch_size)
    weight = interpolation_weights(center, pos, edges)
    return interpolate(to_flat(x, patches.mask)[0], edges, weight, pos.size(0))


__all__ = ["mean_valid", "patches_to_points"]
