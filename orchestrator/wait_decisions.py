"""What signals, votes and time do to a run: events that follow, or a refusal. Nothing here changes the run.

    decide     a signal is kept; a vote counts, or came too late
    proceed    what follows by itself from where the run stands: time that is up, a signal that somebody waits for, a
               task whose turn it is to wait; one of them at a time, until nothing follows

A shell asks `proceed` after every step of a run with a `Standby`, and when a timer is due, in the same commit. So a
signal is consumed in the very commit that brings signal and wait together, and no instant acts before it has come.

- While the run is paused neither time nor signals act, and nothing begins to wait. Votes count: a decision that is
  made ends its task, as a worker's result does.
- A voter has one vote, and may change it until the approval is decided. A vote at or after the expiry is late,
  whether or not the timer was faster.
- A late vote is refused and told once (`VoteRefused`); of a run that has ended nothing can be told any more.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from orchestrator import binding, calls
from orchestrator import events as e
from orchestrator.command import Ballot
from orchestrator.dates import instant_text
from orchestrator.errors import Conflict, Invalid, NotAllowed, PermanentFailure
from orchestrator.messages import Value
from orchestrator.run_decisions import finish
from orchestrator.run_state import ENDED, Run, RunState, startable, winds_up
from orchestrator.task import TaskState
from orchestrator.wait_params import wait_of
from orchestrator.waits import SIGNALS_MAX, Open, Standby

#: people who vote on one approval
VOTERS_MAX = 100

_JSON = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Signal:
    """Somebody signals the run."""

    name: str
    data: msgspec.Raw
    signal_id: str


@dataclass(frozen=True, slots=True)
class Vote:
    """Somebody votes on an approval."""

    task: str
    ballot: Ballot


Command = Signal | Vote | calls.Return


class LateVote(Conflict):
    """The approval was decided, or is over, when the vote came."""

    def __init__(self, message: str, told: e.VoteRefused | None = None) -> None:
        super().__init__(message)
        #: to be recorded; None = it is already, or cannot be
        self.told = told


def decide(run: Run, command: Command, now: datetime) -> list[e.Event]:
    """What `command` does at `now`. Raises Conflict (LateVote), Invalid, NotAllowed, NotFound."""
    if run.agenda is not None or run.driven:
        raise Conflict(f"run {run.run_id} takes neither signals nor votes")
    match command:
        case Signal():
            return _signal(run, command, now)
        case Vote():
            return _vote(run, command.task, command.ballot, now)
        case calls.Return():
            return _return(run, command, now)


# ── signals ───────────────────────────────────────────────────────────────────────────────────────


def _signal(run: Run, command: Signal, now: datetime) -> list[e.Event]:
    standby = run.standby or Standby()
    if command.signal_id in standby.ids:
        return []
    if run.state in ENDED or winds_up(run):
        raise Conflict(f"run {run.run_id} is already {run.state}")
    if standby.kept >= SIGNALS_MAX:
        raise Conflict(f"run {run.run_id} keeps {SIGNALS_MAX} signals that no task has taken")
    return [e.SignalReceived(now, command.name, standby.received + 1, command.data, command.signal_id)]


def _consume(run: Run, standby: Standby, name: str, now: datetime) -> list[e.Event]:
    position, kept = next(iter(standby.awaiting[name])), standby.signals[name][0]
    task, attempt = run.compiled.specs[position].id, standby.open[position].attempt
    consumed = e.SignalConsumed(now, name, kept.number, task, attempt)
    return [consumed, *_succeed(run, position, Value(kept.data, None, len(bytes(kept.data))), now)]


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────


def _return(run: Run, command: calls.Return, now: datetime) -> list[e.Event]:
    """Nothing when the task waits no longer: it was told so before, or cancelled."""
    position = run.compiled.graph.index.get(command.task, -1)
    open_ = run.standby.open.get(position) if run.standby is not None else None
    if open_ is None or open_.attempt != command.attempt or open_.wait.call is None:
        return []
    if command.value is None:
        return finish(run, position, e.TaskFailed(now, command.task, command.attempt, command.error))
    return _succeed(run, position, command.value, now)


# ── approvals ─────────────────────────────────────────────────────────────────────────────────────


def _vote(run: Run, task: str, ballot: Ballot, now: datetime) -> list[e.Event]:
    position = run.position(task)
    if run.compiled.specs[position].type != "core.approval":
        raise Conflict(f"task {task} of run {run.run_id} is no approval")
    open_ = run.standby.open.get(position) if run.standby is not None else None
    if open_ is None and _counted(run, position, ballot):
        return []
    if open_ is None or ballot.attempt not in (None, open_.attempt) or now >= open_.wait.until:
        raise _late(run, position, ballot, now)
    wait = open_.wait
    if wait.roles and not set(wait.roles).intersection(ballot.roles):
        raise NotAllowed(f"only {', '.join(wait.roles)} may decide on task {task} of run {run.run_id}")
    if ballot.choice not in wait.choices:
        told = f"one of {', '.join(wait.choices)} expected"
        raise Invalid(f"{ballot.choice!r} is no choice of task {task}: {told}", (("choice", told),))
    before = open_.votes.get(ballot.by)
    if before is not None and (before.choice, before.comment) == (ballot.choice, ballot.comment):
        return []
    if before is None and len(open_.votes) >= VOTERS_MAX:
        raise Conflict(f"{VOTERS_MAX} others have voted on task {task} of run {run.run_id}")
    cast = e.VoteCast(now, task, open_.attempt, ballot.choice, ballot.by, ballot.comment)
    votes = [vote for vote in open_.votes.values() if vote.by != ballot.by and vote.choice == ballot.choice]
    if len(votes) + 1 < wait.quorum:
        return [cast]
    return [cast, *_decided(run, position, ballot.choice, [*votes, cast], now)]


def _counted(run: Run, position: int, ballot: Ballot) -> bool:
    """Is it the very vote that counted before its approval was over? Its answer may have got lost."""
    closed = run.standby.closed.get(position) if run.standby is not None else None
    if closed is None or ballot.attempt not in (None, closed.attempt):
        return False
    vote = closed.votes.get(ballot.by)
    return vote is not None and (vote.choice, vote.comment) == (ballot.choice, ballot.comment)


def _late(run: Run, position: int, ballot: Ballot, now: datetime) -> Conflict:
    task, state = run.compiled.specs[position].id, run.tasks[position]
    if state.state is TaskState.PENDING and ballot.attempt is None:
        return Conflict(f"task {task} of run {run.run_id} does not ask yet")
    message = f"task {task} of run {run.run_id} is not open to this vote any more: it is {state.state}"
    attempt = state.attempt if ballot.attempt is None else ballot.attempt
    known = run.standby is not None and (task, attempt, ballot.by) in run.standby.late
    if run.state in ENDED or known or not 0 < attempt <= state.attempt:
        return LateVote(message)
    return LateVote(message, e.VoteRefused(now, task, attempt, ballot.choice, ballot.by))


def _decided(run: Run, position: int, choice: str, votes: list[e.VoteCast], now: datetime) -> list[e.Event]:
    """The value tells who decided; a branch goes where its choice leads."""
    told = [{"by": v.by, "choice": v.choice, "comment": v.comment, "at": instant_text(v.at)} for v in votes]
    branches: Mapping[str, Any] = binding.own(run.compiled.specs[position].params.get("branches", {}))
    ways = _value(branches.get(choice, choice if not branches else []))
    return _succeed(run, position, _value({"choice": choice, "votes": told}), now, ways)


# ── what follows by itself ────────────────────────────────────────────────────────────────────────


def proceed(run: Run, now: datetime) -> list[e.Event]:
    """The next thing that follows at `now`; [] = nothing. Takes who enters off its queue, else changes nothing."""
    standby = run.standby
    if standby is None or run.state is not RunState.RUNNING:
        return []
    if standby.timers and standby.timers[0][0] <= now:
        position = standby.timers[0][1]
        return _elapse(run, position, standby.open[position], now)
    if (name := _wanted(standby)) is not None:
        return _consume(run, standby, name, now)
    while standby.entering:
        _, position = heapq.heappop(standby.entering)
        if startable(run, position):
            return [_enter(run, position, now)]
    return []


def _wanted(standby: Standby) -> str | None:
    """The first name of which a signal is kept and a task waits; costs the smaller number of names."""
    awaiting, signals = standby.awaiting, standby.signals
    if len(awaiting) <= len(signals):
        return next((name for name in awaiting if name in signals), None)
    return next((name for name in signals if name in awaiting), None)


def _enter(run: Run, position: int, now: datetime) -> e.Event:
    spec = run.compiled.specs[position]
    try:
        params = _params(run, position)
        wait = calls.wait_of(run, position, params, now) if spec.type == calls.CALL else wait_of(spec.type, params, now)
    except PermanentFailure as error:
        wait = e.Wait("", now, error=f"{type(error).__name__}: {error}")
    return e.TaskWaiting(at=now, task=spec.id, attempt=run.tasks[position].attempt + 1, wait=wait)


def _params(run: Run, position: int) -> dict[str, Any]:
    """As a worker would bind them. Raises PermanentFailure."""
    spec = run.compiled.specs[position]
    inputs = {}
    for path, producer in spec.inputs.items():
        value = run.values.get(run.compiled.graph.index[producer], Value())
        if value.artifact is not None:
            raise PermanentFailure(f"the value of task {producer} is too large for the params of a task that waits")
        inputs[path] = msgspec.json.decode(value.inline)
    window = (run.window.start, run.window.end) if run.window else None
    params = {name: value for name, value in spec.params.items() if name != "branches"}
    return binding.bind(spec.type, params, inputs, run.params, binding.facts(run.run_id, run.dag_id, window))


def _elapse(run: Run, position: int, open_: Open, now: datetime) -> list[e.Event]:
    """The wait ends by itself."""
    task, wait = run.compiled.specs[position].id, open_.wait
    match wait.at_end:
        case "done":
            return _succeed(run, position, _value({"until": instant_text(wait.until)}), now)
        case "value":
            return _succeed(run, position, Value(wait.default, None, len(bytes(wait.default))), now)
        case "skip":
            return finish(run, position, e.TaskSkipped(at=now, task=task, reason=_missed(wait), by="task"))
        case "fail":
            error = wait.error or f"WaitTimedOut: {_missed(wait)}"
            failed = e.TaskFailed(now, task, open_.attempt, error, timed_out=not wait.error)
            return finish(run, position, failed)
    return _decided(run, position, wait.at_end, [], now)


def _missed(wait: e.Wait) -> str:
    what = f"no signal {wait.name!r}" if wait.kind == "signal" else "no decision"
    if wait.call is not None:
        what = f"run {wait.call.run_id} did not end"
    return f"{what} until {instant_text(wait.until)}"


def _succeed(run: Run, position: int, value: Value, now: datetime, ways: Value | None = None) -> list[e.Event]:
    attempt = run.tasks[position].attempt
    return finish(run, position, e.TaskSucceeded(now, run.compiled.specs[position].id, attempt, value), ways)


def _value(content: object) -> Value:
    text = _JSON.encode(content)
    return Value(msgspec.Raw(text), None, len(text))
