"""One run: the tasks of one DAG version, once, for one window.

    queued ──started──▶ running ◀──paused / resumed──▶ paused
      ▲                    │  │
      │                    └──┴─────▶ succeeded | failed | timed_out | cancelled
      │                                  │
      └──────────restarted───────────────┤            (reprocess: queued again, all tasks pending)
                           running ◀─────┘ revived    (a task was retried or skipped by hand)

A run is terminal exactly when all its tasks are (I6). `decide` may refuse and never changes anything;
`apply` changes the run it is given (a run may have 50,000 tasks: one step costs what changed plus the
out-degree, never the size of the run) and never refuses. `owed` lists what the world still has to do
about a run that was just read from the journal; on the hot path `aborted` tells it per step.

Ready tasks are a heap of (-priority, position): highest priority first, then the author's order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from orchestrator import events as e
from orchestrator.definition import IN_CLUSTER_TYPES, Definition, TaskSpec
from orchestrator.errors import Conflict, NotFound, StaleAttempt
from orchestrator.graph import Graph, compile_graph
from orchestrator.messages import Note, Report, RunContext, Value
from orchestrator.task import FAILURES, SATISFIED, TERMINAL, Task, TaskState, fence, lose, settle
from orchestrator.task import apply as apply_to_task

_JSON = msgspec.json.Encoder()

#: checkpoints with which the caller of a driven run ends it
COMPLETED, FAILED = "run.completed", "run.failed"


class RunState(StrEnum):
    """Where a run is. The words of every journal and every surface's translation table."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    #: backfills only: cancelled, but some windows have not ended yet
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


_S = RunState
ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED})
_ENDS: dict[type[e.Event], RunState] = {
    e.RunSucceeded: _S.SUCCEEDED,
    e.RunFailed: _S.FAILED,
    e.RunTimedOut: _S.TIMED_OUT,
    e.RunCancelled: _S.CANCELLED,
}
_AGAIN: dict[type[e.Event], RunState] = {e.RunRestarted: _S.QUEUED, e.RunRevived: _S.RUNNING}
TRANSITIONS: Mapping[RunState, Mapping[type[e.Event], RunState]] = {
    _S.QUEUED: {e.RunStarted: _S.RUNNING, e.RunCancelled: _S.CANCELLED},
    _S.RUNNING: _ENDS | {e.RunPaused: _S.PAUSED},
    _S.PAUSED: _ENDS | {e.RunResumed: _S.RUNNING},
    _S.CANCELLING: {e.RunCancelled: _S.CANCELLED},
    _S.SUCCEEDED: _AGAIN,
    _S.FAILED: _AGAIN,
    _S.TIMED_OUT: _AGAIN,
    _S.CANCELLED: _AGAIN,
}


class Compiled:
    """A version of a definition with its graph: shared by all runs of that version."""

    __slots__ = ("definition", "graph", "keys", "params", "runnable", "specs", "version")

    def __init__(self, definition: Definition, version: int) -> None:
        self.definition = definition
        self.version = version
        self.specs: tuple[TaskSpec, ...] = definition.tasks
        self.graph: Graph = compile_graph(definition.tasks)
        #: what a task's duration is measured by: tasks of one key are expected to take alike
        self.keys = tuple(f"{definition.dag_id}:{spec.entrypoint or spec.type}" for spec in definition.tasks)
        #: per task: is there anybody who can run its type?
        self.runnable = tuple(spec.type in IN_CLUSTER_TYPES for spec in definition.tasks)
        #: each task's own params, as JSON text
        self.params = tuple(msgspec.Raw(_JSON.encode(spec.params)) for spec in definition.tasks)


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Start:
    """Admit the run."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Hand ready tasks (by position) to a worker."""

    positions: tuple[int, ...]
    worker: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Settle:
    """A worker reported the end of an attempt. `jitter` is in [0, 1)."""

    report: Report
    jitter: float


@dataclass(frozen=True, slots=True)
class Lose:
    """The worker of an attempt is gone."""

    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The worker never started the attempt."""

    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A running attempt noted a checkpoint or its progress."""

    note: Note


