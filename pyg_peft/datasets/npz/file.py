"""Read and check the ``.npz`` layout of a set of clouds.

There are two forms. Fixed size: ``xyz`` int16 ``[M, n, 3]`` with a ``scale``, or floating point.
Ragged: ``xyz`` floating point ``[N, 3]`` and ``offsets`` ``[M + 1]``.

Other arrays describe clouds (first axis ``M``: ``label``, ``split``, ``fold``, ``group``, ``ids``
...), points (``[M, n, ...]`` or ``[N, ...]``: ``seg``, ``intensity`` ...) or the whole file
(``class_names``, ``part_names`` ...).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyg_peft.datasets.formats.arrays import read_archive
from pyg_peft.datasets.labels import check_labels


@dataclass(frozen=True)
class NpzFile:
    """The arrays of one file, with access to the rows of each cloud.

    Args:
        path: Path of the file, for error messages.
        arrays: All arrays of the file.
        ptr: Start of each cloud in the flat points, ``[M + 1]``; ``None`` for fixed sizes.
        scale: Factor from stored to real coordinates.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    ptr: np.ndarray | None
    scale: float

    @property
    def num_clouds(self) -> int:
        xyz = self.arrays["xyz"]
        return len(xyz) if self.ptr is None else len(self.ptr) - 1

    @property
    def point_fields(self) -> list[str]:
        """Names of the arrays with one row per point, except ``xyz``."""
        shape = self.arrays["xyz"].shape[:-1]
        names = [name for name in self.arrays if name not in ("xyz", "offsets")]
        return [name for name in names if self.arrays[name].shape[: len(shape)] == shape]

    def points(self, name: str, index: int) -> np.ndarray:
        """Return the rows of cloud ``index`` in the per-point array ``name``."""
        array = self.arrays[name]
        if self.ptr is None:
            return array[index]
        return array[self.ptr[index] : self.ptr[index + 1]]

    def positions(self, index: int) -> np.ndarray:
        """Return a scaled copy of the coordinates of cloud ``index``."""
        points = self.points("xyz", index)
        if points.dtype.kind == "i":
            return points * np.float32(self.scale)
        return points * self.scale if self.scale != 1.0 else points.copy()

    def per_cloud(self, name: str) -> np.ndarray:
        """Return the array ``name``, which must have one value per cloud."""
        if name not in self.arrays:
            raise ValueError(
                f"Expected '{self.path}' to have the field '{name}' (got {sorted(self.arrays)})"
            )
        array = self.arrays[name]
        if array.shape != (self.num_clouds,):
            raise ValueError(
                f"Expected '{name}' of '{self.path}' to be of shape [{self.num_clouds}] "
                f"(got {list(array.shape)})"
            )
        return array


def names_in(arrays: Mapping[str, np.ndarray], key: str, path: str | os.PathLike[str]) -> list[str]:
    """Return the names under ``key`` as text.

    Raises:
        ValueError: If they are not a vector. The message names the file.
    """
    names = arrays[key]
    if names.ndim != 1:
        raise ValueError(
            f"Expected '{key}' of '{path}' to be a list of names (got the shape "
            f"{list(names.shape)})"
        )
    return [str(name) for name in names]


def read_npz(path: str | os.PathLike[str]) -> NpzFile:
    """Read and check a file of the layout above. Nothing in it is unpickled.

    Args:
        path: An ``.npz`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a field is damaged; the message names the file and the field. Also if the
            content takes more than 256 MiB and more than 100 times the length of the file.
    """
    path = Path(path)
    arrays = read_archive(path)
    if "xyz" not in arrays:
        raise ValueError(f"Expected '{path}' to have the field 'xyz' (got {sorted(arrays)})")
    xyz = arrays["xyz"]
    dims = 2 if "offsets" in arrays else 3
    if xyz.ndim != dims or xyz.shape[-1] != 3:
        shape = "[N, 3] beside 'offsets'" if dims == 2 else "[M, n, 3]"
        raise ValueError(f"Expected 'xyz' of '{path}' to be {shape} (got {list(xyz.shape)})")
    if xyz.dtype.kind not in "if" or (xyz.dtype.kind == "i" and "scale" not in arrays):
        raise ValueError(
            f"Expected 'xyz' of '{path}' to be floating point, or integers with a 'scale' "
            f"(got {xyz.dtype})"
        )
    if xyz.dtype.kind == "f" and not np.isfinite(xyz).all():
        raise ValueError(f"Expected 'xyz' of '{path}' to be finite (got NaN or infinity)")
    ptr = None
    if "offsets" in arrays:
        ptr = check_labels(arrays["offsets"], f"'offsets' of '{path}'")
        if ptr.ndim != 1 or len(ptr) == 0 or ptr[0] != 0 or ptr[-1] != len(xyz):
            raise ValueError(
                f"Expected 'offsets' of '{path}' to run from 0 to {len(xyz)} "
                f"(got {ptr.flat[:3]} ...)"
            )
        if (np.diff(ptr) < 0).any():
            raise ValueError(f"Expected 'offsets' of '{path}' not to decrease (got a step back)")
    scale = _scale(arrays, path)
    largest = float(np.abs(xyz.astype(np.float64)).max(initial=0)) * abs(scale)
    if largest > np.finfo(np.float32).max:
        raise ValueError(
            f"Expected 'xyz' of '{path}' times its 'scale' to be finite in float32 "
            f"(got up to {largest:g})"
        )
    return NpzFile(path, arrays, ptr, scale)


def _scale(arrays: Mapping[str, np.ndarray], path: Path) -> float:
    scale = np.asarray(arrays.get("scale", 1.0))
    if scale.size != 1 or scale.dtype.kind not in "iuf" or not np.isfinite(scale).all():
        raise ValueError(f"Expected 'scale' of '{path}' to be one finite number (got {scale})")
    return float(scale.item())


__all__ = ["NpzFile", "names_in", "read_npz"]
