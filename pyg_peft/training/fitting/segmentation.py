"""Train with labels per point: the data module and the Lightning module for segmentation."""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from pyg_peft.datasets import PartLabels
from pyg_peft.errors import check_count
from pyg_peft.model import PeftModel
from pyg_peft.training.data.data_module import ShapeDataModule
from pyg_peft.training.data.labels import IGNORE_INDEX, whole_labels
from pyg_peft.training.data.sources import Splits, open_parts
from pyg_peft.training.evaluation.part_iou import part_mask
from pyg_peft.training.evaluation.segmentation import score_points
from pyg_peft.training.evaluation.segmentation_metrics import segmentation_metrics
from pyg_peft.training.fitting.peft_module import PeftModule


class SegmentationDataModule(ShapeDataModule):
    """Splits clouds with a label per point; otherwise like :class:`ShapeDataModule`.

    Each split is wrapped in :class:`~pyg_peft.datasets.PartLabels`, unless it is one. A validation
    set that is taken from ``train`` keeps the shares of the categories. ``class_names`` are the
    names of the parts.

    Args:
        train, val, test, predict: Data sets that ``PartLabels`` takes, such as ``NpzShapes`` of a
            file with ``seg``, or PyG's ``ShapeNet``.
        part_names, parts: See ``PartLabels``.
        ignore_index: Label, in addition to -1, of points that are neither trained on nor counted.
            Items have -1 instead of it. A ``PartLabels`` keeps its own.
        options: Further arguments of :class:`ShapeDataModule`.

    Raises:
        ValueError: If items have no labels per point, or splits have different parts.
    """

    def __init__(
        self,
        train: Any,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
        *,
        part_names: Sequence[str] | None = None,
        parts: Sequence[Sequence[int]] | None = None,
        ignore_index: int = IGNORE_INDEX,
        **options: Any,
    ) -> None:
        check_count(ignore_index, "ignore_index", least=None)
        first = _shown(train, part_names, parts, ignore_index)
        # All splits get the parts of 'train', since a part may be missing in a small split.
        told = (first.part_names, first.parts)
        rest = [
            None if some is None else _shown(some, *told, ignore_index)
            for some in (val, test, predict)
        ]
        for other in rest:
            if other is not None and (other.part_names, other.parts) != told:
                raise ValueError(
                    f"Expected every split to have the parts {first.part_names} of 'train' "
                    f"(got {other.part_names})"
                )
        super().__init__(first, *rest, class_names=first.part_names, **options)
        self.parts = first.parts
        self.category_names = first.category_names

    @classmethod
    def from_source(cls, spec: str | Splits, *, data_args: dict[str, Any], **options: Any) -> Self:
        """Open ``spec`` with ``open_parts`` and wrap it."""
        splits = spec if isinstance(spec, Splits) else open_parts(spec, **data_args)
        splits.check_train()
        return cls(splits.train, splits.val, splits.test, **options)

    def check_labels(self) -> None:
        """Raise unless every point's label is a part of its cloud's category, or ignored.

        All items are read once.

        Raises:
            TypeError, ValueError: If a label is not. The message names split and item.
        """
        if self._are_checked:
            return
        mask = part_mask(self.parts, self.num_classes)
        for split, shown in self._labeled().items():
            for number in range(len(shown)):
                self._check_item(shown.dataset[number], f"{split}[{number}]", mask)
        self._are_checked = True

    def _check_item(self, item: Any, name: str, mask: Tensor) -> None:
        # PartLabels has checked that both are whole numbers in their ranges.
        category, labels = int(item.category), item.y[item.y != IGNORE_INDEX]
        strange = labels[~mask[category, labels]]
        if strange.numel():
            raise ValueError(
                f"Expected '{name}.y' to hold parts of its category, {list(self.parts[category])} "
                f"of {self.category_names[category]!r} (got {int(strange[0])})"
            )

    @property
    def num_categories(self) -> int:
        return len(self.parts)


class SegmentationModule(PeftModule):
    """Trains an adapter on labels per point; otherwise like :class:`PeftModule`.

    The loss is the cross-entropy over all parts, averaged over the points of a batch. In evaluation
    only the parts of a cloud's category are predicted.

    Args:
        model: The model, with the adapter to train active. Its base returns scores of points.
        parts: The labels of each category.
        num_parts: Number of labels.
        ignore_index: Label of points that are neither trained on nor counted.
        options: Further arguments of :class:`PeftModule`.
    """

    def __init__(
        self,
        model: PeftModel,
        parts: Sequence[Sequence[int]],
        num_parts: int,
        *,
        ignore_index: int = IGNORE_INDEX,
        **options: Any,
    ) -> None:
        check_count(ignore_index, "ignore_index", least=None)
        super().__init__(model, num_parts, **options)
        self.ignore_index = ignore_index
        self.metrics = nn.ModuleDict(
            {
                stage: segmentation_metrics(
                    parts, num_parts, f"{stage}_", ignore_index=ignore_index
                )
                for stage in ("val", "test")
            }
        )

    def forward(self, data: Data, stage: str = "predict") -> Tensor:
        """Return scores ``[N, num_parts]``; only in training the bank omits the sample itself."""
        sample_id = data.sample_id if stage == "train" else None
        cached = self.caches[stage](data) if stage in self.caches else {}
        return score_points(self.model, data, sample_id=sample_id, **cached)

    def _learned(self, scores: Tensor, batch: Data) -> tuple[Tensor, Tensor]:
        labels = whole_labels(batch.y, "point", scores.size(0))
        loss = self._loss(scores, labels, self.label_smoothing)
        known = labels != self.ignore_index
        right = (scores.argmax(dim=-1) == labels)[known].float()
        return loss, right.mean() if right.numel() else right.sum()

    def _loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of the points not ignored; zero, with zero gradient, if none are."""
        if bool((labels == self.ignore_index).all()):
            return scores.sum() * 0.0
        return F.cross_entropy(
            scores, labels, label_smoothing=label_smoothing, ignore_index=self.ignore_index
        )

    def _evaluate(self, batch: Data, stage: str) -> None:
        scores = self(batch, stage).float()
        labels = whole_labels(batch.y, "point", scores.size(0))
        metrics: Any = self.metrics[stage]
        metrics.update(scores, labels, batch.batch, batch.category)
        size = batch.num_graphs
        self.log(f"{stage}_loss", self._loss(scores, labels), batch_size=size, sync_dist=True)
        self.log_dict(metrics, prog_bar=True, batch_size=size)


def _shown(
    dataset: Any,
    part_names: Sequence[str] | None,
    parts: Sequence[Sequence[int]] | None,
    ignore_index: int,
) -> PartLabels:
    if isinstance(dataset, PartLabels):
        return dataset
    return PartLabels(dataset, part_names, parts, ignore_index=ignore_index)


__all__ = ["SegmentationDataModule", "SegmentationModule"]
