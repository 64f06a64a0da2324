"""Make one model safe for several threads: state per thread, and locks for shared changes.

A forward stores values in the components, such as the geometry of a call, and ``disable_adapter``
disables adapters. Both apply to the calling thread only, see :class:`PerThread`. An adapter's
copies of base tensors replace the originals during a call, and all threads see that. Such calls
therefore run one after the other, see :class:`Turns`.

A thread is identified by an object that PyTorch also passes to the threads of autograd. A block
that is recomputed in a backward therefore uses its caller's state, whatever thread it runs on.
"""

import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

import torch

_KEY = "pyg_peft.caller"


class _Caller:
    """A thread, together with the autograd threads that work for it.

    Attributes:
        kept: The object that each :class:`PerThread` holds for this thread.
    """

    def __init__(self) -> None:
        self.kept: weakref.WeakKeyDictionary[PerThread, Any] = weakref.WeakKeyDictionary()


def _caller() -> _Caller:
    # A Python thread-local variable would be empty in autograd's threads.
    if not torch._C._is_key_in_tls(_KEY):
        torch._C._stash_obj_in_tls(_KEY, _Caller())
    return torch._C._get_obj_in_tls(_KEY)


class PerThread:
    """Holds one object per thread, created when a thread first needs it.

    A copy or unpickled object holds nothing yet. A compiled graph has one object for all threads;
    it is only used while the graph is being traced.

    Args:
        make: Creates the object.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._traced = make()

    def here(self) -> Any:
        """Return the object of this thread."""
        if torch.compiler.is_compiling():
            return self._traced
        kept = _caller().kept
        found = kept.get(self)
        if found is None:
            kept[self] = found = self._make()
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = fresh = type(self)(self._make)
        return fresh

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make,)


class _Disabled:
    """The number of nested contexts in which a thread has disabled adapters."""

    def __init__(self) -> None:
        self.depth = 0


_ENABLED = _Disabled()


class Turns:
    """Coordinates the threads that call or change one base.

    - Calls run concurrently, in any number of threads.
    - A change, such as another active adapter, waits until the calls of other threads have
      returned, and later calls wait for it.
    - Calls that change a module while it runs take a turn, one thread after the other. There is one
      turn for the whole base, so that no two threads can wait for each other.
    - Adapters are disabled in the thread that disabled them, and in no other.

    A thread never waits for itself. While it holds the turn, it waits for nothing except the turn.
    Graphs of ``torch.compile`` take no turns. A copy or unpickled object starts unlocked.
    """

    def __init__(self) -> None:
        # Entered directly, never through a condition, so that an interrupt cannot come between
        # taking the lock and the block that releases it.
        self._mutex = threading.RLock()
        self._quiet = threading.Condition(self._mutex)
        self._free = threading.Condition(self._mutex)
        self._calls: dict[_Caller, int] = {}
        self._waiting = 0
        self._changer: _Caller | None = None
        self._changes = 0
        self._holder: _Caller | None = None
        self._depth = 0
        self._disabled = PerThread(_Disabled)
        self._num_disabled = 0
        # The compiler guards on this attribute, which other threads do not have.
        self._local = threading.local()
        self._traced = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = fresh = type(self)()
        return fresh

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    # ---- calls and changes ------------------------------------------------------------------

    @contextmanager
    def calling(self) -> Generator[bool]:
        """Keep other threads from changing the adapters; yield whether it is the outermost call."""
        me, entered = _caller(), False
        try:
            with self._mutex:
                while not self._is_within(me) and (self._changer is not None or self._waiting):
                    self._quiet.wait()
                outermost = me not in self._calls
                self._calls[me] = self._calls.get(me, 0) + 1
                entered = True
            yield outermost
        finally:
            with self._mutex:
                if entered:
                    self._calls[me] -= 1
                    if not self._calls[me]:
                        del self._calls[me]
                        self._quiet.notify_all()

    @property
    def is_calling(self) -> bool:
        """Whether this thread is in a call."""
        return not torch.compiler.is_compiling() and _caller() in self._calls

    @contextmanager
    def changing(self) -> Generator[None]:
        """Keep other threads from calling or changing the model."""
        me, entered = _caller(), False
        try:
            with self._mutex:
                if not self._is_within(me):
                    self._waiting += 1
                    try:
                        while self._changer is not None or self._calls:
                            self._quiet.wait()
                    finally:
                        self._waiting -= 1
                        self._quiet.notify_all()
                if self._changer in (None, me):
                    self._changer = me
                    self._changes += 1
                    entered = True
            yield
        finally:
            with self._mutex:
                if entered:
                    self._changes -= 1
                    if not self._changes:
                        self._changer = None
                        self._quiet.notify_all()

    def _is_within(self, me: _Caller) -> bool:
        return me in self._calls or self._changer is me or self._holder is me

    # ---- the turn ---------------------------------------------------------------------------

    def take(self) -> None:
        """Wait for the turn and take it; a thread that has it takes it once more."""
        me = _caller()
        with self._mutex:
            try:
                while self._holder is not None and self._holder is not me:
                    self._free.wait()
            except BaseException:
                self._free.notify()  # pass the wake-up on to another thread
                raise
            self._holder = me
            self._depth += 1

    def give(self) -> None:
        """Undo one :meth:`take`; does nothing if another thread has the turn."""
        with self._mutex:
            if self._holder is not _caller():
                return
            self._depth -= 1
            if self._depth <= 0:
                self.drop()

    def drop(self) -> None:
        """Release the turn at once, however often it was taken."""
        with self._mutex:
            if self._holder is _caller():
                self._holder = None
                self._depth = 0
                self._free.notify()

    @property
    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._holder is not None and self._holder is _caller()

    # ---- disabled adapters ------------------------------------------------------------------

    @property
    def disabled_here(self) -> bool:
        """Whether adapters are disabled in this thread."""
        if torch.compiler.is_compiling():
            return self._traced > 0 or getattr(self._local, "disabled", _ENABLED).depth > 0
        return self._num_disabled > 0 and self._disabled.here().depth > 0

    @property
    def disabled_anywhere(self) -> bool:
        """Whether adapters are disabled in any thread."""
        return self._num_disabled > 0 or self._traced > 0

    def disable(self) -> _Disabled | None:
        """Disable adapters in this thread, until :meth:`enable` gets the returned object."""
        if torch.compiler.is_compiling():
            self._traced += 1
            return None
        disabled = self._disabled.here()
        with self._mutex:
            self._local.disabled = disabled
            disabled.depth += 1
            self._num_disabled += 1
        return disabled

    def enable(self, disabled: _Disabled | None) -> None:
        """Undo one :meth:`disable`, from any thread."""
        if disabled is None:
            self._traced -= 1
            return
        with self._mutex:
            disabled.depth -= 1
            self._num_disabled -= 1


__all__ = ["PerThread", "Turns"]
