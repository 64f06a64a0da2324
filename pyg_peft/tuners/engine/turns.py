"""One model, several threads: what each keeps to itself, and what they do one after the other.

A forward leaves notes in the components, such as the geometry of a call, and ``disable_adapter``
lets adapters rest. Both belong to the thread that does it, see :class:`PerThread`. What adapters
train of the base itself takes the place of the base's tensors during a call, which all threads see:
such calls take turns, see :class:`Turns`.

A thread is told by an object that PyTorch hands to the threads of autograd too. A block that is
recomputed in a backward therefore runs as its caller does, on whatever thread of the machine.
"""

import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

import torch

_KEY = "pyg_peft.caller"


class _Caller:
    """A thread, with the threads of autograd that work for it.

    Attributes:
        kept: What each :class:`PerThread` holds for it.
    """

    def __init__(self) -> None:
        self.kept: weakref.WeakKeyDictionary[PerThread, Any] = weakref.WeakKeyDictionary()


def _caller() -> _Caller:
    # A thread-local variable of Python would be empty in autograd's threads.
    if not torch._C._is_key_in_tls(_KEY):
        torch._C._stash_obj_in_tls(_KEY, _Caller())
    return torch._C._get_obj_in_tls(_KEY)


class PerThread:
    """Holds one object for each thread, made when the thread first asks.

    A copy, also by pickle, holds nothing yet. A compiled graph has one object for all threads; it
    is only used while the graph is being made.

    Args:
        make: Makes the object.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._traced = make()

    def here(self) -> Any:
        """The object of this thread."""
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


class _Rest:
    """How many contexts a thread is in, in which adapters rest."""

    def __init__(self) -> None:
        self.depth = 0


_AWAKE = _Rest()


class Turns:
    """Who may do what on one base at a time.

    - Calls run at once, in any number of threads.
    - A change, such as another active adapter, waits until the calls of other threads have
      returned, and later calls wait for it.
    - What changes a module for the time of its call takes a turn, one thread after the other. There
      is one turn for the whole base, so that no two threads can wait for each other.
    - Adapters rest in the thread that asked for it, and in no other.

    A thread waits neither for itself nor while it holds the turn, except for the turn. Graphs of
    ``torch.compile`` take no turns. A copy, also by pickle, is free.
    """

    def __init__(self) -> None:
        # Entered directly, never through a condition: an interrupt cannot come between the lock
        # and the block that gives it back.
        self._mutex = threading.RLock()
        self._quiet = threading.Condition(self._mutex)
        self._free = threading.Condition(self._mutex)
        self._calls: dict[_Caller, int] = {}
        self._waiting = 0
        self._changer: _Caller | None = None
        self._changes = 0
        self._holder: _Caller | None = None
        self._depth = 0
        self._rests = PerThread(_Rest)
        self._resting = 0
        # A compiler guards on this one, which a thread of its own has not.
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
        """Within the context nobody changes the adapters. Yields whether it is the outermost."""
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
        """Within the context no other thread calls the model or changes it."""
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
        """Wait for the turn; who has it gets it once more."""
        me = _caller()
        with self._mutex:
            try:
                while self._holder is not None and self._holder is not me:
                    self._free.wait()
            except BaseException:
                self._free.notify()  # what woke this thread is for another one now
                raise
            self._holder = me
            self._depth += 1

    def give(self) -> None:
        """Give the turn back as often as it was taken; nothing happens if others have it."""
        with self._mutex:
            if self._holder is not _caller():
                return
            self._depth -= 1
            if self._depth <= 0:
                self.drop()

    def drop(self) -> None:
        """Give the turn back at once, however often it was taken."""
        with self._mutex:
            if self._holder is _caller():
                self._holder = None
                self._depth = 0
                self._free.notify()

    @property
    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._holder is not None and self._holder is _caller()

    # ---- rest -------------------------------------------------------------------------------

    @property
    def rests(self) -> bool:
        """Whether adapters rest in this thread."""
        if torch.compiler.is_compiling():
            return self._traced > 0 or getattr(self._local, "rest", _AWAKE).depth > 0
        return self._resting > 0 and self._rests.here().depth > 0

    @property
    def rests_somewhere(self) -> bool:
        """Whether adapters rest in any thread."""
        return self._resting > 0 or self._traced > 0

    def rest(self) -> _Rest | None:
        """Let adapters rest in this thread, until :meth:`wake` is called on what this returns."""
        if torch.compiler.is_compiling():
            self._traced += 1
            return None
        rest = self._rests.here()
        with self._mutex:
            self._local.rest = rest
            rest.depth += 1
            self._resting += 1
        return rest

    def wake(self, rest: _Rest | None) -> None:
        """Undo one :meth:`rest`, on whatever thread."""
        if rest is None:
            self._traced -= 1
            return
        with self._mutex:
            rest.depth -= 1
            self._resting -= 1


__all__ = ["PerThread", "Turns"]
