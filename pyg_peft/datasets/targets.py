"""Wrap data sets whose clouds have numbers to learn: targets of a regression, or several labels."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from pyg_peft.datasets.checks import check_dataset, check_item, check_names
from pyg_peft.datasets.labels import numeric_array


class CloudTargets(Dataset):
    """Wrap a data set so that each item has its targets in ``y``, float32 ``[1, T]``.

    A target is a number: a quantity to estimate, or 0 or 1 for a label that a cloud lacks or has.
    Items also have ``sample_id``, the position in ``dataset`` if its items have none.

    Args:
        dataset: A data set whose items are ``Data``.
        target_names: Names of the targets. By default those of ``dataset``, otherwise ``"target"``,
            or ``"target_0"`` and so on.
        values: The targets of all items ``[N, T]`` or ``[N]``. By default those of ``dataset``: its
            ``targets``, otherwise ``y`` of each item.

    Raises:
        TypeError: If targets are not numbers.
        ValueError: If a target is NaN or infinite, items have different numbers of targets, or
            there is not one name for each.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import CloudTargets
        >>> items = [Data(pos=torch.rand(5, 3), y=torch.tensor([0.5 * i])) for i in range(3)]
        >>> dataset = CloudTargets(items, ["height"])
        >>> dataset.targets.flatten().tolist(), dataset[2].y
        ([0.0, 0.5, 1.0], tensor([[1.]]))
    """

    def __init__(
        self, dataset: Any, target_names: Sequence[str] | None = None, *, values: Any = None
    ) -> None:
        super().__init__(None)
        self.dataset = check_dataset(dataset)
        if values is None:
            values = getattr(dataset, "targets", None)
        found = _from_items(dataset) if values is None else _rows(values, "'values'")
        if len(found) != len(dataset):
            raise ValueError(
                f"Expected 'values' to hold targets for each of {len(dataset)} items "
                f"(got {len(found)})"
            )
        self._values = torch.from_numpy(found)
        if target_names is None:
            target_names = getattr(dataset, "target_names", None) or _numbered(found.shape[1])
        self.target_names = tuple(check_names(target_names, "target_names"))
        if len(self.target_names) != found.shape[1]:
            raise ValueError(
                f"Expected 'target_names' to name {found.shape[1]} targets "
                f"(got {len(self.target_names)}: {list(self.target_names)})"
            )

    @property
    def targets(self) -> Tensor:
        """All targets, float64 ``[N, T]``, without loading points."""
        return self._values[list(self.indices())]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the targets, in the order of the scores."""
        return self.target_names

    @property
    def num_classes(self) -> int:
        return len(self.target_names)

    def len(self) -> int:
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        data = copy.copy(check_item(self.dataset[idx], idx))
        data.y = self._values[idx].float()[None]
        if data.get("sample_id") is None:
            data.sample_id = torch.tensor([idx])
        return data


def targets_of(dataset: Any) -> Tensor:
    """Return the targets of all items, float64 ``[N, T]``.

    Raises:
        TypeError, ValueError: See :class:`CloudTargets`.
    """
    given = getattr(dataset, "targets", None)
    return torch.from_numpy(_from_items(dataset) if given is None else _rows(given, "'targets'"))


def _from_items(dataset: Any) -> np.ndarray:
    rows = []
    # By number: a data set of torch need not raise IndexError behind its last item.
    for number in range(len(dataset)):
        y = check_item(dataset[number], number).get("y")
        if y is None:
            raise ValueError(
                f"Expected item {number} of 'dataset' to have targets in 'y' (got none)"
            )
        rows.append(_numbers(y, f"'y' of item {number}").reshape(-1))
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(
                f"Expected 'y' of item {number} to hold {len(rows[0])} targets, as of item 0 "
                f"(got {len(rows[-1])})"
            )
    return np.stack(rows) if rows else np.zeros((0, 1))


def _rows(values: Any, what: str) -> np.ndarray:
    array = _numbers(values, what)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"Expected {what} to be of shape [N] or [N, T] (got {list(array.shape)})")
    return array


def _numbers(values: Any, what: str) -> np.ndarray:
    array = numeric_array(values, what).astype(np.float64)
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"Expected {what} to be finite (got NaN or infinity at {place})")
    return array


def _numbered(count: int) -> list[str]:
    return ["target"] if count == 1 else [f"target_{number}" for number in range(count)]


__all__ = ["CloudTargets", "targets_of"]
