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
from io import BufferedWriter
from multiprocessing.connection import Connection
from typing import NoReturn

import msgspec

from actors import bundle_wire as wire
from actors import process
from actors.artifact_places import artifacts_of
from actors.attempt import LiveAttempt
from actors.attempt_log import RedisLogSink
from actors.bundle_code import BundleCode
from actors.entrypoints import Entrypoints
from actors.executor import Executor
from actors.lua_cage import die_with_parent
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.errors import ActorUnreachable, Unavailable
from orchestrator.messages import Exchange, Settled, Value

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
        #: one question at a time is on its way
        self._asking = threading.Lock()
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

    def pass_on(self, note: wire.NoteToPass) -> wire.Answer:
        """What came of the note."""
        with self._asking:
            self.send(wire.NOTE, msgspec.json.encode(note))
            return self._answer()

    def copy(self, value: Value, to: int) -> wire.Answer:
        """What came of the copy into the file with that descriptor."""
        with self._asking:
            try:
                with self._sending:
                    self._connection.send_bytes(wire.COPY + msgspec.json.encode(value))
                    wire.send_file(self._connection, to)
            except OSError:
                os._exit(1)
            return self._answer()

    def _answer(self) -> wire.Answer:
        return msgspec.json.decode(self._answers.get(), type=wire.Answer)


class _Notes:
    """`work.NoteSink` over the line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def send(self, owner: str, note: bytes) -> bool:
        """As NoteSink."""
        answer = self._line.pass_on(wire.NoteToPass(owner, note.decode()))
        if answer.unreachable is not None:
            raise ActorUnreachable(owner, answer.unreachable)
        return answer.done


class _Nodes:
    """`fetched_values.Nodes` over the line: the worker copies, since it has Ray."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def copy(self, value: Value, to: BufferedWriter) -> None:
        """As Nodes. Raises Unavailable, too."""
        to.flush()
        answer = self._line.copy(value, to.fileno())
        if answer.unreachable is not None:
            raise Unavailable(f"{value.artifact} from node {value.node}: {answer.unreachable}")
        if not answer.done:
            raise FileNotFoundError(value.artifact)
        to.seek(0, os.SEEK_END)


def main(descriptor: int) -> NoReturn:
    """Runs attempts, one at a time, for as long as the worker is there."""
    line = Line(Connection(descriptor))
    order = line.order()
    die_with_parent(order.parent)
    process.settle()
    wire.extend_path(order.packages, order.folders)
    settings = Settings.from_dict(order.settings)
    executor = Executor(
        artifacts=artifacts_of(settings, order.node, _Nodes(line)),
        entrypoints=Entrypoints(order.folders),
        logs=RedisLogSink(settings.journal_url),
        notes=_Notes(line),
        http_allow=order.http_allow,
        code=BundleCode(order.folders[0], order.packages, order.folders[1:]),
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
