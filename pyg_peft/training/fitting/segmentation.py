"""Train with labels per point: the data module and the Lightning module for segmentation."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pyg_peft.datasets import PartLabels
from pyg_peft.datasets.sample_ids import labels_of
from pyg_peft.errors import check_count
from pyg_peft.model import PeftModel
from pyg_peft.training.data.labels import IGNORE_INDEX
from pyg_peft.training.data.sources import Splits, open_parts
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.peft_module import PeftModule
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.segmentation import SegmentationTask


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
        options: Further arguments of :class:`ShapeDataModule`. ``class_weights`` in ``task_args``
            are those of the parts; balanced ones come from the points of the training clouds.
            ``balanced_sampling`` balances categories, or with a single one the rarest part of each
            cloud.

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
        shared = (first.part_names, first.parts)
        rest = [
            None if some is None else _shown(some, *shared, ignore_index)
            for some in (val, test, predict)
        ]
        for other in rest:
            if other is not None and (other.part_names, other.parts) != shared:
                raise ValueError(
                    f"Expected every split to have the parts {first.part_names} of 'train' "
                    f"(got {other.part_names})"
                )
        if "ignore_index" in (options.get("task_args") or {}):
            raise ValueError(
                "Expected 'ignore_index' as an argument of the data module or, on the command "
                "line, in '--data_args' (got it in 'task_args')"
            )
        super().__init__(first, *rest, class_names=first.part_names, **options)
        self._counts: Tensor | None = None
        self.parts = first.parts
        self.category_names = first.category_names

    @classmethod
    def open_splits(cls, spec: str, **data_args: Any) -> Splits:
        """Open a source with labels per point; see ``open_parts``."""
        return open_parts(spec, **data_args)

    @classmethod
    def from_source(cls, spec: str | Splits, *, data_args: dict[str, Any], **options: Any) -> Self:
        """Open ``spec`` with :meth:`open_splits`, unless it is open, and wrap it."""
        splits = spec if isinstance(spec, Splits) else cls.open_splits(spec, **data_args)
        splits.check_train()
        return cls(splits.train, splits.val, splits.test, **options)

    @property
    def task(self) -> Task:
        """The task that the labels are for; here, segmentation into parts."""
        own = {"parts": self.parts, "category_names": self.category_names}
        return SegmentationTask.from_dict({**self.task_settings, **own}, self.class_names)

    def class_counts(self) -> Tensor:
        """Return how many training points each part has ``[num_classes]``."""
        return self._part_counts().sum(dim=0)

    def sampled_classes(self) -> Tensor:
        """Return the category of each training cloud; with a single one, its rarest part."""
        if self.num_categories > 1:
            return super().sampled_classes()
        counts = self._part_counts()
        rarest = torch.where(counts > 0, counts.sum(dim=0), counts.sum() + 1).argmin(dim=1)
        return rarest.where(counts.any(dim=1), -1)

    def _part_counts(self) -> Tensor:
        """Return the number of points of each part in each training cloud ``[N, num_classes]``."""
        if self._counts is None:
            clouds = (self.plain_train_set[number].y for number in range(len(self.plain_train_set)))
            size = self.num_classes
            self._counts = torch.stack([y[y >= 0].bincount(minlength=size) for y in clouds])
        return self._counts

    @classmethod
    def strata(cls, dataset: Any, fraction: float, ignore_index: int | None = None) -> Tensor:
        """Return the category of each item."""
        return labels_of(dataset)

    @property
    def num_categories(self) -> int:
        return len(self.parts)


class SegmentationModule(PeftModule):
    """Trains an adapter on labels per point: :class:`PeftModule` with a ``SegmentationTask``.

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
        task = SegmentationTask(parts, num_parts, ignore_index=ignore_index)
        super().__init__(model, task, **options)


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
