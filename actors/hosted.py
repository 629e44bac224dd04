"""A run or a backfill in a RunActor's memory, and what one turn changed of it.

`Hosted` joins a machine of the core with the bookkeeping that a group commit needs: it decides, applies,
and collects what happened since the last commit into one `Append`. Memory is ahead of the journal
only within a turn, and nothing leaves the actor before the commit is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator import backfill as backfills
from orchestrator import codec, plan_run, run_decisions
from orchestrator import events as e
from orchestrator import run as runs
from orchestrator.backfill import Backfill
from orchestrator.dispatch import class_of
from orchestrator.errors import Conflict
from orchestrator.ports import TASK_LETTERS, Append, StoredReply
from orchestrator.run import ENDED, Run, RunState
from orchestrator.task import TaskState

_LETTER = {TaskState(state): letter for state, letter in TASK_LETTERS.items()}
_AFTER_EVENT = {
    e.TaskStarted: "r",
    e.TaskSucceeded: "d",
    e.TaskRetrying: "e",
    e.TaskReturned: "p",
    e.TaskSkipped: "s",
    e.TaskMarked: "d",
    e.TaskUpstreamFailed: "u",
    e.TaskCancelled: "c",
    e.TaskReset: "p",
}

#: an attempt that runs may have to stop because of these
_STOPS = frozenset({e.TaskCancelled, e.TaskSkipped, e.TaskMarked})


def milliseconds(at: datetime) -> int:
    """`at` as epoch milliseconds."""
    return round(at.timestamp() * 1000)


def instant(ms: int) -> datetime:
    """Epoch milliseconds as an aware instant."""
    return datetime.fromtimestamp(ms / 1000, UTC)


class HostedRun:
    """One run in memory."""

    __slots__ = (
        "_before",
        "_events",
        "_letters",
        "_reset",
        "_version",
        "admission_epoch",
        "claimed",
        "claiming",
        "idem",
        "idle_since_s",
        "leaf",
        "run",
        "sla_ms",
    )

    def __init__(self, run: Run, sla_ms: int | None = None, claimed: bool = False) -> None:
        self.run = run
        #: where it stands in the tree of shares; None = its tasks are Kubernetes Jobs and want no slot
        self.leaf = None if run.kubernetes else (run.tenant, class_of(run.run_type, run.parent), run.dag_id)
        #: this actor owns it, as the journal says
        self.claimed = claimed
        #: this actor is to own it, whether or not anything else changes
        self.claiming = False
        #: deadline of its SLA, epoch ms
        self.sla_ms = sla_ms
        #: scheduler epoch whose admission is being committed
        self.admission_epoch: int | None = None
        #: idempotency record to be stored with the change
        self.idem: StoredReply | None = None
        #: monotonic seconds since when it only waits; None = it does not
        self.idle_since_s: float | None = None
        self._settled()

    def _settled(self) -> None:
        self._events: list[e.Event] = []
        self._letters: dict[str, str] = {}
        self._reset = False
        self._before = (self.run.state, self.run.attempts)
        self._version = self.run.version

    @property
    def machine(self) -> Run:
        """The run."""
        return self.run

    @property
    def dirty(self) -> bool:
        """Is there anything to commit?"""
        return bool(self._events) or self.idem is not None or self.claiming

    @property
    def stays(self) -> bool:
        """Does it live here? A run that has ended, or waits for admission, belongs to nobody."""
        return self.claimed and not self.ended

    def step(self, command: plan_run.Command, now: datetime) -> list[runs.Abort]:
        """Decide and apply; what must stop because of it. Raises what `run_decisions.decide` raises."""
        if self.run.agenda is not None:
            aborts = self._take(plan_run.decide(self.run, command, now))
            return aborts + self._take(plan_run.proceed(self.run, now))
        if isinstance(command, plan_run.ShutDown | plan_run.MarkTask):
            raise Conflict(f"run {self.run.run_id} is not of a plan")
        return self._take(run_decisions.decide(self.run, command, now))

    def _take(self, events: list[e.Event]) -> list[runs.Abort]:
        run = self.run
        aborts = []
        for event in events:
            kind = type(event)
            if kind in _STOPS:
                abort = runs.aborted(run, event)
                if abort is not None:
                    aborts.append(abort)
            runs.apply(run, event)
            self._events.append(event)
            letter = _AFTER_EVENT.get(kind)
            if letter is not None:
                self._letters[event.task] = letter  # type: ignore[attr-defined]  # every event in that table has a task
            elif isinstance(event, e.TaskFailed):
                self._letters[event.task] = "t" if event.timed_out else "f"
            elif isinstance(event, e.RunRestarted):
                self._reset = True
                self._letters.clear()
        return aborts

    def append(self) -> Append:
        """Everything since the last commit."""
        run = self.run
        before_state, before_attempts = self._before
        changed = run.state is not before_state or run.attempts != before_attempts
        return Append(
            run_id=run.run_id,
            expected=self._version,
            count=len(self._events),
            events=codec.encode_events(self._events) if self._events else b"",
            state=str(run.state) if run.state is not before_state else None,
            attempts=run.attempts if run.attempts != before_attempts else None,
            started_ms=milliseconds(run.started_at) if changed and run.started_at else None,
            finished_ms=(milliseconds(run.finished_at) if run.finished_at else 0) if changed else None,
            error=(run.error or "") if changed or run.error else None,
            dag_version=run.compiled.version if self._reset else None,
            tasks=tuple(self._letters.items()),
            tasks_reset=self._reset,
            passive=run.state is RunState.QUEUED,
            scheduler_epoch=self.admission_epoch,
            idem=self.idem,
        )

    def committed(self) -> None:
        """The last `append` is durable."""
        self.admission_epoch = self.idem = None
        self.claimed, self.claiming = self.run.state is not RunState.QUEUED, False
        self._settled()

    @property
    def ended(self) -> bool:
        """Terminal: nothing is left to do for it."""
        return self.run.state in ENDED


class HostedBackfill:
    """One backfill in memory."""

    __slots__ = ("_before", "_events", "_version", "backfill", "cancelling", "claimed", "idem", "seen")

    def __init__(self, backfill: Backfill, seen: dict[str, int] | None = None) -> None:
        self.backfill = backfill
        self.idem: StoredReply | None = None
        #: child -> version of it that is known: news that are not newer are old
        self.seen: dict[str, int] = seen or {}
        #: this actor owns it, as the journal says
        self.claimed = False
        #: its open windows are being cancelled
        self.cancelling = False
        self._settled()

    def _settled(self) -> None:
        self._events: list[e.Event] = []
        self._before = (self.backfill.state, self.backfill.attempts)
        self._version = self.backfill.version

    @property
    def machine(self) -> Backfill:
        """The backfill."""
        return self.backfill

    @property
    def dirty(self) -> bool:
        """Is there anything to commit?"""
        return bool(self._events) or self.idem is not None or not self.claimed

    @property
    def stays(self) -> bool:
        """Does it live here?"""
        return not self.ended

    def step(self, command: backfills.Command, now: datetime) -> None:
        """Decide and apply. Raises Conflict."""
        for event in backfills.decide(self.backfill, command, now):
            backfills.apply(self.backfill, event)
            self._events.append(event)

    def append(self) -> Append:
        """Everything since the last commit."""
        backfill = self.backfill
        before_state, before_attempts = self._before
        started = _last(self._events, (e.RunStarted, e.RunRevived))
        ended = _last(self._events, (e.RunSucceeded, e.RunFailed, e.RunCancelled))
        error = ended.error if isinstance(ended, e.RunFailed) else ""
        return Append(
            run_id=backfill.run_id,
            expected=self._version,
            count=len(self._events),
            events=codec.encode_events(self._events) if self._events else b"",
            state=str(backfill.state) if backfill.state is not before_state else None,
            attempts=backfill.attempts if backfill.attempts != before_attempts else None,
            started_ms=milliseconds(started.at) if isinstance(started, e.RunStarted) else None,
            finished_ms=milliseconds(ended.at) if ended and backfill.state in ENDED else (0 if started else None),
            error=error if ended else ("" if started else None),
            idem=self.idem,
        )

    def committed(self) -> None:
        """The last `append` is durable."""
        self.idem = None
        self._settled()

    @property
    def ended(self) -> bool:
        """Terminal: nothing is left to do for it."""
        return self.backfill.state in ENDED


def _last(events: Sequence[e.Event], kinds: tuple[type[e.Event], ...]) -> e.Event | None:
    return next((event for event in reversed(events) if isinstance(event, kinds)), None)


Hosted = HostedRun | HostedBackfill
