"""One run: the tasks of one DAG version, once, for one window.

    queued ──started──▶ running ◀──paused / resumed──▶ paused            (queued ──▶ timed_out: not admitted in time)
      ▲                    │  │
      │                    └──┴─────▶ succeeded | failed | timed_out | cancelled
      │                                  │
      └──────────restarted───────────────┤            (reprocess: queued again, all tasks pending)
                           running ◀─────┘ revived    (a task was retried or skipped by hand)

A run is terminal exactly when all its tasks are (I6), except that a person may skip and reset tasks of a plan whose
instance has ended. What a command does is decided in `run_decisions.py`, which changes nothing; `apply` changes the run
it is given (a run may have 50,000 tasks: one step costs what changed plus the out-degree, never the size of the run)
and never refuses. `owed` lists what the world still has to do about a run that was just read from the journal; on the
hot path `aborted` tells it per step.

Ready tasks are a heap of (-priority, position): highest priority first, then the author's order. A run of a plan has an
`Agenda` (`conduct.py`): ready are only tasks of its present batch; `plan_run.py` has what is decided otherwise for it.

    running | paused ──cancelling──▶ cancelling ──cancelled──▶ cancelled      (a plan: the present batch ends first;
                                                                                a DAG: it undoes and tears down)
    running | paused ──overdue──▶ running ──timed_out──▶ timed_out            (the same, when it exceeds its limit)

Who waits for whom, and how what it waits for has ended, is one number per task, its tally (`trigger.py`): `waits`. A
task with the default rule may start when that is 0; what any other rule says follows from it at any time. Tasks that
will never start are skipped or given up in the commit that makes it certain (`consequences.py`). A run that does not
succeed undoes what it did before it ends (`compensation.py`).
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from orchestrator import compensation, conduct, deadlines, mapped, trigger, waits
from orchestrator import events as e
from orchestrator.aside import Aside
from orchestrator.conduct import Agenda, Rules
from orchestrator.definition import IN_CLUSTER_TYPES, WAITING_TYPES, Definition, TaskSpec
from orchestrator.errors import NotFound
from orchestrator.graph import Graph, compile_graph, ranks, reached
from orchestrator.locality import Homes, is_large
from orchestrator.lookups import Lookups
from orchestrator.messages import Need, Note, Report, RunContext, Value
from orchestrator.needs import is_bound
from orchestrator.task import FAILURES, PARKED, STARTABLE, TERMINAL, Task, TaskState
from orchestrator.task import apply as apply_to_task
from orchestrator.trigger import holds
from orchestrator.waits import Standby

_JSON = msgspec.json.Encoder()

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


class Compiled:
    """A version of a definition with its graph: shared by all runs of that version."""

    __slots__ = (
        "_as_jobs",
        "_detours",
        "_ranks",
        "bound",
        "cached",
        "definition",
        "first",
        "graph",
        "keys",
        "makes",
        "maps",
        "params",
        "queue_limits",
        "ruled",
        "rules",
        "runnable",
        "scopes",
        "setups",
        "size",
        "slas",
        "specs",
        "timed",
        "undoes",
        "undone_by",
        "version",
        "waiting",
    )

    def __init__(self, definition: Definition, version: int) -> None:
        self.definition = definition
        self.version = version
        self.specs: tuple[TaskSpec, ...] = definition.tasks
        #: tasks of the definition; behind them come instances of mapped tasks
        self.size = len(self.specs)
        #: positions of mapped tasks
        self.maps = frozenset(i for i, spec in enumerate(self.specs) if spec.expand)
        self.graph: Graph = compile_graph(definition.tasks)
        #: of a plan
        self.rules: Rules | None = None
        if definition.conduct is not None:
            self.rules = Rules(definition.conduct, self.specs, self.graph.index)
        #: what a task's duration is measured by: tasks of one key are expected to take alike, tasks of a plan are not
        self.keys = tuple(
            f"{definition.dag_id}:{spec.id if self.rules else spec.entrypoint or spec.type}"
            for spec in definition.tasks
        )
        #: per task: is there anybody who can run its type? A mapped task is not run itself
        self.runnable = tuple(spec.type in IN_CLUSTER_TYPES and not spec.expand for spec in definition.tasks)
        #: positions that wait for the world, without a worker
        self.waiting = frozenset(i for i, spec in enumerate(self.specs) if spec.type in WAITING_TYPES)
        #: each task's own params, as JSON text
        self.params = tuple(msgspec.Raw(_JSON.encode(spec.params)) for spec in definition.tasks)
        #: some task has another trigger rule than the default, is a branch, a teardown or a compensation
        self.ruled = any(_is_ruled(spec) for spec in self.specs)
        #: position of a teardown -> its setups
        self.setups: dict[int, tuple[int, ...]] = {
            i: tuple(self.graph.index[name] for name in spec.teardown_of)
            for i, spec in enumerate(self.specs)
            if spec.teardown_of
        }
        #: position of a teardown -> what has to have ended before
        self.scopes = {i: frozenset(self.graph.parents[i]) for i in self.setups}
        #: position of a compensation -> the task that it undoes, and the other way round
        self.undoes: dict[int, int] = {
            i: self.graph.index[spec.compensates] for i, spec in enumerate(self.specs) if spec.compensates is not None
        }
        self.undone_by = {undone: i for i, undone in self.undoes.items()}
        #: task -> assets that it updates
        self.makes = {spec.id: spec.produces for spec in self.specs if spec.produces}
        #: some task needs more than a slot of the default pool
        self.bound = is_bound(definition)
        #: results of some task are used again
        self.cached = any(spec.cache_ttl_s is not None for spec in self.specs)
        #: positions that start at once
        self.first = self.graph.roots
        if self.ruled:
            parents = self.graph.parents
            self.first = tuple(i for i, s in enumerate(self.specs) if not parents[i] or s.trigger_rule == "always")
        #: (seconds, position) of tasks with an SLA, the first to be over first; position -> seconds it may wait for a
        #: worker; is any of this, or a limit on its own wait, to be watched?
        self.slas = sorted((float(spec.sla_s), i) for i, spec in enumerate(self.specs) if spec.sla_s is not None)
        self.queue_limits = {i: s.queue_timeout_s for i, s in enumerate(self.specs) if s.queue_timeout_s is not None}
        self.timed = bool(self.slas or self.queue_limits or definition.queue_timeout_s is not None)
        self._ranks: list[int] | None = None
        self._detours: dict[int, bool] = {}
        self._as_jobs: Compiled | None = None

    @property
    def ranks(self) -> list[int]:
        """Per task: it ranks above all it waits for."""
        if self._ranks is None:
            self._ranks = ranks(self.graph)
        return self._ranks

    def detours(self, position: int) -> bool:
        """Does one of its dependents come after another one?"""
        if position not in self._detours:
            children = self.graph.children
            self._detours[position] = not reached(children, children[position]).isdisjoint(children[position])
        return self._detours[position]

    def advances(self, position: int) -> bool:
        """Is it neither a teardown nor a compensation? Of a map, its instances do not count."""
        return position < self.size and position not in self.setups and position not in self.undoes

    def decides(self, position: int) -> bool:
        """Does its failure fail the run?"""
        return position < self.size and (position not in self.setups or self.specs[position].on_failure_fail_run)

    def with_instances(self, position: int, names: Sequence[str], runnable: bool) -> Compiled:
        """The same for one run, with instances of the mapped task at `position` behind what is there."""
        out, graph, n = copy.copy(self), self.graph, len(names)
        plain = msgspec.structs.replace(self.specs[position], depends_on=(), trigger_rule="all_success", expand={})
        index = dict(graph.index) if len(self.specs) == self.size else graph.index
        index.update(zip(names, range(len(self.specs), len(self.specs) + n), strict=True))
        out.specs = (*self.specs, *(msgspec.structs.replace(plain, id=name) for name in names))
        out.graph = Graph(
            (*graph.names, *names), index, (*graph.parents, *((),) * n), (*graph.children, *((),) * n), graph.roots
        )
        out.keys += (self.keys[position],) * n
        out.params += (self.params[position],) * n
        out.runnable += (runnable,) * n
        out._ranks = out._as_jobs = None
        return out

    @property
    def as_jobs(self) -> Compiled:
        """The same, for runs whose tasks are Kubernetes Jobs: an image may know any type, and takes its own time."""
        if self._as_jobs is None:
            self._as_jobs = copy.copy(self)
            self._as_jobs.keys = tuple(f"job:{key}" for key in self.keys)
            self._as_jobs.runnable = tuple(
                i not in self.waiting and not spec.expand for i, spec in enumerate(self.specs)
            )
        return self._as_jobs


def _is_ruled(spec: TaskSpec) -> bool:
    rules = spec.trigger_rule != "all_success" or spec.branch or bool(spec.teardown_of)
    return rules or bool(spec.expand) or spec.compensates is not None


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Start:
    """Admit the run."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Hand ready tasks (by position) to a worker."""

    positions: tuple[int, ...]
    worker: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Settle:
    """A worker reported the end of an attempt. `jitter` is in [0, 1)."""

    report: Report
    jitter: float


