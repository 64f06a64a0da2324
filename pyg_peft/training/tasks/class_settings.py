"""Settings of tasks with classes: weights of the classes, smoothed labels, ignored labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_peft.errors import check_count, check_number

#: Value of ``class_weights`` that a data module replaces by weights from its training labels.
BALANCED = "balanced"
_NONE = -100  # what PyTorch ignores by default; no label is negative where none is ignored


def check_weights(weights: Sequence[float] | None, count: int) -> list[float] | None:
    """Return the weights of ``count`` classes as numbers.

    Raises:
        TypeError: If a weight is no number.
        ValueError: If there is another number of weights, or one is not above 0 and finite.
    """
    if weights is None:
        return None
    if isinstance(weights, Tensor):
        weights = weights.tolist()
    if isinstance(weights, str | Mapping) or not isinstance(weights, Sequence):
        raise TypeError(
            f"Expected 'class_weights' to be a weight for each class (got {weights!r}): a data "
            f"module also takes '{BALANCED}' and weights by name"
        )
    if len(weights) != count:
        raise ValueError(f"Expected 'class_weights' to hold {count} weights (got {len(weights)})")
    return [float(check_number(weight, "class_weights", above=0)) for weight in weights]


def check_smoothing(label_smoothing: float | None) -> float | None:
    """Return the share of label smoothing; raise unless it is in [0, 1) or ``None``."""
    if label_smoothing is None:
        return None
    return float(check_number(label_smoothing, "label_smoothing", least=0, below=1))


def check_ignored(ignore_index: int | None) -> int | None:
    """Return the ignored label; raise unless it is a whole number or ``None``."""
    return None if ignore_index is None else check_count(ignore_index, "ignore_index", least=None)


def resolve_weights(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return settings in which weights by name are a list in the order of the names.

    A class without a name in the mapping has the weight 1.

    Raises:
        ValueError: If a name is none of the classes.
    """
    weights = settings.get("class_weights")
    if not isinstance(weights, Mapping):
        return dict(settings)
    unknown = sorted(str(name) for name in set(weights) - set(names))
    if unknown:
        raise ValueError(
            f"Expected 'class_weights' to name classes of {list(names)} (got {', '.join(unknown)})"
        )
    return {**settings, "class_weights": [weights.get(name, 1.0) for name in names]}


def balanced_weights(counts: Tensor) -> list[float]:
    """Return the weights with which every class that occurs counts equally in the loss.

    A class with :math:`n_c` of :math:`n` labels has the weight :math:`n / (K n_c)`, where :math:`K`
    is the number of classes that occur. A class that does not occur has the weight 1.

    Args:
        counts: Number of labels of each class ``[num_classes]``.

    Example:
        >>> import torch
        >>> balanced_weights(torch.tensor([6, 2, 0]))
        [0.6666666666666666, 2.0, 1.0]
    """
    counts = counts.double()
    occurs = counts > 0
    weights = counts.sum() / (occurs.sum() * counts)
    return torch.where(occurs, weights, 1.0).tolist()


def known_rows(scores: Tensor, labels: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Return the rows whose label is not ignored."""
    if ignore_index is None:
        return scores, labels
    known = labels != ignore_index
    return scores[known], labels[known]


def class_loss(
    scores: Tensor,
    labels: Tensor,
    *,
    weights: Sequence[float] | None,
    label_smoothing: float,
    ignore_index: int | None,
) -> Tensor:
    """Return the mean cross-entropy of the labels not ignored, in which classes have weights.

    It is zero, with zero gradient, if all labels are ignored. It is divided by the sum of the
    weights of the labels, so that equal weights change nothing.

    Args:
        scores: Scores ``[rows, num_classes]``.
        labels: Labels ``[rows]``.
        weights: A weight for each class, or ``None``.
        label_smoothing: Share of the target that is spread over all classes.
        ignore_index: The ignored label, or ``None``.
    """
    if ignore_index is not None and bool((labels == ignore_index).all()):
        return scores.sum() * 0.0
    return F.cross_entropy(
        scores,
        labels,
        weight=None if weights is None else scores.new_tensor(weights),
        label_smoothing=label_smoothing,
        ignore_index=_NONE if ignore_index is None else ignore_index,
    )


def set_settings(**settings: Any) -> dict[str, Any]:
    """Return the settings that are not ``None``."""
    return {name: value for name, value in settings.items() if value is not None}


__all__ = [
    "BALANCED",
    "balanced_weights",
    "check_ignored",
    "check_smoothing",
    "check_weights",
    "class_loss",
    "known_rows",
    "resolve_weights",
    "set_settings",
]
