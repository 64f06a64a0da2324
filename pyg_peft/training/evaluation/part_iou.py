"""Intersection over union of parts, as defined by the ShapeNet-part benchmark."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_peft.datasets.part_labels import IGNORE_INDEX


def part_mask(parts: Sequence[Sequence[int]], num_parts: int) -> Tensor:
    """Return a mask ``[num_categories, num_parts]`` of the parts that each category can have.

    Args:
        parts: The labels of each category.
        num_parts: Total number of labels.

    Raises:
        ValueError: If a category has no part, or one that is not below ``num_parts``.
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


def mask_scores(scores: Tensor, batch: Tensor, category: Tensor, mask: Tensor) -> Tensor:
    """Return scores ``[N, num_parts]`` that are minus infinity for parts of other categories.

    Args:
        scores, batch, category, mask: See :func:`choose_parts`.
    """
    allowed = mask.to(scores.device)[category][batch]
    return scores.masked_fill(~allowed, float("-inf"))


def choose_parts(scores: Tensor, batch: Tensor, category: Tensor, mask: Tensor) -> Tensor:
    """Return each point's part ``[N]`` with the highest score, among those of its category.

    Args:
        scores: Scores ``[N, num_parts]``.
        batch: Cloud id of each point ``[N]``.
        category: Category of each cloud ``[B]``.
        mask: See :func:`part_mask`.

    Example:
        >>> mask = part_mask([[0, 1], [2]], num_parts=3)
        >>> scores = torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]])
        >>> choose_parts(scores, torch.tensor([0, 1]), torch.tensor([0, 1]), mask)
        tensor([1, 2])
    """
    return mask_scores(scores, batch, category, mask).argmax(dim=1)


def shape_ious(
    prediction: Tensor,
    target: Tensor,
    batch: Tensor,
    category: Tensor,
    mask: Tensor,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    r"""Return each cloud's mean intersection over union ``[B]``, over the parts of its category.

    A part that is neither in the target nor in the prediction of a cloud counts as 1.

    Args:
        prediction, target: Part of each point ``[N]``.
        batch: Cloud id of each point ``[N]``.
        category: Category of each cloud ``[B]``.
        mask: See :func:`part_mask`.
        ignore_index: Points with this target are left out.

    Raises:
        ValueError: If the target of a point is not a part of its cloud's category.

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
    """Return the rows of ``values`` whose point has a label; ``values`` itself if all have one.

    Args:
        target: Part of each point ``[N]``.
        ignore_index: The label of points without a part.
        values: Tensors with one row per point.
    """
    known = target != ignore_index
    return values if bool(known.all()) else tuple(value[known] for value in values)


__all__ = ["choose_parts", "known_points", "mask_scores", "part_mask", "shape_ious"]
