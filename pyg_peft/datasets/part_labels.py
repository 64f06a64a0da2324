"""Data sets whose points have labels, in one form: what kinds of items there are, and their names.

An item is a PyG ``Data`` with a part for each point in ``y`` and a category of the cloud.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from pyg_peft.datasets.sample_ids import class_names_of, labels_of

#: Label of a point that is neither learned from nor counted.
IGNORE_INDEX = -1


class PartLabels(Dataset):
    """Show a data set with labels of points as PyG's ``ShapeNet`` shows its own.

    Items: ``pos`` float32 ``[n, 3]``, ``y`` long ``[n]`` (the part of each point), ``category``
    long ``[1]``, ``sample_id`` long ``[1]`` (the place in ``dataset`` if that has none), and ``x``
    where there are features.

    Args:
        dataset: :class:`NpzShapes` of a file with ``seg``, PyG's ``ShapeNet``, or any data set
            whose items have ``seg``, or a per-point ``y``; ``category`` (or a single ``y`` beside
            ``seg``) is 0 where it is missing.
        part_names: names in label order; by default those of ``dataset``, else numbers.
        parts: the parts that each category can have, by category. By default ShapeNet's own, and
            else all parts for every category.

    Raises: ``ValueError`` if items have no labels of points, or names and parts do not fit them.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import PartLabels
        >>> items = [Data(pos=torch.rand(5, 3), seg=torch.tensor([0, 0, 1, 1, 2]))]
        >>> dataset = PartLabels(items, ["leg", "seat", "back"])
        >>> dataset[0].y, dataset.parts
        (tensor([0, 0, 1, 1, 2]), ((0, 1, 2),))
    """

    def __init__(
        self,
        dataset: Any,
        part_names: Sequence[str] | None = None,
        parts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(None)
        self.dataset = dataset
        if len(dataset) == 0:
            raise ValueError("Expected 'dataset' to have items (got none)")
        first = dataset[0]
        if not _has_point_labels(first):
            raise ValueError(
                "Expected 'dataset' to give a label per point in 'seg' or 'y' "
                f"(got the keys {first.keys()})"
            )
        self.category_names = _category_names(dataset, first)
        known = _known_parts(dataset)
        if part_names is None:
            part_names = _known_names(dataset, known, self.category_names)
        self.part_names = tuple(str(name) for name in part_names)
        everything = tuple(range(len(self.part_names)))
        chosen = parts if parts is not None else known
        if chosen is None:
            chosen = [everything] * len(self.category_names)
        self.parts = tuple(tuple(int(part) for part in some) for some in chosen)
        if len(self.parts) != len(self.category_names):
            raise ValueError(
                f"Expected 'parts' to have a row for each of {len(self.category_names)} categories "
                f"(got {len(self.parts)})"
            )
        if any(not some or not set(some) <= set(everything) for some in self.parts):
            raise ValueError(
                f"Expected 'parts' to list labels below {len(everything)} for every category "
                f"(got {self.parts})"
            )

    @property
    def labels(self) -> Tensor:
        """The category of each item; a split keeps their shares."""
        if len(self.category_names) == 1:
            return torch.zeros(len(self), dtype=torch.long)
        return labels_of(self.dataset)[list(self.indices())]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the parts, in the order of scores."""
        return self.part_names

    @property
    def num_classes(self) -> int:
        return len(self.part_names)

    def len(self) -> int:
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        data = copy.copy(self.dataset[idx])
        category, seg = data.get("category"), data.get("seg")
        if seg is not None:
            if category is None and isinstance(data.get("y"), Tensor) and data.y.numel() == 1:
                category = data.y
            data.y = seg
            del data.seg
        if not isinstance(category, Tensor):
            category = torch.tensor([0 if category is None else int(category)])
        data.category = category.reshape(1).long()
        if data.get("sample_id") is None:
            data.sample_id = torch.tensor([idx])
        return data


def _has_point_labels(data: Data) -> bool:
    labels = data.get("seg")
    labels = data.get("y") if labels is None else labels
    return isinstance(labels, Tensor) and labels.shape == (data.num_nodes,)


def _category_names(dataset: Any, first: Data) -> tuple[str, ...]:
    """Names of the categories; one without a name where items tell none."""
    if first.get("category") is None and (first.get("seg") is None or first.get("y") is None):
        return ("all",)
    return class_names_of(dataset)


def _known_parts(dataset: Any) -> list[list[int]] | None:
    """The parts of each category, as PyG's ``ShapeNet`` lists them."""
    table = getattr(dataset, "seg_classes", None)
    return None if table is None else [table[name] for name in dataset.categories]


def _known_names(
    dataset: Any, parts: list[list[int]] | None, categories: Sequence[str]
) -> Sequence[str]:
    if parts is not None:
        count = int(dataset.num_classes)
        names = [str(part) for part in range(count)]
        for category, some in zip(categories, parts, strict=True):
            for place, part in enumerate(some):
                names[part] = f"{category} {place}"
        return names
    fields = getattr(dataset, "fields", {})
    if "part_names" in fields:
        return [str(name) for name in fields["part_names"]]
    highest = max(int(labels.max()) for data in dataset if (labels := _labels(data)).numel())
    return [str(part) for part in range(highest + 1)]


def _labels(data: Data) -> Tensor:
    seg = data.get("seg")
    return data.y if seg is None else seg  # pyright: ignore[reportReturnType]


__all__ = ["IGNORE_INDEX", "PartLabels"]
