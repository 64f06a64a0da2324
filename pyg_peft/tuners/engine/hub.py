"""Adapters on the Hugging Face Hub: download one by its name, upload a folder (extra ``hub``)."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pyg_peft.checkpoint import CARD, CONFIG, WEIGHTS
from pyg_peft.errors import MissingExtraError
from pyg_peft.tuners.engine.card import with_repo

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: Files of an adapter; no others of a folder, such as checkpoints and logs, are transferred.
FILES = (WEIGHTS, CONFIG, CARD, "memory_bank.*.safetensors")


def find_adapter(folder: str | Path, revision: str | None = None) -> Path:
    """Return a local folder, or download the adapter of that name, such as ``"org/name"``.

    A local folder takes precedence. The cache and the environment variables of ``huggingface_hub``
    apply: with ``HF_HUB_OFFLINE=1`` only the cache is read.

    Args:
        folder: Path of a folder, or the name of a repository.
        revision: Branch, tag or commit of the repository; the main branch by default.

    Raises:
        FileNotFoundError: If there is neither a folder nor a repository of this name.
        MissingExtraError: If ``huggingface_hub`` is needed and not installed.
    """
    path, name = Path(folder), os.fspath(folder)
    if path.exists() or not isinstance(folder, str) or not _NAME.fullmatch(name):
        return path
    hub = _import()
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"Expected an adapter folder, or an adapter on the Hub that can be read (got {name!r}: "
            f"{reason})"
        ) from error


def check_repo(repo_id: object, name: str = "repo_id") -> None:
    """Raise unless a repository can have this name, and ``huggingface_hub`` is installed."""
    if not isinstance(repo_id, str) or not _NAME.fullmatch(repo_id):
        raise ValueError(f"Expected '{name}' to be of the form 'org/name' (got {repo_id!r})")
    _import()


def upload(
    folder: str | Path, repo_id: str, *, private: bool | None, message: str, token: str | None
) -> str:
    """Upload the files of an adapter folder, and no others; return the address of the commit.

    The example in the uploaded card loads the adapter by the name of the repository.
    """
    api = _import().HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as copied:
        for path in (path for pattern in FILES for path in Path(folder).glob(pattern)):
            shutil.copy2(path, copied)
        card = Path(copied, CARD)
        if card.is_file():
            text = card.read_text(encoding="utf-8")
            card.write_text(with_repo(text, repo_id), encoding="utf-8", newline="\n")
        return str(
            api.upload_folder(
                repo_id=repo_id,
                folder_path=copied,
                allow_patterns=list(FILES),
                commit_message=message,
            )
        )


def _import() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    return huggingface_hub


__all__ = ["FILES", "check_repo", "find_adapter", "upload"]
