"""Segment clouds into parts: one label per point, and the parts that each category can have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pyg_peft.errors import check_count
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.labels import IGNORE_INDEX, whole_labels
from pyg_peft.training.evaluation.forward import base_of, forward_batch
from pyg_peft.training.evaluation.part_iou import (
    choose_parts,
    known_points,
    mask_scores,
    part_mask,
    shape_ious,
)
from pyg_peft.training.tasks.class_settings import (
    check_smoothing,
    check_weights,
    class_loss,
    known_rows,
    resolve_weights,
    set_settings,
)
from pyg_peft.training.tasks.classification import Evaluation
from pyg_peft.training.tasks.contract import Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


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

    def numbers(self) -> dict[str, float]:
        return {**super().numbers(), **self.ious()}

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.confusion + other.confusion,
            torch.cat([self.shape_iou, other.shape_iou]),
            torch.cat([self.category, other.category]),
        )

    def __str__(self) -> str:
        return (
            f"instance mIoU {100 * self.instance_iou:.2f} %, class mIoU "
            f"{100 * self.class_iou:.2f} %, point accuracy {100 * self.accuracy:.2f} % "
            f"({len(self.shape_iou):,} clouds, {self.count:,} points)"
        )


class SegmentationTask(Task):
    """Learns a part for each point, by cross-entropy over all parts.

    In evaluation only the parts of a cloud's category are predicted. The best epoch has the highest
    instance mIoU.

    Args:
        parts: The labels that each category can have.
        num_parts: Number of labels.
        ignore_index: Label of points that are neither trained on nor counted.
        category_names: Names of the categories, for messages; by default their numbers.
        class_weights: Weight of each part in the loss. A data module also takes ``"balanced"`` and
            weights by name.
        label_smoothing: Share of the target that is spread over all parts in training; ``None``
            for that of ``FitOptions``.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If a category has no part, or one that is not below ``num_parts``; or if a
            setting is out of its range.
    """

    name: ClassVar[str] = "segmentation"
    head: ClassVar[str] = "segmentation"
    monitor: ClassVar[str] = "instance_iou"

    def __init__(
        self,
        parts: Sequence[Sequence[int]],
        num_parts: int,
        *,
        ignore_index: int = IGNORE_INDEX,
        category_names: Sequence[str] | None = None,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float | None = None,
    ) -> None:
        check_count(num_parts, "num_parts")
        check_count(ignore_index, "ignore_index", least=None)
        self.mask = part_mask(parts, num_parts)
        self.parts = parts
        self.num_outputs = num_parts
        self.ignore_index = ignore_index
        self.category_names = category_names or [str(number) for number in range(len(parts))]
        self.class_weights = check_weights(class_weights, num_parts)
        self.label_smoothing = check_smoothing(label_smoothing)

    def to_dict(self) -> dict[str, Any]:
        several = len(self.parts) > 1
        return set_settings(
            parts=[list(some) for some in self.parts] if several else None,
            category_names=list(self.category_names) if several else None,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
        )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Make the task; without ``parts`` there is one category, which can have all parts."""
        resolved = resolve_weights(settings, names)
        parts = resolved.pop("parts", [list(range(len(names)))])
        try:
            return cls(parts, len(names), **resolved)
        except TypeError as error:
            raise ValueError(
                f"Expected settings of the task '{cls.name}' (got {dict(settings)}: {error})"
            ) from error

    def score(
        self,
        model: nn.Module,
        data: Any,
        *,
        sample_id: Tensor | None = None,
        cache: FeatureCache | None = None,
    ) -> Tensor:
        more: dict[str, Any] = {} if sample_id is None else {"sample_id": sample_id}
        return score_points(model, data, **more, **({} if cache is None else cache(data)))

    def labels(self, data: Any, rows: int) -> Tensor:
        return whole_labels(data.y, "point", rows)

    def check_labels(self, dataset: Any, split: str) -> None:
        # PartLabels has checked that labels and category are whole numbers in their ranges.
        for number in range(len(dataset)):
            item = dataset[number]
            category, labels = int(item.category), item.y[item.y != self.ignore_index]
            strange = labels[~self.mask[category, labels]]
            if strange.numel():
                raise ValueError(
                    f"Expected '{split}[{number}].y' to hold parts of its category, "
                    f"{list(self.parts[category])} of {self.category_names[category]!r} "
                    f"(got {int(strange[0])})"
                )

    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of the points not ignored; zero, with zero gradient, if none are."""
        return class_loss(
            scores,
            labels,
            weights=self.class_weights,
            label_smoothing=label_smoothing,
            ignore_index=self.ignore_index,
        )

    def known(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return known_rows(scores, labels, self.ignore_index)

    def progress(self, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        known = labels != self.ignore_index
        right = (scores.argmax(dim=-1) == labels)[known].float()
        return {"accuracy": right.mean() if right.numel() else right.sum()}

    def metrics(self, prefix: str = "") -> "MetricCollection":
        from pyg_peft.training.evaluation.segmentation_metrics import segmentation_metrics

        return segmentation_metrics(
            self.parts, self.num_outputs, prefix, ignore_index=self.ignore_index
        )

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, data: Any) -> None:
        metrics.update(scores, labels, data.batch, data.category)

    def predictions(self, scores: Tensor, data: Any) -> Tensor:
        """Return probabilities of the parts; zero for those that the category cannot have."""
        return mask_scores(scores, data.batch, data.category, self.mask).softmax(dim=-1)

    def measure(self, scores: Tensor, data: Any) -> PartEvaluation:
        size, ignored = self.num_outputs, self.ignore_index
        found = choose_parts(scores, data.batch, data.category, self.mask)
        labels = self.labels(data, scores.size(0))
        iou = shape_ious(found, labels, data.batch, data.category, self.mask, ignored)
        labels, found, rows = known_points(labels, ignored, labels, found, data.batch)
        filled = rows.bincount(minlength=data.num_graphs) > 0
        cells = (labels * size + found).cpu()
        return PartEvaluation(
            cells.bincount(minlength=size**2).view(size, size),
            iou[filled].cpu(),
            data.category[filled].cpu(),
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
        precision: 32-true, bf16-mixed or 16-mixed. Positions stay in float32.
        progress: Name of a progress bar; empty for no bar.
        cache: Cache of the frozen features of the loader's clouds, which must have a
            ``sample_id``.
        ignore_index: Points with this label are not counted, nor are clouds that have no other
            labels.

    Raises:
        TypeError, ValueError: If an argument has another type, labels are not whole numbers or not
            parts of their cloud's category, the model gives another number of scores, or the loader
            has no batches.
    """
    task = SegmentationTask(parts, num_parts, ignore_index=ignore_index)
    return task.evaluate(model, loader, precision=precision, progress=progress, cache=cache)


__all__ = ["PartEvaluation", "SegmentationTask", "evaluate_parts", "score_points"]
