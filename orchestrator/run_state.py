"""The states of a run, and a run in memory: a fold of its events.

    queued ──started──▶ running ◀──paused / resumed──▶ paused            (queued ──▶ timed_out: not admitted in time)
      ▲                    │  │
      │                    └──┴─────▶ succeeded | failed | timed_out | cancelled
      │                                  │
      └──────────restarted───────────────┤            (reprocess: queued again, all tasks pending)
                           running ◀─────┘ revived    (a task was retried or skipped by hand)

    running | paused ──cancelling──▶ cancelling ──cancelled──▶ cancelled      (a plan: the present batch ends first;
                                                                                a DAG: it undoes and tears down)
    running | paused ──overdue──▶ running ──timed_out──▶ timed_out            (the same, when it exceeds its limit)

A run is terminal exactly when all its tasks are (I6), except that a person may skip and reset tasks of a plan whose
instance has ended.

Ready tasks are a heap of (-priority, position): highest priority first, then the author's order. A run of a plan has an
`Agenda` (`conduct.py`): ready are only tasks of its present batch; `plan_run.py` has what is decided otherwise for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from orchestrator import events as e
from orchestrator import mapped, waits
from orchestrator.aside import Aside
from orchestrator.compiled import Compiled
from orchestrator.conduct import Agenda
from orchestrator.errors import NotFound
from orchestrator.locality import Homes
from orchestrator.lookups import Lookups
from orchestrator.messages import RunContext, Value
from orchestrator.task import STARTABLE, Task
from orchestrator.trigger import holds
from orchestrator.waits import Standby

#: checkpoints with which the caller of a driven run ends it
COMPLETED, FAILED = "run.completed", "run.failed"


class RunState(StrEnum):
    """Where a run is. The words of every journal and every surface's translation table."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    #: backfills: cancelled, but some windows have not ended yet; plans: the present batch has not
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


_S = RunState
ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED})
_ENDS: dict[type[e.Event], RunState] = {
    e.RunSucceeded: _S.SUCCEEDED,
    e.RunFailed: _S.FAILED,
    e.RunTimedOut: _S.TIMED_OUT,
    e.RunCancelled: _S.CANCELLED,
}
_AGAIN: dict[type[e.Event], RunState] = {e.RunRestarted: _S.QUEUED, e.RunRevived: _S.RUNNING}
TRANSITIONS: Mapping[RunState, Mapping[type[e.Event], RunState]] = {
    _S.QUEUED: {e.RunStarted: _S.RUNNING, e.RunCancelled: _S.CANCELLED, e.RunTimedOut: _S.TIMED_OUT},
    _S.RUNNING: _ENDS | {e.RunPaused: _S.PAUSED, e.RunOverdue: _S.RUNNING, e.RunCancelling: _S.CANCELLING},
    _S.PAUSED: _ENDS | {e.RunResumed: _S.RUNNING, e.RunOverdue: _S.RUNNING, e.RunCancelling: _S.CANCELLING},
    _S.CANCELLING: {e.RunCancelled: _S.CANCELLED},
    _S.SUCCEEDED: _AGAIN,
    _S.FAILED: _AGAIN,
    _S.TIMED_OUT: _AGAIN,
    _S.CANCELLED: _AGAIN,
}


