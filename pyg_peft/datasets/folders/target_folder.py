"""A data set from a folder of clouds and a table of their targets."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.datasets.files import FILE_TYPES
from pyg_peft.datasets.folders.index import FolderIndex, files_below
from pyg_peft.datasets.folders.shape_folder import ShapeFolder
from pyg_peft.datasets.folders.target_table import TABLE, TargetTable, read_table

logger = logging.getLogger(__name__)
_SHOWN = 5


class TargetFolder(ShapeFolder):
    r"""Read clouds of a folder whose ``labels.csv`` holds numbers to learn for each file.

    The table has a column ``file`` (paths in the folder), and a column for each target. A column
    ``split`` (train, val or test) is optional. Columns are separated by commas, semicolons or tabs;
    numbers have decimal points. Files that the table does not name are left out, and a warning in
    the log names them.

    Items: as of :class:`ShapeFolder`, but ``y`` is float32 ``[1, T]``, the targets.

    Args:
        root: The folder.
        split: ``"train"``, ``"val"`` or ``"test"``, or ``None`` for all clouds.
        table: Name of the table.
        options: Further arguments of :class:`ShapeFolder`, such as ``num_points`` and ``channels``.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If the table is no such table, names a file that does not exist, or a file
            cannot be read.

    Terms: those of your files.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from pyg_peft.datasets import TargetFolder
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("a.npy", "b.npy"):
        ...     np.save(root / name, np.random.rand(64, 3))
        >>> _ = (root / "labels.csv").write_text("file,height\na.npy,1.5\nb.npy,2\n")
        >>> dataset = TargetFolder(root)
        >>> dataset.target_names, dataset[1].y
        (('height',), tensor([[2.]]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        table: str = TABLE,
        **options: Any,
    ) -> None:
        self.table = read_table(Path(root, table))
        super().__init__(root, split, **options)
        self.target_names = self.table.names

    def _find(self, root: str | os.PathLike[str], extensions: Sequence[str]) -> FolderIndex:
        """List the files of the table, all of one class."""
        _name_others(Path(root), self.table)
        files = self.table.files
        return FolderIndex(Path(root), files, ("shape",) * len(files), self.table.split_of)

    @property
    def targets(self) -> Tensor:
        """All targets, float64 ``[N, T]``, without loading points."""
        return torch.from_numpy(self.table.targets)[self._rows[list(self.indices())]]

    def get(self, idx: int) -> Data:
        data = super().get(idx)
        data.y = torch.from_numpy(self.table.targets[int(self._rows[idx])]).float()[None]
        return data


def _name_others(root: Path, table: TargetTable) -> None:
    found = (path for path in files_below(root) if path.suffix.lower() in FILE_TYPES)
    others = sorted({path.relative_to(root).as_posix() for path in found} - set(table.files))
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        logger.warning(
            "'%s': files that the table does not name are left out: %s%s",
            root,
            ", ".join(others[:_SHOWN]),
            more,
        )


__all__ = ["TargetFolder"]
