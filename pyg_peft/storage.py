"""Atomic writes: files are complete or absent, even if a writer is killed."""

import glob
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file beside ``path``, flush it to disk, and rename it to ``path``.

    If a writer is killed, the old file stays. Its temporary file may stay too, until the next
    writer of the same file removes it. Two writers leave one of the two results.

    Args:
        path: The file to replace or create. Its folder is created if it is missing.
        write: Function that fills the temporary path. If it raises, ``path`` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _temporary(path)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes a private file
        if sys.platform == "win32":  # which cannot rename an open file
            os.close(handle)
            handle = None
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if handle is not None:
            os.close(handle)
    if sys.platform != "win32":
        remove_leftovers(path.parent, glob.escape(path.name))


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove temporary files that killed calls of :func:`write_atomic` left behind.

    The temporary file of a running writer is locked and is not removed.

    Args:
        folder: Folder of the files. If it does not support locks, no other process may be writing
            these files, see :func:`exclusive`.
        pattern: Pattern of the names of the target files, as in ``Path.glob``.
    """
    for path in folder.glob(f".{pattern}.????????.tmp"):
        if sys.platform == "win32":
            path.unlink(missing_ok=True)
        else:
            _remove_abandoned(path)


def _temporary(path: Path) -> tuple[int | None, Path]:
    """Create a temporary file beside ``path`` and lock it, which marks its writer as running.

    Returns:
        Its open handle, which holds the lock, and its path.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        if sys.platform == "win32" or not _lock(handle, wait=True) or _is_at(handle, name):
            return handle, Path(name)
        os.close(handle)  # another writer removed it as a leftover before it was locked


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary file that no process has locked."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return  # another writer has removed it, or it belongs to another user
    try:
        if _lock(handle, wait=False) and _is_at(handle, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool:
    """Lock an open file; return whether it worked.

    It fails if another process holds the lock, or the file system does not support locks.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(handle: int, path: str | Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Flush the names of the files in a folder to disk, on systems that support it."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Generator[bool]:
    """Keep other processes and threads out of this context for the same folder.

    Yields whether the folder is locked. Windows and some network file systems cannot lock folders.
    If it is not locked, do not remove anything that others may need.
    """
    if sys.platform == "win32":
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle, wait=True)
    finally:
        os.close(handle)  # which also unlocks; a killed process unlocks too


# Folders that this process has claimed. Forked children must not keep them locked.
_claimed: set[int] = set()


def _let_go() -> None:
    for handle in _claimed:
        os.close(handle)
    _claimed.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def claim_folder(folder: Path, name: str = "folder") -> Generator[bool]:
    """Lock a folder for one writer within the context; the end of the process also unlocks it.

    Yields whether the folder is locked. Windows and some network file systems cannot lock folders.
    If it is not locked, do not remove anything that another writer may need.

    Args:
        folder: An existing folder. Do not use :func:`exclusive` on it within the context.
        name: Name of the argument in the message.

    Raises:
        ValueError: If another process or thread holds the lock.
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
