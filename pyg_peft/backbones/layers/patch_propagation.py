"""The way back from patches: to their cloud by a mean, to every point by interpolation."""

from torch import Tensor

from pyg_peft.geometry import Patches, interpolate, interpolation_weights, knn
from pyg_peft.geometry.layout import to_flat
from pyg_peft.typing import Batch, Features, Mask, Pos, Tokens


def mean_valid(x: Tokens, mask: Mask | None) -> Tensor:
    """Mean over the valid tokens of a cloud, ``[B, G, C]`` to ``[B, C]``; zero if none is.

    Args:
        x: Tokens, zero where masked.
        mask: True for valid ones; ``None`` if all are.
    """
    if mask is None:
        return x.mean(dim=1)
    return x.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def patches_to_points(
    x: Tokens, patches: Patches, pos: Pos, batch: Batch | None = None, *, k: int = 3
) -> Features:
    """Carry features of patches to points, from the nearest centers by inverse squared distance.

    Args:
        x: Features of the patches ``[B, G, C]``.
        patches: Whose centers they belong to.
        pos: Points ``[N, 3]``.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        k: Centers that a point receives from.

    Returns:
        Features of the points ``[N, C]``.
    """
    center, center_batch = to_flat(patches.center, patches.mask)
    center_batch = None if batch is None else center_batch
    edges = knn(center, pos, k, center_batch, batch, batch_size=patches.batch_size)
    weight = interpolation_weights(center, pos, edges)
    return interpolate(to_flat(x, patches.mask)[0], edges, weight, pos.size(0))


__all__ = ["mean_valid", "patches_to_points"]
