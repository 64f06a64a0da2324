"""Find labels: each cloud has any number of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_peft.datasets.targets import targets_of
from pyg_peft.errors import check_count
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.labels import target_rows
from pyg_peft.training.tasks.class_settings import (
    check_smoothing,
    check_weights,
    resolve_weights,
    set_settings,
)
from pyg_peft.training.tasks.classification import check_clouds, score_clouds
from pyg_peft.training.tasks.contract import Scored, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True)
class MultiLabelEvaluation(Scored):
    """Probabilities and labels of the clouds of an evaluation, and their metrics.

    A label is predicted if its probability is above 0.5.

    Args:
        probabilities: Probabilities ``[N, num_labels]``.
        labels: Whether each cloud has each label ``[N, num_labels]``.
    """

    probabilities: Tensor
    labels: Tensor

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def average_precision(self) -> Tensor:
        """Average precision of each label ``[num_labels]``; NaN for one that no cloud has."""
        columns = zip(self.probabilities.unbind(dim=1), self.labels.unbind(dim=1), strict=True)
        return torch.stack([_average_precision(found, label) for found, label in columns])

    @property
    def map(self) -> float:
        """Mean average precision over the labels that at least one cloud has."""
        return float(self.average_precision.nanmean())

    @property
    def f1(self) -> Tensor:
        """F1 of each label ``[num_labels]``; NaN for one that no cloud has or is said to have."""
        found = self.probabilities > 0.5
        right = (found & self.labels).sum(dim=0).double()
        return 2 * right / (found.sum(dim=0) + self.labels.sum(dim=0))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that at least one cloud has or is said to have."""
        return float(self.f1.nanmean())

    @property
    def exact_match(self) -> float:
        """Share of the clouds of which every label is right."""
        right = ((self.probabilities > 0.5) == self.labels).all(dim=1)
        return int(right.sum()) / max(1, self.count)

    def numbers(self) -> dict[str, float]:
        names = ("map", "macro_f1", "exact_match", "count")
        return {name: getattr(self, name) for name in names}

    def per_class(self) -> list[tuple[int, int]]:
        """Return how many clouds with each label are found, and how many there are."""
        right = (self.probabilities > 0.5) & self.labels
        return list(zip(right.sum(dim=0).tolist(), self.labels.sum(dim=0).tolist(), strict=True))

    def __add__(self, other: Self) -> Self:
        return type(self)(
            torch.cat([self.probabilities, other.probabilities]),
            torch.cat([self.labels, other.labels]),
        )

    def __str__(self) -> str:
        return (
            f"mAP {100 * self.map:.2f} %, macro F1 {100 * self.macro_f1:.2f} %, exact match "
            f"{100 * self.exact_match:.2f} % ({self.count:,} clouds)"
        )


