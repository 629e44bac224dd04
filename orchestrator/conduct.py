"""How a plan is worked through: in batches, members of a sequence one after another, failures last.

    waiting ──pick──▶ batch ──every member has ended──▶ pick ──▶ …      max_iterations batches, or until nothing waits
       ▲                │
       └────────────────┘  failed with retries left: waits again, behind everything that has not been tried

A run has an `Agenda` when its definition has a `Conduct`. `waiting` are the tasks that may start and are in no batch,
`batch` those that the present batch still has to do. A new batch is formed when that one is empty, and no other task
starts meanwhile; up to `batch_size` tasks, in the order of positions within their priority. A member of a
sequence starts when all members before it have ended, so it neither overlaps nor overtakes them.

A member leaves the batch when it has ended, when it failed and is to be tried again, and, unless it runs, when it is
not ready any more or not its turn (a person reset what it depends on, or what goes before it in a sequence). One that
lost its worker stays, unless one of these holds: it is started again within its batch, and has not failed.

`tolerates`: for such a dependent a dependency counts as done once it has failed for good, or cannot run because of
another one that has. Source: contracts/instances.md, sections 3 and 6.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator import aside, deadlines, mapped, waits
from orchestrator import events as e
from orchestrator.definition import Conduct, TaskSpec
from orchestrator.task import FAILURES, SATISFIED, TERMINAL, TaskState, fence

if TYPE_CHECKING:
    from orchestrator.messages import Report
    from orchestrator.run_state import Run
    from orchestrator.task import Task

#: will not be done, unless a person says so
GIVEN_UP = FAILURES | {TaskState.UPSTREAM_FAILED}
#: core task state -> word of a plan's task
WORDS: Mapping[TaskState, str] = {
    TaskState.PENDING: "pending",
    TaskState.RUNNING: "in_progress",
    TaskState.RETRYING: "failed",
    # neither happens to a task of a plan
    TaskState.SUSPENDED: "in_progress",
    TaskState.WAITING: "in_progress",
    TaskState.SUCCEEDED: "completed",
    TaskState.FAILED: "failed",
    TaskState.TIMED_OUT: "failed",
    TaskState.CANCELLED: "pending",
    TaskState.SKIPPED: "skipped",
    TaskState.UPSTREAM_FAILED: "pending",
}
#: words of tasks that a person can have again
RETRIABLE = frozenset({"failed", "skipped"})
_NOBODY: frozenset[int] = frozenset()


class Rules:
    """The conduct of one version of a plan, by position."""

    __slots__ = ("batch_size", "before", "max_iterations", "tolerated")

    def __init__(self, conduct: Conduct, specs: Sequence[TaskSpec], index: Mapping[str, int]) -> None:
        self.batch_size = max(1, conduct.batch_size)
        #: 0 = unlimited
        self.max_iterations = conduct.max_iterations
        #: position -> positions that have to have ended before, because of a sequence
        self.before: dict[int, tuple[int, ...]] = {}
        for sequence in conduct.sequences:
            members = [index[name] for name in sequence if name in index]
            for place, position in enumerate(members):
                self.before[position] = (*self.before.get(position, ()), *members[:place])
        shared: dict[tuple[str, ...], frozenset[int]] = {(): _NOBODY}
        for spec in specs:
            if spec.tolerates not in shared:
                shared[spec.tolerates] = frozenset(index[name] for name in spec.tolerates if name in index)
        #: position -> dependencies whose final failure counts as done
        self.tolerated = tuple(shared[spec.tolerates] for spec in specs)


class Agenda:
    """Where a run stands in its plan: a fold of its events, like everything in a run."""

    __slots__ = ("batch", "failed", "iteration", "retry_counts", "waiting")

    def __init__(self, tasks: int) -> None:
        #: positions that the present batch still has to do
        self.batch: set[int] = set()
        #: positions that may start, and are in no batch
        self.waiting: set[int] = set()
        #: positions that failed and have not been taken up again
        self.failed: set[int] = set()
        #: batches so far
        self.iteration = 0
        #: how often each task was tried again, by itself or by a person
        self.retry_counts = [0] * tasks


def pick(agenda: Agenda, rules: Rules, tasks: Sequence[Task], specs: Sequence[TaskSpec]) -> list[int]:
    """The next batch: tasks that have not failed, and when there are none those that have."""
    for candidates in (agenda.waiting - agenda.failed, agenda.waiting & agenda.failed):
        in_order = sorted(candidates, key=lambda i: (-specs[i].priority, i))
        free = (i for i in in_order if _its_turn(rules, tasks, i))
        if chosen := [i for i, _ in zip(free, range(rules.batch_size), strict=False)]:
            return chosen
    return []


def _its_turn(rules: Rules, tasks: Sequence[Task], position: int) -> bool:
    return all(tasks[earlier].state in TERMINAL for earlier in rules.before.get(position, ()))


def settle(spec: TaskSpec, task: Task, retry_count: int, report: Report, now: datetime) -> e.Event:
    """What a report of the running attempt amounts to: it is tried again while `retries` allow. Raises StaleAttempt."""
    fence(spec, task, report.attempt)
    if report.outcome == "ok":
        return e.TaskSucceeded(at=now, task=spec.id, attempt=report.attempt, value=report.value)
    if report.outcome == "skipped":
        return e.TaskSkipped(at=now, task=spec.id, reason=report.error, by="task")
    error = report.error or report.outcome
    if retry_count < spec.retries and not report.permanent:
        return e.TaskRetrying(at=now, task=spec.id, attempt=report.attempt, due=now, error=error)
    timed_out = report.outcome == "timed_out"
    return e.TaskFailed(at=now, task=spec.id, attempt=report.attempt, error=error, timed_out=timed_out)


def relief(before: TaskState, after: TaskState, lenient: bool) -> int:
    """By how much a dependency's step from `before` to `after` shortens what a dependent waits for: -1, 0 or 1."""
    done = SATISFIED | GIVEN_UP if lenient else SATISFIED
    return (after in done) - (before in done)


