"""Classify clouds: one label per cloud."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from pyg_peft.datasets.sample_ids import labels_of
from pyg_peft.errors import check_count
from pyg_peft.model import PeftModel
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.labels import check_range, whole_labels
from pyg_peft.training.evaluation.forward import forward_batch
from pyg_peft.training.tasks.class_settings import (
    check_ignored,
    check_smoothing,
    check_weights,
    class_loss,
    known_rows,
    resolve_weights,
    set_settings,
)
from pyg_peft.training.tasks.contract import Scored, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True)
class Evaluation(Scored):
    """Confusion matrix of an evaluation, and the metrics computed from it.

    Args:
        confusion: Counts ``[K, K]``, row: true class, column: predicted class.
    """

    confusion: Tensor

    @property
    def count(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of correct samples."""
        return int(self.confusion.diagonal().sum()) / max(1, self.count)

    @property
    def macro_accuracy(self) -> float:
        """Mean accuracy over the classes that occur."""
        support = self.confusion.sum(dim=1)
        present = support > 0
        share = self.confusion.diagonal()[present].double() / support[present]
        return float(share.mean())

    def numbers(self) -> dict[str, float]:
        names = ("accuracy", "macro_accuracy", "count")
        return {name: getattr(self, name) for name in names}

    def per_class(self) -> list[tuple[int, int]]:
        rows = enumerate(self.confusion.tolist())
        return [(row[number], sum(row)) for number, row in rows]

    def __add__(self, other: Self) -> Self:
        return type(self)(self.confusion + other.confusion)

    def __str__(self) -> str:
        return (
            f"accuracy {100 * self.accuracy:.2f} %, macro accuracy "
            f"{100 * self.macro_accuracy:.2f} % ({self.count:,} clouds)"
        )


class ClassificationTask(Task):
    """Learns a class for each cloud, by cross-entropy; the best epoch has the highest accuracy.

    Args:
        num_classes: Number of classes.
        class_weights: Weight of each class in the loss. A data module also takes ``"balanced"``
            and weights by name.
        label_smoothing: Share of the target that is spread over all classes in training; ``None``
            for that of ``FitOptions``.
        ignore_index: Label of clouds that are neither learned from nor counted.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If there is no class, or a setting is out of its range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from pyg_peft.backbones import PointNet
        >>> clouds = [Data(pos=torch.rand(20, 3), y=label) for label in (0, 1, 1)]
        >>> task = ClassificationTask(num_classes=2)
        >>> task.evaluate(PointNet(2), [Batch.from_data_list(clouds)]).count
        3
    """

    name: ClassVar[str] = "classification"
    head: ClassVar[str] = "classification"
    monitor: ClassVar[str] = "accuracy"

    def __init__(
        self,
        num_classes: int,
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float | None = None,
        ignore_index: int | None = None,
    ) -> None:
        check_count(num_classes, "num_classes")
        self.num_outputs = num_classes
        self.class_weights = check_weights(class_weights, num_classes)
        self.label_smoothing = check_smoothing(label_smoothing)
        self.ignore_index = check_ignored(ignore_index)

    def to_dict(self) -> dict[str, Any]:
        return set_settings(
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )

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
        check_clouds(data, rows)
        return whole_labels(data.y, "cloud", rows)

    def check_labels(self, dataset: Any, split: str) -> None:
        labels = labels_of(dataset, self.ignore_index)
        check_range(labels, self.num_outputs, f"{split}.y", self.ignore_index)

    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
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
        scores, labels = self.known(scores, labels)
        right = (scores.argmax(dim=-1) == labels).float()
        return {"accuracy": right.mean() if right.numel() else right.sum()}

    def metrics(self, prefix: str = "") -> "MetricCollection":
        from pyg_peft.training.evaluation.metrics import classification_metrics

        return classification_metrics(self.num_outputs, prefix)

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, data: Any) -> None:
        scores, labels = self.known(scores, labels)
        if labels.numel():
            metrics.update(scores, labels)

    def predictions(self, scores: Tensor, data: Any) -> Tensor:
        return scores.softmax(dim=-1)

    def measure(self, scores: Tensor, data: Any) -> Evaluation:
        labels = self.labels(data, scores.size(0)).cpu()
        check_range(labels, self.num_outputs, "y", self.ignore_index)
        scores, labels = self.known(self.predictions(scores, data).cpu(), labels)
        cells = labels * self.num_outputs + scores.argmax(dim=-1)
        size = self.num_outputs
        return Evaluation(cells.bincount(minlength=size**2).view(size, size))


def score_clouds(
    model: nn.Module, data: Any, sample_id: Tensor | None, cache: FeatureCache | None
) -> Tensor:
    """Return the scores of a batch's clouds; see :meth:`Task.score`."""
    more = {} if sample_id is None else {"sample_id": sample_id}
    if cache is not None:
        return model(**more, **cache(data))
    return forward_batch(model, data, **more)


def check_clouds(data: Any, rows: int) -> None:
    """Raise unless a model gave a row of scores for each cloud of a batch."""
    clouds = getattr(data, "num_graphs", rows)
    if rows != clouds:
        raise ValueError(
            f"Expected 'model' to give scores for each of {clouds} clouds (got {rows} rows)"
        )


def evaluate(
    model: PeftModel,
    loader: Iterable[Any],
    num_classes: int,
    *,
    precision: str = "32-true",
    progress: str = "",
    cache: FeatureCache | None = None,
) -> Evaluation:
    """Classify every cloud of a loader with labels, and count the results.

    Args:
        model: A model with an active adapter. It is put into eval mode.
        loader: Iterable of PyG batches with ``y``.
        num_classes: Number of classes.
        precision: 32-true, bf16-mixed or 16-mixed. Positions stay in float32.
        progress: Name of a progress bar; empty for no bar.
        cache: Cache of the frozen features of the loader's clouds, which must have a
            ``sample_id``.

    Raises:
        TypeError, ValueError: If an argument has another type, labels are not whole numbers or are
            out of their range, the model gives another number of scores, or the loader has no
            batches.
    """
    return ClassificationTask(num_classes).evaluate(
        model, loader, precision=precision, progress=progress, cache=cache
    )


__all__ = ["ClassificationTask", "Evaluation", "check_clouds", "evaluate", "score_clouds"]
