"""What a run waits for without a worker, and what has come for it: timers, signals, approvals, sleeping code.

    signal ──▶ kept, in the order of arrival ──a task waits for its name──▶ consumed: once, by who has waited longest
    time ────▶ timers ──────────────────────────────────────────────────▶ the wait ends as it said
    votes ───▶ of the open approval ──one choice has its quorum──────────▶ decided

A run has a `Standby` once something of it waits, or something came early; most runs never do, and cost nothing. It is
a fold of the run's events like everything else in a run; `wait_decisions.py` decides with it. `entering` and `timers`
are queues: they hold entries that do not count any more, and are sorted out when a history is read again.

Two designs were open for where a waiting task stands. A pseudo-worker that holds it as `running` (as Kubernetes Jobs
are) needs no new state, but then passivation, recovery and pauses would each have to tell those tasks from real ones.
A state of its own, as here, does nothing unless something says so; dags shows it as `running`.
"""

from __future__ import annotations

import heapq
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from orchestrator import events as e
from orchestrator.task import TaskState

if TYPE_CHECKING:
    from orchestrator.run_state import Run

#: signals that a run keeps until a task takes them
SIGNALS_MAX = 1000
#: sleeps of a task since its last checkpoint
SLEEPS_MAX = 1000


class Kept(NamedTuple):
    """A signal that nobody has taken yet."""

    number: int
    data: msgspec.Raw


class Open:
    """A wait that has not ended."""

    __slots__ = ("attempt", "votes", "wait")

    def __init__(self, attempt: int, wait: e.Wait) -> None:
        self.attempt = attempt
        self.wait = wait
        #: voter -> their vote
        self.votes: dict[str, e.VoteCast] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Open) and _parts(self) == _parts(other)

    def __hash__(self) -> int:
        raise TypeError("it changes")


def _parts(open_: Open) -> tuple[int, e.Wait, dict[str, e.VoteCast]]:
    return open_.attempt, open_.wait, open_.votes


class Standby:
    """Everything of a run that waits for the world."""

    __slots__ = (
        "awaiting",
        "closed",
        "entering",
        "ids",
        "kept",
        "late",
        "open",
        "received",
        "signals",
        "sleeps",
        "timers",
    )

    def __init__(self) -> None:
        #: (-priority, position) of tasks that may begin to wait now
        self.entering: list[tuple[int, int]] = []
        #: (until, position, attempt) of open waits
        self.timers: list[tuple[datetime, int, int]] = []
        #: position -> its wait
        self.open: dict[int, Open] = {}
        #: position -> its last approval that is over: whoever voted may ask again whether the vote counted
        self.closed: dict[int, Open] = {}
        #: name of a signal -> positions that wait for it, the longest first
        self.awaiting: dict[str, dict[int, None]] = {}
        #: name -> those that nobody has taken
        self.signals: dict[str, deque[Kept]] = {}
        #: how many those are
        self.kept = 0
        #: signals in this life of the run
        self.received = 0
        #: id that a sender gave -> number of its signal
        self.ids: dict[str, int] = {}
        #: position -> sleeps since its last checkpoint: number -> until
        self.sleeps: dict[int, dict[int, datetime]] = {}
        #: (task, attempt, voter) of votes that came too late
        self.late: set[tuple[str, int, str]] = set()

    def rest(self) -> None:
        """The run has ended: nothing begins to wait, and no time counts."""
        self.entering.clear()
        self.timers.clear()


def standby_of(run: Run) -> Standby:
    """The run's, made when it is needed first."""
    if run.standby is None:
        run.standby = Standby()
    return run.standby


def admit(run: Run, position: int) -> None:
    """The task may begin to wait."""
    heapq.heappush(standby_of(run).entering, (-run.compiled.specs[position].priority, position))


# ── what events change ────────────────────────────────────────────────────────────────────────────


def keep(run: Run, event: e.SignalReceived | e.SignalConsumed | e.VoteCast | e.VoteRefused) -> None:
    """Bring it to what it is after `event`."""
    standby = standby_of(run)
    match event:
        case e.SignalReceived():
            standby.received = event.number
            standby.kept += 1
            standby.signals.setdefault(event.name, deque()).append(Kept(event.number, event.data))
            if event.signal_id:
                standby.ids[event.signal_id] = event.number
        case e.SignalConsumed():
            waiting = standby.signals[event.name]
            waiting.popleft()
            standby.kept -= 1
            if not waiting:
                del standby.signals[event.name]
        case e.VoteCast():
            votes = standby.open[run.position(event.task)].votes
            votes.pop(event.by, None)  # the newest comes last
            votes[event.by] = event
        case e.VoteRefused():
            standby.late.add((event.task, event.attempt, event.by))


def keep_task(run: Run, position: int, before: TaskState, event: e.Event) -> None:
    """A task began to wait or to sleep, or its wait is over."""
    standby = standby_of(run)
    match event:
        case e.TaskWaiting():
            standby.open[position] = Open(event.attempt, event.wait)
            heapq.heappush(standby.timers, (event.wait.until, position, event.attempt))
            if event.wait.kind == "signal":
                standby.awaiting.setdefault(event.wait.name, {})[position] = None
        case e.TaskSuspended():
            standby.sleeps.setdefault(position, {})[event.call] = event.until
        case _ if before is TaskState.WAITING:
            _close(standby, position)


def _close(standby: Standby, position: int) -> None:
    open_ = standby.open.pop(position)
    wait = open_.wait
    if open_.votes:
        standby.closed[position] = open_
    if wait.kind == "signal":
        del standby.awaiting[wait.name][position]
        if not standby.awaiting[wait.name]:
            del standby.awaiting[wait.name]
    while standby.timers and not _counts(standby, standby.timers[0]):
        heapq.heappop(standby.timers)


def _counts(standby: Standby, timer: tuple[datetime, int, int]) -> bool:
    open_ = standby.open.get(timer[1])
    return open_ is not None and open_.attempt == timer[2]


def sort_out(run: Run) -> None:
    """Leave in the queues only what still waits there; who may begin is offered again by whoever reads the run."""
    if run.standby is not None:
        run.standby.entering.clear()
        run.standby.timers = [(o.wait.until, position, o.attempt) for position, o in run.standby.open.items()]
        heapq.heapify(run.standby.timers)


def forget_sleeps(run: Run, position: int) -> None:
    """The task has a new checkpoint: its sleeps are counted from there."""
    if run.standby is not None:
        run.standby.sleeps.pop(position, None)


def sleeps(run: Run, position: int) -> dict[int, datetime]:
    """Sleeps of a task since its last checkpoint."""
    return {} if run.standby is None else run.standby.sleeps.get(position, {})
