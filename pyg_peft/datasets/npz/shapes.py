"""Data sets of clouds, of fixed or ragged size, in one ``.npz`` file."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.datasets.checks import check_names, check_transform
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.labeled import LabeledDataset
from pyg_peft.datasets.labels import IGNORE_INDEX, check_labels
from pyg_peft.datasets.npz import furniture
from pyg_peft.datasets.npz.file import NpzFile, names_in, read_npz
from pyg_peft.datasets.npz.select import read_labels, read_split, select_classes, select_rows
from pyg_peft.datasets.npz.write import write_shapes
from pyg_peft.datasets.transforms import Normalize, select_points
from pyg_peft.errors import check_count, check_flag, check_number


class NpzShapes(LabeledDataset):
    """Read the clouds of one ``.npz`` file (see ``pyg_peft.datasets.npz.file`` for its fields).

    Items: ``pos`` float32 ``[n, 3]``, ``y`` long ``[1]``, and ``sample_id`` long ``[1]`` (the row
    in the file, unique over its splits and folds). ``x`` float32 ``[n, C]`` if ``channels`` is
    given. ``seg`` long ``[n]`` if it is in the file (-1 for points without a label).

    Clouds of unlabeled or dropped classes are left out. Classes without clouds are dropped.

    Args:
        path: The file.
        split: ``"train"``, ``"test"``, ``"val"``, or ``None`` for all clouds.
        fold: Number of the fold used as the test set. The other folds are the training set.
        label_field: Field with the labels, for example ``"coarse_label"`` with names in
            ``coarse_names``.
        min_count: Drop classes with fewer clouds, counted over all splits.
        min_split_count: Drop classes with fewer clouds in any one split of the file.
        num_points: Keep a random subset of larger clouds, the same each time. Smaller clouds are
            unchanged (see :class:`~pyg_peft.datasets.Resample`).
        normalize: Center each cloud and scale it into the unit sphere, after the subset is taken.
        channels: Per-point fields of which ``x`` consists, in this order.
        fill: Value of channels that are not in the file. If ``None``, a missing channel is an
            error.
        ignore_index: Label in ``seg`` that means "no label". It is read as -1.
        transform: Applied to each item when it is read. For random transforms, see
            :class:`~pyg_peft.datasets.Augmented`.

    Raises:
        ValueError: If a field is missing or does not fit, for example if labels are not integers or
            out of range. The message names the file and the field. Also if the content takes more
            than 256 MiB and more than 100 times the length of the file.
        TypeError: If an argument has the wrong type.

    Terms: those of the data in the file; the format adds none.

    Example:
        >>> import tempfile, numpy as np
        >>> from pyg_peft.datasets import NpzShapes
        >>> path = tempfile.mkdtemp() + "/set.npz"
        >>> clouds = [np.random.rand(n, 3) for n in (5, 7, 6)]
        >>> NpzShapes.write(path, clouds, [0, 1, 0], class_names=["pole", "tree"])
        >>> dataset = NpzShapes(path)
        >>> dataset.class_names, dataset.labels.tolist(), dataset[1].pos.shape
        (('pole', 'tree'), [0, 1, 0], torch.Size([7, 3]))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        split: str | None = None,
        *,
        fold: int | None = None,
        label_field: str = "label",
        min_count: int = 0,
        min_split_count: int = 0,
        num_points: int | None = None,
        normalize: bool = True,
        channels: Sequence[str] = (),
        fill: float | None = None,
        ignore_index: int = IGNORE_INDEX,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if num_points is not None:
            check_count(num_points, "num_points")
        check_count(min_count, "min_count", least=0)
        check_count(min_split_count, "min_split_count", least=0)
        check_flag(normalize, "normalize")
        channels = check_names(channels, "channels")
        if fill is not None:
            check_number(fill, "fill")
        check_count(ignore_index, "ignore_index", least=None)
        super().__init__(None, check_transform(transform))
        self._file = read_npz(path)
        missing = [name for name in channels if name not in self._file.point_fields]
        if missing and fill is None:
            raise ValueError(
                f"Expected 'channels' to be per-point fields of '{path}', of "
                f"{self._file.point_fields}, or 'fill' to be given (got {missing})"
            )
        for name in channels:
            _check_channel(self._file, name)
        self._seg = _read_seg(self._file, ignore_index)
        labels, names = read_labels(self._file, label_field)
        codes = read_split(self._file, fold)
        chosen = select_rows(self._file, split, codes)
        if fold is not None:
            chosen &= codes >= 0
        labels, names = select_classes(labels, codes, names, min_count, min_split_count)
        self._rows = np.flatnonzero(chosen & (labels >= 0))
        self._labels = torch.from_numpy(labels[self._rows])
        self.class_names = tuple(names)
        self.split = split
        self.num_points = num_points
        self.normalize = normalize
        self.channels = tuple(channels)
        self.fill = fill

    write = staticmethod(write_shapes)

    @classmethod
    def furniture(cls, split: str | None = None, **options: Any) -> Self:
        """Return the household shapes that ship with the package.

        307 shapes of 11 classes, such as chair, lamp and person, of 1,024 points each. They are
        centered, scaled into the unit sphere, and z points up. Whole design groups (field
        ``group``) are in one split.

        Args:
            split: ``"train"``, ``"test"``, or ``None`` for all shapes.
            options: Further arguments of the class.

        Raises:
            TypeError, ValueError: See the class.

        Terms: Creative Commons (CC0, CC BY 3.0, CC BY 3.0 US). ``LICENSES.md`` beside the file
        names the author of each shape; pass it on together with the shapes.

        Example:
            >>> from pyg_peft.datasets import NpzShapes
            >>> train = NpzShapes.furniture("train")
            >>> train.num_classes, train[0].pos.shape
            (11, torch.Size([1024, 3]))
        """
        return cls(furniture.FILE, split, **options)

    @property
    def sample_ids(self) -> Tensor:
        """Row in the file of each item."""
        return torch.from_numpy(self._rows)[list(self.indices())]

    def field(self, name: str) -> np.ndarray:
        """Return a per-cloud field (``group``, ``ids``, ``fold`` ...), one value per item."""
        return self._file.per_cloud(name)[self._rows[list(self.indices())]]

    @property
    def fields(self) -> Mapping[str, np.ndarray]:
        """All arrays of the file, unchanged, for example ``part_names``."""
        return self._file.arrays

    def get(self, idx: int) -> Data:
        row = int(self._rows[idx])
        points = self._file.positions(row)
        data = Data(pos=torch.from_numpy(points), sample_id=torch.tensor([row]))
        data.y = self._labels[idx].reshape(1)
        if self.channels:
            data.x = torch.from_numpy(self._channels(row, len(points)))
        if self._seg is not None:
            data.seg = torch.from_numpy(self._seg.points("seg", row).copy())
        if self.num_points is not None and self.num_points < len(points):
            order = torch.randperm(len(points), generator=keyed_generator("num_points", row))
            data = select_points(data, order[: self.num_points])
        if self.normalize:
            data = Normalize()(data)
        data.pos = data.pos.float()  # pyright: ignore[reportOptionalMemberAccess]
        return data

    def _channels(self, row: int, num_points: int) -> np.ndarray:
        columns = []
        for name in self.channels:
            if name in self._file.point_fields:
                values = self._file.points(name, row).astype(np.float32)
                columns.append(values.reshape(num_points, -1))
            else:
                columns.append(np.full((num_points, 1), self.fill, np.float32))
        return np.concatenate(columns, axis=1)


