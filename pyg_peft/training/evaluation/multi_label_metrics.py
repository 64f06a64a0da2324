"""Metrics of several labels a cloud: mean average precision, macro F1 and exact matches."""

import warnings

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelStatScores,
)


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision ("mAP") over the labels that at least one cloud has.

    It is NaN if no cloud has any label.

    Args:
        num_labels: Number of labels.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none")

    def compute(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples")
            found = super().compute()
        has = torch.cat(list(self.target)) if isinstance(self.target, list) else self.target
        return found[has.sum(dim=0) > 0].mean()


class MacroF1(MultilabelStatScores):
    """Mean F1 over the labels that at least one cloud has or is predicted to have.

    Args:
        num_labels: Number of labels.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none")

    def compute(self) -> Tensor:
        hits, extra, _, missed, _ = super().compute().reshape(-1, 5).unbind(dim=1)
        occurs = hits + extra + missed > 0
        return (2.0 * hits / (2 * hits + extra + missed))[occurs].mean()


def multi_label_metrics(num_labels: int, prefix: str = "") -> MetricCollection:
    """Return the metrics ``map``, ``macro_f1`` and ``exact_match`` of probabilities.

    Args:
        num_labels: Number of labels.
        prefix: Prefix of the names, for example ``"val_"``.
    """
    return MetricCollection(
        {
            "map": MeanAveragePrecision(num_labels),
            "macro_f1": MacroF1(num_labels),
            "exact_match": MultilabelExactMatch(num_labels),
        },
        prefix=prefix or None,
        compute_groups=False,
    )


__all__ = ["MacroF1", "MeanAveragePrecision", "multi_label_metrics"]
