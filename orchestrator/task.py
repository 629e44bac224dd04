"""One task of a run: its states, what may happen to it, and what it takes to try again.

    pending ──started──▶ running ──succeeded──▶ succeeded
       ▲  ▲                │ │ └───failed──────▶ failed | timed_out
       │  └───returned─────┘ └──retrying──▶ retrying ──started──▶ running
       │
       └──reset── failed | timed_out | upstream_failed | cancelled   (by hand)

    running ──suspended──▶ suspended ──started──▶ running       (its code sleeps; between two attempts)
    pending ──waiting──▶ waiting ──▶ succeeded | failed | timed_out    (it waits for the world, without a worker)
    pending ──expanded──▶ running     (a map, which runs as long as an instance of it is open: `mapped.py`)
    pending ──succeeded──▶ succeeded     (the result of an equal task is used: `caching.py`)

    pending | running | retrying | suspended | waiting ──▶ skipped | cancelled
    pending | retrying | suspended ──▶ upstream_failed
    pending | running | retrying | suspended | waiting ──failed──▶ timed_out    (too late, see `deadlines.py`)
    succeeded ──reset──▶ pending      (a setup that is needed again; a map of which an instance is retried)

Of a plan, people also mark tasks as done in any state, and reset skipped and retrying ones.

`attempt` is the fencing token: it grows by one at each start and never repeats, also over restarts
of the run; a report that carries another one raises `StaleAttempt` and has no effect. Attempts lost
with their worker do not use up `retries`, but the third loss of one task fails it (it is probably
what kills the workers).

`Task` is mutable: a run owns its tasks, and a run may have 50,000 of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from orchestrator import events as e
from orchestrator.definition import TaskSpec
from orchestrator.errors import StaleAttempt
from orchestrator.messages import Report
from orchestrator.retry import allowance, delay, may_retry

#: a task that was lost with its worker this often is failed
LOSSES_MAX = 3


class TaskState(StrEnum):
    """Where a task is."""

    PENDING = "pending"
    RUNNING = "running"
    #: waits for `due`
    RETRYING = "retrying"
    #: its code sleeps until `due`, without a worker
    SUSPENDED = "suspended"
    #: for time, a signal or people (`waits.py`)
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"


_S = TaskState
#: nothing starts any more in these, unless a person resets the task
TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED, _S.SKIPPED, _S.UPSTREAM_FAILED})
#: dependents may start
SATISFIED = frozenset({_S.SUCCEEDED, _S.SKIPPED})
#: failed by its own doing
FAILURES = frozenset({_S.FAILED, _S.TIMED_OUT})
#: between two attempts: it starts again at `due`
PARKED = frozenset({_S.RETRYING, _S.SUSPENDED})
#: it starts when its rule holds
STARTABLE = PARKED | {_S.PENDING}

#: outcome of an attempt that timed out -> what was too long: all of it, or a silence of it
TIMEOUTS: Mapping[str, str] = {"timed_out": "run", "stalled": "heartbeat"}

_MARKED: dict[type[e.Event], TaskState] = {e.TaskMarked: _S.SUCCEEDED}
_LEFT_ALONE = _MARKED | {e.TaskReset: _S.PENDING, e.TaskSkipped: _S.SKIPPED}
TRANSITIONS: Mapping[TaskState, Mapping[type[e.Event], TaskState]] = {
    _S.PENDING: _MARKED
    | {
        e.TaskStarted: _S.RUNNING,
        e.TaskExpanded: _S.RUNNING,
        e.TaskSucceeded: _S.SUCCEEDED,
        e.TaskWaiting: _S.WAITING,
        e.TaskSkipped: _S.SKIPPED,
        e.TaskUpstreamFailed: _S.UPSTREAM_FAILED,
        e.TaskCancelled: _S.CANCELLED,
        e.TaskFailed: _S.FAILED,
    },
    _S.RUNNING: _MARKED
    | {
        e.TaskReturned: _S.PENDING,
        e.TaskSucceeded: _S.SUCCEEDED,
        e.TaskRetrying: _S.RETRYING,
        e.TaskSuspended: _S.SUSPENDED,
        e.TaskFailed: _S.FAILED,
        e.TaskSkipped: _S.SKIPPED,
        e.TaskCancelled: _S.CANCELLED,
    },
    _S.RETRYING: _LEFT_ALONE
    | {
        e.TaskStarted: _S.RUNNING,
        e.TaskUpstreamFailed: _S.UPSTREAM_FAILED,
        e.TaskCancelled: _S.CANCELLED,
        e.TaskFailed: _S.FAILED,
    },
    _S.SUSPENDED: {
        e.TaskStarted: _S.RUNNING,
        e.TaskSkipped: _S.SKIPPED,
        e.TaskUpstreamFailed: _S.UPSTREAM_FAILED,
        e.TaskCancelled: _S.CANCELLED,
        e.TaskFailed: _S.FAILED,
    },
    _S.WAITING: {
        e.TaskSucceeded: _S.SUCCEEDED,
        e.TaskFailed: _S.FAILED,
        e.TaskSkipped: _S.SKIPPED,
        e.TaskCancelled: _S.CANCELLED,
    },
    _S.FAILED: _LEFT_ALONE,
    _S.TIMED_OUT: _LEFT_ALONE,
    _S.UPSTREAM_FAILED: _LEFT_ALONE,
    _S.CANCELLED: _LEFT_ALONE,
    _S.SUCCEEDED: {e.TaskReset: _S.PENDING},
    _S.SKIPPED: _MARKED | {e.TaskReset: _S.PENDING},
}


class Task:
    """What a run remembers of one task."""

    __slots__ = (
        "attempt",
        "checkpoint",
        "due",
        "failures",
        "incarnation",
        "losses",
        "skipped_by",
        "started_at",
        "state",
        "worker",
    )

    def __init__(self) -> None:
        self.state = TaskState.PENDING
        #: of the last start; 0 before the first
        self.attempt = 0
        #: failed attempts since the last reset
        self.failures = 0
        #: attempts lost with their worker since the last reset
        self.losses = 0
        #: when a retrying or suspended task may start again
        self.due: datetime | None = None
        #: who has the running attempt
        self.worker = ""
        self.incarnation = ""
        self.started_at: datetime | None = None
        #: last checkpoint of any attempt, JSON
        self.checkpoint: msgspec.Raw | None = None
        #: who skipped it last, as in TaskSkipped; means nothing in another state than `skipped`
        self.skipped_by = ""


def fence(spec: TaskSpec, task: Task, attempt: int) -> None:
    """True when it returns: `attempt` is the running one. Raises StaleAttempt."""
    if task.state is not TaskState.RUNNING or task.attempt != attempt:
        raise StaleAttempt(spec.id, attempt, task.attempt)


def settle(spec: TaskSpec, task: Task, report: Report, now: datetime, jitter: float) -> e.Event:
    """The event that a report of the running attempt amounts to. Raises StaleAttempt."""
    fence(spec, task, report.attempt)
    if report.outcome == "ok":
        return e.TaskSucceeded(at=now, task=spec.id, attempt=report.attempt, value=report.value, length=report.length)
    if report.outcome == "skipped":
        return e.TaskSkipped(at=now, task=spec.id, reason=report.error, by="task")
    if report.outcome == "suspended":
        call, until = msgspec.json.decode(report.value.inline, type=tuple[int, datetime])
        return e.TaskSuspended(at=now, task=spec.id, attempt=report.attempt, until=until, call=call)
    error = report.error or report.outcome
    failures = task.failures + 1
    reason = TIMEOUTS.get(report.outcome)
    retries, delay_s = allowance(spec, report)
    if may_retry(failures, retries, permanent=False):
        due = now + delay(delay_s, spec.retry_cap_s, failures, jitter)
        return e.TaskRetrying(at=now, task=spec.id, attempt=report.attempt, due=due, error=error, reason=reason)
    timed_out = reason is not None
    return e.TaskFailed(at=now, task=spec.id, attempt=report.attempt, error=error, timed_out=timed_out, reason=reason)


def lose(spec: TaskSpec, task: Task, attempt: int, now: datetime) -> e.Event:
    """The event for an attempt whose worker is gone: at once again, or failed at the third. Raises StaleAttempt."""
    fence(spec, task, attempt)
    if task.losses + 1 >= LOSSES_MAX:
        error = f"WorkerLost: {LOSSES_MAX} workers were lost while running this task"
        return e.TaskFailed(at=now, task=spec.id, attempt=attempt, error=error)
    return e.TaskRetrying(at=now, task=spec.id, attempt=attempt, due=now, error="WorkerLost", lost=True)


def apply(task: Task, event: e.Event) -> None:
    """Bring `task` to what it is after `event`; never refuses what `settle` and `lose` decided."""
    task.state = target(task.state, event)
    match event:
        case e.TaskStarted():
            task.attempt = event.attempt
            task.worker = event.worker
            task.incarnation = event.incarnation
            task.started_at = event.at
            task.due = None
        case e.TaskSucceeded():
            task.attempt = event.attempt  # of a result that was cached no attempt was started
            task.due = None
        case e.TaskExpanded():
            task.attempt, task.started_at = event.attempt, event.at
        case e.TaskRetrying():
            task.due = event.due
            task.losses += event.lost
            task.failures += not event.lost
        case e.TaskSuspended():
            task.due = max(event.until, event.at)  # who told too late that it sleeps waits for a worker from then on
        case e.TaskWaiting():
            task.attempt = event.attempt
            task.started_at = event.at
            task.due = None
        case e.TaskReset():
            task.failures = task.losses = 0
            task.due = None
        case e.TaskSkipped():
            task.skipped_by = event.by
            task.due = None
        case _:
            task.due = None


def target(state: TaskState, event: e.Event) -> TaskState:
    """The state after `event`. A KeyError here is a bug in a decision."""
    after = TRANSITIONS[state][type(event)]
    if after is TaskState.FAILED and isinstance(event, e.TaskFailed) and event.timed_out:
        return TaskState.TIMED_OUT
    return after
