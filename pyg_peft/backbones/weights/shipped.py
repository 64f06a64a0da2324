"""The weights that ship with the package."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyg_peft.errors import CheckpointError

_FOLDER = Path(__file__).parent.parent / "pretrained_weights"


@dataclass(frozen=True)
class PretrainedFile:
    """A file of weights that ships with the package.

    Args:
        file: Name of the file in the folder of weights.
        sha256: SHA-256 hash of the file.
        sizes: Constructor arguments that cannot be inferred from the weights, such as
            ``num_heads``.
        backbones: Names of the backbones that the weights fit.
    """

    file: str
    sha256: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    backbones: tuple[str, ...] = ()


# name = PretrainedFile(file, sha256, {"num_heads": ..., "patch_size": ...}, (backbone, ...))
SHIPPED: dict[str, PretrainedFile] = {
    "point-mae-tiny": PretrainedFile(
        "point_mae_tiny.safetensors",
        "52264a88d5e3573a9f4d6919a525b7639811cb3535b5eed16b39fa639b65c248",
        {"num_heads": 6, "num_centers": 32, "patch_size": 32},
        ("PointMAE", "PointMAESegmentation"),
    ),
}


def find_pretrained(
    name: str, files: Mapping[str, PretrainedFile] | None = None, folder: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Return the path of shipped weights, after checking their hash, and their sizes.

    Args:
        name: Name of the weights, a key of ``files``.
        files: Weights to search by name; by default all shipped ones.
        folder: Folder of the files; by default that of the package.

    Raises:
        ValueError: If the name does not exist; the message lists all names.
        CheckpointError: If the hash of the file differs from the published one.
    """
    files = SHIPPED if files is None else files
    if name not in files:
        names = ", ".join(f"'{known}'" for known in files)
        available = (
            f"one of {names}" if names else "the name of shipped weights; there are none yet"
        )
        raise ValueError(f"Expected 'name' to be {available} (got '{name}')")
    entry = files[name]
    path = (folder or _FOLDER) / entry.file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry.sha256:
        raise CheckpointError(f"Expected '{path}' to have the hash {entry.sha256} (got {digest})")
    return path, dict(entry.sizes)


def terms_of(name: str) -> str:
    """Return what the card of shipped weights says of their data and license, in one line.

    Args:
        name: Name of the weights, a key of :data:`SHIPPED`.
    """
    text = (_FOLDER / SHIPPED[name].file).with_suffix(".md").read_text(encoding="utf-8")
    entries = re.findall(
        r"^- \*\*(Data|License)\*\*: (.*?)(?=^- |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return " ".join(f"{title}: {' '.join(entry.split())}" for title, entry in entries)


def shipped_for(backbone: str) -> str | None:
    """Return the name of the first shipped weights that fit a backbone, or ``None``."""
    return next((name for name, file in SHIPPED.items() if backbone in file.backbones), None)


__all__ = ["SHIPPED", "PretrainedFile", "find_pretrained", "shipped_for", "terms_of"]
