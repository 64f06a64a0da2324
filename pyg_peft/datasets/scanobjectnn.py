"""ScanObjectNN: objects from indoor scans, read from the original .h5 files."""

import os
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.datasets.checks import check_transform
from pyg_peft.datasets.formats.claims import check_expansion
from pyg_peft.datasets.labeled import LabeledDataset
from pyg_peft.datasets.labels import check_labels
from pyg_peft.datasets.transforms import Normalize
from pyg_peft.errors import MissingExtraError, check_flag

# Variant: with background or not, suffix of the file name.
_VARIANTS = {
    "OBJ_BG": (True, ""),
    "OBJ_ONLY": (False, ""),
    "PB_T25": (True, "_augmented25_norot"),
    "PB_T25_R": (True, "_augmented25rot"),
    "PB_T50_R": (True, "_augmentedrot"),
    "PB_T50_RS": (True, "_augmentedrot_scale75"),
}
_PARTITIONS = ("main_split", "split1", "split2", "split3", "split4")
_SPLITS = {"train": "training", "test": "test"}


class ScanObjectNN(LabeledDataset):
    """ScanObjectNN after `"Revisiting Point Cloud Classification: A New Benchmark Dataset and
    Classification Model on Real-World Data" <https://arxiv.org/abs/1908.04616>`_.

    It has fifteen classes of objects from indoor scans, with 2,048 points each, y up. Nothing is
    downloaded: request the data from the authors, unpack ``h5_files.zip`` and pass the folder.

    =============  =====================================================================
    variant        objects
    =============  =====================================================================
    ``OBJ_BG``     as scanned, with background points
    ``OBJ_ONLY``   background removed
    ``PB_T25``     bounding box moved by up to 25 %
    ``PB_T25_R``   … and turned about the up axis
    ``PB_T50_R``   moved by up to 50 %, turned
    ``PB_T50_RS``  moved by up to 50 %, turned, scaled: the hardest, and the usual benchmark
    =============  =====================================================================

    Args:
        root: Folder ``h5_files``, or its parent folder.
        split: ``"train"`` or ``"test"``. There is no official validation set: split one off the
            training set with :func:`~pyg_peft.datasets.train_val_split`.
        variant: One of the variants in the table.
        partition: ``"main_split"`` (the usual one) or ``"split1"`` to ``"split4"``.
        mask: Add ``seg`` to the items: 1 for points of the object, 0 for background.
        normalize: Center each object and scale it into the unit sphere.
        transform: Applied to each item when it is read.

    Items: ``pos`` float32 ``[2048, 3]``, ``y`` and ``sample_id`` long ``[1]`` (row in the file).

    Raises:
        FileNotFoundError: If a file is missing. The message names it.
        MissingExtraError: If h5py is not installed.
        ValueError: If a field does not fit. The message names the file and the field.

    Terms: distributed by its authors on request through a form, for research only; redistribution
    is not allowed.

    Example::

        train = ScanObjectNN("data/h5_files", "train", variant="PB_T50_RS")
    """

    class_names: tuple[str, ...] = (
        "bag",
        "bin",
        "box",
        "cabinet",
        "chair",
        "desk",
        "display",
        "door",
        "shelf",
        "table",
        "bed",
        "pillow",
        "sink",
        "sofa",
        "toilet",
    )

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        variant: str = "PB_T50_RS",
        partition: str = "main_split",
        mask: bool = False,
        normalize: bool = True,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        for name, value, choices in (
            ("split", split, list(_SPLITS)),
            ("variant", variant, list(_VARIANTS)),
            ("partition", partition, list(_PARTITIONS)),
        ):
            if value not in choices:
                raise ValueError(f"Expected '{name}' to be one of {choices} (got {value!r})")
        check_flag(mask, "mask")
        check_flag(normalize, "normalize")
        super().__init__(None, check_transform(transform))
        background, ending = _VARIANTS[variant]
        folder = partition if background else f"{partition}_nobg"
        path = _find(Path(root), f"{folder}/{_SPLITS[split]}_objectdataset{ending}.h5")
        self._pos, self._labels, self._seg = _read(path, len(self.class_names), mask)
        self.split = split
        self.variant = variant
        self.partition = partition
        self.normalize = normalize

    def get(self, idx: int) -> Data:
        data = Data(pos=self._pos[idx].clone(), y=self._labels[idx].reshape(1))
        data.sample_id = torch.tensor([idx])
        if self._seg is not None:
            data.seg = self._seg[idx].long()
        return Normalize()(data) if self.normalize else data


def _find(root: Path, name: str) -> Path:
    for folder in (root, root / "h5_files"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"Expected 'root' to hold '{name}' (got '{root}' without it)")


def _read(path: Path, num_classes: int, mask: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "io") from None
    wanted = ["data", "label", "mask"] if mask else ["data", "label"]
    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            found = sorted(file)
            arrays = {name: _array(file, name, size) for name in wanted if name in found}
    except Exception as error:  # damaged files make HDF5 raise errors of any type
        what = str(error) or type(error).__name__
        raise ValueError(f"Expected '{path}' to be a readable .h5 file (got: {what})") from error
    for name in wanted:
        if name not in arrays:
            raise ValueError(f"Expected '{path}' to have the key '{name}' (got {found})")
    points = arrays["data"]
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"Expected 'data' of '{path}' to be [M, n, 3] (got {list(points.shape)})")
    if not np.isfinite(points).all():
        raise ValueError(f"Expected 'data' of '{path}' to be finite (got NaN or infinity)")
    labels = arrays["label"].reshape(-1)
    if len(labels) != len(points):
        raise ValueError(f"Expected {len(points)} labels in '{path}' (got {len(labels)})")
    labels = check_labels(labels, f"'label' of '{path}'", most=num_classes - 1)
    seg = _foreground(arrays["mask"], points.shape[:2], path) if mask else None
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels), seg


def _foreground(mask: np.ndarray, shape: tuple[int, ...], path: Path) -> Tensor:
    """Return which points are of the object; the authors mark background with -1."""
    if mask.shape != shape:
        raise ValueError(f"Expected 'mask' of '{path}' to be {shape} (got {list(mask.shape)})")
    if np.isnan(mask).any():
        raise ValueError(f"Expected 'mask' of '{path}' to hold numbers (got NaN)")
    return torch.from_numpy(mask >= 0)


def _array(file: Any, name: str, size: int) -> np.ndarray:
    """Return an array stored in the HDF5 file itself, if its size is plausible."""
    import h5py

    own = isinstance(file.get(name, getlink=True), h5py.HardLink)  # checked before it is opened
    array = file[name] if own else None
    if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
        raise ValueError(f"expected '{name}' to be an array of the file itself")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected '{name}' to hold numbers (got {array.dtype})")
    check_expansion(prod(array.shape) * array.dtype.itemsize, size, f"'{name}'")
    return np.asarray(array)


__all__ = ["ScanObjectNN"]
