"""A run or a backfill in a RunActor's memory, and what one turn changed of it.

`Hosted` joins a machine of the core with the bookkeeping that a group commit needs: it decides, applies,
and collects what happened since the last commit into one `Append`. Memory is ahead of the journal
only within a turn, and nothing leaves the actor before the commit is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from actors import run_counts
from orchestrator import backfill as backfills
from orchestrator import (
    caching,
    codec,
    deadlines,
    mapped,
    plan_run,
    run_decisions,
    run_duties,
    run_notice,
    wait_decisions,
)
from orchestrator import events as e
from orchestrator import run as runs
from orchestrator.backfill import Backfill
from orchestrator.calls import Return, backfill_of
from orchestrator.dispatch import class_of
from orchestrator.errors import Conflict
from orchestrator.rows import TASK_LETTERS
from orchestrator.run_state import ENDED, Run, RunState
from orchestrator.shares import Path
from orchestrator.steps import Append, StoredReply
from orchestrator.streams import Produced
from orchestrator.task import TaskState
from orchestrator.webhook import Notice

_LETTER = {TaskState(state): letter for state, letter in TASK_LETTERS.items()}
_AFTER_EVENT = {
    e.TaskStarted: "r",
    e.TaskExpanded: "r",
    e.TaskSucceeded: "d",
    e.TaskRetrying: "e",
    e.TaskReturned: "p",
    e.TaskSkipped: "s",
    e.TaskMarked: "d",
    e.TaskUpstreamFailed: "u",
    e.TaskCancelled: "c",
    e.TaskReset: "p",
    e.TaskWaiting: "w",
    e.TaskSuspended: "z",
}

#: an attempt that runs may have to stop because of these
_STOPS = frozenset({e.TaskCancelled, e.TaskSkipped, e.TaskMarked, e.TaskFailed})
#: what ends a wait
_AFTER_WAIT = frozenset({e.TaskSucceeded, e.TaskFailed, e.TaskSkipped, e.TaskCancelled})
#: somebody outside may want to be told of these
_NEWS = frozenset({*run_notice.ENDS, e.SlaMissed})


#: commands from outside for what waits
_OUTSIDE = (wait_decisions.Signal, wait_decisions.Vote, Return)


def milliseconds(at: datetime) -> int:
    """`at` as epoch milliseconds."""
    return round(at.timestamp() * 1000)


def instant(ms: int) -> datetime:
    """Epoch milliseconds as an aware instant."""
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt whose result is kept, as it went to its worker."""

    attempt: int
    started_at: datetime
    #: of the record: its kind and its key
    kind: str
    key: str
    ttl_s: float


