"""A data set from a folder of shapes: one folder per class, one file per shape."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from pyg_peft.datasets.checks import check_names, check_transform
from pyg_peft.datasets.folders.cache import load_folder
from pyg_peft.datasets.folders.index import FolderIndex, index_folder
from pyg_peft.datasets.labeled import LabeledDataset
from pyg_peft.datasets.labels import check_labels
from pyg_peft.datasets.transforms import Normalize
from pyg_peft.errors import check_count, check_flag


class ShapeFolder(LabeledDataset):
    """Read shapes from ``root/class/*.ext``, with or without folders for the splits.

    Splits are folders ``root/class/{train,test,val}/*.ext`` or
    ``root/{train,test,val}/class/*.ext``. They may also be called training, testing, valid or
    validation, in upper or lower case. Split folders that are mixed with other folders, incomplete
    or empty are an error that lists the folders.

    Every file that :func:`~pyg_peft.datasets.read_points` reads is a shape. ModelNet's folders work
    unchanged: links are followed, and a README.txt beside the classes is ignored. Shapes are parsed
    once and cached as ``processed-….npz`` in the cache folder, which is written atomically. They
    are parsed again when a name, size or modification time changes, or the cache is damaged. The
    cache can also be read by :class:`~pyg_peft.datasets.NpzShapes`.

    Args:
        root: The folder.
        split: ``"train"``, ``"test"`` or ``"val"``, or ``None`` for all shapes. If there are no
            split folders, use :func:`~pyg_peft.datasets.train_val_split`.
        num_points: Number of points sampled from a mesh, and maximum size of a cloud (a fixed
            random subset). If ``None``, 2,048 points are sampled from a mesh, and clouds are
            complete.
        channels: Channels of ``x``, see ``read_points``.
        fill: Value of channels that are not in a file. If ``None``, a missing channel is an error.
        columns: Names of the columns of .npy, .txt and .xyz files.
        extensions: File extensions to include, for example ``(".off",)``. All by default.
        decimal: ``","`` if the numbers in .txt and .xyz files have decimal commas.
        mesh_vertices: Use the vertices of meshes as clouds instead of sampling them.
        drop_invalid: Drop points that are not finite.
        normalize: Center each shape and scale it into the unit sphere.
        seed: Random seed for sampling meshes and for the subsets.
        cache: Folder of the cache. If ``None``, ``root/.pyg_peft``. If ``False``, parse each time.
        transform: Applied to each item when it is read.

    Items: ``pos`` float32 ``[n, 3]`` (centered), ``x`` float32 ``[n, C]`` if ``channels`` is given,
    ``y`` and ``sample_id`` long ``[1]`` (position among the shapes of all splits).

    Raises:
        ValueError: If files cannot be read. The message lists each file with the reason.

    Other errors are those of ``read_points`` and ``index_folder``.

    Terms: those of your files.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from pyg_peft.datasets import ShapeFolder
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("bolt/1.npy", "bolt/2.npy", "nut/1.npy"):
        ...     (root / name).parent.mkdir(exist_ok=True)
        ...     np.save(root / name, np.random.rand(64, 3))
        >>> dataset = ShapeFolder(root, num_points=32)
        >>> dataset.class_names, dataset.labels.tolist(), dataset[2].pos.shape
        (('bolt', 'nut'), [0, 0, 1], torch.Size([32, 3]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        num_points: int | None = 1024,
        channels: Sequence[str] = (),
        fill: float | None = None,
        columns: Sequence[str] | None = None,
        extensions: Sequence[str] = (),
        decimal: str = ".",
        mesh_vertices: bool = False,
        drop_invalid: bool = False,
        normalize: bool = True,
        seed: int = 0,
        cache: str | os.PathLike[str] | bool | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if num_points is not None:
            check_count(num_points, "num_points")
        for name, flag in (
            ("mesh_vertices", mesh_vertices),
            ("drop_invalid", drop_invalid),
            ("normalize", normalize),
        ):
            check_flag(flag, name)
        check_count(seed, "seed", least=None)
        channels = check_names(channels, "channels")
        columns = None if columns is None else check_names(columns, "columns")
        super().__init__(None, check_transform(transform))
        index = self._find(root, extensions)
        if split is not None and split not in index.splits:
            raise ValueError(
                f"Expected 'split' to be one that '{root}' has, of {list(index.splits)} "
                f"(got {split!r})"
            )
        options = {
            "num_points": num_points,
            "channels": tuple(channels),
            "fill": fill,
            "columns": None if columns is None else tuple(columns),
            "decimal": decimal,
            "mesh_vertices": mesh_vertices,
            "drop_invalid": drop_invalid,
            "seed": seed,
        }
        self._file = load_folder(index, options, cache)
        #: Arguments of this class for reading other files in the same way. They are ``num_points``
        #: and those that differ from their default.
        self.read_args = {"num_points": num_points}
        self.read_args |= _given(options)
        rows = [row for row, name in enumerate(index.split_of) if split in (None, name)]
        self._rows = torch.tensor(rows, dtype=torch.long)
        labels = check_labels(self._file.per_cloud("label"), f"'label' of '{self._file.path}'")
        self._labels = torch.from_numpy(labels)[self._rows]
        self.class_names = index.class_names
        self.files = tuple(index.files[row] for row in rows)
        self.split = split
        self.normalize = normalize

    def _find(self, root: str | os.PathLike[str], extensions: Sequence[str]) -> FolderIndex:
        """List the shapes of the folder."""
        return index_folder(root, extensions)

    def get(self, idx: int) -> Data:
        row = int(self._rows[idx])
        data = Data(pos=torch.from_numpy(self._file.points("xyz", row).copy()))
        if "x" in self._file.point_fields:
            data.x = torch.from_numpy(self._file.points("x", row).copy())
        data.y = self._labels[idx].reshape(1)
        data.sample_id = torch.tensor([row])
        return Normalize()(data) if self.normalize else data


def read_args_of(dataset: Any) -> dict[str, Any]:
    """Return the ``read_args`` of a :class:`ShapeFolder`, also inside wrappers, else ``{}``."""
    while not hasattr(dataset, "read_args") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dict(getattr(dataset, "read_args", {}))


_READ_ARGS = {
    "channels": (),
    "columns": None,
    "fill": None,
    "decimal": ".",
    "mesh_vertices": False,
    "drop_invalid": False,
}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    values = {k: options[k] for k, default in _READ_ARGS.items() if options[k] != default}
    return {k: list(value) if isinstance(value, tuple) else value for k, value in values.items()}


__all__ = ["ShapeFolder", "read_args_of"]
