"""Collect the predictions of a test, to look at single clouds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.tasks.classification import ClassificationTask, Evaluation


@dataclass(frozen=True)
class Mistake:
    """A cloud that was classified wrongly.

    Args:
        row: Position in the data set.
        true: Label.
        predicted: Predicted class.
        confidence: Probability of the predicted class.
    """

    row: int
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Answers:
    """Labels and predicted probabilities of clouds, in the order of their data set.

    Args:
        labels: Labels ``[N]``.
        probabilities: Probabilities ``[N, K]``.
    """

    labels: Tensor
    probabilities: Tensor

    @property
    def evaluation(self) -> Evaluation:
        """The counts, from which the published numbers are computed."""
        size = self.probabilities.size(1)
        cells = self.labels * size + self.probabilities.argmax(dim=1)
        return Evaluation(cells.bincount(minlength=size**2).view(size, size))

    def mistakes(self, most: int) -> list[Mistake]:
        """Return the wrong answers with the highest probability, at most ``most`` of them."""
        confidence, predicted = self.probabilities.max(dim=1)
        rows = (predicted != self.labels).nonzero().flatten()
        order = confidence[rows].argsort(descending=True, stable=True)[:most]
        return [
            Mistake(row, int(self.labels[row]), int(predicted[row]), float(confidence[row]))
            for row in rows[order].tolist()
        ]


def collect_answers(
    task: ClassificationTask,
    model: nn.Module,
    loader: Iterable[Any],
    *,
    cache: FeatureCache | None = None,
) -> Answers:
    """Classify every cloud of a loader once, and return labels and probabilities.

    Args:
        task: The task of the model.
        model: A ``PeftModel``, or any model that gives scores. It is put into eval mode.
        loader: Iterable of PyG batches with labels.
        cache: Cache of the frozen features of the loader's clouds.

    Raises:
        ValueError: If the loader has no batches, or labels are of another form.
    """
    labels: list[Tensor] = []
    found: list[Tensor] = []
    for data, probabilities in task.predict(model, loader, cache=cache):
        labels.append(task.labels(data, probabilities.size(0)).cpu())
        found.append(probabilities)
    if not found:
        raise ValueError("Expected 'loader' to yield at least one batch (got none)")
    return Answers(torch.cat(labels), torch.cat(found))


__all__ = ["Answers", "Mistake", "collect_answers"]