class HostedRun:
    """One run in memory."""

    __slots__ = (
        "_before",
        "_calls",
        "_events",
        "_letters",
        "_reset",
        "_version",
        "admission_epoch",
        "admission_lane",
        "asked",
        "begun",
        "calling",
        "claimed",
        "claiming",
        "computed",
        "counts",
        "idem",
        "idle_since_s",
        "leaf",
        "notices",
        "run",
        "sla_missed",
        "sla_ms",
        "updates",
        "waited",
    )

    def __init__(self, run: Run, sla_ms: int | None = None, claimed: bool = False) -> None:
        self.run = run
        #: where it stands in the tree of shares
        self.leaf: Path = (run.tenant, class_of(run.run_type, backfill_of(run)), run.dag_id)
        #: this actor owns it, as the journal says
        self.claimed = claimed
        #: this actor is to own it, whether or not anything else changes
        self.claiming = False
        #: deadline of its SLA, epoch ms
        self.sla_ms = sla_ms
        #: scheduler epoch whose admission is being committed
        self.admission_epoch: int | None = None
        #: backfill for which the latest admission was given; "" = none
        self.admission_lane = ""
        #: idempotency record to be stored with the change
        self.idem: StoredReply | None = None
        #: monotonic seconds since when it only waits; None = it does not
        self.idle_since_s: float | None = None
        #: tasks whose approvals were opened, voted on or closed
        self.asked: dict[str, None] = {}
        #: task -> attempt that a worker has, of those whose results are kept; results that are to be kept
        self.begun: dict[str, Begun] = {}
        self.computed: list[tuple[Begun, e.TaskSucceeded]] = []
        #: tasks have called runs, and nobody has seen to that yet
        self.calling = False
        self._settled()

    def _settled(self) -> None:
        self._events: list[e.Event] = []
        self._letters: dict[str, str] = {}
        self._reset = False
        #: as `Append.calls`
        self._calls: list[tuple[str, str]] = []
        #: who missed an SLA: "" = the run, else a task; what is to be counted and told with that, and of its end
        self.sla_missed: list[str] = []
        self.counts: list[tuple[str, int]] = []
        self.notices: list[Notice] = []
        #: of assets, by its tasks
        self.updates: list[Produced] = []
        #: task whose wait has ended -> what it waited for, and for how many seconds
        self.waited: dict[str, tuple[str, float]] = {}
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

    @property
    def happened(self) -> run_counts.Happened:
        """Everything since the last commit, for the metrics."""
        return self.run, self._events, self.waited

    def step(self, command: plan_run.Command | wait_decisions.Command, now: datetime) -> list[run_duties.Abort]:
        """Decide and apply; what must stop because of it. Raises what `run_decisions.decide` raises."""
        if isinstance(command, _OUTSIDE):
            self._take(wait_decisions.decide(self.run, command, now))
            return self.proceed(now)
        if self.run.agenda is not None:
            aborts = self._take(plan_run.decide(self.run, command, now))
            return aborts + self._take(plan_run.proceed(self.run, now))
        if isinstance(command, plan_run.ShutDown | plan_run.MarkTask):
            raise Conflict(f"run {self.run.run_id} is not of a plan")
        aborts = self._take(run_decisions.decide(self.run, command, now))
        return aborts + self.proceed(now)

    def proceed(self, now: datetime) -> list[run_duties.Abort]:
        """Whatever follows by itself from where the run stands: maps unfold, and what waits for the world goes on."""
        aborts: list[run_duties.Abort] = []
        while (self.run.unfolding and (events := run_decisions.proceed(self.run, now))) or (
            self.run.standby is not None and (events := wait_decisions.proceed(self.run, now))
        ):
            aborts += self._take(events)
        return aborts

    def record(self, event: e.Event) -> None:
        """Note what changes no state."""
        self._take([event])

    def _take(self, events: list[e.Event]) -> list[run_duties.Abort]:
        run = self.run
        aborts = []
        for event in events:
            kind = type(event)
            if kind in _STOPS:
                abort = run_duties.aborted(run, event)
                if abort is not None:
                    aborts.append(abort)
            if run.standby is not None:
                self._look_at_wait(event)
            runs.apply(run, event)
            self._events.append(event)
            letter = _AFTER_EVENT.get(kind)
            if letter is not None:
                if run.compiled.cached and isinstance(event, e.TaskSucceeded):
                    self._look_at_result(event)
                self._letters[event.task] = letter  # type: ignore[attr-defined]  # every event in that table has a task
                if kind is e.TaskSucceeded and run.compiled.makes:
                    self._update_assets(event)  # type: ignore[arg-type]  # it is one
                elif kind is e.TaskExpanded:
                    self._letters |= mapped.letters(run, event)  # type: ignore[arg-type]  # it is one
            elif isinstance(event, e.TaskFailed):
                self._letters[event.task] = "t" if event.timed_out else "f"
            elif kind in _NEWS:
                self._note(event)
            elif isinstance(event, e.RunRestarted):
                self._reset = True
                self._letters.clear()
        return aborts

    def _look_at_wait(self, event: e.Event) -> None:
        """Before it is applied: approvals and calls that are opened or closed, and how long waits took."""
        if isinstance(event, e.TaskWaiting):
            if event.wait.kind == "approval":
                self.asked[event.task] = None
            elif event.wait.call is not None:
                self._calls.append((event.task, event.wait.call.run_id))
                self.calling = True
        elif self.run.standby is not None and (task := getattr(event, "task", None)) is not None:
            position = self.run.compiled.graph.index[task]
            open_ = self.run.standby.open.get(position)
            if open_ is None:
                return
            if open_.wait.kind == "approval":
                self.asked[task] = None
            elif open_.wait.call is not None:
                self._calls.append((task, ""))
            since = self.run.tasks[position].started_at
            if type(event) in _AFTER_WAIT and since is not None:
                self.waited[task] = (run_counts.kind_of(open_.wait), max(0.0, (event.at - since).total_seconds()))

    def _look_at_result(self, event: e.TaskSucceeded) -> None:
        """Others may use it; or it is what another one computed, as the row tells."""
        if event.cached is not None:
            self._letters[caching.mark_of(event.task)] = event.cached.run_id
            self.counts.append((f"task_cache_hits_total|{run_counts.label_of(self.run.dag_id)}", 1))
            return
        begun = self.begun.pop(event.task, None)
        if begun is not None and begun.attempt == event.attempt:
            self.computed.append((begun, event))
        if event.attempt > 1:  # the one before may have been of another run
            self._letters[caching.mark_of(event.task)] = ""

    def _note(self, event: e.Event) -> None:
        """What goes out with the commit of `event`, which was applied last."""
        notice = run_notice.of_run(self.run, event)
        if notice is not None:
            self.notices.append(notice)
        if isinstance(event, e.SlaMissed) and "mark" in deadlines.actions(self.run, event):
            self.sla_missed.append(event.task or "")
            family = "sla_breaches_total" if event.task is None else "task_sla_breaches_total"
            self.counts.append((f"{family}|{run_counts.label_of(self.run.dag_id)}", 1))

    def _update_assets(self, event: e.TaskSucceeded) -> None:
        """Who consumes them is told with the commit of `event`."""
        run, assets = self.run, self.run.compiled.makes.get(event.task)
        if assets is not None:
            where = (run.tenant, run.dag_id, run.run_id, event.task, event.attempt)
            self.updates.append(Produced(*where, assets, milliseconds(event.at)))

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
            wake_at_ms=self._wake_ms() if run.state is RunState.QUEUED else None,
            scheduler_epoch=self.admission_epoch,
            sla_missed=tuple(self.sla_missed),
            lane=self.admission_lane,
            idem=self.idem,
            calls=tuple(self._calls),
        )

    def _wake_ms(self) -> int | None:
        """When a run that goes back to the queue is to be looked at again."""
        at = run_duties.next_wake(self.run)
        return None if at is None else milliseconds(at)

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

    __slots__ = (
        "_before",
        "_events",
        "_version",
        "backfill",
        "callback_url",
        "cancelling",
        "claimed",
        "early",
        "idem",
        "notices",
        "seen",
    )
    #: its windows update assets
    updates: Sequence[Produced] = ()

    def __init__(self, backfill: Backfill, seen: dict[str, int] | None = None, callback_url: str | None = None) -> None:
        self.backfill = backfill
        #: who is to be told of its end
        self.callback_url = callback_url
        self.idem: StoredReply | None = None
        #: child -> version of it that is known: news that are not newer are old
        self.seen: dict[str, int] = seen or {}
        #: news that came before all windows were looked at: what is known of the others may be of the life before a
        #: restart, and look as if all had ended; None = they were
        self.early: list[tuple[str, str, int]] | None = []
        #: this actor owns it, as the journal says
        self.claimed = False
        #: its open windows are being cancelled
        self.cancelling = False
        self._settled()

    def _settled(self) -> None:
        self._events: list[e.Event] = []
        self.notices: list[Notice] = []
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
            if self.callback_url is not None and type(event) in run_notice.ENDS:
                self.notices.append(self._notice(self.callback_url, run_notice.ENDS[type(event)]))

    def observe(self, windows: tuple[tuple[str, str, int], ...], whole: bool, now: datetime) -> None:
        """Its windows are there, as in `mail.Observed`; what is not newer than what is known is old."""
        if self.early is not None and not self.ended:
            if not whole:
                self.early += windows
                return
            windows, self.early = (*windows, *self.early), None
        news = []
        for child, state, version in windows:
            if self.seen.get(child, 0) < version:
                self.seen[child] = version
                news.append((child, state))
        self.step(backfills.Observe(tuple(news)), now)

    def _notice(self, url: str, state: str) -> Notice:
        it = self.backfill
        where = (it.tenant, it.dag_id, it.run_id)
        return run_notice.notice(url, f"run.{state}", *where, state, it.window, it.attempts, it.version, {})

    def append(self) -> Append:
        """Everything since the last commit."""
        backfill = self.backfill
        before_state, before_attempts = self._before
        started = _last(self._events, (e.RunStarted, e.RunRevived))
        ended = _last(self._events, (e.RunSucceeded, e.RunFailed, e.RunCancelled))
        capped = _last(self._events, (e.BackfillCapped,))
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
            max_active_runs=capped.max_active_runs or 0 if isinstance(capped, e.BackfillCapped) else None,
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
