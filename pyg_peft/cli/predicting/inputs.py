"""The files to predict: found by name, and read as the training files were."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from pyg_peft.datasets.files import FILE_TYPES, columns_of, read_points, read_raw, to_data
from pyg_peft.datasets.folders.index import files_below
from pyg_peft.datasets.formats import RawPoints

_SETTINGS = tuple(name for name in signature(read_points).parameters if name != "path")


def find_files(names: list[str]) -> list[Path]:
    """Return the files that ``names`` refer to, with sorted files for each folder.

    Raises:
        ValueError: If a folder has no file of a known type, or a name does not exist.
    """
    paths: list[Path] = []
    for name in map(Path, names):
        if name.is_dir():
            inside = sorted(p for p in files_below(name) if p.suffix.lower() in FILE_TYPES)
            if not inside:
                raise ValueError(
                    f"Expected '{name}' to hold files that end in one of {', '.join(FILE_TYPES)} "
                    "(got none)"
                )
            paths += inside
        elif name.is_file():
            paths.append(name)
        else:
            raise ValueError(f"Expected 'files' to exist (got '{name}')")
    return paths


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless the settings are arguments of ``read_points``."""
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise ValueError(f"Expected 'read_args' to be arguments of read_points (got {unknown})")


def read_file(path: Path, settings: Mapping[str, Any]) -> Data:
    """Return the cloud of a file; ``columns`` applies to files that are tables."""
    return read_points(path, **_fitting(path, settings))


def read_with_coordinates(path: Path, settings: Mapping[str, Any]) -> tuple[RawPoints, Data]:
    """Return the points of a file in its own coordinates, and as :func:`read_file` does."""
    rest = _fitting(path, settings)
    channels, fill = rest.pop("channels", ()), rest.pop("fill", None)
    raw = read_raw(path, **rest)
    return raw, to_data(raw, channels, fill, path)


def _fitting(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "columns": columns_of(path, settings.get("columns"))}


__all__ = ["check_settings", "find_files", "read_file", "read_with_coordinates"]
