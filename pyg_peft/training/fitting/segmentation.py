"""Train with labels per point: the data module and the Lightning module for segmentation."""

from collections.abc import Sequence
from typing import Any, Self

from pyg_peft.datasets import PartLabels
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
        super().__init__(first, *rest, class_names=first.part_names, **options)
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
        return SegmentationTask(self.parts, self.num_classes, category_names=self.category_names)

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
