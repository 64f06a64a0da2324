"""Parsers that lean on optional packages: .ply by plyfile, .las and .laz by laspy."""

from pathlib import Path

import numpy as np

from pyg_peft.datasets.formats.raw_points import RawPoints, check_faces, fan, from_columns
from pyg_peft.errors import MissingExtraError


def read_ply(path: Path) -> RawPoints:
    """Read vertices, their scalar properties, and faces of a .ply file, text or binary."""
    try:
        from plyfile import PlyData
    except ImportError:
        raise MissingExtraError("plyfile", "io") from None
    content = PlyData.read(str(path))
    vertex = content["vertex"]
    scalars = {
        entry.name: np.asarray(vertex[entry.name])
        for entry in vertex.properties
        if np.asarray(vertex[entry.name]).dtype != object
    }
    faces = None
    if "face" in content and content["face"].count:
        lists = [entry.name for entry in content["face"].properties if "ind" in entry.name]
        if not lists:
            raise ValueError("element 'face' has no list of vertex indices")
        polygons: dict[int, list[np.ndarray]] = {}
        for corners in content["face"][lists[0]]:
            polygons.setdefault(len(corners), []).append(corners)
        faces = fan([np.stack(rows).astype(np.int64) for rows in polygons.values()])
        check_faces(faces, vertex.count)
    return from_columns(scalars, faces)


def read_las(path: Path) -> RawPoints:
    """Read a .las or .laz file: scaled coordinates in float64, and its dimensions as channels.

    ``color`` is divided by 65,535, as the format says; files of 8-bit colours look dark.
    """
    try:
        import laspy
    except ImportError:
        raise MissingExtraError("laspy", "io") from None
    if path.suffix.lower() == ".laz" and not laspy.LazBackend.detect_available():
        raise MissingExtraError("lazrs", "io")
    cloud = laspy.read(str(path))
    columns = {
        str(name): np.asarray(cloud[name])
        for name in cloud.point_format.dimension_names
        if name not in ("X", "Y", "Z")
    }
    columns |= {axis: np.asarray(cloud[axis], dtype=np.float64) for axis in "xyz"}
    return from_columns({name: array for name, array in columns.items() if array.ndim == 1})


__all__ = ["read_las", "read_ply"]
