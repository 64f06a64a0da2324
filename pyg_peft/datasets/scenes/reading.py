"""Read one tile of a scene: positions, features by name, and a class for each point."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from pyg_peft.datasets.files import columns_of, parse_file
from pyg_peft.datasets.formats import RawPoints
from pyg_peft.datasets.labels import IGNORE_INDEX, check_labels
from pyg_peft.datasets.scenes.ground import height_above_ground
from pyg_peft.datasets.scenes.settings import FEATURE_DIVISORS, SceneSettings
from pyg_peft.errors import printable

_COLORS = {"red": 0, "green": 1, "blue": 2}
_LAS = (".las", ".laz")


@dataclass(frozen=True)
class TileFile:
    """The content of one file.

    Args:
        path: The file.
        raw: Its points.
    """

    path: Path
    raw: RawPoints

    @property
    def is_las(self) -> bool:
        """Whether labels and features are those of the LAS format."""
        return self.path.suffix.lower() in _LAS

    def labels(self, field: str) -> np.ndarray:
        """Return the labels of a field, int64 ``[n]``.

        Raises:
            ValueError: If the file has no such field, or it does not hold whole numbers.
        """
        values = self.raw.channels.get(field)
        if values is None or values.shape[1] != 1:
            names = ", ".join(printable(name) for name in sorted(self.raw.channels)) or "none"
            raise ValueError(
                f"Expected 'label_field' to be a field of '{self.path}' (got {field!r}; its fields "
                f"are {names})"
            )
        what = f"the field '{field}' of '{self.path}'"
        return check_labels(values[:, 0], what, least=-(2**31))


def open_tile(path: str | os.PathLike[str], settings: SceneSettings) -> TileFile:
    """Parse a file, whose coordinates must be finite.

    Raises:
        FileNotFoundError, MissingExtraError, ValueError: As for ``read_points``.
    """
    path = Path(path)
    raw = parse_file(path, columns_of(path, settings.columns), settings.decimal)
    if len(raw.pos) == 0:
        raise ValueError(f"Expected '{path}' to have points (got none)")
    strange = ~np.isfinite(raw.pos).all(axis=1)
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise ValueError(
            f"Expected '{path}' to have finite coordinates (got {raw.pos[row].tolist()} for point "
            f"{row})"
        )
    return TileFile(path, raw)


def read_tile(
    path: str | os.PathLike[str], settings: SceneSettings | None = None, *, labels: bool = True
) -> Data:
    r"""Read one tile, with every point in the order of the file.

    Coordinates are shifted in float64 and returned in float32, so that map coordinates of millions
    of meters keep their millimeters.

    Args:
        path: A file of any format that ``read_points`` reads. A mesh is read as its vertices.
        settings: How to read it.
        labels: Whether to read labels. Without them the file needs no ``label_field``.

    Returns:
        ``Data(pos float32 [n, 3], origin float64 [1, 3])``, with ``x`` float32 ``[n, C]`` if there
        are features, and ``y`` long ``[n]`` with labels: the class of each point, -1 for ignored
        ones. ``pos + origin`` are the coordinates in the file, except for ``z`` with
        ``height="ground"``.

    Raises:
        FileNotFoundError: If there is no such file.
        MissingExtraError: If the format needs a package that is not installed.
        ValueError: If the file cannot be read, or lacks a feature or the field of labels.

    Example:
        >>> import tempfile, pathlib
        >>> from pyg_peft.datasets import SceneSettings, read_tile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "tile.xyz")
        >>> _ = path.write_text("500000 0 7 2\n500001 0 9 5\n500002 0 8 0\n")
        >>> settings = SceneSettings("label", classes={2: "ground", 5: "tree"},
        ...                          height="tile_minimum", columns=["x", "y", "z", "label"])
        >>> tile = read_tile(path, settings)
        >>> tile.pos[:, 2].tolist(), tile.y.tolist()
        ([0.0, 2.0, 1.0], [0, 1, -1])
    """
    settings = SceneSettings() if settings is None else settings
    tile = open_tile(path, settings)
    data = to_data(tile, settings)
    if labels:
        classes, _ = classes_of(tile.labels(settings.label_field), settings)
        data.y = torch.from_numpy(classes)
    return data


def to_data(tile: TileFile, settings: SceneSettings) -> Data:
    """Return positions and features of a file as :func:`read_tile` does."""
    pos = tile.raw.pos
    origin = pos.mean(axis=0, keepdims=True)
    if settings.height != "none":
        origin[0, 2] = pos[:, 2].min()
    local = pos - origin
    if settings.height == "ground":
        local[:, 2] = height_above_ground(pos, settings.ground_size)
    with np.errstate(over="ignore"):
        narrow = local.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise ValueError(
            f"Expected '{tile.path}' to have coordinates that float32 can hold "
            f"(got up to {np.abs(pos).max():g})"
        )
    data = Data(pos=torch.from_numpy(narrow), origin=torch.from_numpy(origin))
    if settings.features:
        data.x = torch.from_numpy(_features(tile, settings))
    return data


def classes_of(labels: np.ndarray, settings: SceneSettings) -> tuple[np.ndarray, "Counter[int]"]:
    """Return the class of each label, and how many points have each label without a class.

    Args:
        labels: Labels of a file, int64 ``[n]``.
        settings: The classes, and the labels to ignore, which are not counted.
    """
    numbers = {name: number for number, name in enumerate(settings.class_names)}
    known = {label: numbers[name] for label, name in (settings.classes or {}).items()}
    values, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    table = np.array([known.get(value, IGNORE_INDEX) for value in values.tolist()], np.int64)
    rest = {
        value: count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if value not in known and value not in settings.ignored
    }
    return table[inverse.reshape(-1)], Counter(rest)


def _features(tile: TileFile, settings: SceneSettings) -> np.ndarray:
    """Return the features of a file, float32 ``[n, C]``."""
    given: Mapping[str, float] = settings.features if isinstance(settings.features, Mapping) else {}
    usual = FEATURE_DIVISORS if tile.is_las else {}
    channels, blocks, missing = tile.raw.channels, [], []
    for name in settings.features:
        if name in channels:
            values = channels[name]
        elif name in _COLORS and "color" in channels:
            column = _COLORS[name]
            values = channels["color"][:, column : column + 1]
        else:
            missing.append(name)
            width = 3 if name in ("color", "normal") else 1
            values = np.zeros((len(tile.raw.pos), width), np.float32)
        blocks.append(values / np.float32(given.get(name, usual.get(name, 1.0))))
    if missing and settings.missing == "error":
        names = ", ".join(printable(name) for name in sorted(channels)) or "none"
        raise ValueError(
            f"Expected '{tile.path}' to have the features {', '.join(missing)} (got the fields "
            f"{names}); missing='zero' fills missing ones with 0"
        )
    found = np.concatenate(blocks, axis=1)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise ValueError(
            f"Expected the features of '{tile.path}' to be finite (got {found[row].tolist()} for "
            f"point {row})"
        )
    return found


__all__ = ["TileFile", "classes_of", "open_tile", "read_tile", "to_data"]
