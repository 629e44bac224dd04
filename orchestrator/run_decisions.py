"""What a command does to a run: events that follow, or a refusal. Nothing here changes the run.

    command ──▶ decide(run, command, now) ──▶ events ──▶ run.apply, once they are in the journal

`plan_run.py` decides first for runs that have an agenda, and asks here for everything else. What a step means for the
tasks that wait for others is in `consequences.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from datetime import datetime

import msgspec

from orchestrator import compensation, conduct, deadlines, expansion, lost_values
from orchestrator import events as e
from orchestrator.branches import WrongChoice, not_chosen
from orchestrator.consequences import PENDING, Prospect, Standing
from orchestrator.definition import TaskSpec
from orchestrator.errors import Conflict, StaleAttempt
from orchestrator.messages import Note, Published, Report, ToolAnswer, ToolCall, Value
from orchestrator.run_commands import (
    Begin,
    Cancel,
    CheckDeadlines,
    Command,
    GiveBack,
    GoIdle,
    Lose,
    Mark,
    MissSla,
    Pause,
    Post,
    Recall,
    Restart,
    Resume,
    RetryFailed,
    RetryTask,
    Settle,
    SkipTask,
    Start,
    TimeOut,
)
from orchestrator.run_state import COMPLETED, ENDED, FAILED, Run, RunState, going, startable, winds_up
from orchestrator.task import FAILURES, PARKED, STARTABLE, TERMINAL, TaskState, fence, lose, settle, target
from orchestrator.trigger import is_owed, success_rules_out


def decide(run: Run, command: Command, now: datetime) -> list[e.Event]:
    """What `command` does to `run` at `now`; nothing is changed. Raises Conflict, NotFound, StaleAttempt."""
    if run.forgotten and isinstance(command, RetryTask | RetryFailed | SkipTask):
        raise Conflict(f"run {run.run_id} ended too long ago: what its tasks came to is no longer kept")
    match command:
        case Begin():
            return _begin(run, command, now)
        case Settle():
            return _settle(run, command, now)
        case Recall():
            return _recall(run, command, now)
        case Start():
            return _start(run, now)
        case Lose():
            position = _fenced(run, command.task, command.attempt)
            return _ended(run, position, lose(_spec(run, position), run.tasks[position], command.attempt, now))
        case GiveBack():
            position = _fenced(run, command.task, command.attempt)
            return _ended(run, position, e.TaskReturned(at=now, task=command.task, attempt=command.attempt))
        case Mark():
            return _mark(run, command.note, now)
        case Pause():
            return [e.RunPaused(at=now)] if _must_be(run, "pause", RunState.RUNNING, RunState.PAUSED) else []
        case Resume():
            return [e.RunResumed(at=now)] if _must_be(run, "resume", RunState.PAUSED, RunState.RUNNING) else []
        case Cancel():
            if run.state is RunState.CANCELLED:
                return []
            must_not_have_ended(run)
            return _cancel(run, now)
        case TimeOut():
            must_not_have_ended(run)
            return _time_out(run, now)
        case GoIdle():
            must_not_have_ended(run)
            error = f"no checkpoint for {run.compiled.definition.driven_ttl_s:g} s"
            return [e.RunFailed(at=now, error=error, reason="idle")]
        case Post():
            return _post(run, command, now)
        case MissSla():
            return _miss_sla(run, command, now)
        case CheckDeadlines():
            return _check_deadlines(run, now)
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


def proceed(run: Run, now: datetime) -> list[e.Event]:
    """What a mapped task does by itself; ask again after each step until it says nothing (`expansion.py`)."""
    event = expansion.next_step(run, now)
    if event is None or isinstance(event, e.TaskExpanded):
        return [] if event is None else [event]
    assert isinstance(event, e.TaskSucceeded | e.TaskFailed)
    return _ended(run, run.compiled.graph.index[event.task], event)


def _start(run: Run, now: datetime) -> list[e.Event]:
    if run.state is not RunState.QUEUED:
        raise Conflict(f"run {run.run_id} is already {run.state}")
    started = e.RunStarted(at=now, attempt=run.attempts + 1)
    if run.driven:
        return [started, *_driven_end(run.verdict, now)]
    if run.plan is not None:
        return [started, *conduct.begins_with(run.plan, run.compiled.graph.names, now)]
    return [started] if run.open else [started, _end(run, started, run.failed)]


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
    if not going(run):
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
    spec, task = _spec(run, position), run.tasks[position]
    if report.outcome == "missing" and (events := _starved(run, position, report, now)):
        return events
    if run.agenda is not None:
        return _ended(run, position, conduct.settle(spec, task, run.agenda.retry_counts[position], report, now))
    event = settle(spec, task, report, now, command.jitter)
    if spec.branch and isinstance(event, e.TaskSucceeded):
        return _branched(run, position, event, event.value)
    return _ended(run, position, event)


def _starved(run: Run, position: int, report: Report, now: datetime) -> list[e.Event]:
    """It waits until what it misses is there again; nothing when nobody can be run for that (`lost_values.py`)."""
    lost = lost_values.producers(run, position, report)
    if lost is None:
        return []
    try:
        positions = expansion.with_maps(run, set(lost))
        set_up = _set_up_again(run, positions)
    except Conflict:
        return []
    positions |= set_up | expansion.set_up_anew(run, set_up)
    returned = e.TaskReturned(at=now, task=report.task, attempt=report.attempt, missing=report.missing)
    changes = {position: _after(run, position, returned)} | dict.fromkeys(positions, PENDING)
    names = run.compiled.graph.names
    resets = [e.TaskReset(at=now, task=names[i], lost=lost.get(i, "")) for i in sorted(positions)]
    return _follow(run, returned, changes, [returned, *resets])


def _recall(run: Run, command: Recall, now: datetime) -> list[e.Event]:
    """It ends well without having been started. Raises Conflict when it cannot now, or cannot so."""
    position = run.position(command.task)
    task = run.tasks[position]
    if not going(run) or task.state is not TaskState.PENDING or task.attempt or not startable(run, position):
        raise Conflict(f"task {command.task} of run {run.run_id} is {task.state} and does not start now")
    told = (command.task, 1, command.value, command.length, command.cached)
    out = finish(run, position, e.TaskSucceeded(now, *told))
    if isinstance(out[0], e.TaskFailed):
        raise Conflict(f"branch {command.task} of run {run.run_id} has other ways now: {out[0].error}")
    return out


def _fenced(run: Run, task: str, attempt: int) -> int:
    position = run.compiled.graph.index.get(task)
    if position is None:
        raise StaleAttempt(task, attempt, 0)
    fence(_spec(run, position), run.tasks[position], attempt)
    return position


#: the task starts again by itself
_COMES_BACK = frozenset({e.TaskRetrying, e.TaskReturned, e.TaskSuspended})


def finish(run: Run, position: int, event: e.Event, ways: Value | None = None) -> list[e.Event]:
    """The end of a task that nobody reports, and what follows; of a branch `ways` says how it goes on."""
    if _spec(run, position).branch and isinstance(event, e.TaskSucceeded):
        return _branched(run, position, event, event.value if ways is None else ways)
    return _ended(run, position, event)


def _ended(run: Run, position: int, event: e.Event) -> list[e.Event]:
    """`event`, what it means for dependents, and the end of the run if this was the last open task."""
    if type(event) in _COMES_BACK and (run.agenda is not None or not run.compiled.ruled):
        return [event]  # else its rule may not hold any more
    if run.agenda is not None:
        return [event, *_cut_off_by(run, position, event)]
    plain = not run.compiled.ruled and not run.passed_over
    if isinstance(event, e.TaskSucceeded) and (plain or not success_rules_out(run, position)):
        return [event, _end(run, event, run.failed)] if run.open == 1 else [event]
    return _follow(run, event, {position: _after(run, position, event)}, [event])


def _branched(run: Run, position: int, event: e.TaskSucceeded, ways: Value | None) -> list[e.Event]:
    """A branch ended well: the dependents that it does not name are skipped."""
    try:
        others = not_chosen(run, position, ways)
    except WrongChoice as wrong:
        error = f"{type(wrong).__name__}: {wrong}"
        return _ended(run, position, e.TaskFailed(at=event.at, task=event.task, attempt=event.attempt, error=error))
    waiting = [i for i in others if run.tasks[i].state in STARTABLE]
    reason = f"branch {event.task} went another way"
    skips = [e.TaskSkipped(at=event.at, task=_spec(run, i).id, reason=reason, by="branch") for i in waiting]
    skipped = dict.fromkeys(waiting, Standing(TaskState.SKIPPED, "branch"))
    return _follow(run, event, {position: _after(run, position, event)} | skipped, [event, *skips])


def _after(run: Run, position: int, event: e.Event) -> Standing:
    """Where `event` brings a task."""
    return Standing(target(run.tasks[position].state, event), event.by if isinstance(event, e.TaskSkipped) else "")


def _follow(run: Run, last: e.Event, changes: dict[int, Standing], out: list[e.Event]) -> list[e.Event]:
    """`out`, which makes `changes`, with all that follows, to the end of the run if there it is."""
    prospect = Prospect(run, changes)
    out += prospect.events(last.at)
    if prospect.open == 0 and run.state is not RunState.QUEUED:
        out.append(_end(run, last, prospect.failed))
    return out


def _end(run: Run, last: e.Event, failed: int) -> e.Event:
    """The terminal event of a run whose last open task ends with `last`, so many having failed."""
    if run.state in (RunState.CANCELLING, RunState.CANCELLED):
        return e.RunCancelled(at=last.at)
    overdue = run.error if run.state is RunState.TIMED_OUT else run.overdue
    if overdue is not None:
        return e.RunTimedOut(at=last.at, error=compensation.told(run, overdue, last))
    if not failed:
        return e.RunSucceeded(at=last.at)
    error = f"{last.task}: {last.error}" if isinstance(last, e.TaskFailed) else "some task failed"
    return e.RunFailed(at=last.at, error=compensation.told(run, run.error or error, last))


def _mark(run: Run, note: Note, now: datetime) -> list[e.Event]:
    _fenced(run, note.task, note.attempt)
    if note.kind in ("tool_started", "tool_completed"):
        return [_called(note, now)]
    if note.kind == "publish":
        told = msgspec.json.decode(note.data, type=Published)
        return [e.ValuePublished(now, note.task, note.attempt, told.name, told.value)]
    event = e.TaskCheckpointed if note.kind == "checkpoint" else e.TaskProgressed
    return [event(at=now, task=note.task, attempt=note.attempt, data=note.data)]


def _called(note: Note, now: datetime) -> e.Event:
    if note.kind == "tool_started":
        call = msgspec.json.decode(note.data, type=ToolCall)
        return e.ToolStarted(now, note.task, note.attempt, call.call, call.name, call.input)
    answer = msgspec.json.decode(note.data, type=ToolAnswer)
    return e.ToolCompleted(now, note.task, note.attempt, answer.call, answer.name, answer.took_ms, answer.success)


def _cancel(run: Run, now: datetime) -> list[e.Event]:
    """The end of the run; compensations of what was done and teardowns of what was set up come first."""
    if run.agenda is not None or run.state is RunState.QUEUED:
        return [*cancel_open(run, now), e.RunCancelled(at=now)]
    if run.state is RunState.CANCELLING:
        return []
    if owed := _owed(run):
        return [e.RunCancelling(at=now), *_only(run, owed, now)]
    return [*cancel_open(run, now), e.RunCancelled(at=now)]


def _time_out(run: Run, now: datetime) -> list[e.Event]:
    """The same, of a run that takes too long."""
    _must_not_wind_up(run)
    error = f"RunTimedOut: longer than {run.compiled.definition.run_timeout_s} s"
    if compensation.under_way(run):
        raise Conflict(f"run {run.run_id} has failed and compensates; that has no limit")
    if owed := _owed(run):
        return [e.RunOverdue(at=now, error=error), *_only(run, owed, now)]
    return [*cancel_open(run, now), e.RunTimedOut(at=now, error=error)]


def _miss_sla(run: Run, command: MissSla, now: datetime) -> list[e.Event]:
    """It is told once, and cancels the run where the definition says so."""
    if run.state in ENDED or run.sla_missed:
        return []
    missed = e.SlaMissed(at=now, deadline=command.deadline)
    cancels = "cancel" in run.compiled.definition.on_sla_miss and not winds_up(run)
    return [missed, *_cancel(run, now)] if cancels else [missed]


def _check_deadlines(run: Run, now: datetime) -> list[e.Event]:
    """What is too late by now, and what follows from that."""
    if run.state in ENDED or winds_up(run):
        return []
    limit = deadlines.admit_by(run)
    if limit is not None and limit <= now:
        error = f"QueueTimeout: not admitted within {run.compiled.definition.queue_timeout_s:g} s"
        return [*cancel_open(run, now), e.RunTimedOut(at=now, error=error, reason="queued")]
    misses, ends = deadlines.verdicts(run, now)
    if not ends:
        return misses
    out = [*misses, *ends.values()]
    return _follow(run, out[-1], dict.fromkeys(ends, Standing(TaskState.TIMED_OUT)), out)


def _owed(run: Run) -> list[int]:
    """Compensations and teardowns that run although the rest of the run is ended."""
    compiled = run.compiled
    teardowns = [i for i in compiled.setups if compiled.runnable[i] and is_owed(run, i)]
    return [*compensation.owed(run), *teardowns] if compiled.undoes else teardowns


def _only(run: Run, owed: Iterable[int], now: datetime) -> list[e.Event]:
    """Of what is open, only those go on."""
    compiled = run.compiled
    cancelled = cancel_open(run, now, {compiled.graph.names[i] for i in owed})
    return [*cancelled, *compensation.announced(run, (i for i in owed if i in compiled.undoes), now)]


def cancel_open(run: Run, now: datetime, apart_from: Container[str] = ()) -> Iterator[e.Event]:
    settled: frozenset[str] = frozenset()
    if run.plan is not None and run.state is RunState.QUEUED:  # what was done before it began stays done
        settled = frozenset((*run.plan.done, *run.plan.skipped))
        yield from conduct.begins_with(run.plan, run.compiled.graph.names, now)
    for name, task in zip(run.compiled.graph.names, run.tasks, strict=True):
        if task.state not in TERMINAL and name not in settled and name not in apart_from:
            yield e.TaskCancelled(at=now, task=name)


def _retry(run: Run, name: str, now: datetime) -> list[e.Event]:
    position = run.position(name)
    task = run.tasks[position]
    _must_not_wind_up(run)
    if position in run.compiled.undoes:
        compensation.retried(run, position)
        again = [e.TaskReset(at=now, task=name), *compensation.announced(run, (position,), now)]
        return [*_revived_as_it_ended(run, now), *again]
    if run.state is RunState.QUEUED or task.state not in FAILURES | {TaskState.UPSTREAM_FAILED, TaskState.CANCELLED}:
        raise Conflict(
            f"task {name} of run {run.run_id} is {task.state}; only a failed or cancelled task can be retried"
        )
    cause = _failed_ancestor(run, expansion.host_of(run, position)) if task.state is TaskState.UPSTREAM_FAILED else None
    if cause is not None:
        raise Conflict(f"task {name} waits for task {cause}, which stays failed; retry that one")
    return _reset(run, {position}, now)


def _retry_failed(run: Run, now: datetime) -> list[e.Event]:
    _must_not_wind_up(run)
    positions = expansion.failed_in_run(run)
    if run.state is RunState.QUEUED or not positions:
        raise Conflict(f"run {run.run_id} has no failed task")
    return _reset(run, positions, now)


def _reset(run: Run, positions: set[int], now: datetime) -> list[e.Event]:
    """Those tasks and what failed because of them are pending again; a terminal run goes on."""
    positions |= _cut_off(run)
    positions = expansion.with_maps(run, positions)
    again = _set_up_again(run, positions)
    positions |= again | expansion.set_up_anew(run, again)
    return _again(run, dict.fromkeys(positions, PENDING), [], now)


def _set_up_again(run: Run, positions: Iterable[int]) -> set[int]:
    """Setups and teardowns around those tasks, where what was set up is gone. Raises Conflict while it is going."""
    out: set[int] = set()
    for teardown, setups in run.compiled.setups.items():
        state = run.tasks[teardown].state
        if run.compiled.scopes[teardown].isdisjoint(positions):
            continue
        if state is TaskState.RUNNING or state in PARKED:
            raise Conflict(f"task {run.compiled.graph.names[teardown]} of run {run.run_id} is under way; wait for it")
        if state is TaskState.SUCCEEDED or state in FAILURES:
            out |= {teardown, *(i for i in setups if run.tasks[i].state is TaskState.SUCCEEDED)}
    return out


def _skip(run: Run, name: str, now: datetime) -> list[e.Event]:
    position = run.position(name)
    state = run.tasks[position].state
    if state is TaskState.SKIPPED:
        return []
    if position in run.compiled.undoes and run.state in ENDED and state in FAILURES:
        skipped = e.TaskSkipped(at=now, task=name)
        return [*_revived_as_it_ended(run, now), skipped, _end(run, skipped, run.failed)]
    over = run.state is RunState.CANCELLED or (winds_up(run) and state in TERMINAL)
    if over or state in (TaskState.SUCCEEDED, TaskState.CANCELLED):
        raise Conflict(f"task {name} of run {run.run_id} is {state} and the run is {run.state}; it cannot be skipped")
    changes = dict.fromkeys(_cut_off(run), PENDING) | {position: Standing(TaskState.SKIPPED)}
    if (host := expansion.judged_again(run, position)) is not None:
        changes[host] = PENDING
    return _again(run, changes, [e.TaskSkipped(at=now, task=name)], now)


def _again(run: Run, changes: dict[int, Standing], by_hand: list[e.Event], now: datetime) -> list[e.Event]:
    """A terminal run goes on; `by_hand`, and the rest of `changes`, which are resets, with all that follows."""
    names = run.compiled.graph.names
    prospect = Prospect(run, changes)
    if run.compiled.undoes and (undone := compensation.needed_again(run, prospect.changes, prospect.at)):
        changes = changes | dict.fromkeys(undone | _set_up_again(run, undone), PENDING)
        prospect = Prospect(run, changes)
    resets: list[e.Event] = [
        e.TaskReset(at=now, task=names[i]) for i in sorted(i for i, after in changes.items() if after == PENDING)
    ]
    out = [*_revived(run, now), *by_hand, *resets, *prospect.events(now)]
    if prospect.open == 0 and run.state is not RunState.QUEUED:
        out.append(_end(run, by_hand[-1] if by_hand else out[-1], prospect.failed))
    return out


def _cut_off(run: Run) -> set[int]:
    """What the end of the run cut off: when the run goes on, it goes on with all of that."""
    if run.state not in (RunState.CANCELLED, RunState.TIMED_OUT):
        return set()
    return {i for i, task in enumerate(run.tasks) if task.state is TaskState.CANCELLED and expansion.cut_off(run, i)}


def _revived_as_it_ended(run: Run, now: datetime) -> list[e.Event]:
    """A terminal run goes on with a compensation alone, and ends as it had ended."""
    if run.state is RunState.CANCELLED:
        return [*_revived(run, now), e.RunCancelling(at=now)]
    if run.state is RunState.TIMED_OUT:
        return [*_revived(run, now), e.RunOverdue(at=now, error=run.error or "")]
    return _revived(run, now)


def _revived(run: Run, now: datetime) -> list[e.Event]:
    return [e.RunRevived(at=now, attempt=run.attempts + 1)] if run.state in ENDED else []


def freed(run: Run, healed: set[int]) -> set[int]:
    """Of a plan: upstream-failed tasks that can run once those in `healed` do: no other ancestor of theirs failed."""
    graph = run.compiled.graph
    broken = FAILURES | {TaskState.UPSTREAM_FAILED, TaskState.CANCELLED}
    mended = set(healed)
    stack = [child for i in healed for child in graph.children[i]]
    while stack:
        i = stack.pop()
        if i in mended or run.tasks[i].state is not TaskState.UPSTREAM_FAILED:
            continue
        if all(p in mended or run.tasks[p].state not in broken or conduct.lenient(run, i, p) for p in graph.parents[i]):
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


def _cut_off_by(run: Run, position: int, event: e.Event) -> list[e.Event]:
    """Of a plan: what cannot run because a task failed."""
    if not isinstance(event, e.TaskFailed):
        return []
    names = run.compiled.graph.names
    return [e.TaskUpstreamFailed(event.at, names[i]) for i in _descendants(run, position, TaskState.PENDING)]


def _descendants(run: Run, position: int, state: TaskState) -> set[int]:
    """Tasks in `state` that `position` cuts off, directly or through tasks in `state`."""
    children = run.compiled.graph.children
    found: set[int] = set()
    stack = [(position, child) for child in children[position]]
    while stack:
        parent, i = stack.pop()
        if i not in found and run.tasks[i].state is state and not conduct.lenient(run, i, parent):
            found.add(i)
            stack.extend((i, child) for child in children[i])
    return found


def _must_be(run: Run, verb: str, before: RunState, after: RunState) -> bool:
    """True when the step is to be taken, False when it was taken already. Raises Conflict."""
    if run.state is after:
        return False
    if run.state is not before:
        raise Conflict(f"run {run.run_id} is {run.state}; cannot {verb} it")
    return True


def must_not_have_ended(run: Run) -> None:
    if run.state in ENDED:
        raise Conflict(f"run {run.run_id} is already {run.state}")


def _must_not_wind_up(run: Run) -> None:
    if winds_up(run):
        raise Conflict(f"run {run.run_id} was cancelled or took too long; it only cleans up")


def _spec(run: Run, position: int) -> TaskSpec:
    return run.compiled.specs[position]
