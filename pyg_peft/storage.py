"""How files of ours reach the disk: whole or not at all, whoever is killed when."""

import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, flush it to disk, then put it in place.

    A writer that is killed leaves the old file and perhaps its temporary one, which
    :func:`remove_leftovers` finds; two writers leave one of the two results.

    Args:
        path: The file to replace or create; its folder is made.
        write: Receives the temporary path. If it raises, ``path`` is what it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp keeps it private; give it the usual mode
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what killed calls of :func:`write_atomic` left for files whose names match.

    Args:
        folder: Nobody else may be writing these files in it, see :func:`exclusive`.
        pattern: Of the files that were to be written, as in ``Path.glob``.
    """
    for path in folder.glob(f".{pattern}.????????.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names of the files in a folder to disk, on systems that can."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Generator[bool]:
    """Within the context no other process or thread is in this context of the same folder.

    Yields whether that is so: some network file systems and Windows cannot lock a folder. Nothing
    that others may need should be removed then.
    """
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(handle)  # which unlocks; so does the end of a process that is killed


# Folders that this process holds by claim_folder: forked children must not hold them on.
_claimed: set[int] = set()


def _let_go() -> None:
    for handle in _claimed:
        os.close(handle)
    _claimed.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def claim_folder(folder: Path, name: str = "folder") -> Generator[bool]:
    """Hold a folder for one writer as long as the context lasts; the end of the process frees it.

    Yields whether it is held: Windows and some network file systems cannot, and nothing that
    another writer may need should be removed then.

    Args:
        folder: It exists. Not one that :func:`exclusive` is used on within the context.
        name: Of the argument, for the message.

    Raises:
        ValueError: Another process or thread holds it.
    """
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    _claimed.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError as error:
            raise ValueError(
                f"Expected '{name}' to have one writer at a time (got '{folder}', which another "
                "process writes to): wait for it, or choose another folder"
            ) from error
        except OSError:
            held = False
        yield held
    finally:
        _claimed.discard(handle)
        os.close(handle)


__all__ = ["claim_folder", "exclusive", "remove_leftovers", "sync_folder", "write_atomic"]
