"""Choose module, metric and evaluation for labels per cloud or per point."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyg_peft.model import PeftModel
from pyg_peft.training.data.data_module import ShapeDataModule
from pyg_peft.training.evaluation.classification import Evaluation, evaluate
from pyg_peft.training.evaluation.segmentation import evaluate_parts
from pyg_peft.training.fitting.peft_module import PeftModule
from pyg_peft.training.fitting.segmentation import SegmentationDataModule, SegmentationModule


@dataclass(frozen=True)
class Task:
    """Module, metric and evaluation of one kind of data.

    Args:
        monitor: Name of the metric that chooses the best epoch on the validation split.
        make_module: Function that returns the Lightning module of a model, given its options.
        evaluate: Function that evaluates a model on a loader, given options.
    """

    monitor: str
    make_module: Callable[..., PeftModule]
    evaluate: Callable[..., Evaluation]


def task_of(data: ShapeDataModule) -> Task:
    """Return segmentation for a :class:`SegmentationDataModule`, otherwise classification."""
    if isinstance(data, SegmentationDataModule):
        parts, count = data.parts, data.num_classes

        def parts_module(model: PeftModel, **options: Any) -> PeftModule:
            return SegmentationModule(model, parts, count, **options)

        def parts_evaluation(model: PeftModel, loader: Any, **options: Any) -> Evaluation:
            return evaluate_parts(model, loader, parts, count, **options)

        return Task("val_instance_iou", parts_module, parts_evaluation)

    def cloud_module(model: PeftModel, **options: Any) -> PeftModule:
        return PeftModule(model, data.num_classes, **options)

    def cloud_evaluation(model: PeftModel, loader: Any, **options: Any) -> Evaluation:
        return evaluate(model, loader, data.num_classes, **options)

    return Task("val_accuracy", cloud_module, cloud_evaluation)


__all__ = ["Task", "task_of"]
