"""Add sample ids to the items of any PyG data set, and find its labels and class names."""

import copy
import os
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from pyg_peft.datasets.checks import check_dataset, check_item, check_names
from pyg_peft.datasets.labels import check_labels, check_unnamed, numeric_array


class SampleIds(Dataset):
    """Wrap a PyG data set (ModelNet, ShapeNet ...) so that its items have a ``sample_id``.

    ``sample_id`` is the position in ``dataset``, also if this wrapper is subset later. It is the
    key of the augmentation, and it excludes a training sample from its own memory bank query.

    Args:
        dataset: A data set whose items are ``Data``.
        class_names: Class names in label order. By default those of ``dataset``: its
            ``class_names``, ShapeNet's ``categories``, ModelNet's raw folders, otherwise the label
            numbers.
        ignore_index: Label of items that have no class.

    Items with a single label in ``y`` have it as a long tensor ``[1]``, also if it was a number,
    ``[[1]]`` or int32.

    Raises:
        ValueError: If the number of names does not match the labels, or labels are not integers or
            have no class name. Items are checked when they are read.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import SampleIds
        >>> items = [Data(pos=torch.rand(5, 3), y=torch.tensor([i % 2])) for i in range(4)]
        >>> dataset = SampleIds(items, class_names=["chair", "table"])
        >>> dataset[3].sample_id, dataset[2:][0].sample_id, dataset.labels
        (tensor([3]), tensor([2]), tensor([0, 1, 0, 1]))
    """

    def __init__(
        self,
        dataset: Any,
        class_names: Sequence[str] | None = None,
        *,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(None)
        self.dataset = check_dataset(dataset)
        self.ignore_index = ignore_index
        if class_names is None:
            class_names = class_names_of(dataset, ignore_index)
        else:
            class_names = check_names(class_names, "class_names")
            labels = labels_of(dataset, ignore_index)
            known = labels if ignore_index is None else labels[labels != ignore_index]
            highest = int(known.max()) if known.numel() else -1
            if highest >= len(class_names):
                raise ValueError(
                    f"Expected 'class_names' to name {highest + 1} classes (got {len(class_names)})"
                )
        self.class_names = tuple(class_names)

    @property
    def labels(self) -> Tensor:
        """All labels, one per item."""
        return labels_of(self.dataset, self.ignore_index)[list(self.indices())]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def len(self) -> int:
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        # A shallow copy, so that the items of a list do not change.
        data = copy.copy(check_item(self.dataset[idx], idx))
        data.sample_id = torch.tensor([idx])
        label = data.get("y")
        # Point labels are unchanged, except in clouds of one point, where they look like its label.
        if label is not None and (not isinstance(label, Tensor) or label.numel() == 1):
            most = None if data.get("category") is not None else len(self.class_names) - 1
            data.y = single_label(label, f"'y' of item {idx}", most, self.ignore_index)
        return data


def single_label(
    label: Any, what: str, most: int | None = None, ignore_index: int | None = None
) -> Tensor:
    """Return one label in any form (a number, ``[[1]]``, int32) as a long tensor ``[1]``.

    Args:
        label: A number, array or tensor of one element.
        what: Description for error messages.
        most: Largest label, if it is known.
        ignore_index: Label that is allowed besides these.

    Raises:
        TypeError: If ``label`` is not numeric.
        ValueError: If ``label`` is not a single integer, or is out of range.
    """
    device = label.device if isinstance(label, Tensor) else None
    values = numeric_array(label, what)
    if values.size != 1:
        raise ValueError(f"Expected {what} to be one label (got the shape {list(values.shape)})")
    if ignore_index is not None and values.item() == ignore_index:
        return torch.tensor([ignore_index], device=device)
    return torch.from_numpy(check_labels(values.reshape(1), what, most=most)).to(device)


def labels_of(dataset: Any, ignore_index: int | None = None) -> Tensor:
    """Return one label per item as a long tensor.

    Labels are taken from the first of these that exists: ``dataset.labels``; the stored
    ``category`` or ``y`` of a PyG in-memory data set (its transform is not applied); the items.

    Args:
        dataset: A data set or sequence of ``Data``.
        ignore_index: Label of items without a class, which may be negative.

    Raises:
        ValueError: If items have neither a single ``y`` nor a ``category``, or labels are negative
            or not integers.
    """
    check_dataset(dataset)
    if hasattr(dataset, "labels"):
        return _whole(dataset.labels, "'labels' of 'dataset'", ignore_index)
    if hasattr(dataset, "_data"):
        for key in ("category", "y"):
            stored = getattr(dataset, key, None)
            if isinstance(stored, Tensor) and stored.numel() == len(dataset):
                return _whole(stored.reshape(-1), f"'{key}' of 'dataset'", ignore_index)
    labels = []
    # By number: a data set of torch need not raise IndexError behind its last item.
    for number in range(len(dataset)):
        data = check_item(dataset[number], number)
        label = data.get("category")
        label = data.get("y") if label is None else label
        shape = None if label is None else list(np.shape(label))
        if shape is None or prod(shape) != 1:
            raise ValueError(
                "Expected 'dataset' to give one label per item in 'y' or 'category' "
                f"(got {shape} for item {number})"
            )
        what = f"the label of item {number}"
        labels.append(single_label(label, what, ignore_index=ignore_index))
    return torch.cat(labels) if labels else torch.zeros(0, dtype=torch.long)


def _whole(labels: Any, what: str, ignore_index: int | None) -> Tensor:
    least = 0 if ignore_index is None else min(0, ignore_index)
    return torch.from_numpy(check_labels(labels, what, least=least))


def class_names_of(dataset: Any, ignore_index: int | None = None) -> tuple[str, ...]:
    """Return the class names of a data set; its label numbers as text if it has none.

    Args:
        dataset: See :class:`SampleIds`.
        ignore_index: Label of items without a class.

    Raises:
        ValueError: If labels without names seem to end in a mark for "not labeled".
    """
    if hasattr(dataset, "class_names"):
        return tuple(dataset.class_names)
    if isinstance(getattr(dataset, "categories", None), list):  # PyG's ShapeNet
        return tuple(dataset.categories)
    labels = labels_of(dataset, ignore_index)
    labels = labels if ignore_index is None else labels[labels != ignore_index]
    check_unnamed(
        labels.cpu().numpy(), "the labels of 'dataset'", "'class_names' names the classes"
    )
    count = int(labels.max()) + 1 if labels.numel() else 0
    folder = getattr(dataset, "raw_dir", None) if getattr(dataset, "root", None) else None
    if folder is not None and os.path.isdir(folder):
        folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        # PyG numbers ModelNet's classes by sorted folder. Other layouts have another number.
        if len(folders) == count:
            return tuple(folders)
    return tuple(str(label) for label in range(count))


__all__ = ["SampleIds", "class_names_of", "labels_of", "single_label"]
