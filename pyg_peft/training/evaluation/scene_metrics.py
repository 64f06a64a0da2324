"""Accuracy and mean IoU from confusion matrices, as torchmetrics metrics."""

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix


class ConfusionAccuracy(MulticlassConfusionMatrix):
    """Share of correct points of the confusion matrices that it got; 0 without points.

    Args:
        num_classes: Number of classes.
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def update(self, confusion: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.confmat += confusion

    def compute(self) -> Tensor:
        confusion = super().compute().double()  # row: target, column: prediction
        return confusion.diagonal().sum() / confusion.sum().clamp(min=1)


class ConfusionMeanIoU(ConfusionAccuracy):
    """Mean IoU over the classes that occur in truth or prediction; 0 without points."""

    def compute(self) -> Tensor:
        confusion = MulticlassConfusionMatrix.compute(self).double()
        both = confusion.diagonal()
        either = confusion.sum(dim=0) + confusion.sum(dim=1) - both
        present = either > 0
        return (both / either.clamp(min=1)).sum() / present.sum().clamp(min=1)


def scene_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Return the metrics ``mean_iou`` and ``accuracy`` of scenes.

    Args:
        num_classes: Number of classes.
        prefix: Prefix of both names, for example ``"val_"``.
    """
    kinds = {"mean_iou": ConfusionMeanIoU, "accuracy": ConfusionAccuracy}
    return MetricCollection(
        {name: kind(num_classes) for name, kind in kinds.items()},
        prefix=prefix or None,
        compute_groups=False,
    )


__all__ = ["ConfusionAccuracy", "ConfusionMeanIoU", "scene_metrics"]
