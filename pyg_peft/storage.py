"""How files of ours reach the disk: whole or not at all, whoever is killed when."""

import glob
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary neighbor of ``path``, flush it to disk, then put it in place.

    A writer that is killed leaves the old file and perhaps its temporary one, which the next writer
    of the same file removes; two writers leave one of the two results.

    Args:
        path: The file to replace or create; its folder is made.
        write: Receives the temporary path. If it raises, ``path`` is what it was before.
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
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp keeps it private; give it the usual mode
        if sys.platform == "win32":  # which moves no open file
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
    """Remove what killed calls of :func:`write_atomic` left for files whose names match.

    The temporary file of a writer that lives is locked by it, and stays.

    Args:
        folder: Where nothing can be locked, nobody else may be writing these files in it, see
            :func:`exclusive`.
        pattern: Of the files that were to be written, as in ``Path.glob``.
    """
    for path in folder.glob(f".{pattern}.????????.tmp"):
        if sys.platform == "win32":
            path.unlink(missing_ok=True)
        else:
            _remove_abandoned(path)


def _temporary(path: Path) -> tuple[int | None, Path]:
    """Make a temporary neighbor of ``path`` and lock it, which shows others that its writer lives.

    Returns its open handle, which holds the lock, and its path.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        if sys.platform == "win32" or not _lock(handle, wait=True) or _is_at(handle, name):
            return handle, Path(name)
        os.close(handle)  # taken for a leftover before it was locked, and removed


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary file that no process holds."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return  # another writer has removed it, or it is another user's
    try:
        if _lock(handle, wait=False) and _is_at(handle, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool:
    """Lock an open file; false if another process holds it or the file system has no locks."""
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
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle, wait=True)
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
