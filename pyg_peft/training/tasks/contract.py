"""The contract of a task: everything in training and evaluation that depends on the labels."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.evaluation.forward import check_precision, device_of

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Scored(ABC):
    """Counts of one or more batches, from which the published numbers are computed."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """Return the counts of both, as if they had been one loader."""

    @abstractmethod
    def numbers(self) -> dict[str, float]:
        """Return the metrics by name, as ``result.json`` holds them."""

    def record(self) -> dict[str, Any]:
        """Return what ``result.json`` holds: by default the numbers."""
        return dict(self.numbers())

    def table(self) -> list[str]:
        """Return further lines for the terminal, for example one for each class."""
        return []

    @abstractmethod
    def __str__(self) -> str:
        """Return one line for the terminal."""

    def per_class(self) -> list[tuple[int, int]]:
        """Return how many samples of each class are right, and how many there are.

        Raises:
            ValueError: If the task has no classes.
        """
        raise ValueError(
            f"Expected 'per_class' for a task with classes only (got a {type(self).__name__})"
        )


class Task(ABC):
    """What a model learns from labels: their form, the loss, the metrics and the predictions.

    ``fit``, the Lightning module, the data modules and the command line use a task only through
    these members. A task of your own is a subclass, a data module that has it as ``task``, and
    :func:`~pyg_peft.training.register_task`.

    Attributes:
        name: Name of the task, for ``--task``.
        head: The backbones that serve the task, by their own ``task``: those of
            ``"classification"`` give scores for each cloud, those of ``"segmentation"`` for each
            point.
        monitor: Name of the metric that chooses the best epoch, after ``val_``.
        monitor_mode: ``"max"`` if a larger metric is better, otherwise ``"min"``.
        num_outputs: Number of scores that a head must give for each cloud or point.

    Shapes:
        Scores have the shape ``[rows, num_outputs]``, with a row for each cloud or each point of
        the batch.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    monitor: ClassVar[str]
    monitor_mode: ClassVar[Literal["max", "min"]] = "max"
    num_outputs: int

    @abstractmethod
    def score(
        self,
        model: nn.Module,
        data: Any,
        *,
        sample_id: Tensor | None = None,
        cache: FeatureCache | None = None,
    ) -> Tensor:
        """Run a model on a batch and return its scores.

        Args:
            model: A ``PeftModel``, or any model that gives scores.
            data: A PyG batch.
            sample_id: Ids of the samples in training, which their memory bank then leaves out.
            cache: Cache of the frozen features of the clouds.
        """

    @abstractmethod
    def labels(self, data: Any, rows: int) -> Tensor:
        """Return the labels of a batch in the form that the loss takes.

        Args:
            data: A PyG batch.
            rows: Number of rows of the scores.

        Raises:
            TypeError, ValueError: If the labels are of another form.
        """

    @abstractmethod
    def check_labels(self, dataset: Any, split: str) -> None:
        """Raise unless every label of a split can be learned.

        Args:
            dataset: A data set, before it is preprocessed.
            split: Name of the split, for the message.

        Raises:
            TypeError, ValueError: If a label cannot be learned. The message names it.
        """

    @abstractmethod
    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of a batch."""

    @abstractmethod
    def progress(self, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return what is logged of a training batch besides the loss, by name."""

    @abstractmethod
    def metrics(self, prefix: str = "") -> "MetricCollection":
        """Return the metrics of an epoch, whose names begin with ``prefix``."""

    @abstractmethod
    def update(self, metrics: Any, scores: Tensor, labels: Tensor, data: Any) -> None:
        """Add a batch to metrics that :meth:`metrics` returned."""

    @abstractmethod
    def predictions(self, scores: Tensor, data: Any) -> Tensor:
        """Return the prediction for each row of scores, such as probabilities of classes."""

    @abstractmethod
    def measure(self, scores: Tensor, data: Any) -> Scored:
        """Return the counts of one batch with labels, on the CPU."""

    def predict(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        precision: str = "32-true",
        progress: str = "",
        cache: FeatureCache | None = None,
    ) -> Iterator[tuple[Any, Tensor]]:
        """Yield each batch with its predictions, which are on the CPU.

        Args:
            model: A ``PeftModel``, or any model that gives scores. It is put into eval mode.
            loader: Iterable of PyG batches.
            precision: 32-true, bf16-mixed or 16-mixed.
            progress: Name of a progress bar; empty for no bar.
            cache: Cache of the frozen features of the loader's clouds, which must have a
                ``sample_id``.
        """
        for data, scores in self._score_all(model, loader, precision, progress, cache):
            yield data, self.predictions(scores, data).cpu()

    def evaluate(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        precision: str = "32-true",
        progress: str = "",
        cache: FeatureCache | None = None,
    ) -> Any:
        """Return the counts of a loader with labels.

        Args:
            model, loader, precision, progress, cache: See :meth:`predict`.

        Raises:
            TypeError, ValueError: If an argument has another type, labels are of another form, or
                the loader has no batches.
        """
        found: Any = None
        for data, scores in self._score_all(model, loader, precision, progress, cache):
            some = self.measure(scores, data)
            found = some if found is None else found + some
        if found is None:
            raise ValueError("Expected 'loader' to yield at least one batch (got none)")
        return found

    @torch.no_grad()
    def _score_all(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        precision: str,
        progress: str,
        cache: FeatureCache | None,
    ) -> Iterator[tuple[Any, Tensor]]:
        check_kind(model, "model", nn.Module)
        dtype = check_precision(precision)
        model.eval()
        device = device_of(model)
        for data in tqdm(loader, desc=progress, disable=None if progress else True, leave=False):
            data = data.to(device)
            with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
                scores = self.score(model, data, cache=cache)
            self.check_scores(scores)
            yield data, scores.float()

    def check_scores(self, scores: Tensor) -> None:
        """Raise unless the head gave a number of scores that fits the task.

        Raises:
            ValueError: If it did not.
        """
        if scores.dim() != 2 or scores.size(1) != self.num_outputs:
            raise ValueError(
                f"Expected 'model' to give {self.num_outputs} scores for {self.name} (got the "
                f"shape {list(scores.shape)}): 'reset_head' gives a backbone another number"
            )


__all__ = ["Scored", "Task"]
