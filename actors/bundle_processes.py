"""Runs attempts of bundles for one worker: each bundle in a process of its own, kept for the next attempt.

    WorkerActor ── exchange thread ──▶ BundleProcesses ──▶ process of bundle 3f… (PROCESSES_MAX of them, the others go)
                                                      └──▶ process of bundle a0…

Three ways were open to let two versions of a module run side by side. A pool of Ray actors per bundle with a Ray
`runtime_env`: slots would belong to code instead of to the machine, so pools, limits and shares of slots would count
the same CPU once per version, and each version would cost actors of 60 MB that its first task waits for. Swapping
`sys.modules` in the worker: no process to start, but C extensions, threads, open handles and everything else that is
global to a process would be shared between versions, and packages could not differ at all. A child process per bundle,
as here: the slot stays what it is, isolation is that of the operating system, packages are a folder on the child's
path, and the first task waits a quarter of a second (docs/bundles.md). An attempt costs one round trip over a socket
more than in the worker; who has no bundle does not come through here.

A child that ends by itself takes its worker with it: killed by a signal, out of memory, `os._exit`. That is what such
code does to a worker that runs it itself, so the rules for lost workers (redone, and quarantined the third time) hold
as they are. Children end after IDLE_S without work, and with their worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import NoReturn

import msgspec

from actors import bundle_wire as wire
from actors import process
from actors.attempt import LiveAttempt
from actors.bundle_store import BundleStore
from actors.fetched_values import Nodes
from actors.settings import Settings
from actors.work import NoteSink, TaskFailed
from orchestrator import actor_codec
from orchestrator.errors import Invalid, NotFound, PermanentFailure, Unavailable
from orchestrator.messages import Assignment, Exchange, Report, RunContext, Value

#: processes that a worker keeps
PROCESSES_MAX = 2
#: a process without work for so long ends
IDLE_S = 300.0
#: until a process takes tasks
START_S = 60.0
#: for one to end once its line is closed
_END_S = 2.0

_log = logging.getLogger(__name__)


class BundleProcesses:
    """The children of one worker. `run` is called by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        notes: NoteSink,
        node_id: str = "",
        nodes: Nodes | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        lost: Callable[[], NoReturn] | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._settings = settings
        self._store = BundleStore(settings.home, settings.bundles_url)
        self._desk = _Desk(notes, nodes)
        self._node_id = node_id
        self._environ = dict(environ or {})
        self._lost: Callable[[], NoReturn] = lost or process.end
        self._idle_s = idle_s
        self._lock = threading.Lock()
        #: (tenant, bundle) -> its process, the one used last at the end: tenants share no memory
        self._kept: dict[tuple[str, str], _Child] = {}

    def run(self, task: Assignment, run: RunContext, attempt: LiveAttempt) -> Report:
        """How the attempt ended. Raises PermanentFailure or TaskFailed when it could not begin."""
        child = self._take((run.tenant, run.bundle))
        try:
            return child.run(task, run, attempt, self._desk)
        except (EOFError, OSError):
            _log.error("bundle %s: task %s ended its process: %s", run.bundle, task.task, child.end())
            self._lost()
        finally:
            child.used_s = time.monotonic()
            child.busy = False

    def end(self) -> None:
        """No child is left."""
        with self._lock:
            children, self._kept = list(self._kept.values()), {}
        for child in children:
            child.end()

    def _take(self, key: tuple[str, str]) -> _Child:
        with self._lock:
            child = self._kept.pop(key, None)
            if child is not None and child.alive():
                self._kept[key] = child
                child.busy = True
                return child
        if child is not None:
            child.end()  # it has died; what it had open here is closed
        started = self._start(key[1])
        with self._lock:
            self._kept[key] = started
            surplus = [self._kept.pop(next(iter(self._kept))) for _ in range(len(self._kept) - PROCESSES_MAX)]
        for each in surplus:
            each.end()
        self._look_later(key, started, self._idle_s)
        return started

    def _start(self, bundle: str) -> _Child:
        try:
            folder = self._store.unpacked(bundle)
            packages = self._store.packages(bundle, folder)
        except NotFound:
            raise PermanentFailure(f"bundle {bundle} is gone; deploy the same code again to go on") from None
        except (Invalid, Unavailable) as error:
            raise TaskFailed(f"bundle {bundle[:12]}: {error}") from error
        order = wire.Order(
            os.getpid(),
            self._settings.to_dict(),
            self._node_id,
            (str(folder.resolve()), *self._settings.code_dirs),
            str(packages or ""),
            os.environ.get("ORCHESTRATOR_HTTP_ALLOW", ""),
        )
        return _Child(bundle, order, wire.environment() | self._environ)

    def _look_later(self, key: tuple[str, str], child: _Child, delay_s: float) -> None:
        timer = threading.Timer(delay_s, self._look, (key, child))
        timer.daemon = True
        timer.start()

    def _look(self, key: tuple[str, str], child: _Child) -> None:
        """End it when it was idle for long enough."""
        with self._lock:
            if self._kept.get(key) is not child:
                return
            left_s = self._idle_s if child.busy else child.used_s + self._idle_s - time.monotonic()
            if left_s <= 0:
                del self._kept[key]
        if left_s > 0:
            child.touch()
            self._look_later(key, child, left_s)
        else:
            child.end()


