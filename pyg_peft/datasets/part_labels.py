"""Wrap data sets with point labels in one common form.

An item is a PyG ``Data`` with a part for each point in ``y`` and a category of the cloud. A point
with the label :data:`IGNORE_INDEX` has no part. It is ignored in losses, metrics and lists of
parts.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from pyg_peft.datasets.checks import check_dataset, check_item, check_names
from pyg_peft.datasets.labels import IGNORE_INDEX, check_labels, check_unnamed, numeric_array
from pyg_peft.datasets.sample_ids import class_names_of, labels_of, single_label
from pyg_peft.errors import check_count


class PartLabels(Dataset):
    """Wrap a data set with point labels so that its items look like those of PyG's ``ShapeNet``.

    Items: ``pos`` float32 ``[n, 3]``, ``y`` long ``[n]`` (the part of each point, -1 for none),
    ``category`` long ``[1]``, ``sample_id`` long ``[1]`` (the position in ``dataset`` if its items
    have none), and ``x`` if there are features.

    Args:
        dataset: :class:`NpzShapes` of a file with ``seg``, PyG's ``ShapeNet``, or any data set
            whose items have ``seg`` or a per-point ``y``. ``category`` (or a single ``y`` beside
            ``seg``) is 0 if it is missing.
        part_names: Part names in label order. By default those of ``dataset``, otherwise numbers.
        parts: Allowed parts of each category. By default ShapeNet's own, otherwise all parts for
            every category.
        ignore_index: Label that means "no part". Items have -1 instead. -1 always means "no part".

    Raises:
        ValueError: If items have no point labels, or if names and parts do not match them. When an
            item is read: if labels are not integers or refer to no part or category.

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
        *,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__(None)
        self.dataset = check_dataset(dataset)
        self.ignore_index = check_count(ignore_index, "ignore_index", least=None)
        if part_names is not None:
            part_names = check_names(part_names, "part_names")
            if not part_names:
                raise ValueError("Expected 'part_names' to name at least one part (got none)")
        if len(dataset) == 0:
            raise ValueError("Expected 'dataset' to have items (got none)")
        first = check_item(dataset[0], 0)
        if not _has_point_labels(first):
            raise ValueError(
                "Expected 'dataset' to give a label per point in 'seg' or 'y' "
                f"(got the keys {first.keys()})"
            )
        self.category_names = _category_names(dataset, first)
        known = _known_parts(dataset)
        if part_names is None:
            part_names = _known_names(dataset, known, self.category_names, self.ignore_index)
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
        """The category of each item, by which a split can be stratified."""
        if len(self.category_names) == 1:
            return torch.zeros(len(self), dtype=torch.long)
        return labels_of(self.dataset)[list(self.indices())]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the parts, in the order of the logits."""
        return self.part_names

    @property
    def num_classes(self) -> int:
        return len(self.part_names)

    def len(self) -> int:
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        data = copy.copy(check_item(self.dataset[idx], idx))
        category, seg = data.get("category"), data.get("seg")
        if seg is not None:
            label = data.get("y")
            if category is None and isinstance(label, Tensor) and label.numel() == 1:
                category = label
            data.y = seg
            del data.seg
        if not _has_point_labels(data):
            raise ValueError(
                f"Expected item {idx} of 'dataset' to give a label per point in 'seg' or 'y' (got "
                f"the keys {data.keys()})"
            )
        labels = _labels(data)
        parts = _parts_of(labels, idx, self.ignore_index, len(self.part_names) - 1)
        data.y = torch.from_numpy(parts).to(labels.device)
        data.category = single_label(
            0 if category is None else category,
            f"'category' of item {idx} of 'dataset'",
            len(self.category_names) - 1,
        )
        if data.get("sample_id") is None:
            data.sample_id = torch.tensor([idx])
        return data


def _has_point_labels(data: Data) -> bool:
    labels = data.get("seg")
    labels = data.get("y") if labels is None else labels
    return isinstance(labels, Tensor) and labels.shape == (data.num_nodes,)


def _category_names(dataset: Any, first: Data) -> tuple[str, ...]:
    """Return the names of the categories; a single ``"all"`` if items have no category."""
    if first.get("category") is None and (first.get("seg") is None or first.get("y") is None):
        return ("all",)
    return class_names_of(dataset)


def _known_parts(dataset: Any) -> list[list[int]] | None:
    """Return the parts of each category, as listed by PyG's ``ShapeNet``."""
    table = getattr(dataset, "seg_classes", None)
    return None if table is None else [table[name] for name in dataset.categories]


def _parts_of(labels: Tensor, item: int, ignore_index: int, most: int | None) -> np.ndarray:
    """Return point labels as integers in range, with -1 for none."""
    what = f"the labels of points of item {item} of 'dataset'"
    values = numeric_array(labels, what)
    if ignore_index != IGNORE_INDEX:
        values = np.where(values == ignore_index, np.float64(IGNORE_INDEX), values)
    remedy = "; set 'ignore_index' to a label that means none"
    return check_labels(values, what, least=IGNORE_INDEX, most=most, remedy=remedy)


def _known_names(
    dataset: Any, parts: list[list[int]] | None, categories: Sequence[str], ignore_index: int
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
    present: set[int] = set()
    # By number: a data set of torch need not raise IndexError behind its last item.
    for item in range(len(dataset)):
        labels = _labels(check_item(dataset[item], item))
        present.update(np.unique(_parts_of(labels, item, ignore_index, None)).tolist())
    present.discard(IGNORE_INDEX)
    if not present:
        raise ValueError("Expected 'dataset' to have points with a label (got none)")
    remedy = f"'part_names' names the parts, and ignore_index={max(present)} leaves it out"
    check_unnamed(np.array(sorted(present)), "the labels of points of 'dataset'", remedy)
    return [str(part) for part in range(max(present) + 1)]


def _labels(data: Data) -> Tensor:
    seg = data.get("seg")
    return data.y if seg is None else seg  # pyright: ignore[reportReturnType]


__all__ = ["IGNORE_INDEX", "PartLabels"]
