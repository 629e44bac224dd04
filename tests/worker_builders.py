"""A worker in this process, with fakes for what it reaches, and messages that default everything not under test."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from actors.worker_actor import WorkerActor
from orchestrator import actor_codec
from orchestrator.errors import ActorUnreachable, JournalUnavailable
from orchestrator.messages import Assignment, Exchange, Holding, Note, Report, RunContext, Settled, Value

RUN = "run_0000000000000000000001"
OWNER = "run-actor-0"


class FakeLogs:
    """A LogSink that remembers, and fails as often as it is told."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, str, int, str]] = []
        self.failures = 0
        self.calls = 0

    def append(self, run_id: str, task: str, attempt: int, text: str) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise JournalUnavailable("told to fail")
        self.chunks.append((run_id, task, attempt, text))

    def text(self, task: str = "t", attempt: int = 1) -> str:
        return "".join(text for _, name, number, text in self.chunks if (name, number) == (task, attempt))


class FakeNotes:
    """A NoteSink that remembers. `accepts` is its answer; `failures` sends fail first."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, Note]] = []
        self.accepts = True
        self.failures = 0

    def send(self, owner: str, note: bytes) -> bool:
        if self.failures:
            self.failures -= 1
            raise ActorUnreachable(owner, "told to fail")
        self.notes.append((owner, actor_codec.decode_note(note)))
        return self.accepts


class Bench:
    """One worker and its surroundings."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.logs = FakeLogs()
        self.notes = FakeNotes()
        self.worker = WorkerActor("worker-default-0", {"home": str(home)}, logs=self.logs, notes=self.notes)
        self._number = 0

    def send(self, *tasks: Assignment, batch: int | None = None, **given: Any) -> Settled:
        """One exchange, with the next batch number unless told."""
        if batch is None:
            self._number += 1
        return actor_codec.decode_settled(
            self.worker.exchange(actor_codec.encode_exchange(exchange(batch or self._number, *tasks, **given)))
        )

    def run(self, task: Assignment, **context: Any) -> Report:
        """The report of one task that runs alone."""
        settled = self.send(task, context=context)
        report = next(one for one in settled.reports if (one.task, one.attempt) == (task.task, task.attempt))
        self.send(acks=(settled.batch,))
        return report

    def value(self, task: Assignment, **context: Any) -> Any:
        """What the task returned."""
        report = self.run(task, **context)
        assert report.outcome == "ok", report.error
        return msgspec.json.decode(report.value.inline)

    def holding(self, owner: str = OWNER, epoch: int | None = None) -> Holding:
        return actor_codec.decode_holding(self.worker.holding(owner, epoch))

    def give_back(self, up_to_batch: int, epoch: int | None = None) -> Settled:
        return actor_codec.decode_settled(self.worker.give_back(OWNER, up_to_batch, epoch))


class InThread:
    """`call` in a thread of its own, as Ray runs an exchange; `result` waits for it."""

    def __init__(self, call: Any, *args: Any, **given: Any) -> None:
        self._outcome: Any = None
        self._thread = threading.Thread(target=lambda: self._keep(call, args, given), daemon=True)
        self._thread.start()

    def _keep(self, call: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        self._outcome = call(*args, **given)

    def result(self, timeout_s: float = 10.0) -> Any:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "still running"
        return self._outcome


def exchange(
    batch: int,
    *tasks: Assignment,
    owner: str = OWNER,
    epoch: int = 1,
    acks: tuple[int, ...] = (),
    context: Mapping[str, Any] | None = None,
) -> Exchange:
    runs = tuple(run_context(run_id, **(context or {})) for run_id in dict.fromkeys(task.run_id for task in tasks))
    return Exchange(owner, epoch, batch, runs, tasks, acks)


def run_context(
    run_id: str = RUN,
    *,
    dag_id: str = "sales",
    window: tuple[str, str] | None = None,
    params: dict[str, Any] | None = None,
    owner: str = OWNER,
) -> RunContext:
    return RunContext(run_id, "default", dag_id, 1, window, owner, params or {})


def task(
    name: str = "t",
    type: str = "core.noop",
    *,
    attempt: int = 1,
    run_id: str = RUN,
    inputs: Mapping[str, Any] | None = None,
    checkpoint: Any = None,
    **params: Any,
) -> Assignment:
    values = {path: value if isinstance(value, Value) else inline(value) for path, value in (inputs or {}).items()}
    return Assignment(
        run_id,
        name,
        attempt,
        type,
        None,
        raw(params),
        values,
        60.0,
        None if checkpoint is None else raw(checkpoint),
    )


def python(function: str, name: str = "t", **given: Any) -> Assignment:
    """A task of type python; `function` is one of `worker_tasks`, or module:function."""
    entrypoint = function if ":" in function else f"tests.worker_tasks:{function}"
    return msgspec.structs.replace(task(name, "python", **given), entrypoint=entrypoint)


def inline(value: Any) -> Value:
    return Value(raw(value), None, 1)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def named(reports: Iterable[Report]) -> dict[str, str]:
    """Task -> outcome."""
    return {report.task: report.outcome for report in reports}
