"""Files that are the old one or the new one, and folders that one process at a time changes."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from killing import killed_at

from pyg_peft.storage import exclusive, remove_leftovers, sync_folder, write_atomic


def write(path: Path, content: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(content))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_the_mode_is_the_usual_one(tmp_path: Path):
    (tmp_path / "plain").write_text("")
    write(tmp_path / "deep" / "er" / "file", "text")
    path = tmp_path / "deep" / "er" / "file"
    assert path.read_text() == "text" and listing(path.parent) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    path = tmp_path / "file"
    write(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert path.read_text() == "old" and listing(tmp_path) == ["file"]


def test_a_writer_that_raises_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    write(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_atomic(path, fail)
    assert path.read_text() == "old" and listing(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_what_a_killed_writer_leaves_can_be_removed(tmp_path: Path, step: str):
    path = tmp_path / "file.txt"
    write(path, "old")
    assert killed_at(os, step, 1, lambda: write(path, "new"))
    assert path.read_text() == "old" and len(listing(tmp_path)) == 2
    others = [".file.txt.bak", ".other.txt.abcdefgh.tmp", "file.txt.abcdefgh.tmp"]
    for name in others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "file.txt")
    sync_folder(tmp_path)
    assert listing(tmp_path) == sorted([*others, "file.txt"])


@pytest.mark.skipif(sys.platform == "win32", reason="files cannot be locked on Windows")
@pytest.mark.parametrize("name", ["file.txt", "od[d] na*me?.txt"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path, name: str):
    path = tmp_path / name
    assert killed_at(os, "replace", 1, lambda: write(path, "never"))
    assert len(listing(tmp_path)) == 1 and not path.exists()
    write(tmp_path / "other.txt", "text")
    assert len(listing(tmp_path)) == 2, "it is no business of another file's writer"
    write(path, "new")
    assert path.read_text() == "new" and listing(tmp_path) == sorted([name, "other.txt"])


@pytest.mark.skipif(sys.platform == "win32", reason="files cannot be locked on Windows")
def test_a_writer_that_lives_keeps_its_temporary_file(tmp_path: Path):
    path = tmp_path / "file.txt"

    def write_within(temporary: Path) -> None:
        write(path, "of another writer, meanwhile")
        remove_leftovers(tmp_path, "*")
        temporary.write_text("of the first")

    write_atomic(path, write_within)
    assert path.read_text() == "of the first" and listing(tmp_path) == ["file.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="files cannot be locked on Windows")
def test_a_temporary_file_that_is_removed_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import fcntl

    real, taken = fcntl.flock, list[int]()

    def lock(handle: int, how: int) -> None:
        if not taken:
            taken.append(handle)
            next(tmp_path.glob(".file.txt.*.tmp")).unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    write(tmp_path / "file.txt", "text")
    assert taken and listing(tmp_path) == ["file.txt"]


HOLD = """
import sys
from pathlib import Path
from pyg_peft.storage import exclusive

with exclusive(Path(sys.argv[1])) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on Windows")
@pytest.mark.parametrize("ending", ["close", "kill"])
def test_one_at_a_time(tmp_path: Path, ending: str):
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline().strip() == b"True"
    entered = threading.Event()

    def enter() -> None:
        with exclusive(tmp_path) as alone:
            assert alone
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2), "the other process holds the folder"
    if ending == "kill":
        child.kill()
    child.stdin.close()
    child.stdout.close()
    child.wait()
    thread.join(20)
    assert entered.is_set()


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on Windows")
def test_a_file_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path) as alone:
        assert not alone
    (tmp_path / ".file.txt.abcdefgh.tmp").touch()
    write(tmp_path / "file.txt", "text")
    assert listing(tmp_path) == [".file.txt.abcdefgh.tmp", "file.txt"], "whose it is is not known"
