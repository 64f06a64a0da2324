"""Argument checks shared by data sets and readers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.errors import described


def check_names(values: Any, name: str) -> Sequence[str]:
    """Return a sequence of strings; raise ``TypeError`` for anything else, also for one string."""
    if isinstance(values, str) or not isinstance(values, Collection):
        raise TypeError(f"Expected '{name}' to be a list of names (got {values!r})")
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"Expected '{name}' to be a list of names (got {value!r} in it)")
    return tuple(values)


def check_dataset(dataset: Any, name: str = "dataset") -> Any:
    """Return a data set or a sequence of items; raise ``TypeError`` for anything else."""
    indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not indexed or isinstance(dataset, str | bytes | Mapping | Tensor | type):
        raise TypeError(
            f"Expected '{name}' to be a data set or a list of Data (got {described(dataset)})"
        )
    return dataset


def check_item(item: Any, number: int, name: str = "dataset") -> Data:
    """Return one item of a data set; raise ``TypeError`` unless it is ``Data``."""
    if not isinstance(item, Data):
        raise TypeError(f"Expected item {number} of '{name}' to be Data (got {described(item)})")
    return item


def check_transform(transform: Any, name: str = "transform") -> Callable[..., Any] | None:
    """Return a callable or ``None``; raise ``TypeError`` for anything else."""
    if transform is not None and not callable(transform):
        raise TypeError(f"Expected '{name}' to be a callable or None (got {transform!r})")
    return transform


__all__ = ["check_dataset", "check_item", "check_names", "check_transform"]
