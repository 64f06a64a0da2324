"""Parsers based on optional packages: .ply with plyfile, .las and .laz with laspy."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pyg_peft.datasets.formats.las_header import check_las, is_compressed
from pyg_peft.datasets.formats.ply_header import check_ply
from pyg_peft.datasets.formats.raw_points import (
    RawPoints,
    check_faces,
    fan,
    from_columns,
    triangles_of_strips,
)
from pyg_peft.errors import MissingExtraError

_CORNERS = ("vertex_indices", "vertex_index")


def read_ply(path: Path) -> RawPoints:
    """Read vertices, their scalar properties, and faces of a text or binary .ply file.

    Faces are lists called ``vertex_indices`` or ``vertex_index`` of the elements ``face`` and
    ``tristrips``. Other lists (materials, texture coordinates) are not read.
    """
    try:
        from plyfile import PlyData
    except ImportError:
        raise MissingExtraError("plyfile", "io") from None
    check_ply(path)
    with warnings.catch_warnings():
        # numpy warns about missing data if a list in a text file is empty.
        warnings.filterwarnings("ignore", "loadtxt: input contained no data", UserWarning)
        content = PlyData.read(str(path))
    vertex = content["vertex"]
    scalars = {
        entry.name: np.asarray(vertex[entry.name])
        for entry in vertex.properties
        if np.asarray(vertex[entry.name]).dtype != object
    }
    found = [np.zeros((0, 3), np.int64)]
    if "face" in content and content["face"].count:
        polygons: dict[int, list[np.ndarray]] = {}
        for corners in _corners(content["face"]):
            polygons.setdefault(len(corners), []).append(corners)
        found.append(fan([np.stack(rows).astype(np.int64) for rows in polygons.values()]))
    if "tristrips" in content and content["tristrips"].count:
        found += [triangles_of_strips(row) for row in _corners(content["tristrips"])]
    faces = np.concatenate(found) if len(found) > 1 else None
    if faces is not None:
        check_faces(faces, vertex.count)
    return from_columns(scalars, faces)


def _corners(element: Any) -> list[np.ndarray]:
    """Return the corner lists of an element of faces or strips."""
    lists = [entry.name for entry in element.properties if entry.name in _CORNERS]
    rows = [np.asarray(row) for row in element[lists[0]]] if len(lists) == 1 else []
    if len(lists) != 1 or any(row.ndim != 1 or row.dtype.kind not in "iu" for row in rows):
        raise ValueError(
            f"expected element '{element.name}' to have one list of integers called "
            f"{' or '.join(_CORNERS)} (got {[entry.name for entry in element.properties]})"
        )
    return rows


def read_las(path: Path) -> RawPoints:
    """Read a .las or .laz file: scaled coordinates in float64, and other dimensions as channels.

    ``color`` is divided by 65,535, as the format defines it. Files with 8-bit colors therefore look
    dark.
    """
    try:
        import laspy
    except ImportError:
        raise MissingExtraError("laspy", "io") from None
    # The parallel backend hangs in forked workers, because its threads do not survive the fork.
    backend = laspy.LazBackend.Lazrs
    if is_compressed(path) and not backend.is_available():
        raise MissingExtraError("lazrs", "io")
    try:
        check_las(path)
        cloud = laspy.read(str(path), laz_backend=backend)
    except BaseException as error:
        # A panic of a Rust library is not a subclass of Exception in Python.
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the points cannot be decompressed ({error})") from error
    columns = {
        str(name): np.asarray(cloud[name])
        for name in cloud.point_format.dimension_names
        if name not in ("X", "Y", "Z")
    }
    columns |= {axis: np.asarray(cloud[axis], dtype=np.float64) for axis in "xyz"}
    return from_columns({name: array for name, array in columns.items() if array.ndim == 1})


__all__ = ["read_las", "read_ply"]