def begins_with(plan: e.Plan, names: Iterable[str], now: datetime) -> list[e.Event]:
    """What is done or skipped already when an instance starts."""
    done, skipped = frozenset(plan.done), frozenset(plan.skipped)
    out: list[e.Event] = []
    for name in names:
        if name in done:
            out.append(e.TaskMarked(at=now, task=name))
        elif name in skipped:
            out.append(e.TaskSkipped(at=now, task=name))
    return out


# ── what a run keeps of its plan, event by event ──


def keep(run: Run, agenda: Agenda, position: int, before: TaskState, event: e.Event) -> None:
    """What a step of one task means for the batch, for what waits, and for dependents."""
    after = run.tasks[position].state
    again = isinstance(event, e.TaskRetrying) and not event.lost
    if after in TERMINAL or again or (after is not TaskState.RUNNING and not _may_go_on(run, position)):
        _leave(run, agenda, position)
    agenda.failed.discard(position)
    if again:
        agenda.failed.add(position)
    if after is TaskState.RETRYING and position not in agenda.batch:
        offer(run, position)
    if before in TERMINAL and after not in TERMINAL:
        _hold_up(run, agenda, position)
    if isinstance(event, e.TaskReset) and before not in (TaskState.UPSTREAM_FAILED, TaskState.CANCELLED):
        agenda.retry_counts[position] += 1
    for child in run.compiled.graph.children[position]:
        change = relief(before, after, lenient(run, child, position))
        if change == 0:
            continue
        run.waits[child] -= change
        if run.tasks[child].state in (TaskState.PENDING, TaskState.RETRYING):
            if run.waits[child]:
                _leave(run, agenda, child)
            elif change > 0:
                offer(run, child)


def _may_go_on(run: Run, position: int) -> bool:
    """Would it still be picked?"""
    rules = run.compiled.rules
    return not run.waits[position] and (rules is None or _its_turn(rules, run.tasks, position))


def _hold_up(run: Run, agenda: Agenda, position: int) -> None:
    """It is to be done again: what comes after it in a sequence and has not started waits for its turn."""
    rules = run.compiled.rules
    assert rules is not None, "a run with an agenda has rules"
    for later in [i for i in agenda.batch if position in rules.before.get(i, ())]:
        if run.tasks[later].state is not TaskState.RUNNING:
            _leave(run, agenda, later)
            offer(run, later)


def _leave(run: Run, agenda: Agenda, position: int) -> None:
    """Neither of the present batch nor waiting for the next one."""
    agenda.waiting.discard(position)
    if position in agenda.batch:
        agenda.batch.discard(position)
        run.ready = [entry for entry in run.ready if entry[1] != position]
        heapq.heapify(run.ready)
        run.due = [entry for entry in run.due if entry[1] != position]
        heapq.heapify(run.due)


def take_up(run: Run, event: e.BatchFormed) -> None:
    """These tasks are the present batch, and ready."""
    agenda = run.agenda
    assert agenda is not None, "only plans are worked through in batches"
    agenda.iteration = event.iteration
    for name in event.tasks:
        position = run.compiled.graph.index[name]
        agenda.waiting.discard(position)
        agenda.batch.add(position)
        agenda.retry_counts[position] += position in agenda.failed
        agenda.failed.discard(position)
        offer(run, position)


def wind_up(run: Run) -> None:
    """The present batch is the last one; what a pause held back of it does not start any more."""
    agenda = run.agenda
    assert agenda is not None, "a run without a plan is cancelled at once"
    if run.state == "paused":
        for position in [i for i in agenda.batch if run.tasks[i].state is not TaskState.RUNNING]:
            _leave(run, agenda, position)
            offer(run, position)


def offer(run: Run, position: int) -> None:
    """The task may start: in a plan with the next batch, unless it is of the present one."""
    if run.compiled.queue_limits:
        deadlines.line_up(run, position)
    if not run.compiled.runnable[position]:
        if position in run.compiled.waiting:
            waits.admit(run, position)
        elif position in run.compiled.maps or position >= run.compiled.size:
            mapped.offer(run, position)
        return
    if run.agenda is not None and position not in run.agenda.batch:
        if not run.waits[position]:
            run.agenda.waiting.add(position)
        return
    aside.line_up(run, position)


def lenient(run: Run, position: int, parent: int) -> bool:
    """Does the task at `position` go on although `parent` has failed?"""
    rules = run.compiled.rules
    return rules is not None and parent in rules.tolerated[position]
