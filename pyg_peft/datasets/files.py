"""Read one shape or scan from a file of any common format."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from pyg_peft.datasets.checks import check_names
from pyg_peft.datasets.formats import RawPoints
from pyg_peft.datasets.formats.mesh import read_obj, read_off, read_stl
from pyg_peft.datasets.formats.pcd import read_pcd
from pyg_peft.datasets.formats.raw_points import single
from pyg_peft.datasets.formats.scan import read_las, read_ply
from pyg_peft.datasets.formats.table import read_npy, read_npz, read_text
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.mesh_sampling import sample_mesh, vertices_of
from pyg_peft.errors import MissingExtraError, check_count, check_number, printable

_READERS: dict[str, Callable[[Path], RawPoints]] = {
    ".las": read_las,
    ".laz": read_las,
    ".npz": read_npz,
    ".obj": read_obj,
    ".off": read_off,
    ".pcd": read_pcd,
    ".ply": read_ply,
    ".stl": read_stl,
}
_TABLES: dict[str, Callable[[Path, Sequence[str] | None, str], RawPoints]] = {
    ".npy": read_npy,
    ".txt": read_text,
    ".xyz": read_text,
}
FILE_TYPES = tuple(sorted([*_READERS, *_TABLES]))
# Extensions that are also used for notes, lists and labels.
_GENERAL_TYPES = (".npy", ".npz", ".txt")
_WIDTHS = {"color": 3, "normal": 3}


def read_points(
    path: str | os.PathLike[str],
    channels: Sequence[str] = (),
    *,
    fill: float | None = None,
    columns: Sequence[str] | None = None,
    decimal: str = ".",
    mesh_points: int = 2048,
    mesh_vertices: bool = False,
    drop_invalid: bool = False,
    seed: int = 0,
) -> Data:
    r"""Read a point cloud, or sample a mesh, from one file.

    Formats: .off, .obj, .stl and .ply for meshes and clouds; .pcd, .las, .laz, .npy, .npz, .xyz and
    .txt for clouds. The .ply format needs plyfile, .las and .laz need laspy:
    ``pip install 'pyg-peft[io]'``.

    Sizes in a file's header are compared with the length of the file before memory is allocated.
    Compressed content (.laz, .npz) may take 256 MiB, and more only up to 100 times the length of
    the file.

    Colors of points that are sampled from a mesh are interpolated between those of the corners.
    Channels that are integers in the file (labels) are not interpolated: they are those of the
    nearest corner.

    The mean is subtracted in float64 and returned as ``origin``. The coordinates are converted to
    float32 after that, so that a scan in UTM meters keeps its millimeters.

    Args:
        path: The file. Its extension selects the format.
        channels: Channels of ``x``, in this order: ``"color"`` (3 columns; integers are scaled to 0
            to 1, floating-point colors and those of text files stay as stored), ``"normal"`` (3
            columns; those of the faces for a mesh), ``"intensity"`` (as stored), or any other
            scalar of the file by its name in lower case. Integer colors of 8 and 16 bits are
            divided by the largest value of their type. Wider ones are divided by 255 if none is
            larger, otherwise by 65,535.
        fill: Value of channels that are not in the file. If ``None``, a missing channel is an
            error.
        columns: Names of the columns of .npy, .txt and .xyz files, for example
            ``("x", "y", "z", "red", "green", "blue")``. Unnamed columns are called ``column_3`` and
            so on.
        decimal: ``","`` if the numbers in .txt and .xyz files have decimal commas
            (``1,25;3,5;2,75``).
        mesh_points: Number of points sampled from a mesh, uniformly by area.
        mesh_vertices: Return the vertices of a mesh, with their own channels, instead of sampling
            it.
        drop_invalid: Drop points that are NaN or infinite (depth cameras write them) instead of
            raising an error.
        seed: Random seed for sampling a mesh. The sample depends on the seed and the content only.

    Returns:
        ``Data(pos float32 [n, 3], origin float64 [1, 3], x float32 [n, C] or absent)``.
        ``pos + origin`` are the coordinates in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        MissingExtraError: If the format needs a package that is not installed.
        ValueError: If the file cannot be read. The message names the file, and the line or field if
            there is one.

    Example:
        >>> import tempfile, pathlib
        >>> from pyg_peft.datasets import read_points
        >>> path = pathlib.Path(tempfile.mkdtemp(), "scan.xyz")
        >>> _ = path.write_text("500000.001 0 0 7\n500000.003 0 0 9\n")
        >>> data = read_points(path, ["intensity"], columns=["x", "y", "z", "intensity"])
        >>> round(data.pos[1, 0].item(), 6), data.x.flatten().tolist(), data.origin[0, 0].item()
        (0.001, [7.0, 9.0], 500000.002)
    """
    path = Path(path)
    channels = check_names(channels, "channels")
    if fill is not None:
        check_number(fill, "fill")
    raw = read_raw(
        path,
        columns=columns,
        decimal=decimal,
        mesh_points=mesh_points,
        mesh_vertices=mesh_vertices,
        drop_invalid=drop_invalid,
        seed=seed,
    )
    return to_data(raw, channels, fill, path)


def read_raw(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    decimal: str = ".",
    mesh_points: int = 2048,
    mesh_vertices: bool = False,
    drop_invalid: bool = False,
    seed: int = 0,
) -> RawPoints:
    """Return the points of a file, or sampled from its mesh, in the coordinates of the file.

    Args:
        path, columns, decimal, mesh_points, mesh_vertices, drop_invalid, seed: See
            :func:`read_points`, which also has the errors.
    """
    check_count(mesh_points, "mesh_points")
    check_count(seed, "seed", least=None)
    columns = None if columns is None else check_names(columns, "columns")
    if decimal not in (".", ","):
        raise ValueError(f"Expected 'decimal' to be '.' or ',' (got {decimal!r})")
    raw = parse_file(path, columns, decimal)
    if mesh_vertices and raw.faces is not None:
        raw = vertices_of(raw, merge=path.suffix.lower() == ".stl")
    valid = np.isfinite(raw.pos).all(axis=1)
    if not valid.all():
        if not drop_invalid or raw.faces is not None:
            row = int(np.flatnonzero(~valid)[0])
            hint = "" if raw.faces is not None else "; drop_invalid=True leaves such points out"
            raise ValueError(
                f"Expected '{path}' to have finite coordinates (got {raw.pos[row].tolist()} "
                f"for point {row}{hint})"
            )
        kept = {name: values[valid] for name, values in raw.channels.items()}
        raw = RawPoints(raw.pos[valid], kept, None, raw.categorical)
    if len(raw.pos) == 0:
        raise ValueError(f"Expected '{path}' to have points (got none)")
    if raw.faces is not None:
        _center(raw.pos, path)  # areas of larger coordinates would be infinite
        digest = hashlib.blake2b(np.ascontiguousarray(raw.pos).tobytes())
        digest.update(np.ascontiguousarray(raw.faces).tobytes())
        generator = keyed_generator("mesh", digest.hexdigest(), seed)
        try:
            raw = sample_mesh(raw, mesh_points, generator)
        except ValueError as error:
            raise ValueError(f"Expected '{path}' to be a mesh to sample (got: {error})") from error
    return raw


def to_data(raw: RawPoints, channels: Sequence[str], fill: float | None, path: Path) -> Data:
    """Return points of a file in the form of :func:`read_points`.

    Args:
        raw: What :func:`read_raw` returned.
        channels, fill: See :func:`read_points`.
        path: The file, for messages.
    """
    pos, origin = _center(raw.pos, path)
    data = Data(pos=torch.from_numpy(pos), origin=torch.from_numpy(origin))
    if channels:
        data.x = torch.from_numpy(_stack(raw, channels, fill, path))
    return data


def columns_of(path: str | os.PathLike[str], columns: Sequence[str] | None) -> Sequence[str] | None:
    """Return ``columns`` if the file is a table without column names of its own, else ``None``."""
    return columns if Path(path).suffix.lower() in _TABLES else None


def may_be_cloud(path: Path) -> bool:
    """Return whether a file is a cloud or mesh, not another file with the same extension."""
    if path.suffix.lower() not in _GENERAL_TYPES:
        return path.suffix.lower() in FILE_TYPES
    try:
        parse_file(path, None, ".")
    except ValueError:
        return False
    return True


def _center(pos: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates relative to their mean in float32, and the mean in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        origin = pos.mean(axis=0, keepdims=True)
        centered = (pos - origin).astype(np.float32)
    if not np.isfinite(centered).all():
        raise ValueError(
            f"Expected '{path}' to have coordinates that float32 can hold "
            f"(got up to {np.abs(pos).max():g})"
        )
    return centered, origin


def parse_file(path: Path, columns: Sequence[str] | None = None, decimal: str = ".") -> RawPoints:
    """Return the content of a file as its format has it, without sampling or centering.

    Args:
        path: The file.
        columns, decimal: See :func:`read_points`.

    Raises:
        FileNotFoundError, MissingExtraError, ValueError: See :func:`read_points`.
    """
    suffix = path.suffix.lower()
    if suffix not in FILE_TYPES:
        raise ValueError(f"Expected '{path}' to end in one of {list(FILE_TYPES)} (got {suffix!r})")
    if columns is not None and suffix not in _TABLES:
        raise ValueError(f"Expected 'columns' for {list(_TABLES)} only (got '{path}')")
    try:
        if suffix in _TABLES:
            return _TABLES[suffix](path, columns, decimal)
        return _READERS[suffix](path)
    except (FileNotFoundError, MissingExtraError):
        raise
    # Damaged files make parsers, also those of other packages, raise errors of any type. A damaged
    # count may request more memory than there is.
    except Exception as error:
        what = printable(str(error)) or type(error).__name__
        raise ValueError(
            f"Expected '{path}' to be a readable {suffix} file (got: {what})"
        ) from error


def _stack(raw: RawPoints, channels: Sequence[str], fill: float | None, path: Path) -> np.ndarray:
    missing = [name for name in channels if name not in raw.channels]
    if missing and fill is None:
        raise ValueError(
            f"Expected '{path}' to have the channels {missing} (got {sorted(raw.channels)}); "
            "'fill' gives missing ones a value"
        )
    blocks = []
    for name in channels:
        shape = (len(raw.pos), _WIDTHS.get(name, 1))
        blocks.append(raw.channels[name] if name in raw.channels else np.full(shape, fill))
    try:
        return single(np.concatenate(blocks, axis=1))
    except ValueError as error:
        raise ValueError(f"Expected '{path}' to have channels in range (got: {error})") from error


__all__ = [
    "FILE_TYPES",
    "columns_of",
    "may_be_cloud",
    "parse_file",
    "read_points",
    "read_raw",
    "to_data",
]
