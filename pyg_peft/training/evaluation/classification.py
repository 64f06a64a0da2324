"""Evaluate classification, in the same way during a training run and after it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyg_peft.errors import check_count
from pyg_peft.model import PeftModel
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.checks import check_kind, check_text
from pyg_peft.training.data.labels import check_range, whole_labels
from pyg_peft.training.evaluation.forward import forward_batch

# Precisions that keep coordinates in float32; "true" half precision would round them.
PRECISIONS = {
    "32": None,
    "32-true": None,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
}


@dataclass(frozen=True)
class Evaluation:
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

    def __str__(self) -> str:
        return (
            f"accuracy {100 * self.accuracy:.2f} %, macro accuracy "
            f"{100 * self.macro_accuracy:.2f} % ({self.count:,} clouds)"
        )


def check_precision(precision: str) -> torch.dtype | None:
    """Return the autocast type of a precision, or ``None`` for no autocast.

    Raises:
        ValueError: If the precision would not keep positions in float32.
    """
    check_text(precision, "precision")
    if precision not in PRECISIONS:
        raise ValueError(
            f"Expected 'precision' to be one of {', '.join(PRECISIONS)}, which keep positions in "
            f"float32 (got {precision!r})"
        )
    return PRECISIONS[precision]


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@torch.no_grad()
def predict_probabilities(
    model: PeftModel,
    loader: Iterable[Any],
    *,
    precision: str = "32-true",
    progress: str = "",
    cache: FeatureCache | None = None,
) -> Iterable[tuple[Any, Tensor]]:
    """Yield each batch with the class probabilities ``[B, K]`` of its clouds.

    Args:
        model: A model with an active adapter. It is put into eval mode.
        loader: Iterable of PyG batches.
        precision: See ``check_precision``.
        progress: Name of a progress bar; empty for no bar.
        cache: Cache of the frozen features of the loader's clouds, which must have a
            ``sample_id``.
    """
    check_kind(model, "model", nn.Module)
    dtype = check_precision(precision)
    model.eval()
    device = device_of(model)
    for data in tqdm(loader, desc=progress, disable=None if progress else True, leave=False):
        data = data.to(device)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits = forward_batch(model, data) if cache is None else model(**cache(data))
        yield data, logits.float().softmax(dim=-1).cpu()


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
        precision: See ``check_precision``.
        progress: Name of a progress bar; empty for no bar.
        cache: See ``predict_probabilities``.

    Raises:
        TypeError, ValueError: If an argument has another type, labels are not whole numbers or are
            out of their range, or the loader has no batches.
    """
    check_count(num_classes, "num_classes")
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.long)
    for data, probabilities in predict_probabilities(
        model, loader, precision=precision, progress=progress, cache=cache
    ):
        labels = whole_labels(data.y, "cloud", probabilities.size(0)).cpu()
        check_range(labels, num_classes, "y")
        cells = labels * num_classes + probabilities.argmax(dim=-1)
        confusion += cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)
    if not int(confusion.sum()):
        raise ValueError("Expected 'loader' to yield at least one batch (got none)")
    return Evaluation(confusion)


__all__ = [
    "PRECISIONS",
    "Evaluation",
    "check_precision",
    "device_of",
    "evaluate",
    "predict_probabilities",
]
