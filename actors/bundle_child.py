"""The process that runs the code of one bundle, and nothing else: `bundle_processes.py` is its other end.

It holds the same executor as the worker, without Ray and without other DAGs' modules: so two versions of a module
never meet, and a global, a C extension or a package belongs to one version alone. Its import path ends with the
bundle's folder, so nothing of a bundle hides what this process is made of (`bundle_check.py` refuses such names).
Started as `python -P -m actors.bundle_child FD ID`; it ends with its worker, however that ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import NoReturn

import msgspec

from actors import bundle_wire as wire
from actors import process
from actors.artifacts import Artifacts
from actors.attempt import LiveAttempt
from actors.attempt_log import RedisLogSink
from actors.entrypoints import Entrypoints
from actors.executor import Executor
from actors.lua_cage import die_with_parent
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.errors import ActorUnreachable
from orchestrator.messages import Exchange, Settled

#: signs of life are told at most so often; a limit on silence is at least twice as long
_ALIVE_EVERY_S = 0.05


class _Attempt(LiveAttempt):
    """Passes signs of life on."""

    __slots__ = ("_line", "_told_s")

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._told_s = time.monotonic()

    def alive(self) -> None:
        """It gives a sign of life. Raises TaskCancelled."""
        super().alive()
        now_s = time.monotonic()
        if now_s - self._told_s >= _ALIVE_EVERY_S:
            self._told_s = now_s
            with self.shielded():  # a message goes whole
                self._line.send(wire.ALIVE)


class Line:
    """The line to the worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        #: one note at a time is on its way
        self._noting = threading.Lock()
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        #: attempts to run
        self.tasks: queue.SimpleQueue[tuple[Exchange, _Attempt]] = queue.SimpleQueue()
        self._current: tuple[int, _Attempt] | None = None

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """One message; the process ends when the worker is gone."""
        try:
            with self._sending:
                self._connection.send_bytes(kind + body)
        except OSError:
            os._exit(1)

    def order(self) -> wire.Order:
        """The first message."""
        return msgspec.json.decode(self._connection.recv_bytes(), type=wire.Order)

    def listen(self) -> NoReturn:
        """Take what comes until the worker is gone."""
        while True:
            try:
                message = self._connection.recv_bytes()
            except (EOFError, OSError):
                os._exit(0)
            kind, body = message[:1], message[1:]
            if kind == wire.TASK:
                exchange, attempt = actor_codec.decode_exchange(body), _Attempt(self)
                self._current = exchange.batch, attempt
                self.tasks.put((exchange, attempt))
            elif kind == wire.ANSWER:
                self._answers.put(body)
            elif kind == wire.CANCEL and self._current is not None:
                number, _, reason = body.decode().partition(" ")
                if int(number) == self._current[0]:
                    self._current[1].cancel(reason)

    def pass_on(self, owner: str, note: bytes) -> bool:
        """As NoteSink.send."""
        with self._noting:
            self.send(wire.NOTE, msgspec.json.encode(wire.NoteToPass(owner, note.decode())))
            answer = msgspec.json.decode(self._answers.get(), type=wire.NoteAnswer)
        if answer.unreachable is not None:
            raise ActorUnreachable(owner, answer.unreachable)
        return answer.accepted


class _Notes:
    """`work.NoteSink` over the line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def send(self, owner: str, note: bytes) -> bool:
        """As NoteSink."""
        return self._line.pass_on(owner, note)


def main(descriptor: int) -> NoReturn:
    """Runs attempts, one at a time, for as long as the worker is there."""
    line = Line(Connection(descriptor))
    order = line.order()
    die_with_parent(order.parent)
    process.settle()
    wire.extend_path(order.packages, order.folders)
    settings = Settings.from_dict(order.settings)
    executor = Executor(
        artifacts=Artifacts(settings.path("artifacts")),
        entrypoints=Entrypoints(order.folders),
        logs=RedisLogSink(settings.journal_url),
        notes=_Notes(line),
        http_allow=order.http_allow,
    )
    threading.Thread(target=line.listen, name="line", daemon=True).start()
    line.send(wire.READY)
    while True:
        exchange, attempt = line.tasks.get()
        (task,), (run,) = exchange.tasks, exchange.runs
        report = executor.run(task, run, attempt)
        line.send(wire.REPORT, actor_codec.encode_settled(Settled("", "", exchange.batch, (report,))))


if __name__ == "__main__":
    main(int(sys.argv[1]))
