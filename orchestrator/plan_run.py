"""The run of a plan: what is decided otherwise for it than for the run of a DAG.

    decide     a person skips, retries or marks a task in the words of plans, also after the end; a shutdown ends the
               run after its present batch; everything else is `run_decisions.decide`
    proceed    what follows by itself: the next batch, or the end

A shell asks `proceed` after each command, in the same commit. Source: contracts/instances.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from orchestrator import conduct, run_commands, run_decisions
from orchestrator import events as e
from orchestrator.conduct import WORDS
from orchestrator.errors import Conflict
from orchestrator.run_decisions import cancel_open, freed, must_not_have_ended
from orchestrator.run_state import ENDED, Run, RunState
from orchestrator.task import TaskState


@dataclass(frozen=True, slots=True)
class ShutDown:
    """End the run of a plan after its present batch."""


@dataclass(frozen=True, slots=True)
class MarkTask:
    """A task of a plan is `completed`, `skipped` or `pending` as somebody else says."""

    task: str
    word: str
    reason: str | None = None


Command = run_commands.Command | ShutDown | MarkTask


def decide(run: Run, command: Command, now: datetime) -> list[e.Event]:
    """What `command` does to the run of a plan at `now`. Raises Conflict, NotFound, StaleAttempt."""
    match command:
        case ShutDown():
            return _shut_down(run, now)
        case MarkTask():
            return _mark(run, command, now)
        case run_commands.SkipTask():
            return _skip(run, command.task, command.reason, now)
        case run_commands.RetryTask():
            return _retry(run, command.task, now)
    return run_decisions.decide(run, command, now)


def _shut_down(run: Run, now: datetime) -> list[e.Event]:
    if run.state in (RunState.CANCELLING, RunState.CANCELLED):
        return []
    must_not_have_ended(run)
    if run.state is RunState.QUEUED:
        return [*cancel_open(run, now), e.RunCancelled(at=now)]
    return [e.RunCancelling(at=now)]


def _skip(run: Run, name: str, reason: str | None, now: datetime) -> list[e.Event]:
    position = run.position(name)
    state = run.tasks[position].state
    _must_have_begun(run)
    if state is TaskState.SKIPPED:
        return []
    if state is TaskState.SUCCEEDED:
        raise Conflict(f"Task status is '{WORDS[state]}'")
    return [e.TaskSkipped(at=now, task=name, reason=reason), *_resets(run, _freed_live(run, position), now)]


def _retry(run: Run, name: str, now: datetime) -> list[e.Event]:
    position = run.position(name)
    _must_have_begun(run)
    word = _word(run, position)
    if word not in conduct.RETRIABLE:
        raise Conflict(f"Task status is '{word}', must be 'failed' or 'skipped'")
    return _resets(run, {position} | _freed_live(run, position), now)


def _mark(run: Run, command: MarkTask, now: datetime) -> list[e.Event]:
    position = run.position(command.task)
    _must_have_begun(run)
    word = _word(run, position)
    if word == command.word:
        return []
    match command.word:
        case "completed":
            freed = _freed_live(run, position)
            return [e.TaskMarked(at=now, task=command.task), *_resets(run, freed, now)]
        case "skipped" if word != "completed":
            return _skip(run, command.task, command.reason, now)
        case "pending" if word in conduct.RETRIABLE:
            return _resets(run, {position} | _freed_live(run, position), now)
    raise Conflict(f"task {command.task} is {word} and cannot be made {command.word}")


def _must_have_begun(run: Run) -> None:
    """What is done already is noted at the start, and nothing is changed before."""
    if run.state is RunState.QUEUED:
        raise Conflict(f"instance {run.run_id} has not begun")


def _word(run: Run, position: int) -> str:
    """The state of a plan's task as people know it; one that lost its worker did not fail."""
    state = run.tasks[position].state
    lost = state is TaskState.RETRYING and run.agenda is not None and position not in run.agenda.failed
    return "pending" if lost else WORDS[state]


def _freed_live(run: Run, position: int) -> set[int]:
    """What can be done again once the task at `position` can; of an instance that has ended, nothing."""
    return set() if run.state in ENDED else freed(run, {position})


def _resets(run: Run, positions: Iterable[int], now: datetime) -> list[e.Event]:
    return [e.TaskReset(at=now, task=run.compiled.graph.names[i]) for i in sorted(positions)]


def proceed(run: Run, now: datetime) -> list[e.Event]:
    """What follows by itself from where the run of a plan stands: its next batch, or its end; ask after commands."""
    agenda, rules = run.agenda, run.compiled.rules
    if agenda is None or rules is None or run.state in ENDED or run.state is RunState.QUEUED:
        return []
    if run.open == 0 and run.state is not RunState.CANCELLING:
        if run.failed:
            return [e.RunFailed(at=now, error=run.error or "some task failed", reason="blocked")]
        return [e.RunSucceeded(at=now)]
    if agenda.batch or run.state is RunState.PAUSED:
        return []
    if run.state is RunState.CANCELLING:
        return [*cancel_open(run, now), e.RunCancelled(at=now)]
    if rules.max_iterations and agenda.iteration >= rules.max_iterations:
        error = f"not done after {agenda.iteration} batches"
        return [*cancel_open(run, now), e.RunFailed(at=now, error=error, reason="max_iterations")]
    chosen = conduct.pick(agenda, rules, run.tasks, run.compiled.specs)
    if not chosen:  # tasks that wait for one another, or of a type that nobody runs
        return [*cancel_open(run, now), e.RunFailed(at=now, error="no task can start", reason="blocked")]
    names = run.compiled.graph.names
    return [e.BatchFormed(at=now, tasks=tuple(names[i] for i in chosen), iteration=agenda.iteration + 1)]
