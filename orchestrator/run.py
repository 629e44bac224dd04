"""One run: the tasks of one DAG version, once, for one window.

    command ──▶ run_decisions.decide ──▶ events ──▶ apply ──▶ run_duties: what the world still has to do

`run_state.py` has the states, their diagram and what a run is in memory. `apply` changes the run it is given (a run may
have 50,000 tasks: one step costs what changed plus the out-degree, never the size of the run) and never refuses; `fold`
makes a run of its history.

Who waits for whom, and how what it waits for has ended, is one number per task, its tally (`trigger.py`): `waits`. A
task with the default rule may start when that is 0; what any other rule says follows from it at any time. Tasks that
will never start are skipped or given up in the commit that makes it certain (`consequences.py`). A run that does not
succeed undoes what it did before it ends (`compensation.py`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from orchestrator import compensation, conduct, deadlines, mapped, trigger, waits
from orchestrator import events as e
from orchestrator.compiled import Compiled
from orchestrator.locality import Homes, is_large
from orchestrator.messages import Value
from orchestrator.run_state import COMPLETED, ENDED, FAILED, TRANSITIONS, Run, RunState
from orchestrator.task import FAILURES, PARKED, STARTABLE, TERMINAL, TaskState
from orchestrator.task import apply as apply_to_task
from orchestrator.trigger import holds


def apply(run: Run, event: e.Event) -> None:
    """Bring `run` to what it is after `event`. Never refuses; a KeyError here is a bug in `decide`."""
    run.version += 1
    run.told_at = event.at
    match event:
        case e.TaskStarted() | e.TaskSucceeded() | e.TaskRetrying() | e.TaskReturned() | e.TaskFailed():
            _apply_to_task(run, event)
        case e.TaskSkipped() | e.TaskUpstreamFailed() | e.TaskCancelled() | e.TaskReset() | e.TaskMarked():
            _apply_to_task(run, event)
        case e.TaskCheckpointed():
            run.tasks[position := run.position(event.task)].checkpoint = event.data
            waits.forget_sleeps(run, position)
        case e.TaskExpanded():
            mapped.expand(run, event)
        case e.TaskProgressed() | e.ToolStarted() | e.ToolCompleted() | e.ValuePublished():
            return
        case e.TaskWaiting() | e.TaskSuspended():
            _apply_to_task(run, event)
        case e.SignalReceived() | e.SignalConsumed() | e.VoteCast() | e.VoteRefused():
            waits.keep(run, event)
        case e.BatchFormed():
            conduct.take_up(run, event)
        case e.RunCompensating():
            compensation.begin(run, event)
        case e.RunCancelling():
            if run.agenda is not None:
                conduct.wind_up(run)
            run.state = TRANSITIONS[run.state][e.RunCancelling]
        case e.CheckpointPosted():
            run.heard_at = event.at
            if run.state is RunState.QUEUED and event.kind in (COMPLETED, FAILED) and run.verdict is None:
                run.verdict = event.kind
        case e.SlaMissed(task=None):
            run.sla_missed = True
        case e.SlaMissed():
            run.judged.add(run.compiled.graph.index[event.task or ""])
        case e.HistoryRemoved():
            run.version, run.state, run.attempts = event.through + 1, RunState(event.state), event.attempts
            run.past_attempts, run.finished_at, run.forgotten = event.task_attempts, event.until, True
        case e.RunStarted() | e.RunRevived():
            run.state = TRANSITIONS[run.state][type(event)]
            run.attempts = event.attempt
            run.started_at = event.at if isinstance(event, e.RunStarted) else run.started_at
            run.going_since = event.at
            run.finished_at = None
            if run.compiled.queue_limits:
                deadlines.line_up_anew(run, event.at)
        case e.RunRestarted():
            run.state = TRANSITIONS[run.state][e.RunRestarted]
            names = run.compiled.graph.names
            last = {n: t.attempt for n, t in zip(names, run.tasks, strict=True) if t.attempt}
            run.past_attempts = run.past_attempts | last
            run.error = run.started_at = run.going_since = run.finished_at = run.heard_at = run.verdict = None
            run.queued_version, run.queued_at = run.version, event.at
            run.triggered_by = event.triggered_by or run.triggered_by
            run.begin_anew(event.dag_version)
        case _:
            run.state = TRANSITIONS[run.state][type(event)]
            if run.state in ENDED:
                run.finished_at = event.at
                run.overdue = None
                run.due.clear()
                run.ready.clear()
                deadlines.leave(run)
                if run.standby is not None:
                    run.standby.rest()
                if run.aside is not None:
                    run.aside.clear()
                if run.lookups is not None:
                    run.lookups.clear()
            if isinstance(event, e.RunSucceeded):
                run.error = None
            elif isinstance(event, e.RunResumed) and run.compiled.queue_limits:
                deadlines.line_up_anew(run, event.at)
            elif isinstance(event, e.RunOverdue):
                run.overdue = event.error
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
    | e.TaskMarked
    | e.TaskWaiting
    | e.TaskSuspended
)


def _apply_to_task(run: Run, event: _TaskEvent) -> None:
    position = run.compiled.graph.index[event.task]
    task = run.tasks[position]
    before, by = task.state, task.skipped_by
    apply_to_task(task, event)
    after = task.state
    if run.in_line and after not in STARTABLE:
        run.in_line.pop(position, None)
    if after is TaskState.RUNNING:
        run.running += 1
        if run.agenda is None:
            return  # nobody else is concerned
    elif before is TaskState.RUNNING:
        run.running -= position not in run.maps
    if before is TaskState.WAITING or after is TaskState.WAITING or after is TaskState.SUSPENDED:
        waits.keep_task(run, position, before, event)
    if isinstance(event, e.TaskSucceeded) and event.value is not None:
        _keep_value(run, position, event, event.value)
    ended = (after in TERMINAL) - (before in TERMINAL)
    run.open -= ended
    if run.agenda is not None:
        conduct.keep(run, run.agenda, position, before, event)
    elif position >= run.compiled.size:
        mapped.keep(run, position, before, event)
    elif ended or after is TaskState.SKIPPED:
        trigger.tell_dependents(run, position, before, by)
    if after is not TaskState.SUCCEEDED:
        _keep_delay(run, position, before, event)
    if after is not TaskState.RUNNING and (before is not TaskState.RUNNING or after is not TaskState.SUCCEEDED):
        failed = (after in FAILURES) - (before in FAILURES)
        run.failed += failed if failed and run.compiled.decides(position) else 0
        if run.failed == 0:
            run.error = None
    if run.compiled.undoes:
        compensation.keep(run, position, before, event)


def _keep_delay(run: Run, position: int, before: TaskState, event: _TaskEvent) -> None:
    """It starts again, at once or later; or has failed."""
    task = run.tasks[position]
    if isinstance(event, e.TaskRetrying):
        if run.agenda is None or position in run.agenda.batch:
            heapq.heappush(run.due, (event.due, position, task.attempt))
    elif isinstance(event, e.TaskSuspended):
        heapq.heappush(run.due, (event.until, position, task.attempt))
    elif isinstance(event, e.TaskReturned):
        conduct.offer(run, position)
    elif isinstance(event, e.TaskReset):
        if event.lost or run.lost:
            _keep_loss(run, position, before, event)
        if run.compiled.slas:
            deadlines.forgive(run, position, event.at)
        if holds(run, position):
            conduct.offer(run, position)
    elif isinstance(event, e.TaskFailed) and run.error is None and run.compiled.decides(position):
        run.error = f"{event.task}: {event.error}"


def _keep_value(run: Run, position: int, event: e.TaskSucceeded, value: Value) -> None:
    """It is there before dependents are offered, which are at home where it is. (Of instances: `mapped.keep`.)"""
    if is_large(value) and run.homes is None and run.agenda is None:
        run.homes = Homes()
    if run.compiled.graph.children[position] and run.agenda is None:
        run.values[position] = value
        if event.length is not None:
            run.lengths[position] = event.length


def _keep_loss(run: Run, position: int, before: TaskState, event: e.TaskReset) -> None:
    """Its value is lost; or a person retries it, perhaps since values that it needs were lost too often."""
    if event.lost:
        run.lost[position] = (*run.lost.get(position, ()), event.lost)
        run.values.pop(position, None)
        run.lengths.pop(position, None)
    elif before in FAILURES:
        size = run.compiled.size
        host = run.hosts[position - size] if position >= size else position
        for parent in run.compiled.graph.parents[host]:
            run.lost.pop(parent, None)
            for instance in run.maps[parent].live if parent in run.maps else ():
                run.lost.pop(instance, None)


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
    if run.aside is not None:
        run.aside.clear()
    if run.lookups is not None:
        run.lookups.clear()
    if run.homes is not None:
        run.homes = Homes()
    run.due.clear()
    mapped.begin_sorting(run)
    waits.sort_out(run)
    agenda = run.agenda
    for position, task in enumerate(run.tasks):
        if task.state is TaskState.PENDING and holds(run, position):
            conduct.offer(run, position)
        elif task.state in PARKED and task.due is not None:
            if agenda is not None and position not in agenda.batch:
                continue  # it waits for the next batch
            heapq.heappush(run.due, (task.due, position, task.attempt))


def dag_versions(history: Iterable[e.Event]) -> set[int]:
    """The definition versions that a fold of `history` needs."""
    return {event.dag_version for event in history if isinstance(event, e.RunCreated | e.RunRestarted)}
