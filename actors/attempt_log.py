"""What a task prints and logs, kept per attempt in the journal while it runs.

    print, sys.stderr, logging ──▶ AttemptLog (memory, at most LOG_MAX) ──▶ every FLUSH_S, and at the end ──▶ LogSink

The streams are replaced once by `_Tee`s, which ask at each write whose output it is: that of the attempt the code runs
in (a context variable, so coroutines and `asyncio.to_thread` are right), or for threads that user code started, of
the attempt that this process runs. Output that belongs to no attempt goes where it always went. What a child process
of a `python` task writes to its own descriptors is not seen.

An attempt that prints nothing costs nothing: no thread, no connection, no import. A log never holds up a result: when
the journal does not take the rest of it within a few tries, the rest is dropped and this process's own log says so.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from orchestrator.errors import JournalUnavailable

#: bytes kept of one attempt's output
LOG_MAX = 1024 * 1024
#: last chunk of output that was longer
TRUNCATION_MARK = "\n[output truncated after 1 MiB]\n"
FLUSH_S = 0.2
#: pauses between tries to hand over the rest when an attempt ends
CLOSING_PAUSES_S = (0.1, 0.4)
#: after a failure, an ending attempt tries once only for this long
DOWN_S = 10.0
KEEP_S = 180 * 24 * 3600

_log = logging.getLogger(__name__)


class LogSink(Protocol):
    """Where output is kept."""

    def append(self, run_id: str, task: str, attempt: int, text: str) -> None:
        """Add `text` to the attempt's output. Raises JournalUnavailable."""


