"""Evaluate part segmentation, batch by batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyg_peft.errors import check_count
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.data.labels import IGNORE_INDEX, whole_labels
from pyg_peft.training.evaluation.classification import Evaluation, check_precision, device_of
from pyg_peft.training.evaluation.forward import base_of, forward_batch
from pyg_peft.training.evaluation.part_iou import choose_parts, known_points, part_mask, shape_ious


@dataclass(frozen=True)
class PartEvaluation(Evaluation):
    """Confusion matrix of points ``[P, P]``, and the mean IoU of each cloud.

    Args:
        confusion: Counts of points, row: true part, column: predicted part.
        shape_iou: Mean IoU of each cloud with labeled points ``[M]``, in the order of the loader.
        category: Categories of these clouds ``[M]``.
    """

    shape_iou: Tensor
    category: Tensor

    @property
    def instance_iou(self) -> float:
        """Instance mIoU of ShapeNet-part."""
        return float(self.shape_iou.mean())

    @property
    def class_iou(self) -> float:
        """The class mIoU of ShapeNet-part, which is the mean over the categories that occur."""
        kinds = self.category.unique()
        return float(torch.stack([self.shape_iou[self.category == k].mean() for k in kinds]).mean())

    @property
    def part_iou(self) -> Tensor:
        """IoU of each part over all points ``[P]``; NaN for one that does not occur."""
        both = self.confusion.diagonal().double()
        either = self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - both
        return torch.where(either > 0, both / either, float("nan"))

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`part_iou` over the parts that occur, the usual metric of scenes."""
        return float(self.part_iou.nanmean())

    def ious(self) -> dict[str, float]:
        """Return the three mean IoUs by name."""
        names = ("instance_iou", "class_iou", "mean_iou")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return (
            f"instance mIoU {100 * self.instance_iou:.2f} %, class mIoU "
            f"{100 * self.class_iou:.2f} %, point accuracy {100 * self.accuracy:.2f} % "
            f"({len(self.shape_iou):,} clouds, {self.count:,} points)"
        )


def score_points(model: nn.Module, data: Any, **more: Any) -> Tensor:
    """Return the scores of a batch's points; a base made for no categories gets no ``category``.

    Args:
        model: A ``PeftModel``, or a base alone.
        data: A PyG batch.
        more: Further arguments of the model, by name.
    """
    base = base_of(model)
    takes_category = "category" in signature(base.forward).parameters
    if takes_category and getattr(base, "num_categories", None) == 0:
        more["category"] = None
    return forward_batch(model, data, **more)


@torch.no_grad()
def evaluate_parts(
    model: nn.Module,
    loader: Iterable[Any],
    parts: Sequence[Sequence[int]],
    num_parts: int,
    *,
    precision: str = "32-true",
    progress: str = "",
    cache: FeatureCache | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> PartEvaluation:
    """Predict the part of every point of a loader with labels, and count the results.

    Args:
        model: A model that returns scores of points. It is put into eval mode.
        loader: Iterable of PyG batches with ``y`` per point and ``category`` per cloud, for example
            of :class:`~pyg_peft.datasets.PartLabels`.
        parts: The labels that each category can have. Only these are predicted for its clouds.
        num_parts: Number of labels.
        precision: See ``check_precision``.
        progress: Name of a progress bar; empty for no bar.
        cache: Cache of the frozen features of the loader's clouds, which must have a
            ``sample_id``.
        ignore_index: Points with this label are not counted, nor are clouds that have no other
            labels.

    Raises:
        TypeError, ValueError: If an argument has another type, labels are not whole numbers or not
            parts of their cloud's category, or the loader has no batches.
    """
    check_kind(model, "model", nn.Module)
    check_count(num_parts, "num_parts")
    dtype = check_precision(precision)
    model.eval()
    device = device_of(model)
    mask = part_mask(parts, num_parts)
    confusion = torch.zeros(num_parts, num_parts, dtype=torch.long)
    ious: list[Tensor] = []
    kinds: list[Tensor] = []
    for data in tqdm(loader, desc=progress, disable=not progress, leave=False):
        data = data.to(device)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            frozen = {} if cache is None else cache(data)
            scores = score_points(model, data, **frozen).float()
        found = choose_parts(scores, data.batch, data.category, mask)
        labels = whole_labels(data.y, "point", scores.size(0))
        iou = shape_ious(found, labels, data.batch, data.category, mask, ignore_index)
        labels, found, rows = known_points(labels, ignore_index, labels, found, data.batch)
        filled = rows.bincount(minlength=data.num_graphs) > 0
        ious.append(iou[filled].cpu())
        kinds.append(data.category[filled].cpu())
        cells = (labels * num_parts + found).cpu()
        confusion += cells.bincount(minlength=num_parts**2).view(num_parts, num_parts)
    if not ious:
        raise ValueError("Expected 'loader' to yield at least one batch (got none)")
    return PartEvaluation(confusion, torch.cat(ious), torch.cat(kinds))


__all__ = ["PartEvaluation", "evaluate_parts", "score_points"]
