"""Compensation: when a run does not succeed, what its tasks did is undone, the last first (a saga).

    every task that advances the run has ended ──none failed──▶ compensations are skipped, by rule
                                               ──some failed──▶ RunCompensating(refund, unbook): one after the other
    cancelled | took too long ─────────────────────────────────▶ the same, of what had succeeded by then

A task *advances* the run when it is neither a compensation nor a teardown, nor an instance of a mapped task. A
compensation whose task has succeeded is owed; the others are skipped. The order is the reverse of that in which what
they undo succeeded in the run's own stream, and it is written into the event, so that a replay decides alike.
`Run.undoing` holds those that have not ended, the next one last: only that may start, and only while nothing advances
the run. A compensation that fails lets
the next one go on, and is named in the error of the run. Teardowns wait for the compensations of what they enclose
(`graph.compile_graph`).

Two designs were open. Edges of the graph (compensations wait for all tasks, and for each other) need a fan-in of the
size of the DAG per compensation, and their order is known only when they start. So they have one edge, from what
they undo, and the run decides once, when the count of tasks that advance it reaches zero: that costs a DAG without
compensations nothing, and one with them an addition per step and a look at each of them at the end.

A task that is retried or skipped by hand so that the run advances again takes what was undone with it: that runs
again, and is undone again if need be. While a compensation is under way, or stays failed, nothing can: a person
retries it or skips it, which counts as done. Changes nothing but `Run.advancing`, `.undoing` and `.completed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator import conduct
from orchestrator import events as e
from orchestrator.errors import Conflict
from orchestrator.task import FAILURES, PARKED, TERMINAL, TaskState

if TYPE_CHECKING:
    from orchestrator.consequences import Standing
    from orchestrator.run_state import Run

#: what comes before the names of failed compensations in the error of a run
_NOT_UNDONE = "; compensation failed: "
#: names that it lists
_NAMES_MAX = 20


# ── what a run keeps of it ──


def under_way(run: Run) -> bool:
    """Does it compensate? Not while it goes on because of a person; then it is decided anew."""
    return bool(run.undoing) and not run.advancing


def its_turn(run: Run, position: int) -> bool:
    """Is this the compensation that may start now?"""
    return under_way(run) and run.undoing[-1] == position


def begin(run: Run, event: e.RunCompensating) -> None:
    """It compensates: the first one is offered."""
    run.undoing = [run.compiled.graph.index[name] for name in reversed(event.tasks)]
    conduct.offer(run, run.undoing[-1])


def keep(run: Run, position: int, before: TaskState, event: e.Event) -> None:
    """After a change of a task that was in `before`: what is open, what can be undone, and whose turn it is."""
    after = run.tasks[position].state
    ended = (after in TERMINAL) - (before in TERMINAL)
    if run.compiled.advances(position):
        run.advancing -= ended
        if position not in run.compiled.undone_by:
            return
        if isinstance(event, e.TaskSucceeded):
            run.completed[position] = run.version
        elif after is not TaskState.SUCCEEDED:
            run.completed.pop(position, None)
    elif ended > 0 and position in run.undoing:
        run.undoing.remove(position)
        if under_way(run) and run.tasks[run.undoing[-1]].state is TaskState.PENDING:
            conduct.offer(run, run.undoing[-1])


# ── what is decided ──


def ruled(
    run: Run, changes: Mapping[int, Standing], at: Callable[[int], Standing]
) -> tuple[dict[int, bool], tuple[int, ...]]:
    """What `changes` mean: compensation -> is it ruled out (else it is pending again), and those that now run.

    `at` tells where a task will be.
    """
    undoes = run.compiled.undoes
    touched = [i for i in changes if run.compiled.advances(i)]
    if not touched or run.overdue is not None or run.state == "cancelling":
        return {}, ()
    if _advancing(run, changes, touched):
        if run.advancing:
            return {}, ()
        return {i: False for i in undoes if at(i) == (TaskState.SKIPPED, "rule")}, ()
    waiting = [i for i in undoes if at(i).state is TaskState.PENDING]
    if not _fails(run, at):
        return dict.fromkeys(waiting, True), ()
    if not run.advancing:
        return {}, ()  # they are decided
    owed = {i for i in waiting if at(undoes[i]).state is TaskState.SUCCEEDED}
    return dict.fromkeys((i for i in waiting if i not in owed), True), tuple(_in_order(run, owed))


def needed_again(run: Run, changes: Mapping[int, Standing], at: Callable[[int], Standing]) -> set[int]:
    """What was undone, and what undid it, when the run goes on. Raises Conflict while that cannot be told."""
    touched = [i for i in changes if run.compiled.advances(i)]
    if run.advancing or not touched or (not _advancing(run, changes, touched) and _fails(run, at)):
        return set()
    out: set[int] = set()
    for position, undone in run.compiled.undoes.items():
        task, name = run.tasks[position], run.compiled.graph.names[position]
        if task.state is TaskState.RUNNING or task.state in PARKED:
            raise Conflict(f"task {name} of run {run.run_id} is under way; wait for it")
        if task.state in FAILURES:
            raise Conflict(f"compensation {name} of run {run.run_id} is {task.state}; retry or skip that first")
        done = task.state is TaskState.SUCCEEDED or (task.state is TaskState.SKIPPED and task.skipped_by != "rule")
        if done and run.tasks[undone].state is TaskState.SUCCEEDED:
            out |= {position, undone}
    return out


def owed(run: Run) -> list[int]:
    """Compensations that run although the rest of the run is ended, in their order."""
    if under_way(run):
        return [i for i in reversed(run.undoing) if run.compiled.runnable[i]]
    open_ = [i for i in run.compiled.undoes if run.tasks[i].state not in TERMINAL and run.compiled.runnable[i]]
    return _in_order(run, (i for i in open_ if run.tasks[run.compiled.undoes[i]].state is TaskState.SUCCEEDED))


def announced(run: Run, positions: Iterable[int], now: datetime) -> list[e.Event]:
    """They run now, unless that is known already."""
    names = tuple(run.compiled.graph.names[i] for i in positions)
    return [e.RunCompensating(at=now, tasks=names)] if names and not under_way(run) else []


def retried(run: Run, position: int) -> None:
    """A person wants this compensation again, and nothing else. Raises Conflict when it cannot be."""
    task, name = run.tasks[position], run.compiled.graph.names[position]
    if task.state not in FAILURES | {TaskState.CANCELLED}:
        raise Conflict(f"compensation {name} of run {run.run_id} is {task.state}; only a failed one can be retried")
    undone = run.compiled.undoes[position]
    if run.tasks[undone].state is not TaskState.SUCCEEDED:
        raise Conflict(f"task {run.compiled.graph.names[undone]} of run {run.run_id} is not done; nothing to undo")
    if run.finished_at is None:
        raise Conflict(f"run {run.run_id} is under way; wait for the other tasks")


def told(run: Run, cause: str, last: e.Event) -> str:
    """Why the run has ended with `last`: `cause`, and what could not be undone."""
    about = getattr(last, "task", None)
    failed = []
    for position in run.compiled.undoes:
        name = run.compiled.graph.names[position]
        if isinstance(last, e.TaskFailed) if name == about else run.tasks[position].state in FAILURES:
            failed.append(name)
    listed = ", ".join(failed[:_NAMES_MAX]) + (f" and {len(failed) - _NAMES_MAX} more" if failed[_NAMES_MAX:] else "")
    return cause.partition(_NOT_UNDONE)[0] + (_NOT_UNDONE + listed if failed else "")


def _advancing(run: Run, changes: Mapping[int, Standing], touched: Iterable[int]) -> int:
    """Tasks that advance the run and will not be terminal."""
    before_after = [(run.tasks[i].state in TERMINAL, changes[i].state in TERMINAL) for i in touched]
    return run.advancing + sum(before - after for before, after in before_after)


def _fails(run: Run, at: Callable[[int], Standing]) -> bool:
    """Will some task that advances the run have failed?"""
    return any(run.compiled.advances(i) and at(i).state in FAILURES for i in range(len(run.tasks)))


def _in_order(run: Run, positions: Iterable[int]) -> list[int]:
    """Whose task succeeded last comes first; the success that is being decided is the last."""
    undoes = run.compiled.undoes
    return sorted(positions, key=lambda i: run.completed.get(undoes[i], math.inf), reverse=True)