def _check_channel(file: NpzFile, name: str) -> None:
    """Raise unless a channel of the file is missing or holds real numbers that fit float32."""
    if name not in file.point_fields:
        return
    array, what = file.arrays[name], f"'{name}' of '{file.path}'"
    if array.dtype.kind not in "iufb":
        raise ValueError(f"Expected {what} to be real numbers (got {array.dtype})")
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32)).all()
    if not finite:
        raise ValueError(f"Expected {what} to be finite in float32 (got NaN or infinity)")


def _read_seg(file: NpzFile, ignore_index: int) -> NpzFile | None:
    """Return the file with only its point labels, as int64, or ``None`` if it has none."""
    if "seg" not in file.arrays:
        return None
    shape = file.arrays["xyz"].shape[:-1]
    seg, what = file.arrays["seg"], f"'seg' of '{file.path}'"
    if seg.shape != shape:
        raise ValueError(f"Expected {what} to be of shape {list(shape)} (got {list(seg.shape)})")
    if ignore_index != IGNORE_INDEX and seg.dtype.kind in "iuf":
        seg = np.where(seg == ignore_index, np.float64(IGNORE_INDEX), seg)
    most = None
    if "part_names" in file.arrays:
        most = len(names_in(file.arrays, "part_names", file.path)) - 1
    remedy = "; set 'ignore_index' to a label that means none"
    labels = check_labels(seg, what, least=IGNORE_INDEX, most=most, remedy=remedy)
    return NpzFile(file.path, {"xyz": file.arrays["xyz"], "seg": labels}, file.ptr, 1.0)


__all__ = ["NpzShapes"]