class _Child:
    """One process, busy from the start: it is made for an attempt."""

    def __init__(self, bundle: str, order: wire.Order, environ: Mapping[str, str]) -> None:
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "actors.bundle_child", str(theirs.fileno()), bundle],  # `ps` tells it
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=dict(environ),
                )
        except OSError as error:  # no descriptors, no memory
            raise TaskFailed(f"the process of a bundle did not start: {error}") from error
        self._line = Connection(ours.detach())
        self._news = select.poll()
        self._news.register(self._line.fileno(), select.POLLIN)
        # its own children may have the line open when it is gone
        self._end_of_it = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        if self._end_of_it is not None:
            self._news.register(self._end_of_it, select.POLLIN)
        self._places = [place for place in (order.folders[0], order.packages) if place]
        self._sending = threading.Lock()
        self._number = 0
        self.busy = True
        self.used_s = time.monotonic()
        self._send(msgspec.json.encode(order))
        try:
            ready = self._line.poll(START_S) and self._line.recv_bytes() == wire.READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise TaskFailed(f"the process of a bundle did not start: {self.end()}")

    def touch(self) -> None:
        """What it imports from is in use: see `BundleStore`."""
        for place in self._places:
            with contextlib.suppress(FileNotFoundError):
                os.utime(place)

    def alive(self) -> bool:
        """Can it take another attempt?"""
        return self._process.poll() is None

    def run(self, task: Assignment, run: RunContext, attempt: LiveAttempt, desk: _Desk) -> Report:
        """How the attempt ended. Raises EOFError or OSError when the process did."""
        self._number += 1
        number = self._number
        self._send(wire.TASK + actor_codec.encode_exchange(Exchange("", 0, number, (run,), (task,))))
        attempt.on_cancel(lambda: self._send(wire.CANCEL + f"{number} {attempt.reason}".encode()))
        while True:
            message = self._received()
            kind, body = message[:1], message[1:]
            if kind == wire.REPORT:
                (report,) = actor_codec.decode_settled(body).reports
                return report
            if kind == wire.NOTE:
                self._send(wire.ANSWER + msgspec.json.encode(desk.pass_on(body)))
            elif kind == wire.COPY:
                copied = desk.copy(body, wire.receive_file(self._line))
                self._send(wire.ANSWER + msgspec.json.encode(copied))
            attempt.alive()

    def end(self) -> str:
        """It is gone; how it ended."""
        self._line.close()
        if self._end_of_it is not None:
            os.close(self._end_of_it)
            self._end_of_it = None
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def _received(self) -> bytes:
        if all(descriptor == self._end_of_it for descriptor, _ in self._news.poll()):
            raise EOFError
        return self._line.recv_bytes()

    def _send(self, message: bytes) -> None:
        try:
            with self._sending:
                self._line.send_bytes(message)
        except OSError:
            pass  # whoever reads next learns that it is gone


class _Desk:
    """What a child cannot do without Ray, done for it."""

    def __init__(self, notes: NoteSink, nodes: Nodes | None) -> None:
        self._notes = notes
        self._nodes = nodes

    def pass_on(self, body: bytes) -> wire.Answer:
        """A note goes to the owner of its run."""
        note = msgspec.json.decode(body, type=wire.NoteToPass)
        try:
            return wire.Answer(self._notes.send(note.owner, note.note.encode()))
        except Unavailable as unavailable:
            return wire.Answer(False, str(unavailable))

    def copy(self, body: bytes, descriptor: int) -> wire.Answer:
        """A value that another node has is in the file."""
        value = msgspec.json.decode(body, type=Value)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if self._nodes is None:
                    return wire.Answer(False)
                self._nodes.copy(value, file)
        except FileNotFoundError:
            return wire.Answer(False)
        except (OSError, Unavailable) as error:  # of the file or the way there: the process is well
            return wire.Answer(False, str(error))
        return wire.Answer(True)
