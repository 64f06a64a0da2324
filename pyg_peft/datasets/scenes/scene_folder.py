"""A data set of tiles: the files of a folder, each a scene with a label per point."""

import logging
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from pyg_peft.datasets.files import FILE_TYPES, may_be_cloud
from pyg_peft.datasets.folders.index import files_below
from pyg_peft.datasets.npz.select import split_of_folder
from pyg_peft.datasets.scenes.reading import classes_of, open_tile, to_data
from pyg_peft.datasets.scenes.settings import ASPRS_NAMES, SceneSettings
from pyg_peft.errors import check_number

logger = logging.getLogger(__name__)

_MOST_CLASSES = 1000  # labels beyond are numbers of objects, not of classes


class SceneFolder(Dataset):
    """Read tiles with a label per point, such as airborne laser scans (.las, .laz).

    ``root`` is one file, a folder of files, or a folder with ``train/`` and ``test/`` (``val/``),
    under the names that :class:`ShapeFolder` takes. Tiles in a folder without splits are divided by
    :class:`~pyg_peft.training.SceneDataModule`, which holds out contiguous parts of them.

    Every item is a whole tile, read when it is asked for: ``pos`` float32 ``[n, 3]``, ``origin``
    float64 ``[1, 3]``, ``y`` long ``[n]`` (-1 for ignored points), ``x`` float32 ``[n, C]`` if
    there are features, and ``sample_id`` long ``[1]``. See :func:`~pyg_peft.datasets.read_tile`.

    Args:
        root: File or folder.
        settings: How to read tiles. Without ``classes``, all training tiles are read at once to
            find the labels that occur.
        split: ``"train"``, ``"val"`` or ``"test"``, or ``None`` for all tiles.
        test_fraction: Share of the points that a data module holds out for a test, if ``root`` has
            no splits; 0 for none.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
        ValueError: If there are no tiles, split folders lie beside other tiles, ``split`` does not
            exist, or a tile that is read has no labels.

    Terms: those of your files.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from pyg_peft.datasets import SceneFolder, SceneSettings
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("east.txt", "west.txt"):
        ...     np.savetxt(root / name, np.c_[np.random.rand(9, 3), [2, 2, 2, 2, 2, 5, 5, 5, 7]])
        >>> settings = SceneSettings("label", 7, columns=["x", "y", "z", "label"])
        >>> tiles = SceneFolder(root, settings)
        >>> len(tiles), tiles.class_names, tiles[0].y.tolist()
        (2, ('2', '5'), [0, 0, 0, 0, 0, 1, 1, 1, -1])
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        settings: SceneSettings | None = None,
        split: str | None = None,
        *,
        test_fraction: float = 0.2,
    ) -> None:
        super().__init__(None)
        settings = SceneSettings() if settings is None else settings
        if not isinstance(settings, SceneSettings):
            raise TypeError(
                f"Expected 'settings' to be SceneSettings (got {type(settings).__name__})"
            )
        check_number(test_fraction, "test_fraction", least=0, below=1)
        self.path, found = _index(Path(root))
        #: Names of the splits that the folder has.
        self.splits = tuple(name for name in ("train", "val", "test") if name in found)
        if split is not None and split not in self.splits:
            raise ValueError(
                f"Expected 'split' to be one that '{root}' has, of {list(self.splits)} "
                f"(got {split!r})"
            )
        if settings.classes is None:
            settings = replace(settings, classes=self._find_classes(found, settings))
        self.settings = settings
        self.split = split
        self.test_fraction = test_fraction
        chosen = [path for name, paths in found.items() if split in (None, name) for path in paths]
        #: The files, in the order of the items.
        self.files = tuple(sorted(chosen))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores."""
        return self.settings.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> Tensor:
        """A category for each tile; there is only one, 0."""
        return torch.zeros(len(self), dtype=torch.long)

    def len(self) -> int:
        return len(self.files)

    def get(self, idx: int) -> Data:
        tile = open_tile(self.files[idx], self.settings)
        data = to_data(tile, self.settings)
        classes, rest = classes_of(tile.labels(self.settings.label_field), self.settings)
        if rest:
            logger.warning(
                "'%s': %s points have labels without a class and are ignored: %s",
                tile.path,
                f"{sum(rest.values()):,}",
                _counted(rest),
            )
        data.y = torch.from_numpy(classes)
        data.sample_id = torch.tensor([idx])
        return data

    def _find_classes(
        self, found: dict[str | None, list[Path]], settings: SceneSettings
    ) -> dict[int, str]:
        """Return the labels that occur in training tiles, with their names."""
        paths = found.get("train", found.get(None))
        if paths is None:
            raise ValueError(
                f"Expected 'classes' to be given, since '{self.path}' has no training tiles to "
                "find them in (got None)"
            )
        present: set[int] = set()
        all_las = True
        for path in paths:
            tile = open_tile(path, settings)
            all_las &= tile.is_las and settings.label_field == "classification"
            present.update(np.unique(tile.labels(settings.label_field)).tolist())
        present -= settings.ignored
        if not 0 < len(present) <= _MOST_CLASSES:
            raise ValueError(
                f"Expected the field '{settings.label_field}' of '{self.path}' to hold 1 to "
                f"{_MOST_CLASSES} labels that are not ignored (got {len(present)})"
            )
        return {label: _name(label, las=all_las) for label in sorted(present)}


def is_scene(path: Path) -> bool:
    """Return whether a path is a file or folder that :class:`SceneFolder` may read."""
    return path.is_dir() or (path.is_file() and path.suffix.lower() in FILE_TYPES)


def _index(root: Path) -> tuple[Path, dict[str | None, list[Path]]]:
    """Return the tiles below ``root`` by split; ``None`` if there are no splits."""
    if not root.exists():
        raise FileNotFoundError(f"Expected 'root' to be a file or folder of tiles (got '{root}')")
    if root.is_file():
        return root, {None: [root]}
    paths = sorted(path for path in files_below(root) if may_be_cloud(path))
    if not paths:
        raise ValueError(f"Expected '{root}' to hold tiles of {list(FILE_TYPES)} (got none)")
    found: dict[str | None, list[Path]] = {}
    for path in paths:
        parts = path.relative_to(root).parts
        split = split_of_folder(parts[0]) if len(parts) > 1 else None
        found.setdefault(split, []).append(path)
    if None in found and len(found) > 1:
        raise ValueError(
            f"Expected '{root}' to hold tiles, or splits (train, val, test) and nothing beside "
            f"them (got '{found[None][0].relative_to(root)}' beside splits)"
        )
    return root, found


def _name(label: int, *, las: bool) -> str:
    return ASPRS_NAMES[label] if las and 0 <= label < len(ASPRS_NAMES) else str(label)


def _counted(rest: "Counter[int]") -> str:
    shown = [f"{label} ({count:,})" for label, count in rest.most_common(8)]
    more = len(rest) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


__all__ = ["SceneFolder", "is_scene"]