@dataclass(frozen=True, slots=True)
class Pause:
    """Start no further task."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Start tasks again."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the run; what its tasks still do does not count."""


@dataclass(frozen=True, slots=True)
class TimeOut:
    """The run exceeded its own limit."""


@dataclass(frozen=True, slots=True)
class GoIdle:
    """Nobody has posted a checkpoint for too long to a run that its caller drives."""


@dataclass(frozen=True, slots=True)
class Post:
    """Whoever follows the run posts a checkpoint; one that is driven so ends with `run.completed` or `run.failed`."""

    kind: str
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class MissSla:
    """The deadline passed while the run was not over."""

    deadline: datetime


@dataclass(frozen=True, slots=True)
class RetryTask:
    """Run a failed task again, and what waited for it."""

    task: str


@dataclass(frozen=True, slots=True)
class RetryFailed:
    """Run every failed or cancelled task again."""


@dataclass(frozen=True, slots=True)
class SkipTask:
    """Let dependents proceed as if the task were done."""

    task: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Reprocess: everything again, under `dag_version`."""

    dag_version: int


Command = (
    Start
    | Begin
    | Settle
    | Lose
    | GiveBack
    | Mark
    | Pause
    | Resume
    | Cancel
    | TimeOut
    | GoIdle
    | Post
    | MissSla
    | RetryTask
    | RetryFailed
    | SkipTask
    | Restart
)


# ── effects ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Await:
    """An attempt runs at a worker: find out how it ends."""

    task: str
    attempt: int
    worker: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Abort:
    """An attempt's result no longer counts: tell its worker to stop."""

    task: str
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Ready tasks want a worker slot."""

    count: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Nothing happens by itself before this instant; look again then."""

    at: datetime


Effect = Await | Abort | Dispatch | WakeAt


# ── state ─────────────────────────────────────────────────────────────────────────────────────────


class Run:
    """A run in memory. Everything here is a fold of its events; `version` counts them."""

    __slots__ = (
        "attempts",
        "compiled",
        "compiled_by_version",
        "created_at",
        "dag_id",
        "due",
        "error",
        "failed",
        "finished_at",
        "going_since",
        "heard_at",
        "open",
        "params",
        "parent",
        "past_attempts",
        "queued_version",
        "ready",
        "run_id",
        "run_type",
        "running",
        "sla_missed",
        "started_at",
        "state",
        "tasks",
        "tenant",
        "values",
        "verdict",
        "version",
        "waits",
        "window",
    )

    def __init__(self, created: e.RunCreated, compiled_by_version: Callable[[int], Compiled]) -> None:
        self.run_id = created.run_id
        self.tenant = created.tenant
        self.dag_id = created.dag_id
        self.run_type = created.run_type
        self.window = created.window
        self.params = created.params
        self.parent = created.parent
        self.created_at = created.at
        self.compiled_by_version = compiled_by_version
        self.version = 1
        #: version with which it was queued last
        self.queued_version = 1
        self.state = RunState.QUEUED
        #: how often it was started
        self.attempts = 0
        self.started_at: datetime | None = None
        #: when it was started or revived last: its own limit counts from there
        self.going_since: datetime | None = None
        self.finished_at: datetime | None = None
        #: first final failure
        self.error: str | None = None
        #: an SlaMissed was recorded
        self.sla_missed = False
        #: of a run that its caller drives: last checkpoint, and the one that ends it
        self.heard_at: datetime | None = None
        self.verdict: str | None = None
        #: task id -> last attempt it had in an earlier life of the run
        self.past_attempts: dict[str, int] = {}
        self._fresh(created.dag_version)

    def _fresh(self, dag_version: int) -> None:
        self.compiled = self.compiled_by_version(dag_version)
        graph = self.compiled.graph
        self.tasks = [Task() for _ in graph.names]
        #: per task: dependencies that are not satisfied yet
        self.waits = [len(parents) for parents in graph.parents]
        #: (-priority, position) of tasks that may start now
        self.ready = [(-self.compiled.specs[i].priority, i) for i in graph.roots if self.compiled.runnable[i]]
        heapq.heapify(self.ready)
        #: (when, position, attempt) of tasks that wait for their next attempt
        self.due: list[tuple[datetime, int, int]] = []
        #: tasks that are not terminal
        self.open = len(self.tasks)
        self.running = 0
        #: tasks that failed or timed out
        self.failed = 0
        #: position -> return value, for dependents
        self.values: dict[int, Value] = {}
        for name, attempt in self.past_attempts.items():
            position = graph.index.get(name)
            if position is not None:
                self.tasks[position].attempt = attempt

    @property
    def driven(self) -> bool:
        """Its caller drives it by checkpoints, and ends it so."""
        return self.compiled.definition.driven_ttl_s is not None

    def position(self, task: str) -> int:
        """Where `task` stands in the definition. Raises NotFound."""
        position = self.compiled.graph.index.get(task)
        if position is None:
            raise NotFound("task", task)
        return position

    def context(self, owner: str) -> RunContext:
        """What a worker is told about the run."""
        window = (self.window.start, self.window.end) if self.window else None
        return RunContext(self.run_id, self.tenant, self.dag_id, self.compiled.version, window, owner, self.params)


