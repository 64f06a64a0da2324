"""Write point files with a label per point: .ply, .las, .laz and .npz."""

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from pyg_peft.datasets.checks import check_names
from pyg_peft.datasets.formats.las_header import check_las
from pyg_peft.datasets.labels import check_labels, numeric_array
from pyg_peft.errors import MissingExtraError, printable
from pyg_peft.storage import write_atomic

#: Distinguishable with color blindness (Okabe and Ito), in order of use.
PALETTE = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (85, 85, 85),
)
# Further classes have the same colors, mixed with this much black (0) or white (255).
_SHADES = ((0.0, 0), (0.45, 0), (0.55, 255), (0.7, 0))
_OLD_FORMATS = range(6)  # their field for the class has five bits
_ROWS_AT_ONCE = 1_000_000
_MOST_STEPS = 2**31 - 1  # coordinates of .las files are 32-bit integers


@dataclass(frozen=True)
class _Labeled:
    pos: np.ndarray
    label: np.ndarray
    names: dict[int, str]
    probability: np.ndarray | None


def write_labeled_points(
    path: str | os.PathLike[str],
    pos: Tensor | np.ndarray,
    label: Tensor | np.ndarray | Sequence[int],
    *,
    class_names: Sequence[str] | Mapping[int, str],
    source: str | os.PathLike[str] | None = None,
    probability: Tensor | np.ndarray | None = None,
) -> None:
    r"""Write points with their labels to a file that viewers and other programs open.

    The extension selects the format. The file is written completely or not at all, and replaces an
    older one.

    - ``.ply``: ``x``, ``y``, ``z``, a color of the class in ``red``, ``green`` and ``blue``, and
      the integer ``label``. The first eight classes have the colors of Okabe and Ito, which are
      distinguishable with color blindness; further classes have darker and lighter shades of them.
      Comments of the header name the classes.
    - ``.las``, ``.laz``: the label is the ``classification``. With a ``source`` of either format,
      the file is a copy of it with another classification: coordinates, all other fields, records
      and the scale and offset of the header stay, bit for bit. Records of the COPC layout are
      dropped, since the copy is not in this layout. Without such a source, coordinates are rounded
      to a power of ten below 5e-9 times the size of the cloud, or 5e-9 if that is more.
    - ``.npz``: the arrays ``pos`` and ``label``, and ``class_names`` with their ``class_labels``.

    :func:`~pyg_peft.datasets.read_points` reads all of them, with ``"label"`` or
    ``"classification"`` as a channel. Coordinates of .ply and .npz are in float32 if it holds them
    exactly, otherwise in float64.

    Args:
        path: The file to write. Its folder must exist.
        pos: Coordinates, in the unit of the file.
        label: Label of each point, a key of ``class_names``.
        class_names: Names of the classes by label. A list names 0, 1 and so on.
        source: The file with these points, in this order. It is used for .las and .laz.
        probability: Probability of each label. It is written as the field ``probability``.

    Shapes: pos ``(N, 3)``, N >= 1; label ``(N,)``; probability ``(N,)``.

    Raises:
        FileNotFoundError: If there is no such folder or source.
        MissingExtraError: If the format needs a package that is not installed.
        TypeError: If an argument has another type.
        ValueError: If shapes differ, positions are not finite, a label has no name or does not fit
            into the format (31 for the point formats 0 to 5 of .las, 255 for others), ``source``
            has other points or internal waveforms, or the extension is another one.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from pyg_peft.datasets import read_points, write_labeled_points
        >>> path = pathlib.Path(tempfile.mkdtemp(), "lamp.npz")
        >>> pos = torch.tensor([[0.0, 0, 0], [0, 0, 1]])
        >>> write_labeled_points(path, pos, [0, 1], class_names=["foot", "shade"])
        >>> read_points(path, ["label"]).x.flatten().tolist()
        [0.0, 1.0]
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"Expected 'path' to end in one of {list(LABELED_TYPES)} (got '{path}')")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected '{path.parent}' to be a folder that exists")
    if source is not None and not Path(source).is_file():
        raise FileNotFoundError(f"Expected 'source' to be a file that exists (got '{source}')")
    points = _checked(pos, label, class_names, probability)
    write(path, points, None if source is None else Path(source))


def color_of(place: int) -> tuple[int, int, int]:
    """Return the color of a class, as red, green and blue from 0 to 255.

    Args:
        place: Place of the class in the order of the labels.
    """
    amount, toward = _SHADES[place // len(PALETTE) % len(_SHADES)]
    red, green, blue = (
        round((1 - amount) * value + amount * toward) for value in PALETTE[place % len(PALETTE)]
    )
    return red, green, blue


def _checked(pos: Any, label: Any, class_names: Any, probability: Any) -> _Labeled:
    coordinates = numeric_array(pos, "'pos'")
    if coordinates.ndim != 2 or coordinates.shape[1] != 3 or len(coordinates) == 0:
        raise ValueError(
            f"Expected 'pos' to be of shape [N, 3] with points (got {list(coordinates.shape)})"
        )
    if not np.isfinite(coordinates).all():
        raise ValueError("Expected 'pos' to be finite (got NaN or infinity)")
    count = len(coordinates)
    labels = check_labels(label, "'label'")
    chances = None if probability is None else numeric_array(probability, "'probability'")
    for name, values in (("label", labels), ("probability", chances)):
        if values is not None and values.shape != (count,):
            raise ValueError(
                f"Expected '{name}' to be of shape [{count}], a value per point "
                f"(got {list(values.shape)})"
            )
    names = _names_by_label(class_names)
    strange = sorted(set(np.unique(labels).tolist()) - set(names))
    if strange:
        raise ValueError(
            f"Expected 'label' to hold labels that 'class_names' names, of {sorted(names)[:8]} "
            f"(got {strange[:3]})"
        )
    return _Labeled(coordinates, labels, names, chances)


def _names_by_label(class_names: Any) -> dict[int, str]:
    if not isinstance(class_names, Mapping):
        return dict(enumerate(check_names(class_names, "class_names")))
    check_names(class_names.values(), "class_names")
    keys = check_labels(list(class_names), "the labels of 'class_names'").tolist()
    return dict(sorted(zip(keys, class_names.values(), strict=True)))


def _exact(pos: np.ndarray) -> np.ndarray:
    """Return coordinates in float32 if it holds all of them exactly, otherwise in float64."""
    with np.errstate(over="ignore"):
        narrow = pos.astype(np.float32)
    return narrow if np.array_equal(narrow, pos) else pos.astype(np.float64)


def _write_npz(path: Path, points: _Labeled, source: Path | None) -> None:
    arrays: dict[str, Any] = {
        "pos": _exact(points.pos),
        "label": points.label.astype(np.int32),
        "class_labels": np.array(list(points.names)),
        "class_names": np.array(list(points.names.values())),
    }
    if points.probability is not None:
        arrays["probability"] = points.probability.astype(np.float32)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    write_atomic(path, write)


def _write_ply(path: Path, points: _Labeled, source: Path | None) -> None:
    try:
        from plyfile import PlyData, PlyElement
    except ImportError:
        raise MissingExtraError("plyfile", "io") from None
    pos = _exact(points.pos)
    kind = pos.dtype.str
    fields = [(axis, kind) for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    fields.append(("label", "<i4"))
    if points.probability is not None:
        fields.append(("probability", "<f4"))
    vertex = np.empty(len(pos), fields)
    for column, axis in enumerate("xyz"):
        vertex[axis] = pos[:, column]
    keys = np.array(sorted(points.names))
    place = np.searchsorted(keys, points.label)
    colors = np.array([color_of(number) for number in range(len(keys))], np.uint8)[place]
    for column, name in enumerate(("red", "green", "blue")):
        vertex[name] = colors[:, column]
    vertex["label"] = points.label
    if points.probability is not None:
        vertex["probability"] = points.probability
    # A header is ASCII, and a line ends a comment.
    notes = [
        f"label {key} is {name.encode('unicode_escape').decode()}"
        for key, name in points.names.items()
    ]
    content = PlyData([PlyElement.describe(vertex, "vertex")], byte_order="<", comments=notes)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            content.write(stream)

    write_atomic(path, write)


def _write_las(path: Path, points: _Labeled, source: Path | None) -> None:
    try:
        import laspy
    except ImportError:
        raise MissingExtraError("laspy", "io") from None
    compressed = path.suffix.lower() == ".laz"
    from_las = source is not None and source.suffix.lower() in (".las", ".laz")
    backend = laspy.LazBackend.Lazrs  # the parallel backend hangs in forked workers
    if (compressed or from_las) and not backend.is_available():
        raise MissingExtraError("lazrs", "io")
    options: dict[str, Any] = {"laz_backend": backend, "do_compress": compressed}

    def write(temporary: Path) -> None:
        with temporary.open("wb+") as stream:
            if source is not None and from_las:
                _copy_las(source, points, stream, options)
            else:
                _new_las(points, stream, options)

    write_atomic(path, write)


def _copy_las(source: Path, points: _Labeled, stream: BinaryIO, options: dict[str, Any]) -> None:
    """Write the points of ``source`` with other labels, some of them at a time."""
    import laspy

    try:
        check_las(source)
        reader = laspy.open(str(source), laz_backend=options["laz_backend"])
    except Exception as error:  # damaged files make laspy raise errors of any type
        raise _unreadable(source, error) from error
    with reader:
        header = deepcopy(reader.header)
        _check_copy(header, points, source)
        header.vlrs = _without_copc(header.vlrs)
        if points.probability is not None:
            _add_probability(header)
        with laspy.open(stream, mode="w", header=header, closefd=False, **options) as writer:
            for begin in range(0, len(points.pos), _ROWS_AT_ONCE):
                rows = slice(begin, begin + _ROWS_AT_ONCE)
                record = _read_some(reader, _ROWS_AT_ONCE, source)
                _check_same(record, points.pos[rows], source)
                if points.probability is not None:
                    wider = laspy.ScaleAwarePointRecord.zeros(len(record), header=header)
                    wider.copy_fields_from(record)
                    record = wider
                    record["probability"] = points.probability[rows]
                record["classification"] = points.label[rows]
                writer.write_points(record)
            if header.version.minor >= 4 and reader.evlrs:
                writer.write_evlrs(_without_copc(reader.evlrs))


def _new_las(points: _Labeled, stream: BinaryIO, options: dict[str, Any]) -> None:
    """Write a file of the format 6, with the finest coordinates that its integers can hold."""
    import laspy

    _check_limit(points, 6)
    header = laspy.LasHeader(version="1.4", point_format=6)
    low = np.floor(points.pos.min(axis=0).astype(np.float64))
    extent = float((points.pos.max(axis=0) - low).max())
    power = math.ceil(math.log10(extent / _MOST_STEPS)) if extent > 0 else -3
    header.offsets, header.scales = low, np.full(3, 10.0 ** max(power, -9))
    if points.probability is not None:
        _add_probability(header)
    cloud = laspy.LasData(header)
    cloud.xyz = points.pos.astype(np.float64)
    cloud["classification"] = points.label
    cloud["return_number"] = cloud["number_of_returns"] = np.ones(len(points.pos), np.uint8)
    if points.probability is not None:
        cloud["probability"] = points.probability
    cloud.write(stream, **options)


def _add_probability(header: Any) -> None:
    import laspy

    if "probability" in set(header.point_format.dimension_names):
        raise ValueError("Expected 'source' without a field 'probability' (got one)")
    field = laspy.ExtraBytesParams("probability", "f4", description="of the classification")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header without points has no ranges to describe
        header.add_extra_dim(field)


def _check_copy(header: Any, points: _Labeled, source: Path) -> None:
    if header.point_count != len(points.pos):
        raise ValueError(
            f"Expected 'source' to have the {len(points.pos)} points "
            f"(got {header.point_count} in '{source}')"
        )
    if header.global_encoding.waveform_data_packets_internal:
        raise ValueError(f"Expected 'source' without internal waveforms (got some in '{source}')")
    _check_limit(points, header.point_format.id)


def _check_limit(points: _Labeled, point_format: int) -> None:
    most = 31 if point_format in _OLD_FORMATS else 255
    highest = int(points.label.max())
    if highest > most:
        raise ValueError(
            f"Expected 'label' to lie in [0, {most}], which the point format {point_format} holds "
            f"(got {highest}): write another type of file, such as .ply"
        )


def _check_same(record: Any, pos: np.ndarray, source: Path) -> None:
    """Raise unless the positions are those of the source, up to the rounding of float32."""
    columns: Any = [record[axis] for axis in "xyz"]
    stored = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    room = np.abs(stored) * 2.0**-22 + np.asarray(record.scales)
    if (np.abs(stored - pos) > room).any():
        row = int(np.flatnonzero((np.abs(stored - pos) > room).any(axis=1))[0])
        raise ValueError(
            f"Expected 'pos' to hold the points of '{source}' in their order "
            f"(got {pos[row].tolist()} instead of {stored[row].tolist()})"
        )


def _read_some(reader: Any, count: int, source: Path) -> Any:
    try:
        return reader.read_points(count)
    except BaseException as error:
        # A panic of a Rust library is not a subclass of Exception in Python.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: BaseException) -> ValueError:
    what = printable(str(error)) or type(error).__name__
    return ValueError(
        f"Expected '{source}' to be a readable {source.suffix.lower()} file (got: {what})"
    )


def _without_copc(records: Any) -> Any:
    """Return records without those of the COPC layout, which describe where points lie."""
    kept = deepcopy(records)
    kept[:] = [record for record in kept if record.user_id != "copc"]
    return kept


_WRITERS: dict[str, Callable[[Path, _Labeled, Path | None], None]] = {
    ".las": _write_las,
    ".laz": _write_las,
    ".npz": _write_npz,
    ".ply": _write_ply,
}
LABELED_TYPES = tuple(_WRITERS)

__all__ = ["LABELED_TYPES", "PALETTE", "color_of", "write_labeled_points"]