class MultiLabelTask(Task):
    """Learns which labels a cloud has, each by itself; the best epoch has the highest mAP.

    The labels of a cloud are zeros and ones ``[1, num_labels]``. The loss is the binary
    cross-entropy; predictions are the probability of each label.

    Args:
        num_labels: Number of labels.
        class_weights: Weight of each label in the loss. A data module also takes ``"balanced"`` and
            weights by name.
        label_smoothing: Share by which targets move from 0 and 1 towards 0.5 in training; ``None``
            for that of ``FitOptions``.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If there is no label, or a setting is out of its range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from pyg_peft.backbones import PointNet
        >>> labels = torch.tensor([[0, 1], [1, 1]])
        >>> clouds = [Data(pos=torch.rand(20, 3), y=row[None]) for row in labels]
        >>> MultiLabelTask(2).evaluate(PointNet(2), [Batch.from_data_list(clouds)]).count
        2
    """

    name: ClassVar[str] = "multi_label"
    head: ClassVar[str] = "classification"
    monitor: ClassVar[str] = "map"
    least_outputs: ClassVar[int] = 1
    output_word: ClassVar[str] = "labels"

    def __init__(
        self,
        num_labels: int,
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float | None = None,
    ) -> None:
        check_count(num_labels, "num_labels")
        self.num_outputs = num_labels
        self.class_weights = check_weights(class_weights, num_labels)
        self.label_smoothing = check_smoothing(label_smoothing)

    def to_dict(self) -> dict[str, Any]:
        return set_settings(class_weights=self.class_weights, label_smoothing=self.label_smoothing)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], names: Sequence[str]) -> Self:
        return super().from_dict(resolve_weights(settings, names), names)

    def score(
        self,
        model: nn.Module,
        data: Any,
        *,
        sample_id: Tensor | None = None,
        cache: FeatureCache | None = None,
    ) -> Tensor:
        return score_clouds(model, data, sample_id, cache)

    def labels(self, data: Any, rows: int) -> Tensor:
        """Return the labels of a batch as zeros and ones ``[rows, num_labels]``."""
        check_clouds(data, rows)
        y = target_rows(data.y, rows, self.num_outputs)
        if not bool(((y == 0) | (y == 1)).all()):
            wrong = float(y[(y != 0) & (y != 1)][0])
            raise ValueError(f"Expected 'y' to hold a 0 or 1 for each label (got {wrong:g})")
        return y

    def check_labels(self, dataset: Any, split: str) -> None:
        targets = targets_of(dataset)
        if targets.size(1) != self.num_outputs:
            raise ValueError(
                f"Expected '{split}.y' to hold {self.num_outputs} labels for each cloud "
                f"(got {targets.size(1)})"
            )
        wrong = (targets != 0) & (targets != 1)
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"Expected '{split}.y' to hold a 0 or 1 for each label "
                f"(got {float(targets[row, column]):g} at {row}, {column})"
            )

    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        weight = None
        if self.class_weights is not None:
            weight = scores.new_tensor(self.class_weights)
            weight = weight / weight.mean()  # equal weights change nothing
        target = labels * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(scores, target, weight=weight)

    def progress(self, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"exact_match": ((scores > 0) == (labels > 0)).all(dim=-1).float().mean()}

    def metrics(self, prefix: str = "") -> "MetricCollection":
        from pyg_peft.training.evaluation.multi_label_metrics import multi_label_metrics

        return multi_label_metrics(self.num_outputs, prefix)

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, data: Any) -> None:
        metrics.update(scores.sigmoid(), labels.long())

    def predictions(self, scores: Tensor, data: Any) -> Tensor:
        """Return the probability of each label."""
        return scores.sigmoid()

    def measure(self, scores: Tensor, data: Any) -> MultiLabelEvaluation:
        labels = self.labels(data, scores.size(0)).bool()
        return MultiLabelEvaluation(self.predictions(scores, data).cpu(), labels.cpu())


def rarest_label(targets: Tensor) -> Tensor:
    """Return the rarest label of each cloud ``[N]``, and ``num_labels`` for a cloud without one.

    Args:
        targets: Zeros and ones ``[N, num_labels]``.

    Example:
        >>> import torch
        >>> rarest_label(torch.tensor([[1, 0], [1, 1], [0, 0]]))
        tensor([0, 1, 2])
    """
    has = targets > 0
    counts = has.sum(dim=0).expand_as(has)
    rarest = torch.where(has, counts, len(targets) + 1).argmin(dim=1)
    return torch.where(has.any(dim=1), rarest, targets.size(1))


def _average_precision(probability: Tensor, label: Tensor) -> Tensor:
    """Return the mean precision at the thresholds, weighted by the gain in recall; NaN if none."""
    order = probability.argsort(descending=True, stable=True)
    ranked, right = probability[order], label[order].double().cumsum(dim=0)
    last = torch.ones_like(label)  # of clouds with equal probability the last counts
    last[:-1] = ranked[1:] != ranked[:-1]
    rank = torch.arange(1, len(label) + 1, dtype=torch.float64)[last]
    right = right[last]
    return (right.diff(prepend=right.new_zeros(1)) * right / rank).sum() / label.sum()


__all__ = ["MultiLabelEvaluation", "MultiLabelTask", "rarest_label"]
