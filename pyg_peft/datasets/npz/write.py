"""Write clouds as one ``.npz`` set."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pyg_peft.datasets.atomic import write_npz
from pyg_peft.datasets.checks import check_names
from pyg_peft.datasets.labels import IGNORE_INDEX, check_labels
from pyg_peft.datasets.npz.select import SPLITS
from pyg_peft.errors import described

# Maximum error of the cast to float32, relative to the size of the cloud.
_CAST_TOLERANCE = 1e-4


def write_shapes(
    path: str | os.PathLike[str],
    clouds: Sequence[Any],
    labels: Sequence[int] | Any,
    *,
    class_names: Sequence[str],
    split: Sequence[str] | None = None,
    fold: Sequence[int] | None = None,
    group: Sequence[int] | None = None,
    ids: Sequence[str] | None = None,
    seg: Sequence[Any] | None = None,
    channels: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write clouds of any sizes to a file that :class:`~pyg_peft.datasets.NpzShapes` reads.

    The file is written completely or not at all.

    Args:
        path: Target file, usually ``….npz``.
        clouds: One ``[n, 3]`` array or tensor per cloud, in any unit. Stored as float32.
        labels: One class number per cloud, -1 for unlabeled clouds.
        class_names: Class names in label order.
        split: ``"train"``, ``"test"`` or ``"val"`` per cloud.
        fold: Fold number per cloud, -1 for none.
        group: Group number per cloud (see ``train_val_split``).
        ids: One name per cloud.
        seg: One ``[n]`` integer array per cloud, -1 for points without a label.
        channels: One ``[n]`` or ``[n, C]`` array per cloud, for each channel name.

    Raises:
        ValueError: If a cloud or field does not fit; the message names it. Also if coordinates are
            so far from the origin that float32 would lose detail: subtract the mean first, in
            float64.
    """
    for name, given in (("clouds", clouds), ("seg", () if seg is None else seg)):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"Expected '{name}' to be a list of arrays (got {described(given)})")
    points = [_cloud(cloud, number) for number, cloud in enumerate(clouds)]
    sizes = [len(cloud) for cloud in points]
    count = len(points)
    class_names = check_names(class_names, "class_names")
    numbers = check_labels(labels, "'labels'", least=IGNORE_INDEX, most=len(class_names) - 1)
    if numbers.shape != (count,):
        raise ValueError(f"Expected 'labels' to be of shape [{count}] (got {list(numbers.shape)})")
    arrays: dict[str, np.ndarray] = {
        "xyz": np.concatenate(points) if points else np.zeros((0, 3), np.float32),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "label": numbers,
        "class_names": np.asarray(list(class_names), dtype=str),
    }
    arrays |= _per_cloud(count, split, fold, group, ids)
    fields = dict(channels or {})
    if seg is not None:
        fields["seg"] = [_seg(row, number) for number, row in enumerate(seg)]
    for name, rows in fields.items():
        if name in arrays:
            raise ValueError(f"Expected 'channels' to avoid the field names (got {name!r})")
        arrays[name] = _rows(name, rows, sizes)
    write_npz(path, arrays)


def _per_cloud(
    count: int,
    split: Sequence[str] | None,
    fold: Sequence[int] | None,
    group: Sequence[int] | None,
    ids: Sequence[str] | None,
) -> dict[str, np.ndarray]:
    """Return the given fields with one value for each of ``count`` clouds, checked."""
    found: dict[str, np.ndarray] = {}
    if split is not None:
        unknown = sorted(set(split) - set(SPLITS))
        if unknown:
            raise ValueError(f"Expected 'split' to hold names of {list(SPLITS)} (got {unknown})")
        found["split"] = np.asarray([SPLITS[name] for name in split], np.uint8)
    for name, values, least in (("fold", fold, -1), ("group", group, -(2**62))):
        if values is not None:
            found[name] = check_labels(values, f"'{name}'", least=least)
    if ids is not None:
        found["ids"] = np.asarray(ids, str)
    for name, array in found.items():
        if array.shape != (count,):
            shape = list(array.shape)
            raise ValueError(f"Expected '{name}' to be of shape [{count}] (got {shape})")
    return found


def _cloud(cloud: Any, number: int) -> np.ndarray:
    try:
        wide = np.asarray(cloud, np.float64)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"Expected 'clouds[{number}]' to be an array or tensor of numbers (got: {error})"
        ) from error
    if wide.ndim != 2 or wide.shape[1] != 3:
        shape = list(wide.shape)
        raise ValueError(f"Expected 'clouds[{number}]' to be of shape [n, 3] (got {shape})")
    if not np.isfinite(wide).all():
        raise ValueError(f"Expected 'clouds[{number}]' to be finite (got NaN or infinity)")
    narrow = wide.astype(np.float32)
    if len(wide):
        extent = np.ptp(wide, axis=0).max()
        error = np.abs(narrow - wide).max()
        if error > _CAST_TOLERANCE * extent and error > 0 and np.ptp(wide, axis=0).any():
            raise ValueError(
                f"Expected 'clouds[{number}]' to survive the cast to float32 "
                f"(got an error of {error:.3g} on an extent of {extent:.3g}): "
                "subtract its mean in float64 first"
            )
    return narrow


def _seg(row: Any, number: int) -> np.ndarray:
    labels = check_labels(row, f"'seg[{number}]'", least=IGNORE_INDEX)
    if labels.ndim != 1:
        raise ValueError(f"Expected 'seg[{number}]' to be of shape [n] (got {list(labels.shape)})")
    given = np.asarray(row)
    return given if given.dtype.kind in "iu" else labels


def _rows(name: str, rows: Sequence[Any], sizes: list[int]) -> np.ndarray:
    arrays = [np.asarray(row) for row in rows]
    found = [len(array) for array in arrays]
    if found != sizes:
        raise ValueError(f"Expected '{name}' to have as many rows as each cloud (got {found[:5]})")
    return np.concatenate(arrays) if arrays else np.zeros(0)


__all__ = ["write_shapes"]