@dataclass(frozen=True, slots=True)
class Recall:
    """The result of an equal task is known: it is that of this one, which may start."""

    task: str
    value: Value
    length: int | None
    cached: e.CachedFrom


@dataclass(frozen=True, slots=True)
class Lose:
    """The worker of an attempt is gone."""

    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The worker never started the attempt."""

    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A running attempt noted a checkpoint or its progress."""

    note: Note


@dataclass(frozen=True, slots=True)
class Pause:
    """Start no further task."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Start tasks again."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the run; what its tasks still do does not count."""


@dataclass(frozen=True, slots=True)
class TimeOut:
    """The run exceeded its own limit."""


@dataclass(frozen=True, slots=True)
class GoIdle:
    """Nobody has posted a checkpoint for too long to a run that its caller drives."""


@dataclass(frozen=True, slots=True)
class Post:
    """Whoever follows the run posts a checkpoint; one that is driven so ends with `run.completed` or `run.failed`."""

    kind: str
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class MissSla:
    """The deadline passed while the run was not over."""

    deadline: datetime


@dataclass(frozen=True, slots=True)
class CheckDeadlines:
    """Look which deadlines have passed; what follows from that."""


@dataclass(frozen=True, slots=True)
class RetryTask:
    """Run a failed task again, and what waited for it."""

    task: str


