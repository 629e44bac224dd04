"""One backfill: the runs of many windows, watched as one.

    queued ──a window starts──▶ running ──all windows ended──▶ succeeded | failed
       │                        │  ▲ │
       │                   pause│  │resume
       │                        ▼  │ │
       ├──pause──────────────▶ paused──all windows ended──▶ succeeded | failed
       │                           │ │
       └────────cancelling─────────┴─┴──all windows ended──▶ cancelled
    ended ──a window's run goes on again──▶ running   (`attempts` + 1)

Its windows are ordinary runs with lives of their own; this machine only counts them. While it is paused the scheduler
admits none of its windows; a pause of one that is queued counts as its start, so that there is one way out. How many
windows run at a time is the scheduler's to keep, too (`max_active_runs`). More windows may come while it goes on
(`BackfillWidened`); they are not in the events but in the journal's list, written in the same step. `Observe` may tell
the same thing twice, late, or skip states in between: what counts is the difference to what is
known. Windows that were kept as they were count as `skipped` and do not influence the outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator import events as e
from orchestrator.definition import Window
from orchestrator.errors import Conflict
from orchestrator.run_state import ENDED, RunState

_S = RunState
_ENDS: dict[type[e.Event], RunState] = {
    e.RunSucceeded: _S.SUCCEEDED,
    e.RunFailed: _S.FAILED,
    e.RunCancelled: _S.CANCELLED,
}
_AGAIN: dict[type[e.Event], RunState] = {e.RunRevived: _S.RUNNING, e.RunRestarted: _S.QUEUED}
TRANSITIONS: Mapping[RunState, Mapping[type[e.Event], RunState]] = {
    _S.QUEUED: _ENDS | {e.RunStarted: _S.RUNNING, e.RunCancelling: _S.CANCELLING},
    _S.RUNNING: _ENDS | {e.RunCancelling: _S.CANCELLING, e.RunPaused: _S.PAUSED},
    _S.PAUSED: _ENDS | {e.RunCancelling: _S.CANCELLING, e.RunResumed: _S.RUNNING},
    _S.CANCELLING: {e.RunCancelled: _S.CANCELLED},
    _S.SUCCEEDED: _AGAIN,
    _S.FAILED: _AGAIN,
    _S.CANCELLED: _AGAIN,
}


@dataclass(frozen=True, slots=True)
class Observe:
    """Child run id -> the core run state it is in."""

    states: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CancelAll:
    """Cancel every window that has not ended."""


@dataclass(frozen=True, slots=True)
class PauseAll:
    """No window that waits starts; those that run go on."""


@dataclass(frozen=True, slots=True)
class ResumeAll:
    """Windows that wait start again."""


@dataclass(frozen=True, slots=True)
class Recap:
    """At most so many windows run at a time; None = as many as the DAG allows. Those that run already go on."""

    max_active_runs: int | None


@dataclass(frozen=True, slots=True)
class CancelWindow:
    """Effect: this child must be cancelled."""

    child: str


Command = Observe | CancelAll | PauseAll | ResumeAll | Recap


class Backfill:
    """A backfill in memory: a fold of its events over the list of its children."""

    __slots__ = (
        "attempts",
        "children",
        "dag_id",
        "max_active_runs",
        "run_id",
        "skipped",
        "state",
        "states",
        "tallies",
        "tenant",
        "version",
        "window",
    )

    def __init__(
        self, created: e.BackfillCreated, children: Iterable[tuple[str, Window]], kept: frozenset[str]
    ) -> None:
        self.run_id = created.run_id
        self.tenant = created.tenant
        self.dag_id = created.dag_id
        #: from the first to the last of its windows; None = they are partitions
        self.window = created.window
        self.version = 1
        self.state = RunState.QUEUED
        self.attempts = 0
        #: windows at a time; None = as many as the DAG allows
        self.max_active_runs = created.max_active_runs
        self.children = dict(children)
        self.skipped = len(kept)
        #: child -> core run state last seen; kept windows are not in here
        self.states = {child: str(RunState.QUEUED) for child in self.children if child not in kept}
        self.tallies = {str(RunState.QUEUED): len(self.states)}

    @property
    def open(self) -> int:
        """Windows that have not ended."""
        return sum(n for state, n in self.tallies.items() if state not in ENDED)


def decide(backfill: Backfill, command: Command, now: datetime) -> list[e.Event]:
    """What `command` does at `now`; nothing is changed. Raises Conflict."""
    match command:
        case Observe():
            return _observe(backfill, command, now)
        case CancelAll():
            if backfill.state in (RunState.CANCELLING, RunState.CANCELLED):
                return []
            if backfill.state in ENDED:
                raise Conflict(f"run {backfill.run_id} is already {backfill.state}")
            # one that is queued may be restarted: what its windows do now is not known before they are looked at
            over = backfill.open == 0 and (backfill.state is not RunState.QUEUED or not any(backfill.tallies.values()))
            done = [e.RunCancelled(at=now)] if over else []
            return [e.RunCancelling(at=now), *done]
        case PauseAll():
            if _goes_on(backfill) is RunState.PAUSED:
                return []
            begun = [] if backfill.state is RunState.RUNNING else [e.RunStarted(at=now, attempt=backfill.attempts + 1)]
            return [*begun, e.RunPaused(at=now)]
        case ResumeAll():
            return [e.RunResumed(at=now)] if _goes_on(backfill) is RunState.PAUSED else []
        case Recap(limit):
            _goes_on(backfill)
            return [] if limit == backfill.max_active_runs else [e.BackfillCapped(at=now, max_active_runs=limit)]


def _goes_on(backfill: Backfill) -> RunState:
    """Its state, when windows of it may still start. Raises Conflict."""
    if backfill.state in ENDED or backfill.state is RunState.CANCELLING:
        raise Conflict(f"run {backfill.run_id} is already {backfill.state}")
    return backfill.state


def _observe(backfill: Backfill, command: Observe, now: datetime) -> list[e.Event]:
    out: list[e.Event] = []
    tallies = dict(backfill.tallies)
    state, last = backfill.state, dict[str, str]()
    for child, after in command.states:
        before = last.get(child) or backfill.states.get(child)
        if before is None or before == after:
            continue
        last[child] = after
        if state in ENDED:
            state = RunState.RUNNING
            out.append(e.RunRevived(at=now, attempt=backfill.attempts + 1))
        elif state is RunState.QUEUED and after != RunState.QUEUED:
            state = RunState.RUNNING
            out.append(e.RunStarted(at=now, attempt=backfill.attempts + 1))
        tallies[before] -= 1
        tallies[after] = tallies.get(after, 0) + 1
        counts = count(tallies, backfill.skipped)
        window = backfill.children[child]
        out.append(e.WindowChanged(at=now, window=window, child=child, before=before, after=after, counts=counts))
    end = _verdict(state, tallies, now) if state not in ENDED else []
    if end and state is RunState.QUEUED and any(tallies.values()):  # its windows ran before it was looked at
        out.append(e.RunStarted(at=now, attempt=backfill.attempts + 1))
    return [*out, *end]


def _verdict(state: RunState, tallies: Mapping[str, int], now: datetime) -> list[e.Event]:
    if any(n for word, n in tallies.items() if word not in ENDED):
        return []
    if state is RunState.CANCELLING:
        return [e.RunCancelled(at=now)]
    bad = sum(n for word, n in tallies.items() if word in ENDED and word != RunState.SUCCEEDED)
    return [e.RunFailed(at=now, error=f"{bad} windows did not succeed")] if bad else [e.RunSucceeded(at=now)]


def count(tallies: Mapping[str, int], skipped: int) -> e.Counts:
    """The tallies in the words of a backfill's `counts`; paused windows are running ones."""
    get = tallies.get
    return e.Counts(
        total=sum(tallies.values()) + skipped,
        queued=get("queued", 0),
        running=get("running", 0) + get("paused", 0) + get("cancelling", 0),
        succeeded=get("succeeded", 0),
        failed=get("failed", 0) + get("timed_out", 0),
        cancelled=get("cancelled", 0),
        skipped=skipped,
    )


def apply(backfill: Backfill, event: e.Event) -> None:
    """Bring `backfill` to what it is after `event`. Never refuses."""
    backfill.version += 1
    match event:
        case e.WindowChanged():
            before = backfill.states.get(event.child, event.before)
            backfill.states[event.child] = event.after
            backfill.tallies[before] = backfill.tallies.get(before, 0) - 1
            backfill.tallies[event.after] = backfill.tallies.get(event.after, 0) + 1
        case e.RunStarted() | e.RunRevived():
            backfill.state = TRANSITIONS[backfill.state][type(event)]
            backfill.attempts = event.attempt
        case e.BackfillCapped():
            backfill.max_active_runs = event.max_active_runs
        case e.BackfillWidened():
            backfill.window = event.window
        case e.SlaMissed():
            return
        case _:
            backfill.state = TRANSITIONS[backfill.state][type(event)]


def owed(backfill: Backfill) -> list[CancelWindow]:
    """What a cancelled backfill still has to see to: the end of its open windows."""
    if backfill.state is not RunState.CANCELLING:
        return []
    return [CancelWindow(child) for child, state in backfill.states.items() if state not in ENDED]