class Run:
    """A run in memory. Everything here is a fold of its events; `version` counts them."""

    __slots__ = (
        "advancing",
        "agenda",
        "aside",
        "attempts",
        "called_by",
        "compiled",
        "compiled_by_version",
        "completed",
        "created_at",
        "dag_id",
        "due",
        "error",
        "failed",
        "finished_at",
        "forgotten",
        "going_since",
        "heard_at",
        "homes",
        "hosts",
        "in_line",
        "judged",
        "kubernetes",
        "late",
        "lengths",
        "lookups",
        "lost",
        "maps",
        "open",
        "overdue",
        "params",
        "parent",
        "passed_over",
        "past_attempts",
        "plan",
        "queued_at",
        "queued_version",
        "ready",
        "run_id",
        "run_type",
        "running",
        "sla_missed",
        "sla_seen",
        "standby",
        "started_at",
        "state",
        "tasks",
        "tenant",
        "told_at",
        "traceparent",
        "triggered_by",
        "undoing",
        "unfolding",
        "values",
        "verdict",
        "version",
        "waits",
        "window",
    )

    def __init__(self, created: e.RunCreated, compiled_by_version: Callable[[int], Compiled]) -> None:
        self.run_id = created.run_id
        self.tenant = created.tenant
        self.dag_id = created.dag_id
        self.run_type = created.run_type
        self.window = created.window
        self.params = created.params
        self.parent = created.parent
        self.called_by = created.called_by
        self.plan = created.plan
        self.triggered_by = created.triggered_by
        self.traceparent = created.traceparent
        self.created_at = created.at
        self.compiled_by_version = compiled_by_version
        #: its tasks run as Kubernetes Jobs
        self.kubernetes = created.origin is not None and created.origin.mode == "k8s"
        self.version = 1
        #: version with which it was queued last
        self.queued_version = 1
        self.queued_at = created.at
        #: of the last event
        self.told_at = created.at
        self.state = RunState.QUEUED
        #: how often it was started
        self.attempts = 0
        self.started_at: datetime | None = None
        #: when it was started or revived last: its own limit counts from there
        self.going_since: datetime | None = None
        self.finished_at: datetime | None = None
        #: it exceeded its limit, as its end will say; only its teardowns go on
        self.overdue: str | None = None
        #: first final failure
        self.error: str | None = None
        #: an SlaMissed was recorded
        self.sla_missed = False
        #: of a run that its caller drives: last checkpoint, and the one that ends it
        self.heard_at: datetime | None = None
        self.verdict: str | None = None
        #: task id -> last attempt it had in an earlier life of the run
        self.past_attempts: dict[str, int] = {}
        self.begin_anew(created.dag_version)

    def begin_anew(self, dag_version: int) -> None:
        #: what its tasks came to is no longer kept
        self.forgotten = False
        compiled = self.compiled_by_version(dag_version)
        self.compiled = compiled.as_jobs if self.kubernetes else compiled
        graph = self.compiled.graph
        self.tasks = [Task() for _ in graph.names]
        #: per task: its tally (`trigger.py`); of a plan: dependencies that are not satisfied yet
        self.waits = [len(parents) for parents in graph.parents]
        #: (-priority, position) of tasks that may start now
        self.ready = [(-self.compiled.specs[i].priority, i) for i in self.compiled.first if self.compiled.runnable[i]]
        heapq.heapify(self.ready)
        #: what waits for the world, and what has come; None = nothing ever did
        self.standby: Standby | None = None
        if self.compiled.waiting:
            for i in self.compiled.waiting.intersection(self.compiled.first):
                waits.admit(self, i)
        #: of a run that was never restarted: those that may have a known result are kept there until that is looked up
        self.lookups: Lookups | None = None
        if self.compiled.cached and not self.kubernetes and self.queued_version == 1:
            self.lookups = Lookups(self)
        #: those of them that need more than a slot of the default pool are kept there
        self.aside: Aside | None = None
        if self.compiled.bound and not self.kubernetes:
            self.aside = Aside(self)
        #: of a plan: where it stands; tasks in `ready` are of its present batch then
        self.agenda: Agenda | None = None if self.compiled.rules is None else self._agenda()
        #: (when, position, attempt) of tasks that wait for their next attempt
        self.due: list[tuple[datetime, int, int]] = []
        #: tasks that are not terminal
        self.open = len(self.tasks)
        #: those of them that are neither teardowns nor compensations, where it has compensations (`compensation.py`)
        self.advancing = len(self.tasks) - len(self.compiled.setups) - len(self.compiled.undoes)
        #: compensations that are to run, the next one last
        self.undoing: list[int] = []
        #: position of a task that can be undone -> version with which it succeeded
        self.completed: dict[int, int] = {}
        #: attempts that run; a map that is running has none
        self.running = 0
        #: tasks that failed or timed out, and whose failure fails the run
        self.failed = 0
        #: tasks that were skipped, and not by a person
        self.passed_over = 0
        #: tasks whose SLA is told, or passed before they were reset; how many deadlines need no more look (a cache)
        self.judged: set[int] = set()
        self.sla_seen = 0
        #: position -> since when it could start, of tasks that wait so long at most; (until when, position) of them
        self.in_line: dict[int, datetime] = {}
        self.late: list[tuple[datetime, int]] = []
        #: position -> return value, for dependents
        self.values: dict[int, Value] = {}
        #: position -> elements of a list whose value is not inline
        self.lengths: dict[int, int] = {}
        #: ready tasks by where their large values are; None = there are no large values
        self.homes: Homes | None = None
        #: position -> artifacts of it that were found missing (`lost_values.py`)
        self.lost: dict[int, tuple[str, ...]] = {}
        #: position of a mapped task that has expanded -> its instances; and per instance the position of its map
        self.maps: dict[int, mapped.Table] = {}
        self.hosts: list[int] = []
        #: mapped tasks that may expand, or whose instances have all ended (`expansion.py`)
        self.unfolding = {i for i in self.compiled.first if i in self.compiled.maps} if self.compiled.maps else set()
        for name, attempt in self.past_attempts.items():
            position = graph.index.get(name)
            if position is not None:
                self.tasks[position].attempt = attempt

    def _agenda(self) -> Agenda:
        agenda = Agenda(len(self.tasks))
        agenda.waiting = {position for _, position in self.ready}
        self.ready = []
        for name, count in (self.plan.retried if self.plan else {}).items():
            if (position := self.compiled.graph.index.get(name)) is not None:
                agenda.retry_counts[position] = count
        return agenda

    @property
    def driven(self) -> bool:
        """Its caller drives it by checkpoints, and ends it so."""
        return self.compiled.definition.driven_ttl_s is not None

    def position(self, task: str) -> int:
        """Where `task` stands in the definition. Raises NotFound."""
        position = self.compiled.graph.index.get(task)
        if position is None:
            raise NotFound("task", task)
        return position

    def could_start(self, position: int) -> bool:
        """`startable`, for who knows the run only."""
        return startable(self, position)

    def context(self, owner: str, traced: bool = False) -> RunContext:
        """What a worker is told about the run."""
        of = self.window
        window, partition = ((of.start, of.end) if of.start else None, of.partition) if of else (None, "")
        head = (self.run_id, self.tenant, self.dag_id, self.compiled.version)
        tail = (self.triggered_by, self.traceparent, traced, self.compiled.definition.bundle or "")
        return RunContext(*head, window, owner, self.params, partition, *tail)


def going(run: Run) -> bool:
    """Do its ready tasks start? Also those of the last batch of a plan."""
    return run.state is RunState.RUNNING or run.state is RunState.CANCELLING


def winds_up(run: Run) -> bool:
    """Is it as good as ended, but for what it still has to do: teardowns; of a plan its present batch?"""
    return run.state is RunState.CANCELLING or run.overdue is not None


def startable(run: Run, position: int) -> bool:
    """May the task at `position` be handed to a worker now? (I2, I3)"""
    if run.tasks[position].state not in STARTABLE:
        return False
    return holds(run, position) if run.compiled.ruled else run.waits[position] == 0