@dataclass(frozen=True, slots=True)
class RetryFailed:
    """Run every failed or cancelled task again."""


@dataclass(frozen=True, slots=True)
class SkipTask:
    """Let dependents proceed as if the task were done."""

    task: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Reprocess: everything again, under `dag_version`."""

    dag_version: int


Command = (
    Start
    | Begin
    | Settle
    | Recall
    | Lose
    | GiveBack
    | Mark
    | Pause
    | Resume
    | Cancel
    | TimeOut
    | GoIdle
    | Post
    | MissSla
    | CheckDeadlines
    | RetryTask
    | RetryFailed
    | SkipTask
    | Restart
)


# ── effects ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Await:
    """An attempt runs at a worker: find out how it ends."""

    task: str
    attempt: int
    worker: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Abort:
    """An attempt's result no longer counts: tell its worker to stop."""

    task: str
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Ready tasks want a worker slot."""

    count: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Nothing happens by itself before this instant; look again then."""

    at: datetime


Effect = Await | Abort | Dispatch | WakeAt


# ── state ─────────────────────────────────────────────────────────────────────────────────────────


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
        self._fresh(created.dag_version)

    def _fresh(self, dag_version: int) -> None:
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


# ── apply ─────────────────────────────────────────────────────────────────────────────────────────


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
            run._fresh(event.dag_version)
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
        if run.agenda is None or event.lost:
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


# ── what is owed ──────────────────────────────────────────────────────────────────────────────────


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


def waits_for_slot(run: Run) -> int:
    """Tasks that may start, as far as the run is concerned."""
    apart = (run.aside.size if run.aside is not None else 0) + (run.lookups.size if run.lookups is not None else 0)
    return len(run.ready) + apart