# ── decide ────────────────────────────────────────────────────────────────────────────────────────


def decide(run: Run, command: Command, now: datetime) -> list[e.Event]:
    """What `command` does to `run` at `now`; nothing is changed. Raises Conflict, NotFound, StaleAttempt."""
    match command:
        case Begin():
            return _begin(run, command, now)
        case Settle():
            return _settle(run, command, now)
        case Start():
            return _start(run, now)
        case Lose():
            position = _fenced(run, command.task, command.attempt)
            return _ended(run, position, lose(_spec(run, position), run.tasks[position], command.attempt, now))
        case GiveBack():
            _fenced(run, command.task, command.attempt)
            return [e.TaskReturned(at=now, task=command.task, attempt=command.attempt)]
        case Mark():
            return _mark(run, command.note, now)
        case Pause():
            return [e.RunPaused(at=now)] if _must_be(run, "pause", RunState.RUNNING, RunState.PAUSED) else []
        case Resume():
            return [e.RunResumed(at=now)] if _must_be(run, "resume", RunState.PAUSED, RunState.RUNNING) else []
        case Cancel():
            if run.state is RunState.CANCELLED:
                return []
            _must_not_have_ended(run)
            return [*_cancel_open(run, now), e.RunCancelled(at=now)]
        case TimeOut():
            _must_not_have_ended(run)
            limit = run.compiled.definition.run_timeout_s
            return [*_cancel_open(run, now), e.RunTimedOut(at=now, error=f"RunTimedOut: longer than {limit} s")]
        case GoIdle():
            _must_not_have_ended(run)
            error = f"no checkpoint for {run.compiled.definition.driven_ttl_s:g} s"
            return [e.RunFailed(at=now, error=error, reason="idle")]
        case Post():
            return _post(run, command, now)
        case MissSla():
            told = run.state in ENDED or run.sla_missed
            return [] if told else [e.SlaMissed(at=now, deadline=command.deadline)]
        case RetryTask():
            return _retry(run, command.task, now)
        case RetryFailed():
            return _retry_failed(run, now)
        case SkipTask():
            return _skip(run, command.task, now)
        case Restart():
            if run.state not in ENDED:
                raise Conflict(f"run {run.run_id} is still {run.state}")
            return [e.RunRestarted(at=now, dag_version=command.dag_version)]


def _start(run: Run, now: datetime) -> list[e.Event]:
    if run.state is not RunState.QUEUED:
        raise Conflict(f"run {run.run_id} is already {run.state}")
    started = e.RunStarted(at=now, attempt=run.attempts + 1)
    if run.driven:
        return [started, *_driven_end(run.verdict, now)]
    return [started] if run.open else [started, e.RunSucceeded(at=now)]


