"""Intersection over union of parts, counted as the ShapeNet-part benchmark counts it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_peft.datasets.part_labels import IGNORE_INDEX


def part_mask(parts: Sequence[Sequence[int]], num_parts: int) -> Tensor:
    """Which parts a category can have, ``[num_categories, num_parts]``.

    Args:
        parts: the labels of each category.
        num_parts: number of labels in all.

    Raises:
        ValueError: if a category has no part, or one that is not below ``num_parts``.
    """
    mask = torch.zeros(len(parts), num_parts, dtype=torch.bool)
    for category, some in enumerate(parts):
        if not len(some) or not 0 <= min(some) <= max(some) < num_parts:
            raise ValueError(
                f"Expected 'parts' to list labels below {num_parts} for category {category} "
                f"(got {list(some)})"
            )
        mask[category, list(some)] = True
    return mask


def choose_parts(scores: Tensor, batch: Tensor, category: Tensor, mask: Tensor) -> Tensor:
    """The best part of each point ``[N]`` among those that its cloud's category can have.

    Args:
        scores: ``[N, num_parts]``.
        batch: cloud of each point ``[N]``.
        category: of each cloud ``[B]``.
        mask: see :func:`part_mask`.

    Example:
        >>> mask = part_mask([[0, 1], [2]], num_parts=3)
        >>> scores = torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]])
        >>> choose_parts(scores, torch.tensor([0, 1]), torch.tensor([0, 1]), mask)
        tensor([1, 2])
    """
    allowed = mask.to(scores.device)[category][batch]
    return scores.masked_fill(~allowed, float("-inf")).argmax(dim=1)


def shape_ious(
    prediction: Tensor,
    target: Tensor,
    batch: Tensor,
    category: Tensor,
    mask: Tensor,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    r"""Mean intersection over union of each cloud ``[B]``, over the parts of its category.

    A part that is neither in truth nor in prediction of a cloud counts as 1.

    Args:
        prediction, target: part of each point ``[N]``.
        batch: cloud of each point ``[N]``.
        category: of each cloud ``[B]``.
        mask: see :func:`part_mask`.
        ignore_index: points with this truth are left out.

    Raises:
        ValueError: if the truth of a point is no part of its cloud's category.

    Example:
        >>> mask = part_mask([[0, 1, 2]], num_parts=3)
        >>> zero = torch.zeros(4, dtype=torch.long)
        >>> found, truth = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
        >>> shape_ious(found, truth, zero, zero[:1], mask)           # (2/3 + 1/2 + 1) / 3
        tensor([0.7222], dtype=torch.float64)
    """
    mask = mask.to(target.device)
    num_parts, num_clouds = mask.size(1), category.numel()
    prediction, target, batch = known_points(target, ignore_index, prediction, target, batch)
    known = (target >= 0) & (target < num_parts)
    if not bool(known.all()) or not bool(mask[category[batch], target].all()):
        raise ValueError("Expected 'target' to hold parts of each cloud's category (got others)")

    def count(rows: Tensor, labels: Tensor) -> Tensor:
        cells = rows * num_parts + labels
        return cells.bincount(minlength=num_clouds * num_parts).view(num_clouds, num_parts)

    hit = prediction == target
    both = count(batch[hit], target[hit])
    either = count(batch, prediction) + count(batch, target) - both
    iou = torch.where(either > 0, both.double() / either.clamp(min=1), 1.0)
    own = mask[category]
    return (iou * own).sum(dim=1) / own.sum(dim=1)


def known_points(target: Tensor, ignore_index: int, *values: Tensor) -> tuple[Tensor, ...]:
    """Rows of ``values`` whose point has a label, as they are if all points have one.

    Args:
        target: part of each point ``[N]``.
        ignore_index: the label that says that a point has none.
        values: one row a point each.
    """
    known = target != ignore_index
    return values if bool(known.all()) else tuple(value[known] for value in values)


__all__ = ["choose_parts", "known_points", "part_mask", "shape_ious"]
