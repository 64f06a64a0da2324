"""Patches: sampled centers of a cloud, each with its nearest points relative to it."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from pyg_peft.errors import check_count, check_finite, check_tensor
from pyg_peft.geometry.layout import count_clouds
from pyg_peft.geometry.search.sampling import authors_convention, farthest_point_sample
from pyg_peft.geometry.search.tables import neighbor_table
from pyg_peft.typing import Batch, Features, Pos


@dataclass(frozen=True)
class Patches:
    """Input of a token backbone: ``B`` clouds of ``G`` patches of ``K`` points.

    Args:
        points: Members relative to their center ``[B, G, K, 3]``. Clouds with fewer than ``K``
            points repeat the nearest member, which does not change a max over members.
        center: Centers ``[B, G, 3]``, zeros where masked.
        index: Rows of the flat ``pos`` ``[B, G, K]``, 0 where masked.
        center_index: Rows of the flat ``pos`` ``[B, G]``, 0 where masked.
        mask: Boolean ``[B, G]``, true for patches that exist; ``None`` if all do.
        features: Features of the members ``[B, G, K, C]``, if there are any.

    Example:
        >>> patches = build_patches(torch.eye(3), num_centers=2, patch_size=3)
        >>> patches.points.shape, patches.mask
        (torch.Size([1, 2, 3, 3]), None)
    """

    points: Tensor
    center: Tensor
    index: Tensor
    center_index: Tensor
    mask: Tensor | None = None
    features: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of clouds ``B``."""
        return self.points.size(0)

    @property
    def num_centers(self) -> int:
        """Number of patches per cloud ``G``."""
        return self.points.size(1)

    @property
    def patch_size(self) -> int:
        """Number of points per patch ``K``."""
        return self.points.size(2)

    def to(self, device: torch.device | str) -> "Patches":
        """Return a copy on another device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: None if t is None else t.to(device) for name, t in tensors.items()}
        return replace(self, **moved)


torch.export.register_dataclass(Patches)


def build_patches(
    pos: Pos,
    batch: Batch | None = None,
    *,
    num_centers: int,
    patch_size: int,
    x: Features | None = None,
    batch_size: int | None = None,
) -> Patches:
    """Divide clouds into patches as the published point-cloud transformers do.

    Centers are chosen by farthest point sampling that starts at the first point of a cloud and
    skips points near the origin (:func:`~pyg_peft.geometry.authors_convention`). The members of a
    patch are the nearest points of its center, including the center itself.

    Args:
        pos: Points.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        num_centers: Number of patches per cloud ``G``. Clouds with fewer points have fewer patches;
            the rest is masked.
        patch_size: Number of points per patch ``K``.
        x: Features of the points.
        batch_size: Number of clouds. Required if trailing clouds may be empty and under
            ``torch.compile``.

    Shapes: pos ``(N, 3)``, x ``(N, C)``; output as in :class:`Patches`.

    Symmetries:
        Given the centers: permutation invariant and translation invariant, and a rotation of the
        cloud rotates the members. The centers depend on the first point and on the origin.

    Raises:
        TypeError: If positions are integers or not a tensor, or a size is not an integer.
        ValueError: If positions contain NaN, a shape is wrong, a batch is not sorted, or a size is
            below one.

    Example:
        >>> build_patches(torch.eye(3), num_centers=2, patch_size=3).index.shape
        torch.Size([1, 2, 3])
    """
    patch_size = check_count(patch_size, "patch_size")
    num_centers = check_count(num_centers, "num_centers")
    check_tensor(pos, "pos", shape=("N", 3), kind="float")
    if x is not None:
        check_tensor(x, "x", shape=("N", "C"), kind="float", device=pos.device)
        check_finite(x, "x")
        if x.size(0) != pos.size(0):
            raise ValueError(f"Expected 'x' to have {pos.size(0)} rows (got {x.size(0)})")
    size = count_clouds(batch, batch_size)
    start, candidates = authors_convention(pos, batch, batch_size=size)
    center_index = farthest_point_sample(
        pos, num_centers, batch, start=start, candidates=candidates, batch_size=size
    )
    mask = _mask_of(center_index, always_full=batch is None and pos.size(0) >= num_centers)
    if pos.size(0) == 0:
        return _empty(pos, x, size, num_centers, patch_size)
    center_index = center_index.clamp(min=0)
    center_batch = torch.arange(size, device=pos.device).repeat_interleave(num_centers)
    table = neighbor_table(
        pos,
        pos[center_index.flatten()],
        patch_size,
        batch,
        None if batch is None else center_batch,
        batch_size=size,
    )
    index = _fill(table, patch_size).view(size, num_centers, patch_size)
    if mask is not None:
        index = index.masked_fill(~mask.unsqueeze(-1), 0)
    center = pos[center_index]
    points = pos[index] - center.unsqueeze(2)
    features = None if x is None else x[index]
    if mask is not None:
        center = center.masked_fill(~mask.unsqueeze(-1), 0)
        points = points.masked_fill(~mask[..., None, None], 0)
        features = None if features is None else features.masked_fill(~mask[..., None, None], 0)
    return Patches(points, center, index, center_index, mask, features)


def _mask_of(center_index: Tensor, always_full: bool) -> Tensor | None:
    mask = center_index >= 0
    if always_full or (not torch.compiler.is_compiling() and bool(mask.all())):
        return None
    return mask


def _fill(table: Tensor, width: int) -> Tensor:
    """Repeat the nearest member where a cloud has fewer than ``width`` points; 0 if it has none."""
    short = width - table.size(1)
    if short > 0:
        table = torch.cat([table, table.new_full((table.size(0), short), -1)], dim=1)
    return torch.where(table < 0, table[:, :1], table).clamp(min=0)


def _empty(pos: Tensor, x: Tensor | None, size: int, num_centers: int, patch_size: int) -> Patches:
    """Return the patches of clouds without any point, which are all masked."""
    index = torch.zeros(size, num_centers, patch_size, dtype=torch.long, device=pos.device)
    return Patches(
        points=pos.new_zeros(size, num_centers, patch_size, 3),
        center=pos.new_zeros(size, num_centers, 3),
        index=index,
        center_index=index[..., 0],
        mask=torch.zeros_like(index[..., 0], dtype=torch.bool) if size > 0 else None,
        features=None if x is None else x.new_zeros(size, num_centers, patch_size, x.size(-1)),
    )


__all__ = ["Patches", "build_patches"]
