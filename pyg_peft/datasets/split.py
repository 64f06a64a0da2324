"""Split a validation set off a training set: stratified, seeded, with whole groups."""

import numpy as np
import torch
from torch import Tensor

from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.labels import check_labels, numeric_array
from pyg_peft.errors import check_count, check_number


def train_val_split(
    labels: Tensor, fraction: float = 0.1, seed: int = 0, *, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split samples into training and validation rows, class by class.

    Without ``groups``, ``fraction`` of the samples of every class are used for validation, rounded.
    If a class has two or more samples, each side gets at least one. With ``groups``, whole groups
    are moved, the largest first, as long as they bring the class counts closer to this target. The
    target is then met only as well as the groups allow.

    Args:
        labels: One label per sample, ``[N]`` long.
        fraction: Share of the validation set, between 0 and 1 (exclusive).
        seed: Random seed. Another seed gives another split.
        groups: One group number per sample, ``[N]``. Samples with equal numbers stay on one side
            (scans of one object, frames of one drive).

    Returns:
        The rows of the training set and of the validation set, each sorted.

    Raises:
        ValueError: If the fraction is outside (0, 1), or sizes do not match.

    Example:
        >>> import torch
        >>> from pyg_peft.datasets import train_val_split
        >>> train, val = train_val_split(torch.tensor([0] * 8 + [1] * 4), fraction=0.25)
        >>> len(train), len(val), int((val < 8).sum())
        (9, 3, 2)
    """
    if not 0 < check_number(fraction, "fraction") < 1:
        raise ValueError(f"Expected 'fraction' to lie between 0 and 1 (got {fraction})")
    check_count(seed, "seed", least=None)
    # Labels are only compared, so that -1 (no label) is treated as one more class.
    labels = torch.from_numpy(check_labels(labels, "'labels'", least=-(2**62)))
    if labels.dim() != 1:
        raise ValueError(f"Expected 'labels' to be of shape [N] (got {list(labels.shape)})")
    generator = keyed_generator("train_val_split", seed)
    if groups is None:
        chosen = _pick_samples(labels, fraction, generator)
    else:
        named = numeric_array(groups, "'groups'")
        # Groups are only compared. torch does not sort unsigned types except uint8.
        numbers = torch.from_numpy(
            named.astype(np.float64 if named.dtype.kind == "f" else np.int64)
        )
        if numbers.is_floating_point() and not bool(numbers.isfinite().all()):
            raise ValueError("Expected 'groups' to be finite (got NaN or infinity)")
        if numbers.shape != labels.shape:
            raise ValueError(
                f"Expected 'groups' to be of shape {list(labels.shape)} (got {list(numbers.shape)})"
            )
        chosen = _pick_groups(labels, numbers, fraction, generator)
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def _targets(counts: Tensor, fraction: float) -> Tensor:
    """Return the number of samples per class for the validation set."""
    wanted = (counts * fraction + 0.5).floor()
    return wanted.clamp(min=1).minimum(counts - 1).clamp(min=0)


def _pick_samples(labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    chosen = torch.zeros(labels.numel(), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        count = int(_targets(torch.tensor(float(rows.numel())), fraction))
        chosen[rows[torch.randperm(rows.numel(), generator=generator)[:count]]] = True
    return chosen


def _pick_groups(
    labels: Tensor, groups: Tensor, fraction: float, generator: torch.Generator
) -> Tensor:
    kinds, label_row = labels.unique(return_inverse=True)
    names, group_row = groups.unique(return_inverse=True)
    table = torch.zeros(names.numel(), kinds.numel(), dtype=torch.float64)
    table.index_put_((group_row, label_row), torch.ones((), dtype=torch.float64), accumulate=True)
    target = _targets(table.sum(dim=0), fraction)
    order = torch.randperm(names.numel(), generator=generator)
    order = order[table[order].sum(dim=1).argsort(descending=True, stable=True)]
    picked = torch.zeros(names.numel(), dtype=torch.bool)
    have = torch.zeros_like(target)
    for group in order.tolist():
        gain = (target - have).abs().sum() - (target - have - table[group]).abs().sum()
        if gain > 0:
            picked[group] = True
            have += table[group]
    return picked[group_row]


__all__ = ["train_val_split"]
