"""Cache of the parsed shapes of a folder, valid until the folder changes."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from pyg_peft.datasets.atomic import write_npz
from pyg_peft.datasets.files import columns_of, read_points
from pyg_peft.datasets.folders.index import FolderIndex
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.npz.file import NpzFile, read_npz
from pyg_peft.datasets.npz.select import SPLITS

logger = logging.getLogger(__name__)

# Part of the cache key; increase it when a parser or the cache format changes.
_VERSION = 3


def load_folder(
    index: FolderIndex, options: dict[str, Any], cache: str | os.PathLike[str] | bool | None
) -> NpzFile:
    """Return the parsed shapes from the cache if it is up to date; else parse and cache them.

    Args:
        index: Shapes of the folder.
        options: Everything else that the parsed shapes depend on.
        cache: See :class:`~pyg_peft.datasets.ShapeFolder`.

    Raises:
        ValueError: If files cannot be read (all of them are listed), or the cache folder is among
            the shapes.
        OSError: If the cache cannot be written.
    """
    if cache is False:
        return _as_file(index.root, _parse(index, options))
    key = hashlib.blake2b(repr((_VERSION, sorted(options.items()))).encode(), digest_size=6)
    folder = index.root / ".pyg_peft" if cache is None or cache is True else Path(cache)
    if _among_shapes(folder, index.root):
        raise ValueError(f"Expected 'cache' to lie outside of '{index.root}' (got '{folder}')")
    path = folder / f"processed-{key.hexdigest()}.npz"
    fingerprint = index.fingerprint()
    if path.is_file():
        file = _read(path)
        if file is not None and _is_of(file, index, fingerprint):
            return file
    arrays = _parse(index, options)
    arrays["fingerprint"] = np.array(fingerprint)
    try:
        write_npz(path, arrays, leftovers="processed-*.npz")
    except OSError as error:
        raise OSError(
            f"Expected '{folder}' to take the cache (got: {error}); "
            "choose another folder by 'cache', or cache=False"
        ) from error
    return _as_file(path, arrays)


def _read(path: Path) -> NpzFile | None:
    """Return the cache, or ``None`` if it is damaged: all its content can be parsed again."""
    try:
        return read_npz(path)
    except ValueError as error:
        logger.warning("the cache is made anew (%s)", error)
        return None


def _is_of(file: NpzFile, index: FolderIndex, fingerprint: str) -> bool:
    """Return whether the cache holds the shapes of the index in their current state."""
    names, labels = file.arrays.get("ids"), file.arrays.get("label")
    return (
        str(file.arrays.get("fingerprint")) == fingerprint
        and names is not None
        and names.ndim == 1
        and tuple(names.tolist()) == index.files
        and labels is not None
        and labels.tolist() == index.labels
        and file.num_clouds == len(index.files)
    )


def _parse(index: FolderIndex, options: dict[str, Any]) -> dict[str, np.ndarray]:
    num_points, seed = options["num_points"], options["seed"]
    items: list[Data] = []
    failures: list[str] = []
    for name in index.files:
        try:
            data = read_points(
                index.root / name,
                options["channels"],
                fill=options["fill"],
                columns=columns_of(name, options["columns"]),
                decimal=options["decimal"],
                mesh_vertices=options["mesh_vertices"],
                mesh_points=num_points or 2048,
                drop_invalid=options["drop_invalid"],
                seed=seed,
            )
        except (ValueError, OSError) as error:
            failures.append(f"  {name}: {error}")
            continue
        if num_points is not None and len(data["pos"]) > num_points:
            order = torch.randperm(len(data["pos"]), generator=keyed_generator(seed, name))
            for key in ("pos", "x"):
                if key in data:
                    data[key] = data[key][order[:num_points]]
        items.append(data)
    if failures:
        raise ValueError(
            f"Expected the {len(index.files)} files of '{index.root}' to be readable "
            f"(got {len(failures)} that are not):\n" + "\n".join(failures)
        )
    arrays = {
        "xyz": torch.cat([data["pos"] for data in items]).numpy(),
        "offsets": np.cumsum([0, *(len(data["pos"]) for data in items)]),
        "origin": torch.cat([data["origin"] for data in items]).numpy(),
        "label": np.array(index.labels, np.int64),
        "class_names": np.array(index.class_names),
        "ids": np.array(index.files),
    }
    if options["channels"]:
        arrays["x"] = torch.cat([data["x"] for data in items]).numpy()
    if index.splits:
        codes = [SPLITS[split] for split in index.split_of if split is not None]
        arrays["split"] = np.array(codes, np.uint8)
    return arrays


def _among_shapes(folder: Path, root: Path) -> bool:
    """Return whether the next listing of ``root`` would take the cache for a shape."""
    folder, root = folder.resolve(), root.resolve()
    inside = folder.relative_to(root).parts if folder.is_relative_to(root) else (".",)
    return not any(part.startswith(".") for part in inside)


def _as_file(path: Path, arrays: dict[str, np.ndarray]) -> NpzFile:
    return NpzFile(path, arrays, arrays["offsets"], 1.0)


__all__ = ["load_folder"]
