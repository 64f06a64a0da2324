"""Overall and macro accuracy, as reported in the literature."""

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix


class MacroAccuracy(MulticlassConfusionMatrix):
    """Mean accuracy over classes ("mAcc").

    Classes without samples are left out. (``MulticlassAccuracy(average="macro")`` counts such a
    class as 0 as soon as one sample is predicted as it.)

    Args:
        num_classes: Number of classes.

    Example:
        >>> import torch
        >>> metric = MacroAccuracy(3)
        >>> metric.update(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, 1]))
        >>> round(float(metric.compute()), 4)
        0.3333
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)

    def compute(self) -> Tensor:
        confusion = super().compute().double()  # row: target, column: prediction
        support = confusion.sum(dim=1)
        present = support > 0
        return (confusion.diagonal()[present] / support[present]).mean()


def classification_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Return the metrics ``accuracy`` (share of correct samples) and ``macro_accuracy``.

    Args:
        num_classes: Number of classes.
        prefix: Prefix of both names, for example ``"val_"``.
    """
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_accuracy": MacroAccuracy(num_classes),
        },
        prefix=prefix or None,
        compute_groups=False,
    )


__all__ = ["MacroAccuracy", "classification_metrics"]