def _post(run: Run, command: Post, now: datetime) -> list[e.Event]:
    posted = e.CheckpointPosted(at=now, kind=command.kind, data=command.data)
    going = run.driven and run.state in (RunState.RUNNING, RunState.PAUSED)
    return [posted, *_driven_end(command.kind, now)] if going else [posted]


def _driven_end(kind: str | None, now: datetime) -> list[e.Event]:
    """What a checkpoint of that kind means for a run that its caller drives."""
    if kind == COMPLETED:
        return [e.RunSucceeded(at=now)]
    return [e.RunFailed(at=now, error="its caller said so")] if kind == FAILED else []


def _begin(run: Run, command: Begin, now: datetime) -> list[e.Event]:
    if run.state is not RunState.RUNNING:
        raise Conflict(f"run {run.run_id} is {run.state}")
    return [
        e.TaskStarted(
            at=now,
            task=_spec(run, position).id,
            attempt=run.tasks[position].attempt + 1,
            worker=command.worker,
            incarnation=command.incarnation,
        )
        for position in command.positions
        if startable(run, position)
    ]


def _settle(run: Run, command: Settle, now: datetime) -> list[e.Event]:
    report = command.report
    position = _fenced(run, report.task, report.attempt)
    event = settle(_spec(run, position), run.tasks[position], report, now, command.jitter)
    return _ended(run, position, event)


def _fenced(run: Run, task: str, attempt: int) -> int:
    position = run.compiled.graph.index.get(task)
    if position is None:
        raise StaleAttempt(task, attempt, 0)
    fence(_spec(run, position), run.tasks[position], attempt)
    return position


def _ended(run: Run, position: int, event: e.Event) -> list[e.Event]:
    """`event`, what it means for dependents, and the end of the run if this was the last open task."""
    if isinstance(event, e.TaskRetrying):
        return [event]
    out: list[e.Event] = [event]
    if isinstance(event, e.TaskFailed):
        out += [
            e.TaskUpstreamFailed(at=event.at, task=run.compiled.graph.names[i])
            for i in _descendants(run, position, TaskState.PENDING)
        ]
    if run.open == len(out):
        out.append(_verdict(run, event))
    return out


def _verdict(run: Run, last: e.Event) -> e.Event:
    """The terminal event of a run whose last open task ends with `last`."""
    if isinstance(last, e.TaskFailed):
        return e.RunFailed(at=last.at, error=run.error or f"{last.task}: {last.error}")
    return e.RunFailed(at=last.at, error=run.error) if run.error else e.RunSucceeded(at=last.at)


def _mark(run: Run, note: Note, now: datetime) -> list[e.Event]:
    _fenced(run, note.task, note.attempt)
    event = e.TaskCheckpointed if note.kind == "checkpoint" else e.TaskProgressed
    return [event(at=now, task=note.task, attempt=note.attempt, data=note.data)]


def _cancel_open(run: Run, now: datetime) -> Iterator[e.Event]:
    for name, task in zip(run.compiled.graph.names, run.tasks, strict=True):
        if task.state not in TERMINAL:
            yield e.TaskCancelled(at=now, task=name)


def _retry(run: Run, name: str, now: datetime) -> list[e.Event]:
    position = run.position(name)
    task = run.tasks[position]
    if run.state is RunState.QUEUED or task.state not in FAILURES | {TaskState.UPSTREAM_FAILED, TaskState.CANCELLED}:
        raise Conflict(
            f"task {name} of run {run.run_id} is {task.state}; only a failed or cancelled task can be retried"
        )
    cause = _failed_ancestor(run, position)
    if cause is not None:
        raise Conflict(f"task {name} waits for task {cause}, which stays failed; retry that one")
    return _reset(run, {position}, now)


def _retry_failed(run: Run, now: datetime) -> list[e.Event]:
    again = FAILURES | {TaskState.CANCELLED}
    positions = {i for i, task in enumerate(run.tasks) if task.state in again}
    if run.state is RunState.QUEUED or not positions:
        raise Conflict(f"run {run.run_id} has no failed task")
    return _reset(run, positions, now)


