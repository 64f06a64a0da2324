"""Find the shapes in a folder, with their classes and splits."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyg_peft.datasets.checks import check_names
from pyg_peft.datasets.files import FILE_TYPES, may_be_cloud
from pyg_peft.datasets.npz.select import split_in_name, split_of_folder


@dataclass(frozen=True)
class FolderIndex:
    """The shapes below a folder, sorted by path.

    Args:
        root: The folder.
        files: Paths relative to it, with forward slashes.
        class_of: Class of each file.
        split_of: Split of each file, ``None`` if the layout has no splits.
    """

    root: Path
    files: tuple[str, ...]
    class_of: tuple[str, ...]
    split_of: tuple[str | None, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.class_of)))

    @property
    def labels(self) -> list[int]:
        """Class number of each file."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return [numbers[name] for name in self.class_of]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted({split for split in self.split_of if split is not None}))

    def fingerprint(self) -> str:
        """Return a hash of names, sizes and modification times, which changes with the content."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.files:
            status = (self.root / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def index_folder(root: str | os.PathLike[str], extensions: Sequence[str] = ()) -> FolderIndex:
    """List the shapes below ``root``.

    Layouts: ``class/…/shape.ext``; ``class/{train,test,val}/…`` (ModelNet's);
    ``{train,test,val}/class/…``. Splits may also be called training, testing, valid or validation,
    in upper or lower case. Links are followed. Hidden entries and files with other extensions are
    ignored. So are files beside the class folders that hold no cloud (a README.txt).

    Args:
        root: The folder.
        extensions: File extensions to include. By default, all that ``read_points`` supports.

    Raises:
        FileNotFoundError: If ``root`` is no folder.
        ValueError: If the folder has no shapes, or shapes outside class folders (for example a root
            that holds only files). Also if split folders are mixed with other folders, empty,
            duplicated, without classes, or of other names (``train_set``).
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected 'root' to be a folder (got '{root}')")
    chosen = check_names(extensions, "extensions")
    endings = tuple(ending.lower() for ending in chosen) or FILE_TYPES
    unknown = [ending for ending in endings if ending not in FILE_TYPES]
    if unknown:
        raise ValueError(f"Expected 'extensions' to be of {list(FILE_TYPES)} (got {unknown})")
    try:
        found = [path for path in files_below(root) if path.suffix.lower() in endings]
    except OSError as error:
        raise ValueError(
            f"Expected '{root}' to hold folders that can be read (got: {error})"
        ) from error
    if not found:
        raise ValueError(f"Expected '{root}' to hold files of {list(endings)} (got none)")
    names = sorted(path.relative_to(root).as_posix() for path in found if path.parent != root)
    loose = [path for path in found if path.parent == root]
    stray = loose if not names else [path for path in loose if may_be_cloud(path)]
    if stray:
        where = "" if names else " and no folder with shapes"
        raise ValueError(
            f"Expected shapes of '{root}' to lie in class folders (got '{stray[0].name}'{where})"
        )
    parts = [name.split("/") for name in names]
    if any(split_of_folder(part[0]) for part in parts):
        _check_splits(root, parts)
        classes = [part[1] for part in parts]
        splits = [split_of_folder(part[0]) for part in parts]
    else:
        _check_classes(root, parts)
        classes = [part[0] for part in parts]
        splits = [split_of_folder(part[1]) if len(part) > 2 else None for part in parts]
    if None in splits and any(splits):
        lost = names[splits.index(None)]
        raise ValueError(f"Expected every shape of '{root}' to be in a split (got {lost!r})")
    return FolderIndex(root, tuple(names), tuple(classes), tuple(splits))


def _check_splits(root: Path, parts: Sequence[Sequence[str]]) -> None:
    """Raise unless the folders of ``root`` are its splits, each with class folders."""
    tops = sorted({part[0] for part in parts})
    wrong = ""
    if not all(map(split_of_folder, tops)):
        wrong = "splits beside other folders with shapes"
    elif len({split_of_folder(top) for top in tops}) < len(tops):
        wrong = "two folders for one split"
    elif any(len(part) == 2 for part in parts):
        wrong = f"shapes without a class in '{next(p[0] for p in parts if len(p) == 2)}'"
    elif any(split_of_folder(part[1]) for part in parts):
        wrong = "splits inside of splits"
    else:
        names = [entry.name for entry in sorted(root.iterdir()) if entry.is_dir()]
        empty = [name for name in names if split_of_folder(name) and name not in tops]
        if empty:
            wrong = f"no shapes in {empty}"
    if wrong:
        raise ValueError(
            f"Expected '{root}' to hold folders of classes, or splits (train, test, val) with a "
            f"folder for each class and nothing beside them (got {wrong}: {_shown(tops)}); move or "
            "rename folders that are not splits, or pass a subfolder that holds the classes"
        )


def _check_classes(root: Path, parts: Sequence[Sequence[str]]) -> None:
    """Raise if the folders of ``root`` speak of several splits and hold folders themselves."""
    tops = sorted({part[0] for part in parts})
    found = {split_in_name(top) for top in tops} - {None}
    inside = [part for part in parts if split_in_name(part[0])]
    if len(found) > 1 and all(len(p) > 2 and not split_of_folder(p[1]) for p in inside):
        raise ValueError(
            f"Expected the folders of '{root}' to be classes, or splits by their usual names "
            f"(train, test, val) (got {_shown(tops)}): rename them if they are splits, or put the "
            "shapes of a class into its folder itself"
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder, also through links, but no hidden ones.

    Args:
        folder: Where to look.
        above: The resolved folders that lead here. A link back to one of them is not followed,
            because it would never end.
    """
    real = folder.resolve()
    if real in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(folder / entry.name, above | {real})
        else:
            yield folder / entry.name


__all__ = ["FolderIndex", "files_below", "index_folder"]
