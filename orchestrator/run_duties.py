"""What the world owes a run: attempts to await and to stop, ready tasks to hand out, an instant at which to look again.

`owed` lists it for a run that was just read from the journal, looking at every task; on the hot path `aborted` tells
per step what must stop, and `take_ready` takes off what may start.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator import compensation, conduct, deadlines
from orchestrator import events as e
from orchestrator.messages import Need
from orchestrator.run_state import ENDED, Run, RunState, going, startable, winds_up
from orchestrator.task import PARKED, TaskState


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


def waits_for_slot(run: Run) -> int:
    """Tasks that may start, as far as the run is concerned."""
    apart = (run.aside.size if run.aside is not None else 0) + (run.lookups.size if run.lookups is not None else 0)
    return len(run.ready) + apart


def take_bound(run: Run, need: Need, limit: int, node: str = "") -> list[int]:
    """Up to `limit` positions of tasks with that need, each startable: rather those that are at home on that node."""
    out: list[int] = []
    while run.aside is not None and len(out) < limit and (position := run.aside.pop(need, node)) is not None:
        if startable(run, position):
            out.append(position)
    return out


def take_ready(run: Run, limit: int) -> list[int]:
    """Up to `limit` positions off the ready heap, each startable."""
    out: list[int] = []
    while run.ready and len(out) < limit:
        _, position = heapq.heappop(run.ready)
        if startable(run, position) and (not out or out[-1] != position):  # one may have been offered twice
            out.append(position)
    return out


def put_back(run: Run, positions: Iterable[int]) -> None:
    """Undo `take_ready` for tasks that were not started after all."""
    for position in positions:
        conduct.offer(run, position)


def wake(run: Run, now: datetime) -> None:
    """Offer the retrying and suspended tasks whose delay is over."""
    while run.due and run.due[0][0] <= now:
        _, position, attempt = heapq.heappop(run.due)
        task = run.tasks[position]
        if task.state not in PARKED or task.attempt != attempt:
            continue
        if run.agenda is not None or startable(run, position):  # else it is due again once its rule holds
            if run.compiled.queue_limits:
                deadlines.line_up(run, position, task.due)
            conduct.offer(run, position)


def deadline(run: Run) -> datetime | None:
    """When the run exceeds its own limit, or None. What it undoes takes the time that it takes."""
    limit = run.compiled.definition.run_timeout_s
    if limit is None or run.going_since is None or run.state in ENDED or winds_up(run) or compensation.under_way(run):
        return None
    return run.going_since + timedelta(seconds=limit)


def idle_deadline(run: Run) -> datetime | None:
    """When a run that its caller drives fails for want of a checkpoint, or None."""
    limit = run.compiled.definition.driven_ttl_s
    if not limit or run.going_since is None or run.state in ENDED:
        return None
    return max(run.going_since, run.heard_at or run.going_since) + timedelta(seconds=limit)


def next_deadline(run: Run) -> datetime | None:
    """When something of it is too late (`deadlines.py`), or None."""
    if not run.compiled.timed or run.state in ENDED or winds_up(run):
        return None
    return deadlines.next_at(run)


def next_wake(run: Run) -> datetime | None:
    """The next instant at which something is due without any message, or None."""
    due = run.due[0][0] if run.due else None
    # a pause holds what waits for the world
    timers = run.standby.timers if run.standby is not None and run.state is RunState.RUNNING else None
    candidates = (due, timers[0][0] if timers else None, deadline(run), idle_deadline(run), next_deadline(run))
    return min((at for at in candidates if at is not None), default=None)


def aborted(run: Run, event: e.Event) -> Abort | None:
    """What must stop because of `event`; ask before applying it."""
    if isinstance(event, e.TaskFailed):
        if not deadlines.ends_running(run, event):
            return None
    elif not isinstance(event, e.TaskCancelled | e.TaskSkipped | e.TaskMarked):
        return None
    if isinstance(event, e.TaskSkipped) and event.by == "task":
        return None  # its attempt has reported so
    task = run.tasks[run.compiled.graph.index[event.task]]
    if task.state is not TaskState.RUNNING or not task.worker:  # a map has none
        return None
    return Abort(event.task, task.attempt, task.worker)


def owed(run: Run) -> list[Effect]:
    """Everything the world still has to do about `run`; for recovery, it looks at every task (I8)."""
    if run.state in ENDED or run.state is RunState.QUEUED:
        return []
    out: list[Effect] = [
        Await(name, task.attempt, task.worker, task.incarnation)
        for name, task in zip(run.compiled.graph.names, run.tasks, strict=True)
        if task.state is TaskState.RUNNING and task.worker  # a map has none
    ]
    if (waiting := waits_for_slot(run)) and going(run):
        out.append(Dispatch(waiting))
    at = next_wake(run)
    if at is not None:
        out.append(WakeAt(at))
    return out
