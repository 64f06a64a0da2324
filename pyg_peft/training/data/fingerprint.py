"""Tell whether a data set is the one that a run was trained on."""

import hashlib
import os
from pathlib import Path
from typing import Any

from pyg_peft.datasets.sample_ids import labels_of
from pyg_peft.training.data.sources import Splits


def data_fingerprint(splits: Splits, spec: str) -> str:
    """Return a hash of the splits: classes, labels, and names and sizes of files.

    Splits that are drawn by a seed are the same only for the same data. Points are not read, so
    the hash of a large folder takes no time.

    Args:
        splits: The opened splits, before any are drawn from others.
        spec: The data as given by the user. If it is a file, its size is included.
    """
    digest = hashlib.sha256("\0".join(splits.class_names).encode())
    path = Path(spec)
    if path.is_file():
        digest.update(f"{path.stat().st_size}\n".encode())
    for name in ("train", "val", "test"):
        dataset = getattr(splits, name)
        if dataset is not None:
            digest.update(f"{name} {len(dataset)}\n".encode())
            digest.update(labels_of(dataset).numpy().tobytes())
            for file in _files_of(dataset):
                whole = file if file.is_file() else path / file
                name = os.path.relpath(whole, path)
                digest.update(f"{name}\0{whole.stat().st_size}\n".encode())
    return digest.hexdigest()


def _files_of(dataset: Any) -> list[Path]:
    """Return the files of a folder, also inside wrappers: paths, or names inside the folder."""
    while not hasattr(dataset, "files") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return [Path(file) for file in getattr(dataset, "files", ())]


__all__ = ["data_fingerprint"]
