"""Run cases in a process that may crash, hang or run out of memory, and say what came of each.

A :class:`Sandbox` forks this process once; torch is loaded already, so that a fork takes
milliseconds. The child runs case after case under limits of memory and processor time. If it dies,
the parent learns why (signal and traceback), reports that case, and forks another child for the
next one.

A case is any object that can be pickled and has ``trial() -> Verdict``. Only ``right`` and
``refused`` are good outcomes; every other one is a finding.
"""

import contextlib
import faulthandler
import io
import math
import os
import pickle
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from pyg_peft.errors import MissingExtraError

Outcome = Literal["right", "refused", "wrong", "undocumented", "warning", "crash", "hang"]
GOOD = ("right", "refused")

#: What a user's mistake or a damaged file may raise. Subclasses count: CheckpointError,
#: PlacementError, FileNotFoundError.
DOCUMENTED = (ValueError, TypeError, MissingExtraError, FileNotFoundError, NotImplementedError)

#: Said by libraries that asked for memory by a number out of a file. HDF5 calls the part of a file
#: that is in use its allocation.
_MEMORY = re.compile(r"alloc(?!ation\))|[Oo]ut of memory|[Nn]ot enough memory|MemoryError")

#: Warnings of PyG and torch at import, which the whole suite allows.
_ALLOWED_WARNINGS = re.compile(
    r"`torch\.jit|'torch-(cluster|scatter)'|torch_geometric\.distributed"
)


@dataclass(frozen=True)
class Verdict:
    """What came of one case.

    Args:
        outcome: ``right``: a result that was checked; ``refused``: a documented error.
        detail: for a finding what happened, for an error its text.
    """

    outcome: Outcome
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in GOOD


class Case(Protocol):
    def trial(self) -> Verdict: ...


@dataclass(frozen=True)
class Limits:
    """What one case may take.

    Args:
        memory: bytes of address space beside what the warm process has.
        cpu_seconds: of processor time, so that a busy machine fails nothing.
        wall_seconds: for a case that waits without computing.
    """

    memory: int = 3 << 29  # 1.5 GiB
    cpu_seconds: int = 5
    wall_seconds: float = 120.0


class Sandbox:
    """A child process that runs cases; made anew after it has died.

    Args:
        limits: of each case.
        warm: called before each fork, so that what it caches is there in every child.
    """

    def __init__(
        self, limits: Limits | None = None, warm: Callable[[], object] = lambda: None
    ) -> None:
        self.limits = limits or Limits()
        self.warm = warm
        self.forks = 0
        self._child: tuple[int, io.FileIO, io.FileIO] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the sandbox

    def __call__(self, case: Case) -> Verdict:
        """Run one case in the child."""
        if self._child is None:
            self._fork()
        assert self._child is not None
        pid, to_child, from_child = self._child
        try:
            _send(to_child, pickle.dumps(case))
            ready, _, _ = select.select([from_child], [], [], self.limits.wall_seconds)
            if not ready:
                os.kill(pid, signal.SIGABRT)  # faulthandler writes where it hangs
                self._reap()
                return Verdict("hang", f"no answer in {self.limits.wall_seconds} s\n{self._tail()}")
            return pickle.loads(_receive(from_child))
        except (EOFError, BrokenPipeError):
            status = self._reap()
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            name = signal.Signals(number).name if number else f"exit code {status >> 8}"
            kind: Outcome = "hang" if number == signal.SIGXCPU else "crash"
            return Verdict(kind, f"the process ended by {name}\n{self._tail()}")

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            os.kill(self._child[0], signal.SIGKILL)
            self._reap()
        self._log.close()

    def _fork(self) -> None:
        self.warm()
        self.forks += 1
        child_reads, parent_writes = os.pipe()
        parent_reads, child_writes = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(parent_writes)
                os.close(parent_reads)
                _serve(io.FileIO(child_reads), io.FileIO(child_writes, "w"), self._log, self.limits)
            finally:
                os._exit(0)
        os.close(child_reads)
        os.close(child_writes)
        self._child = (pid, io.FileIO(parent_writes, "w"), io.FileIO(parent_reads))

    def _reap(self) -> int:
        assert self._child is not None
        pid, to_child, from_child = self._child
        self._child = None
        to_child.close()
        from_child.close()
        for _ in range(1000):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def _tail(self) -> str:
        """The end of what the dead child wrote, with the traceback of faulthandler."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        self._log.seek(0)
        self._log.truncate()
        # Below this file there is only the way here.
        return text.partition(f'File "{__file__}"')[0][:2500]


def _serve(reader: io.FileIO, writer: io.FileIO, log: Any, limits: Limits) -> None:
    """The child: answer cases until the parent closes its end."""
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    faulthandler.enable(log)
    faulthandler.register(signal.SIGXCPU, log, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory, resource.RLIM_INFINITY))
    _as_users_have_it()
    while True:
        try:
            case = pickle.loads(_receive(reader))
        except EOFError:
            return
        spent = resource.getrusage(resource.RUSAGE_SELF)
        until = math.ceil(spent.ru_utime + spent.ru_stime) + limits.cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
        torch.manual_seed(0)
        try:
            verdict = case.trial()
        except MemoryError as error:
            verdict = Verdict("undocumented", f"MemoryError outside of the call: {error}")
        except BaseException as error:
            # The trial itself must not raise: a broken test would look like a broken library.
            verdict = Verdict("wrong", f"the trial raised {_told(error)}")
        _send(writer, pickle.dumps(verdict))


def _as_users_have_it() -> None:
    """Without the suite's own checks of shapes, which would put an error where users get none."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)