def _reset(run: Run, positions: set[int], now: datetime) -> list[e.Event]:
    """Those tasks and what failed because of them are pending again; a terminal run goes on."""
    positions |= _cut_off(run)
    chosen = sorted(positions | _freed(run, positions))
    names = run.compiled.graph.names
    return [*_revived(run, now), *(e.TaskReset(at=now, task=names[i]) for i in chosen)]


def _skip(run: Run, name: str, now: datetime) -> list[e.Event]:
    position = run.position(name)
    state = run.tasks[position].state
    if state is TaskState.SKIPPED:
        return []
    if run.state is RunState.CANCELLED or state in (TaskState.SUCCEEDED, TaskState.CANCELLED):
        raise Conflict(f"task {name} of run {run.run_id} is {state} and the run is {run.state}; it cannot be skipped")
    again = _cut_off(run)
    freed = sorted(again | _freed(run, again | {position}))
    out: list[e.Event] = [*_revived(run, now), e.TaskSkipped(at=now, task=name)]
    out += [e.TaskReset(at=now, task=run.compiled.graph.names[i]) for i in freed]
    still_open = run.open + len(freed) - (state not in TERMINAL)
    if still_open == 0 and run.state not in (RunState.QUEUED, RunState.SUCCEEDED):
        error = _first_error(run, apart_from=position)
        out.append(e.RunFailed(at=now, error=error) if error else e.RunSucceeded(at=now))
    return out


def _cut_off(run: Run) -> set[int]:
    """What the end of the run cut off: when the run goes on, it goes on with all of that."""
    if run.state not in (RunState.CANCELLED, RunState.TIMED_OUT):
        return set()
    return {i for i, task in enumerate(run.tasks) if task.state is TaskState.CANCELLED}


def _revived(run: Run, now: datetime) -> list[e.Event]:
    return [e.RunRevived(at=now, attempt=run.attempts + 1)] if run.state in ENDED else []


def _first_error(run: Run, apart_from: int) -> str | None:
    for i, task in enumerate(run.tasks):
        if i != apart_from and task.state in FAILURES:
            return run.error or f"{run.compiled.graph.names[i]} failed"
    return None


def _freed(run: Run, healed: set[int]) -> set[int]:
    """Upstream-failed tasks that can run once those in `healed` do: no other ancestor of theirs failed."""
    graph = run.compiled.graph
    broken = FAILURES | {TaskState.UPSTREAM_FAILED, TaskState.CANCELLED}
    mended = set(healed)
    stack = [child for i in healed for child in graph.children[i]]
    while stack:
        i = stack.pop()
        if i in mended or run.tasks[i].state is not TaskState.UPSTREAM_FAILED:
            continue
        if all(p in mended or run.tasks[p].state not in broken for p in graph.parents[i]):
            mended.add(i)
            stack.extend(graph.children[i])
    return mended - healed


def _failed_ancestor(run: Run, position: int) -> str | None:
    seen: set[int] = set()
    stack = list(run.compiled.graph.parents[position])
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        if run.tasks[i].state in FAILURES:
            return run.compiled.graph.names[i]
        if run.tasks[i].state is TaskState.UPSTREAM_FAILED:
            stack.extend(run.compiled.graph.parents[i])
    return None


def _descendants(run: Run, position: int, state: TaskState) -> set[int]:
    """Tasks in `state` reachable from `position` through tasks in `state`."""
    found: set[int] = set()
    stack = list(run.compiled.graph.children[position])
    while stack:
        i = stack.pop()
        if i not in found and run.tasks[i].state is state:
            found.add(i)
            stack.extend(run.compiled.graph.children[i])
    return found


def _must_be(run: Run, verb: str, before: RunState, after: RunState) -> bool:
    """True when the step is to be taken, False when it was taken already. Raises Conflict."""
    if run.state is after:
        return False
    if run.state is not before:
        raise Conflict(f"run {run.run_id} is {run.state}; cannot {verb} it")
    return True


def _must_not_have_ended(run: Run) -> None:
    if run.state in ENDED:
        raise Conflict(f"run {run.run_id} is already {run.state}")