class RedisLogSink:
    """The list `log:<run>:<task>:<attempt>` of the journal, one element per chunk. Connects when first used."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    def append(self, run_id: str, task: str, attempt: int, text: str) -> None:
        """As LogSink."""
        import redis

        try:
            if self._client is None:
                self._client = redis.Redis.from_url(self._url, socket_timeout=2, socket_connect_timeout=2)
            key = f"log:{run_id}:{task}:{attempt}"
            with self._client.pipeline(transaction=False) as pipe:
                pipe.rpush(key, text.encode("utf-8", "replace"))
                pipe.expire(key, KEEP_S)
                pipe.execute()
        except (redis.RedisError, OSError, ValueError) as error:
            raise JournalUnavailable(str(error)) from error


class Shipper:
    """Hands logs over to the sink: from a thread while attempts run, from the attempt's own at its end."""

    def __init__(self, sink: LogSink) -> None:
        self.sink = sink
        self._lock = threading.Lock()
        self._due: set[AttemptLog] = set()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._down_until_s = 0.0

    def has_output(self, log: AttemptLog) -> None:
        """`log` is handed over within FLUSH_S."""
        with self._lock:
            self._due.add(log)
            if self._thread is None:
                self._thread = threading.Thread(target=self._ship, name="attempt-log", daemon=True)
                self._thread.start()
        self._wake.set()

    def deliver_rest(self, log: AttemptLog) -> bool:
        """Hand over all of an ended attempt's output, with a few tries; False when the rest was dropped."""
        with self._lock:
            self._due.discard(log)
        pauses_s = CLOSING_PAUSES_S if time.monotonic() >= self._down_until_s else ()
        for pause_s in (*pauses_s, None):
            if log.flush():
                return True
            if pause_s is not None:
                time.sleep(pause_s)
        self._down_until_s = time.monotonic() + DOWN_S
        return False

    def _ship(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(FLUSH_S)
            with self._lock:
                due, self._due = self._due, set()
            for log in due:
                if not log.flush() and not log.closed:
                    self.has_output(log)


class AttemptLog:
    """The output of one attempt. Any thread may write."""

    def __init__(self, run_id: str, task: str, attempt: int, shipper: Shipper, traceparent: str = "") -> None:
        #: run, task, attempt
        self.key = (run_id, task, attempt)
        #: the one the run was created with
        self.traceparent = traceparent
        self._shipper = shipper
        self._lock = threading.Lock()
        #: held while a chunk is on its way, so that chunks keep their order
        self._sending = threading.Lock()
        self._pending: list[str] = []
        self._room_bytes = LOG_MAX
        self._touched = False
        self.closed = False

    def write(self, text: str) -> None:
        """Keep `text`; without effect once the log is full or the attempt is over."""
        if not text:
            return
        with self._lock:
            if self.closed or self._room_bytes <= 0:
                return
            first = not self._pending
            self._touched = True
            size_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
            if size_bytes > self._room_bytes:
                text = text.encode("utf-8", "replace")[: self._room_bytes].decode("utf-8", "ignore") + TRUNCATION_MARK
            self._room_bytes -= size_bytes
            self._pending.append(text)
        if first:
            self._shipper.has_output(self)

    def flush(self) -> bool:
        """Hand over what is pending; False, and nothing lost, when the sink does not take it."""
        with self._sending:
            with self._lock:
                chunks, self._pending = self._pending, []
            if not chunks:
                return True
            try:
                self._shipper.sink.append(*self.key, "".join(chunks))
            except JournalUnavailable:
                with self._lock:
                    self._pending[:0] = chunks
                return False
            return True

    def close(self) -> None:
        """The attempt is over: all of its output is handed over, or dropped with a warning."""
        with self._lock:
            self.closed = True
            if not self._touched:
                return
        if not self._shipper.deliver_rest(self):
            _log.warning("the end of the output of task %s of %s, attempt %d, was lost", self.key[1], *self.key[::2])


_current: ContextVar[AttemptLog | None] = ContextVar("attempt_log", default=None)
#: logs of the attempts that run in this process; one, outside tests
_running: list[AttemptLog] = []


@contextmanager
def capturing(log: AttemptLog) -> Iterator[None]:
    """What is printed and logged inside goes to `log`. Streams that the code inside replaced are put back."""
    _install()
    streams = sys.stdout, sys.stderr
    token = _current.set(log)
    _running.append(log)
    try:
        yield
    finally:
        _running.remove(log)
        _current.reset(token)
        sys.stdout, sys.stderr = streams


def running() -> AttemptLog | None:
    """Of the attempt that the code here belongs to."""
    log = _current.get()
    if log is None and len(_running) == 1:
        return _running[0]
    return log


class _Tee(io.TextIOBase):
    """A standard stream that gives each attempt its own output."""

    def __init__(self, under: TextIO) -> None:
        self.under = under

    @property
    def buffer(self) -> _Bytes:
        """For code that writes bytes."""
        return _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override] # writable there, not here
        return "utf-8"

    def write(self, text: str, /) -> int:
        log = running()
        if log is None:
            return self.under.write(text)
        log.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        if running() is None:
            self.under.flush()

    def close(self) -> None:
        """Stays open: the next attempt needs it."""

    def fileno(self) -> int:
        return self.under.fileno()

    def isatty(self) -> bool:
        return False


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, tee: _Tee) -> None:
        self._tee = tee

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        self._tee.write(raw.decode("utf-8", "replace"))
        return len(raw)

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stays open."""


class _Handler(logging.Handler):
    """Log records of user code. Ours, and those outside an attempt, go where they go without this handler."""

    def emit(self, record: logging.LogRecord) -> None:
        log = None if record.name.startswith("actors.") else running()
        if log is not None:
            try:
                log.write(self.format(record) + "\n")
            except Exception:  # arguments that do not fit; as with every handler that is no reason to fail
                self.handleError(record)
        elif (last := logging.lastResort) and record.levelno >= last.level and logging.getLogger().handlers == [self]:
            last.handle(record)


_handler = _Handler()
_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


def _install() -> None:
    if not isinstance(sys.stdout, _Tee):
        sys.stdout = _Tee(sys.stdout)
    if not isinstance(sys.stderr, _Tee):
        sys.stderr = _Tee(sys.stderr)
    root = logging.getLogger()
    if _handler not in root.handlers:
        root.addHandler(_handler)
        if root.level == logging.WARNING:
            root.setLevel(logging.INFO)
