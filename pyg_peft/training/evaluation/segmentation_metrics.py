"""Mean intersection over union of parts and accuracy of points, as torchmetrics metrics."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from pyg_peft.datasets.part_labels import IGNORE_INDEX
from pyg_peft.training.evaluation.part_iou import choose_parts, known_points, part_mask, shape_ious


class InstanceMeanIoU(Metric):
    """Instance mIoU of ShapeNet-part: the mean over all clouds of their mean IoU over parts.

    Only the parts of a cloud's category are predicted and counted. A part that is neither in the
    target nor in the prediction of a cloud counts as 1. Clouds without labeled points are left out.

    Args:
        parts: The labels of each category.
        num_parts: Number of labels; by default one more than the largest.
        ignore_index: Points with this label are not counted.

    Shapes:
        update: scores (N, num_parts), target (N), batch (N), category (B).

    Raises:
        ValueError: If a category has no parts, or a target is not a part of its cloud's category.

    Example:
        >>> import torch
        >>> metric = InstanceMeanIoU([[0, 1], [2]])
        >>> scores = torch.tensor([[1.0, 0, 0], [0, 1, 0], [5, 0, 0]])
        >>> metric.update(scores, torch.tensor([0, 0, 2]), torch.tensor([0, 0, 1]),
        ...               torch.tensor([0, 1]))
        >>> round(float(metric.compute()), 4)                     # ((1/2 + 0) / 2 + 1) / 2
        0.625
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor
    mask: Tensor

    def __init__(
        self,
        parts: Sequence[Sequence[int]],
        num_parts: int | None = None,
        *,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        size = num_parts or 1 + max((label for some in parts for label in some), default=-1)
        self.register_buffer("mask", part_mask(parts, size), persistent=False)
        zeros = torch.zeros(len(parts), dtype=torch.float64)
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor, batch: Tensor, category: Tensor) -> None:
        found = choose_parts(scores, batch, category, self.mask)
        ious = shape_ious(found, target, batch, category, self.mask, self.ignore_index)
        (labeled,) = known_points(target, self.ignore_index, batch)
        filled = labeled.bincount(minlength=category.numel()) > 0
        self.total.index_add_(0, category[filled], ious[filled].to(self.total.dtype))
        self.count.index_add_(0, category[filled], filled[filled].to(self.count.dtype))

    def compute(self) -> Tensor:
        return self.total.sum() / self.count.sum()


class ClassMeanIoU(InstanceMeanIoU):
    """Class mIoU of ShapeNet-part: the mean over categories of the mean over their clouds.

    Categories without clouds are left out. Otherwise as :class:`InstanceMeanIoU`.
    """

    def compute(self) -> Tensor:
        present = self.count > 0
        return (self.total[present] / self.count[present]).mean()


class PointAccuracy(Metric):
    """Share of correct points, if only the parts of a cloud's category are predicted.

    Args:
        parts, num_parts, ignore_index: See :class:`InstanceMeanIoU`, also for the arguments of
            ``update``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: Tensor
    count: Tensor
    mask: Tensor

    def __init__(
        self,
        parts: Sequence[Sequence[int]],
        num_parts: int | None = None,
        *,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        size = num_parts or 1 + max((label for some in parts for label in some), default=-1)
        self.register_buffer("mask", part_mask(parts, size), persistent=False)
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor, batch: Tensor, category: Tensor) -> None:
        found = choose_parts(scores, batch, category, self.mask)
        known = target != self.ignore_index
        self.right += ((found == target) & known).sum()
        self.count += known.sum()

    def compute(self) -> Tensor:
        return self.right.double() / self.count


def segmentation_metrics(
    parts: Sequence[Sequence[int]],
    num_parts: int | None = None,
    prefix: str = "",
    *,
    ignore_index: int = IGNORE_INDEX,
) -> MetricCollection:
    """Return the metrics ``accuracy`` (of points), ``instance_iou`` and ``class_iou``.

    Args:
        parts, num_parts, ignore_index: See :class:`InstanceMeanIoU`.
        prefix: Prefix of the names, for example ``"val_"``.
    """
    kinds = {"accuracy": PointAccuracy, "instance_iou": InstanceMeanIoU, "class_iou": ClassMeanIoU}
    return MetricCollection(
        {name: kind(parts, num_parts, ignore_index=ignore_index) for name, kind in kinds.items()},
        prefix=prefix or None,
        compute_groups=False,
    )


__all__ = ["ClassMeanIoU", "InstanceMeanIoU", "PointAccuracy", "segmentation_metrics"]
