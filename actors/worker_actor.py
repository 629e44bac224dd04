"""The worker: runs batches of attempts, one attempt at a time, and answers questions meanwhile.

A plain, synchronous class with two kinds of method. `exchange` runs user code in the thread that calls it: in Ray
the default group, one thread. `CONTROL_METHODS` answer while that goes on: `spawn.py` gives them a concurrency
group of their own. The protocol is told in `orchestrator/messages.py`, its bookkeeping is `batch_book.py`, what an
attempt does is `executor.py`; this class connects them.

Nothing here is durable, on purpose: when the process dies its `incarnation` is gone, and whoever sent the work finds
out.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from typing import Any

from actors.artifact_places import artifacts_of
from actors.attempt import LiveAttempt
from actors.attempt_log import LogSink, RedisLogSink
from actors.batch_book import Batch, BatchBook
from actors.clock import Clock
from actors.entrypoints import Entrypoints
from actors.executor import Bundles, Executor
from actors.fetched_values import Nodes
from actors.settings import Settings
from actors.work import NoNotes, NoteSink
from orchestrator import actor_codec
from orchestrator.messages import Assignment, Exchange, Fenced, Holding, Report, RunContext, Settled

#: methods that must answer while `exchange` is busy
CONTROL_METHODS = ("give_back", "cancel", "holding", "fence", "ping", "silence", "where")
#: words for `cancel`: the outcome to report
REASONS = ("cancelled", "timed_out", "stalled")


class _Bundled:
    """`executor.Bundles`; nothing of what runs them is in memory before there is one."""

    def __init__(
        self, settings: Settings, notes: NoteSink, node_id: str, nodes: Nodes | None, environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._notes = notes
        self._node_id = node_id
        self._nodes = nodes
        self._environ = environ
        self._processes: Bundles | None = None

    def run(self, task: Assignment, run: RunContext, attempt: LiveAttempt) -> Report:
        """As Bundles."""
        if self._processes is None:
            from actors.bundle_processes import BundleProcesses

            self._processes = BundleProcesses(self._settings, self._notes, self._node_id, self._nodes, self._environ)
        return self._processes.run(task, run, attempt)


class WorkerActor:
    """One worker slot on the node of that id. `logs` and `notes` default to the journal and to nowhere.

    `nodes` is the way to what other nodes have. `bundle_environ` is in the environment of processes that run bundles,
    beside its own.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        *,
        logs: LogSink | None = None,
        notes: NoteSink | None = None,
        node_id: str = "",
        nodes: Nodes | None = None,
        bundle_environ: Mapping[str, str] | None = None,
    ) -> None:
        values = Settings.from_dict(settings)
        clock = Clock()
        self._name = name
        self._node_id = node_id
        self._incarnation = clock.token()[:12]
        self._book = BatchBook(clock.monotonic)
        self._executor = Executor(
            artifacts=artifacts_of(values, node_id, nodes),
            entrypoints=Entrypoints(values.import_dirs),
            logs=logs or RedisLogSink(values.journal_url),
            notes=notes or NoNotes(),
            http_allow=os.environ.get("ORCHESTRATOR_HTTP_ALLOW", ""),
            bundles=_Bundled(values, notes or NoNotes(), node_id, nodes, bundle_environ or {}),
        )
        #: held by the exchange whose batch runs
        self._turn = threading.Lock()

    def exchange(self, blob: bytes) -> bytes:
        """Run a batch (messages.Exchange); answers when it ended, with everything not yet acknowledged."""
        exchange = actor_codec.decode_exchange(blob)
        with self._turn:
            batch = self._book.open(exchange)
            if batch is not None:
                self._run(batch, exchange)
            reports, untouched = self._book.answer(exchange)
        return actor_codec.encode_settled(
            Settled(self._name, self._incarnation, exchange.batch, tuple(reports), tuple(untouched), self._node_id)
        )

    def give_back(self, owner: str, up_to_batch: int, epoch: int | None = None) -> bytes:
        """Start nothing more of the batches up to that number; what came of them so far (messages.Settled).

        Its `batch` is the newest one that has arrived: later ones up to `up_to_batch` will come back untouched.
        """
        newest, reports, untouched = self._book.give_back(owner, up_to_batch, epoch)
        return actor_codec.encode_settled(
            Settled(self._name, self._incarnation, newest, tuple(reports), tuple(untouched), self._node_id)
        )

    def cancel(self, run_id: str, task: str, attempt: int, reason: str) -> bool:
        """Stop an attempt, for one of REASONS. True when its report will say so: the first reason given."""
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        return self._book.cancel((run_id, task, attempt), reason)

    def silence(self, run_id: str, task: str, attempt: int) -> float | None:
        """Seconds since the attempt gave a sign of life, or began; None = it does not run here now."""
        return self._book.silence((run_id, task, attempt))

    def holding(self, owner: str, epoch: int | None = None) -> bytes:
        """What is here of an owner that lost its memory (messages.Holding).

        With `epoch`, batches of its former incarnations that are still on their way will not start.
        """
        live, reports = self._book.holding(owner, epoch)
        return actor_codec.encode_holding(Holding(self._name, self._incarnation, tuple(live), tuple(reports)))

    def fence(self, epochs: dict[str, int]) -> bytes:
        """What runs here (messages.Fenced). Nothing of owners' incarnations before these starts any more."""
        return actor_codec.encode_fenced(Fenced(self._incarnation, *self._book.fence(epochs)))

    def ping(self) -> str:
        """The incarnation of this process."""
        return self._incarnation

    def where(self) -> tuple[str, int, str]:
        """Host name, process id and the id of Ray's node."""
        return socket.gethostname(), os.getpid(), self._node_id

    def _run(self, batch: Batch, exchange: Exchange) -> None:
        runs = {run.run_id: run for run in exchange.runs}
        try:
            while (started := self._book.start(batch)) is not None:
                task, attempt = started
                self._book.settle(batch, self._executor.run(task, runs.get(task.run_id), attempt))
        finally:
            self._book.close(batch)