def _spec(run: Run, position: int) -> TaskSpec:
    return run.compiled.specs[position]


# ── apply ─────────────────────────────────────────────────────────────────────────────────────────


def apply(run: Run, event: e.Event) -> None:
    """Bring `run` to what it is after `event`. Never refuses; a KeyError here is a bug in `decide`."""
    run.version += 1
    match event:
        case e.TaskStarted() | e.TaskSucceeded() | e.TaskRetrying() | e.TaskReturned() | e.TaskFailed():
            _apply_to_task(run, event)
        case e.TaskSkipped() | e.TaskUpstreamFailed() | e.TaskCancelled() | e.TaskReset():
            _apply_to_task(run, event)
        case e.TaskCheckpointed():
            run.tasks[run.position(event.task)].checkpoint = event.data
        case e.TaskProgressed():
            return
        case e.CheckpointPosted():
            run.heard_at = event.at
            if run.state is RunState.QUEUED and event.kind in (COMPLETED, FAILED) and run.verdict is None:
                run.verdict = event.kind
        case e.SlaMissed():
            run.sla_missed = True
        case e.RunStarted() | e.RunRevived():
            run.state = TRANSITIONS[run.state][type(event)]
            run.attempts = event.attempt
            run.started_at = event.at if isinstance(event, e.RunStarted) else run.started_at
            run.going_since = event.at
            run.finished_at = None
        case e.RunRestarted():
            run.state = TRANSITIONS[run.state][e.RunRestarted]
            names = run.compiled.graph.names
            run.past_attempts |= {n: t.attempt for n, t in zip(names, run.tasks, strict=True) if t.attempt}
            run.error = run.started_at = run.going_since = run.finished_at = run.heard_at = run.verdict = None
            run.queued_version = run.version
            run._fresh(event.dag_version)
        case _:
            run.state = TRANSITIONS[run.state][type(event)]
            if run.state in ENDED:
                run.finished_at = event.at
                run.due.clear()
                run.ready.clear()
            if isinstance(event, e.RunSucceeded):
                run.error = None
            elif isinstance(event, e.RunFailed | e.RunTimedOut):
                run.error = event.error


_TaskEvent = (
    e.TaskStarted
    | e.TaskSucceeded
    | e.TaskRetrying
    | e.TaskReturned
    | e.TaskFailed
    | e.TaskSkipped
    | e.TaskUpstreamFailed
    | e.TaskCancelled
    | e.TaskReset
)


def _apply_to_task(run: Run, event: _TaskEvent) -> None:
    position = run.compiled.graph.index[event.task]
    task = run.tasks[position]
    before = task.state
    apply_to_task(task, event)
    after = task.state
    run.running += (after is TaskState.RUNNING) - (before is TaskState.RUNNING)
    run.open += (before in TERMINAL) - (after in TERMINAL)
    if after in SATISFIED and before not in SATISFIED:
        _satisfy(run, position)
    if isinstance(event, e.TaskSucceeded):
        if event.value is not None and run.compiled.graph.children[position]:
            run.values[position] = event.value
    elif isinstance(event, e.TaskRetrying):
        heapq.heappush(run.due, (event.due, position, task.attempt))
    elif isinstance(event, e.TaskReturned):
        _offer(run, position)
    elif isinstance(event, e.TaskReset):
        if run.waits[position] == 0:
            _offer(run, position)
    elif isinstance(event, e.TaskFailed) and run.error is None:
        run.error = f"{event.task}: {event.error}"
    run.failed += (after in FAILURES) - (before in FAILURES)
    if run.failed == 0:
        run.error = None


def _satisfy(run: Run, position: int) -> None:
    for child in run.compiled.graph.children[position]:
        run.waits[child] -= 1
        if run.waits[child] == 0 and run.tasks[child].state is TaskState.PENDING:
            _offer(run, child)


def _offer(run: Run, position: int) -> None:
    if not run.compiled.runnable[position]:
        return
    heapq.heappush(run.ready, (-run.compiled.specs[position].priority, position))


# ── what is owed ──────────────────────────────────────────────────────────────────────────────────


