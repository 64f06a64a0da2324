"""Give the items of any PyG data set an identity, and find labels and class names in it."""

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
    """Wrap a PyG data set (ModelNet, ShapeNet ...) so that items know their place in it.

    ``sample_id`` is the position in ``dataset`` (of the whole, if this wrapper is subset later).
    It keys augmentation and keeps a training sample from finding itself in a memory bank.

    Args:
        dataset: a data set whose items are ``Data``.
        class_names: names in label order. By default those of ``dataset``: its ``class_names``,
            ShapeNet's ``categories``, ModelNet's raw folders, and else the label numbers.

    Items whose ``y`` is one label have it as a long tensor ``[1]``, whatever it was: a number,
    ``[[1]]``, int32.

    Raises: ``ValueError`` if the number of names does not fit the labels; labels that are no whole
        numbers or name no class, also of an item when it is read.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import SampleIds
        >>> items = [Data(pos=torch.rand(5, 3), y=torch.tensor([i % 2])) for i in range(4)]
        >>> dataset = SampleIds(items, class_names=["chair", "table"])
        >>> dataset[3].sample_id, dataset[2:][0].sample_id, dataset.labels
        (tensor([3]), tensor([2]), tensor([0, 1, 0, 1]))
    """

    def __init__(self, dataset: Any, class_names: Sequence[str] | None = None) -> None:
        super().__init__(None)
        self.dataset = check_dataset(dataset)
        if class_names is None:
            class_names = class_names_of(dataset)
        else:
            class_names = check_names(class_names, "class_names")
            highest = int(labels_of(dataset).max()) if len(dataset) else -1
            if highest >= len(class_names):
                raise ValueError(
                    f"Expected 'class_names' to name {highest + 1} classes (got {len(class_names)})"
                )
        self.class_names = tuple(class_names)

    @property
    def labels(self) -> Tensor:
        """All labels, one per item."""
        return labels_of(self.dataset)[list(self.indices())]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def len(self) -> int:
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        data = copy.copy(
            check_item(self.dataset[idx], idx)
        )  # a list would keep what is set on its item
        data.sample_id = torch.tensor([idx])
        label = data.get("y")
        # Labels of points stay as they are; those of a cloud of one point look like the cloud's.
        if label is not None and (not isinstance(label, Tensor) or label.numel() == 1):
            most = None if data.get("category") is not None else len(self.class_names) - 1
            data.y = single_label(label, f"'y' of item {idx}", most)
        return data


def single_label(label: Any, what: str, most: int | None = None) -> Tensor:
    """One label in any form (a number, ``[[1]]``, int32) as a long tensor ``[1]``.

    Args:
        label: a number, array or tensor of one element.
        what: is checked, for the message.
        most: largest label, if it is known.

    Raises: ``TypeError`` or ``ValueError`` for anything else, and for labels out of range.
    """
    device = label.device if isinstance(label, Tensor) else None
    values = numeric_array(label, what)
    if values.size != 1:
        raise ValueError(f"Expected {what} to be one label (got the shape {list(values.shape)})")
    return torch.from_numpy(check_labels(values.reshape(1), what, most=most)).to(device)


def labels_of(dataset: Any) -> Tensor:
    """Return one label per item as a long tensor.

    Asked in this order: ``dataset.labels``, the stored ``y`` or ``category`` of a PyG in-memory
    data set (without applying its transform), and at last the items themselves.

    Args:
        dataset: a data set or sequence of ``Data``.

    Raises: ``ValueError`` if items have neither a single ``y`` nor a ``category``, or labels are
        negative or no whole numbers.
    """
    check_dataset(dataset)
    if hasattr(dataset, "labels"):
        return _whole(dataset.labels, "'labels' of 'dataset'")
    if hasattr(dataset, "_data"):
        for key in ("category", "y"):
            stored = getattr(dataset, key, None)
            if isinstance(stored, Tensor) and stored.numel() == len(dataset):
                return _whole(stored.reshape(-1), f"'{key}' of 'dataset'")
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
        labels.append(single_label(label, f"the label of item {number}"))
    return torch.cat(labels) if labels else torch.zeros(0, dtype=torch.long)


def _whole(labels: Any, what: str) -> Tensor:
    return torch.from_numpy(check_labels(labels, what))


def class_names_of(dataset: Any) -> tuple[str, ...]:
    """Return the class names that a data set knows, else its label numbers as text.

    Args:
        dataset: see :class:`SampleIds`.

    Raises: ``ValueError`` for labels without names that seem to end in a mark for "not labeled".
    """
    if hasattr(dataset, "class_names"):
        return tuple(dataset.class_names)
    if isinstance(getattr(dataset, "categories", None), list):  # PyG's ShapeNet
        return tuple(dataset.categories)
    labels = labels_of(dataset)
    check_unnamed(
        labels.cpu().numpy(), "the labels of 'dataset'", "'class_names' names the classes"
    )
    count = int(labels.max()) + 1 if labels.numel() else 0
    folder = getattr(dataset, "raw_dir", None) if getattr(dataset, "root", None) else None
    if folder is not None and os.path.isdir(folder):
        folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        # PyG numbers ModelNet's classes by sorted folder; other layouts do not have as many.
        if len(folders) == count:
            return tuple(folders)
    return tuple(str(label) for label in range(count))


__all__ = ["SampleIds", "class_names_of", "labels_of", "single_label"]
