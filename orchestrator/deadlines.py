"""What must have happened by when: SLAs of tasks, and how long a run or a ready task waits for its turn.

    SLA of a task          sla_s after its run was queued                    SlaMissed, and what `on_sla_miss` says
    queue_timeout_s        of a run: from when it was queued to its start    the run ends as timed out, reason `queued`
                           of a task: while it could start and is not begun  the task ends as timed out, reason `queued`

All of it follows from the events, so a deadline survives whoever watches it: `next_at` says when to look again, and a
look (`CheckDeadlines`) finds everything that is due by then. The SLA of a run itself is a timer of the journal (its row
says when), as it may pass while nobody hosts the run; `wake_ms` is for what else may pass while it is queued.

A task is judged once, by what it is when its deadline passes; one that is reset by hand after that is not judged again.
It waits for a worker from the moment it could start, after a pause from the resume. A compensation whose turn may never
come is told as missed and is not ended: what it undoes must not stay done for that. While a run is winding up nothing
of this counts. Who uses none of it pays one look at `Compiled.timed` a step.

Two designs were open for how long a task has been ready: find it out when it matters, from the ends of all it waits
for, or note it when it happens. The first goes wrong where a trigger rule does not wait for all; hence the second: it
costs a heap entry for each task that has such a limit.
"""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator import events as e
from orchestrator.definition import Definition, SlaAction
from orchestrator.task import TERMINAL, TaskState

if TYPE_CHECKING:
    from orchestrator.run_state import Run

#: class that an error line of a run begins with -> what was too long
REASONS = {"RunTimedOut": "run", "QueueTimeout": "queued"}


def reason_of(error: str | None) -> str | None:
    """Which limit of a run that timed out was exceeded, as its error says: run | queued; None = it says neither."""
    return REASONS.get((error or "").partition(":")[0])


def wake_ms(definition: Definition, now_ms: int) -> int | None:
    """When a run that is queued now must be looked at although nobody hosts it, epoch ms; None = at no time."""
    limits = [float(task.sla_s) for task in definition.tasks if task.sla_s is not None]
    if definition.queue_timeout_s is not None:
        limits.append(definition.queue_timeout_s)
    return now_ms + round(min(limits) * 1000) if limits else None


# ── who waits for a worker ────────────────────────────────────────────────────────────────────────


def line_up(run: Run, position: int, since: datetime | None = None) -> None:
    """The task could start, since then or the last event; nothing for one without a limit, or in line already."""
    limit_s = run.compiled.queue_limits.get(position)
    if limit_s is None or position in run.in_line or run.state == "queued":
        return
    run.in_line[position] = since or run.told_at
    heapq.heappush(run.late, (run.in_line[position] + timedelta(seconds=limit_s), position))


def line_up_anew(run: Run, at: datetime) -> None:
    """The run goes on: who could start waits from here."""
    leave(run)
    for position in run.compiled.queue_limits:
        task = run.tasks[position]
        if run.could_start(position) and (task.due is None or task.due <= at):
            line_up(run, position, at)


def leave(run: Run) -> None:
    """Nobody waits any more."""
    run.in_line.clear()
    run.late.clear()


def _first_late(run: Run) -> datetime | None:
    """When the first in line has waited too long; those that wait no longer are dropped."""
    while run.late:
        at, position = run.late[0]
        since = run.in_line.get(position)
        if since is not None and since + timedelta(seconds=run.compiled.queue_limits[position]) == at:
            if run.could_start(position):
                return at
            del run.in_line[position]
        heapq.heappop(run.late)
    return None


# ── SLAs ──────────────────────────────────────────────────────────────────────────────────────────


def forgive(run: Run, position: int, at: datetime) -> None:
    """The task is reset: a deadline that has passed is not its any more, one that has not is again."""
    run.sla_seen = 0
    sla_s = run.compiled.specs[position].sla_s
    if sla_s is not None and run.queued_at + timedelta(seconds=sla_s) <= at:
        run.judged.add(position)


def _first_sla(run: Run) -> tuple[datetime, int] | None:
    """The first deadline of a task that has not ended and is not judged, and whose it is."""
    slas = run.compiled.slas
    while run.sla_seen < len(slas):
        sla_s, position = slas[run.sla_seen]
        if run.tasks[position].state not in TERMINAL and position not in run.judged:
            return run.queued_at + timedelta(seconds=sla_s), position
        run.sla_seen += 1
    return None


# ── when, and what then ───────────────────────────────────────────────────────────────────────────


def admit_by(run: Run) -> datetime | None:
    """When a queued run has waited too long, or None."""
    limit_s = run.compiled.definition.queue_timeout_s
    queued = run.state == "queued" and limit_s is not None
    return run.queued_at + timedelta(seconds=limit_s or 0.0) if queued else None


def next_at(run: Run) -> datetime | None:
    """The next deadline of a run that has not ended and does not wind up, or None."""
    sla = _first_sla(run)
    candidates = (admit_by(run), sla and sla[0], _first_late(run) if run.state == "running" else None)
    return min((at for at in candidates if at is not None), default=None)


def verdicts(run: Run, now: datetime) -> tuple[list[e.Event], dict[int, e.Event]]:
    """Misses of all SLAs that are due, and the end of each task that is too late. Nothing is changed."""
    misses: list[e.Event] = []
    ends: dict[int, e.Event] = {}
    for sla_s, position in run.compiled.slas[run.sla_seen :]:
        deadline = run.queued_at + timedelta(seconds=sla_s)
        if deadline > now:
            break
        if run.tasks[position].state in TERMINAL or position in run.judged:
            continue
        spec = run.compiled.specs[position]
        misses.append(e.SlaMissed(at=now, deadline=deadline, task=spec.id))
        if "cancel" in spec.on_sla_miss and _counts(run, position):
            ends[position] = _end(run, position, now, f"SlaMissed: not done {spec.sla_s} s after its run was queued")
    if run.state == "running":
        for position, since in run.in_line.items():
            limit_s = run.compiled.queue_limits[position]
            late = position not in ends and since + timedelta(seconds=limit_s) <= now
            if late and run.could_start(position):
                ends[position] = _end(run, position, now, f"QueueTimeout: no worker took it within {limit_s:g} s")
    return misses, ends


def _counts(run: Run, position: int) -> bool:
    """Is it known that the task is to be done? Of a compensation only while the run compensates."""
    return position not in run.compiled.undoes or (position in run.undoing and not run.advancing)


def _end(run: Run, position: int, now: datetime, error: str) -> e.Event:
    task = run.tasks[position]
    reason = "sla" if error.startswith("SlaMissed") else "queued"
    return e.TaskFailed(
        at=now,
        task=run.compiled.specs[position].id,
        attempt=task.attempt,
        error=error,
        timed_out=True,
        reason=reason,
    )


def ends_running(run: Run, event: e.TaskFailed) -> bool:
    """Does it end an attempt that has not reported? Ask before it is applied."""
    return event.reason == "sla" and run.tasks[run.compiled.graph.index[event.task]].state is TaskState.RUNNING


def actions(run: Run, missed: e.SlaMissed) -> tuple[SlaAction, ...]:
    """What the definition says is to be done about it."""
    if missed.task is None:
        return run.compiled.definition.on_sla_miss
    return run.compiled.specs[run.compiled.graph.index[missed.task]].on_sla_miss
