"""Select the clouds of an ``.npz`` set by split and class, and renumber the classes."""

import re

import numpy as np

from pyg_peft.datasets.labels import IGNORE_INDEX, check_labels, check_unnamed
from pyg_peft.datasets.npz.file import NpzFile, names_in
from pyg_peft.errors import check_count

SPLITS = {"train": 0, "test": 1, "val": 2}
# Names of split folders, compared in lower case.
_FOLDERS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}


def split_of_folder(name: str) -> str | None:
    """Return the split that a folder of this name holds, or ``None`` for any other name."""
    return next((split for split, names in _FOLDERS.items() if name.lower() in names), None)


def split_in_name(name: str) -> str | None:
    """The split that a name speaks of beside other words: ``train_set``, ``testset``, ``val2017``.

    ``None`` for a name that speaks of none, or of several.
    """
    words = [word.removesuffix("set") for word in re.findall("[a-z]+", name.lower())]
    found = {split_of_folder(word) for word in words} - {None}
    return found.pop() if len(found) == 1 else None


def read_labels(file: NpzFile, field: str) -> tuple[np.ndarray, list[str]]:
    """Return the labels ``[M]`` (-1: unlabeled) and the class names that they index.

    A file without the standard field ``label`` has one class, named ``"shape"``. The names of
    ``label`` are in ``class_names``, those of ``coarse_label`` in ``coarse_names``, and so on.
    """
    if field == "label" and "label" not in file.arrays:
        return np.zeros(file.num_clouds, np.int64), ["shape"]
    what = f"'{field}' of '{file.path}'"
    labels = check_labels(file.per_cloud(field), what, least=IGNORE_INDEX)
    key = "class_names" if field == "label" else field.removesuffix("_label") + "_names"
    count = int(labels.max(initial=-1)) + 1
    if key not in file.arrays:
        check_unnamed(labels, what, f"write -1 in its place, or names into '{key}'")
        return labels, [str(number) for number in range(count)]
    names = names_in(file.arrays, key, file.path)
    if count > len(names):
        raise ValueError(
            f"Expected '{field}' of '{file.path}' to index '{key}', 0 to {len(names) - 1} "
            f"(got {count - 1})"
        )
    return labels, names


def read_split(file: NpzFile, fold: int | None) -> np.ndarray:
    """Return the split code of each cloud: 0 train, 1 test, 2 validation, -1 in no split.

    With ``fold``, that fold is the test set and the other folds are the training set. Clouds
    outside the folds (-1) belong to neither. Without a field ``split``, all codes are -1.
    """
    if fold is not None:
        check_count(fold, "fold", least=None)
        what = f"'fold' of '{file.path}'"
        folds = check_labels(file.per_cloud("fold"), what, least=-1)
        known = sorted({int(number) for number in folds if number >= 0})
        if fold not in known:
            raise ValueError(f"Expected 'fold' to be one of {known} (got {fold})")
        return np.where(folds < 0, -1, (folds == fold).astype(np.int64))
    if "split" not in file.arrays:
        return np.full(file.num_clouds, -1, np.int64)
    what = f"'split' of '{file.path}'"
    return check_labels(file.per_cloud("split"), what, least=-1, most=max(SPLITS.values()))


def select_rows(file: NpzFile, split: str | None, codes: np.ndarray) -> np.ndarray:
    """Return a mask of the clouds in ``split`` (``None``: all)."""
    if split is None:
        return np.ones(file.num_clouds, bool)
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"Expected 'split' to be one of {list(SPLITS)} or None (got {split!r})")
    present = sorted(name for name, code in SPLITS.items() if (codes == code).any())
    if split not in present:
        raise ValueError(
            f"Expected 'split' to be one that '{file.path}' has, of {present} (got {split!r})"
            + ("; choose a 'fold' to get splits" if "fold" in file.arrays else "")
        )
    return codes == SPLITS[split]


def select_classes(
    labels: np.ndarray, codes: np.ndarray, names: list[str], min_count: int, min_split_count: int
) -> tuple[np.ndarray, list[str]]:
    """Renumber labels so that only classes with enough clouds remain; the others become -1.

    Clouds are counted over all splits of the file, or over its folds only if a fold is selected.
    The training and the test set therefore keep the same classes.
    """
    valid = labels >= 0
    if (codes >= 0).any():
        valid &= codes >= 0
    size = len(names)
    keep = np.bincount(labels[valid], minlength=size) >= max(min_count, 1)
    if min_split_count > 0:
        for code in np.unique(codes[valid]):
            counts = np.bincount(labels[valid & (codes == code)], minlength=size)
            keep &= counts >= min_split_count
    number = np.where(keep, np.cumsum(keep) - 1, -1)
    renumbered = np.where(labels >= 0, number[np.maximum(labels, 0)], -1)
    return renumbered, [name for name, kept in zip(names, keep, strict=True) if kept]


__all__ = [
    "SPLITS",
    "read_labels",
    "read_split",
    "select_classes",
    "select_rows",
    "split_in_name",
    "split_of_folder",
]