def startable(run: Run, position: int) -> bool:
    """May the task at `position` be handed to a worker now? (I2, I3)"""
    return run.waits[position] == 0 and run.tasks[position].state in (TaskState.PENDING, TaskState.RETRYING)


def take_ready(run: Run, limit: int) -> list[int]:
    """Up to `limit` positions off the ready heap, each startable."""
    out: list[int] = []
    while run.ready and len(out) < limit:
        _, position = heapq.heappop(run.ready)
        if startable(run, position):
            out.append(position)
    return out


def put_back(run: Run, positions: Iterable[int]) -> None:
    """Undo `take_ready` for tasks that were not started after all."""
    for position in positions:
        _offer(run, position)


def wake(run: Run, now: datetime) -> None:
    """Offer the retrying tasks whose delay is over."""
    while run.due and run.due[0][0] <= now:
        _, position, attempt = heapq.heappop(run.due)
        task = run.tasks[position]
        if task.state is TaskState.RETRYING and task.attempt == attempt:
            _offer(run, position)


def deadline(run: Run) -> datetime | None:
    """When the run exceeds its own limit, or None."""
    limit = run.compiled.definition.run_timeout_s
    if limit is None or run.going_since is None or run.state in ENDED:
        return None
    return run.going_since + timedelta(seconds=limit)


def idle_deadline(run: Run) -> datetime | None:
    """When a run that its caller drives fails for want of a checkpoint, or None."""
    limit = run.compiled.definition.driven_ttl_s
    if not limit or run.going_since is None or run.state in ENDED:
        return None
    return max(run.going_since, run.heard_at or run.going_since) + timedelta(seconds=limit)


def next_wake(run: Run) -> datetime | None:
    """The next instant at which something is due without any message, or None."""
    candidates = (run.due[0][0] if run.due else None, deadline(run), idle_deadline(run))
    return min((at for at in candidates if at is not None), default=None)


def aborted(run: Run, event: e.Event) -> Abort | None:
    """What must stop because of `event`; ask before applying it."""
    if not isinstance(event, e.TaskCancelled | e.TaskSkipped):
        return None
    task = run.tasks[run.compiled.graph.index[event.task]]
    if task.state is not TaskState.RUNNING:
        return None
    return Abort(event.task, task.attempt, task.worker)


def owed(run: Run) -> list[Effect]:
    """Everything the world still has to do about `run`; for recovery, it looks at every task (I8)."""
    if run.state in ENDED or run.state is RunState.QUEUED:
        return []
    out: list[Effect] = [
        Await(name, task.attempt, task.worker, task.incarnation)
        for name, task in zip(run.compiled.graph.names, run.tasks, strict=True)
        if task.state is TaskState.RUNNING
    ]
    if run.state is RunState.RUNNING and run.ready:
        out.append(Dispatch(len(run.ready)))
    at = next_wake(run)
    if at is not None:
        out.append(WakeAt(at))
    return out


def fold(history: Iterable[e.Event], compiled_by_version: Callable[[int], Compiled]) -> Run:
    """The run that `history` tells of. The first event is its RunCreated."""
    events = iter(history)
    created = next(events)
    assert isinstance(created, e.RunCreated), "a run's history begins with run_created"
    run = Run(created, compiled_by_version)
    for event in events:
        apply(run, event)
    _sort_out(run)
    return run


def _sort_out(run: Run) -> None:
    """Leave in `ready` and `due` only what still waits there: live, a task is taken off when it starts."""
    if run.state in ENDED:
        return
    run.ready.clear()
    run.due.clear()
    for position, task in enumerate(run.tasks):
        if task.state is TaskState.PENDING and run.waits[position] == 0:
            _offer(run, position)
        elif task.state is TaskState.RETRYING and task.due is not None:
            heapq.heappush(run.due, (task.due, position, task.attempt))


def dag_versions(history: Iterable[e.Event]) -> set[int]:
    """The definition versions that a fold of `history` needs."""
    return {event.dag_version for event in history if isinstance(event, e.RunCreated | e.RunRestarted)}