def take_bound(run: Run, need: Need, limit: int, node: str = "") -> list[int]:
    """Up to `limit` positions of tasks with that need, each startable: rather those that are at home on that node."""
    out: list[int] = []
    while run.aside is not None and len(out) < limit and (position := run.aside.pop(need, node)) is not None:
        if startable(run, position):
            out.append(position)
    return out


def take_ready(run: Run, limit: int) -> list[int]:
    """Up to `limit` positions off the ready heap, each startable."""
    out: list[int] = []
    while run.ready and len(out) < limit:
        _, position = heapq.heappop(run.ready)
        if startable(run, position) and (not out or out[-1] != position):  # one may have been offered twice
            out.append(position)
    return out


def put_back(run: Run, positions: Iterable[int]) -> None:
    """Undo `take_ready` for tasks that were not started after all."""
    for position in positions:
        conduct.offer(run, position)


def wake(run: Run, now: datetime) -> None:
    """Offer the retrying and suspended tasks whose delay is over."""
    while run.due and run.due[0][0] <= now:
        _, position, attempt = heapq.heappop(run.due)
        task = run.tasks[position]
        if task.state not in PARKED or task.attempt != attempt:
            continue
        if run.agenda is not None or startable(run, position):  # else it is due again once its rule holds
            if run.compiled.queue_limits:
                deadlines.line_up(run, position, task.due)
            conduct.offer(run, position)


def deadline(run: Run) -> datetime | None:
    """When the run exceeds its own limit, or None. What it undoes takes the time that it takes."""
    limit = run.compiled.definition.run_timeout_s
    if limit is None or run.going_since is None or run.state in ENDED or winds_up(run) or compensation.under_way(run):
        return None
    return run.going_since + timedelta(seconds=limit)


def idle_deadline(run: Run) -> datetime | None:
    """When a run that its caller drives fails for want of a checkpoint, or None."""
    limit = run.compiled.definition.driven_ttl_s
    if not limit or run.going_since is None or run.state in ENDED:
        return None
    return max(run.going_since, run.heard_at or run.going_since) + timedelta(seconds=limit)


def next_deadline(run: Run) -> datetime | None:
    """When something of it is too late (`deadlines.py`), or None."""
    if not run.compiled.timed or run.state in ENDED or winds_up(run):
        return None
    return deadlines.next_at(run)


def next_wake(run: Run) -> datetime | None:
    """The next instant at which something is due without any message, or None."""
    due = run.due[0][0] if run.due else None
    # a pause holds what waits for the world
    timers = run.standby.timers if run.standby is not None and run.state is RunState.RUNNING else None
    candidates = (due, timers[0][0] if timers else None, deadline(run), idle_deadline(run), next_deadline(run))
    return min((at for at in candidates if at is not None), default=None)


def aborted(run: Run, event: e.Event) -> Abort | None:
    """What must stop because of `event`; ask before applying it."""
    if isinstance(event, e.TaskFailed):
        if not deadlines.ends_running(run, event):
            return None
    elif not isinstance(event, e.TaskCancelled | e.TaskSkipped | e.TaskMarked):
        return None
    if isinstance(event, e.TaskSkipped) and event.by == "task":
        return None  # its attempt has reported so
    task = run.tasks[run.compiled.graph.index[event.task]]
    if task.state is not TaskState.RUNNING or not task.worker:  # a map has none
        return None
    return Abort(event.task, task.attempt, task.worker)


def owed(run: Run) -> list[Effect]:
    """Everything the world still has to do about `run`; for recovery, it looks at every task (I8)."""
    if run.state in ENDED or run.state is RunState.QUEUED:
        return []
    out: list[Effect] = [
        Await(name, task.attempt, task.worker, task.incarnation)
        for name, task in zip(run.compiled.graph.names, run.tasks, strict=True)
        if task.state is TaskState.RUNNING and task.worker  # a map has none
    ]
    if (waiting := waits_for_slot(run)) and going(run):
        out.append(Dispatch(waiting))
    at = next_wake(run)
    if at is not None:
        out.append(WakeAt(at))
    return out


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
