"""One attempt while it runs on a worker: whether it should stop, and how it is stopped.

`cancel` comes from another thread. It sets `reason`, wakes what was registered with `on_cancel`, and
when the thread is inside user code (`interruptible`) makes `TaskCancelled` appear there. That exception
is asynchronous: it surfaces at some later bytecode of that thread, so three rules keep it out of our own code.
It is sent under the lock and only while the thread is inside; it is sent at most once; on the way out the thread
takes back, under the same lock, one that has not surfaced yet. It cannot end a call that blocks in C.

`cancel` answers True exactly when the attempt's report will carry a reason: the first one that was given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from orchestrator.errors import TaskCancelled

T = TypeVar("T")


class LiveAttempt:
    """Made when the attempt starts; over after `end`."""

    __slots__ = ("_alive_s", "_callbacks", "_ended", "_lock", "_sent", "_thread", "reason")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: the outcome to report instead of the code's own, `cancelled`, `timed_out` or `stalled`; None = go on
        self.reason: str | None = None
        self._ended = False
        self._callbacks: list[Callable[[], object]] | None = None
        #: the thread that is inside user code; None = nowhere to raise
        self._thread: int | None = None
        self._sent = False
        #: monotonic seconds of the last sign of life
        self._alive_s = time.monotonic()

    def alive(self) -> None:
        """It gives a sign of life."""
        self._alive_s = time.monotonic()

    def silence_s(self) -> float:
        """How long it has given none."""
        return time.monotonic() - self._alive_s

    def cancel(self, reason: str) -> bool:
        """Ask the attempt to stop; the first reason stays. False when it has ended already."""
        with self._lock:
            if self._ended or self.reason is not None:
                return not self._ended
            self.reason = reason
            callbacks, self._callbacks = self._callbacks or (), None
            if self._thread is not None:
                self._sent = True
                _raise_in(self._thread)
        for callback in callbacks:
            callback()
        return True

    def end(self) -> str | None:
        """No cancel is accepted any more. The reason of one that was."""
        with self._lock:
            self._ended = True
            return self.reason

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """`callback` runs once when the attempt is cancelled, in the canceller's thread; at once if it is already."""
        with self._lock:
            if self.reason is None:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback()

    def interruptible(self, call: Callable[[], T]) -> T:
        """The outcome of `call`, which a cancel interrupts. Raises TaskCancelled."""
        try:
            try:
                self._enter()
                return call()
            finally:
                self._leave()
        except TaskCancelled:
            # It may have surfaced in `_leave` before that took effect. There is no second one.
            self._leave()
            raise

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Work of ours, called from user code, that must not be interrupted half-way; raises TaskCancelled after it."""
        inside = self._leave()
        try:
            yield
        finally:
            if inside:
                self._enter()
        self.check()

    def check(self) -> None:
        """Raises TaskCancelled when the attempt should stop."""
        if self.reason is not None:
            raise TaskCancelled(self.reason)

    def _enter(self) -> None:
        with self._lock:
            if self.reason is None:
                self._thread = threading.get_ident()
                return
        raise TaskCancelled(self.reason)

    def _leave(self) -> bool:
        """No exception surfaces any more; whether one could before."""
        with self._lock:
            inside, self._thread = self._thread is not None, None
            if self._sent:
                _take_back(threading.get_ident())
            return inside


def _raise_in(thread: int) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TaskCancelled))


def _take_back(thread: int) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