def _send(stream: io.FileIO, message: bytes) -> None:
    view = memoryview(struct.pack("<q", len(message)) + message)
    while view:
        view = view[stream.write(view) :]


def _receive(stream: io.FileIO) -> bytes:
    (size,) = struct.unpack("<q", _exactly(stream, 8))
    return _exactly(stream, size)


def _exactly(stream: io.FileIO, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = stream.read(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# ---- judging a call ------------------------------------------------------------------------------


class Expectation(str):
    """``right``: only a right answer; ``error``: only a documented error; ``either``: both."""


RIGHT, ERROR, EITHER = Expectation("right"), Expectation("error"), Expectation("either")


def judge(
    call: Callable[[], Any],
    *,
    names: Collection[str],
    check: Callable[[Any], str | None],
    expected: Expectation = EITHER,
    from_file: bool = False,
) -> Verdict:
    """Call something and judge what comes of it.

    Args:
        call: what is tried.
        names: one of these must be in an error's message: arguments, or the file.
        check: says what is wrong with a result, or ``None``.
        expected: see :class:`Expectation`.
        from_file: whether numbers come from a file; asking for memory by them is a finding even
            where the failure is caught and reported.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call()
        except Exception as error:
            return judge_error(error, names, expected, from_file=from_file)
    told = [str(w.message) for w in caught if not _ALLOWED_WARNINGS.search(str(w.message))]
    if told:
        return Verdict("warning", f"warned: {told[0]}")
    if expected == ERROR:
        return Verdict("wrong", f"accepted, and returned {_short(result)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            problem = check(result)
        except Exception as error:
            problem = f"what was returned cannot be judged, {_told(error)}: {_short(result)}"
    return Verdict("right") if problem is None else Verdict("wrong", problem)


def judge_error(
    error: Exception, names: Collection[str], expected: Expectation, *, from_file: bool = False
) -> Verdict:
    """Judge an error: documented, and naming what it is about?"""
    if not isinstance(error, DOCUMENTED):
        return Verdict("undocumented", _told(error))
    text = str(error)
    if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names):
        return Verdict("undocumented", f"names none of {sorted(names)}: {_told(error)}")
    if "Expected" not in text and not isinstance(error, MissingExtraError):
        return Verdict("undocumented", f"does not say what was expected: {_told(error)}")
    if expected == RIGHT:
        return Verdict("wrong", f"refused a valid call: {_told(error)}")
    if from_file and _MEMORY.search(text):
        return Verdict("wrong", f"memory was asked for before a count was checked: {text[:300]}")
    if from_file and any(ord(c) < 32 and c not in "\n\t" for c in text):
        return Verdict("wrong", f"control characters in a message: {text[:300]!r}")
    return Verdict("refused", text[:300])


def _told(error: BaseException) -> str:
    where = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if f"{os.sep}pyg_peft{os.sep}" in code.co_filename:
            where = f" at {code.co_filename.rpartition('pyg_peft/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    with contextlib.suppress(Exception):
        return f"{type(error).__name__}: {str(error)[:400]}{where}"
    return f"{type(error).__name__}{where}"


def _short(value: Any) -> str:
    with contextlib.suppress(Exception):
        return repr(value)[:300]
    return f"a {type(value).__name__}"


__all__ = [
    "EITHER",
    "ERROR",
    "GOOD",
    "RIGHT",
    "Case",
    "Expectation",
    "Limits",
    "Outcome",
    "Sandbox",
    "Verdict",
    "judge",
    "judge_error",
]
