"""Read the table of a folder that holds the targets of its files."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pyg_peft.datasets.files import FILE_TYPES
from pyg_peft.datasets.npz.select import split_of_folder

TABLE = "labels.csv"
_FILE, _SPLIT = "file", "split"
_SHOWN = 5


@dataclass(frozen=True)
class TargetTable:
    """The rows of a table, sorted by file.

    Args:
        files: Paths relative to the folder, with forward slashes.
        split_of: Split of each file; ``None`` without a column for it.
        targets: Targets of each file, float64 ``[N, T]``.
        names: Names of the targets.
    """

    files: tuple[str, ...]
    split_of: tuple[str | None, ...]
    targets: np.ndarray
    names: tuple[str, ...]


def read_table(path: Path) -> TargetTable:
    """Read a table with the columns ``file``, optionally ``split``, and then the targets.

    Columns are separated by commas, semicolons or tabs; numbers have decimal points.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the table is no such table, or names files that are not in its folder. The
            message names the line.
    """
    lines = _read_lines(path)
    header, rows = lines[0][1], lines[1:]
    if not header or header[0] != _FILE:
        raise ValueError(
            f"Expected the first column of '{path}' to be named '{_FILE}', before columns of "
            f"targets that are separated by ',', ';' or tabs (got {header[:1]})"
        )
    if len(set(header)) < len(header) or not all(header):
        raise ValueError(f"Expected the columns of '{path}' to have different names (got {header})")
    targets = [place for place, name in enumerate(header) if place > 0 and name != _SPLIT]
    if not targets or not rows:
        lacking = "rows" if targets else "a column of targets"
        raise ValueError(f"Expected '{path}' to have {lacking} (got none)")
    found: dict[str, tuple[str | None, list[float]]] = {}
    for line, row in rows:
        where = f"line {line} of '{path}'"
        if len(row) != len(header):
            raise ValueError(f"Expected {where} to have {len(header)} columns (got {len(row)})")
        name = _file_name(row[0], where)
        if name in found:
            raise ValueError(f"Expected {where} to name another file (got {name!r} again)")
        split = _split(row[header.index(_SPLIT)], where) if _SPLIT in header else None
        numbers = [_number(row[place], header[place], where) for place in targets]
        found[name] = (split, numbers)
    _check_files(path.parent, sorted(found), path)
    files = tuple(sorted(found))
    return TargetTable(
        files,
        tuple(found[name][0] for name in files),
        np.array([found[name][1] for name in files], np.float64),
        tuple(header[place] for place in targets),
    )


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not empty, with its number."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected '{path}' to be a table of files and targets (got none)")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected '{path}' to be text in UTF-8 (got: {error})") from error
    begin = text.lstrip()[len(_FILE) :].lstrip(' "')[:1]
    delimiter = begin if begin in (";", "\t") else ","
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ValueError(f"Expected '{path}' to be a table (got: {error})") from error
    lines = [(line, row) for line, row in cells if any(row)]
    if not lines:
        raise ValueError(f"Expected '{path}' to have a line of column names (got an empty file)")
    return lines


def _file_name(text: str, where: str) -> str:
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise ValueError(f"Expected {where} to name a file of its folder (got {text!r})")
    if path.suffix.lower() not in FILE_TYPES:
        raise ValueError(
            f"Expected {where} to name a file that ends in one of {', '.join(FILE_TYPES)} "
            f"(got {text!r})"
        )
    return path.as_posix()


def _split(text: str, where: str) -> str:
    split = split_of_folder(text)
    if split is None:
        raise ValueError(f"Expected {where} to have the split train, val or test (got {text!r})")
    return split


def _number(text: str, column: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"Expected {where} to hold a number for '{column}' (got {text!r})")
    return number


def _check_files(root: Path, names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ValueError(
            f"Expected the files of '{path}' to exist (got none under {', '.join(missing[:_SHOWN])}"
            f"{more})"
        )


__all__ = ["TABLE", "TargetTable", "read_table"]
