"""What people look at: the shapes that reads return, whatever surface renders them.

Words here are the core's (`succeeded`, not a surface's `success`); a surface translates.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from orchestrator.definition import Definition, Dimension, RunType, TaskSpec, Window
from orchestrator.events import Counts
from orchestrator.limits import Rate
from orchestrator.messages import NO_JSON, Cause

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `next_cursor` is None on the last."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class LastDropped(msgspec.Struct, frozen=True):
    """The latest fire of a schedule that started no run."""

    at: datetime
    #: missed (late, and catch-up leaves it out) | overlap
    reason: str


class AwaitedView(msgspec.Struct, frozen=True):
    """One thing that has to happen before a run of a DAG starts by itself."""

    #: dag | asset
    kind: str
    name: str
    #: a DAG of that name exists, or some DAG produces the asset
    known: bool
    #: what has happened and no run has consumed, oldest first
    pending: tuple[Cause, ...] = ()


class UpdateView(msgspec.Struct, frozen=True):
    """One update of an asset."""

    cause: Cause
    dag_id: str
    at: datetime


class AssetView(msgspec.Struct, frozen=True):
    """Something that tasks update and that DAGs consume."""

    asset: str
    #: DAGs
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    #: how often it was updated, and the latest ones, newest first
    updates: int
    last: tuple[UpdateView, ...] = ()


class EventTold(msgspec.Struct, frozen=True):
    """What became of an event."""

    name: str
    event_id: str
    #: one for each DAG that listened when it was told first
    runs: tuple[Triggered, ...]
    #: it had been told before: nothing started now
    duplicate: bool = False
    replayed: bool = False


class DagView(msgspec.Struct, frozen=True):
    """The current version of a DAG."""

    definition: Definition
    version: int
    paused: bool
    created_at: datetime
    updated_at: datetime
    next_run_at: datetime | None = None
    #: core run state -> how many runs of the DAG are in it (backfill parents left out)
    run_counts: dict[str, int] = msgspec.field(default_factory=dict)
    #: reason -> fires that started no run
    dropped_fires: dict[str, int] = msgspec.field(default_factory=dict)
    last_dropped: LastDropped | None = None
    #: empty in lists
    awaits: tuple[AwaitedView, ...] = ()


class WindowView(msgspec.Struct, frozen=True):
    """One window of a backfill and the run that serves it."""

    window: Window
    run_id: str
    #: a core run state, or `skipped` for a window that was kept as it was
    state: str


class VoteView(msgspec.Struct, frozen=True):
    """A vote on an approval."""

    by: str
    choice: str
    comment: str | None
    at: datetime


class CalledView(msgspec.Struct, frozen=True):
    """A run that a task called."""

    run_id: str
    dag_id: str
    #: core run state
    state: str


class WaitView(msgspec.Struct, frozen=True):
    """What a task waits for without a worker."""

    #: time | signal | approval | run | sleep (its own code sleeps) | nothing (it is about to fail)
    kind: str
    attempt: int
    since: datetime
    #: when the wait ends by itself
    until: datetime
    #: of a signal
    name: str = ""
    #: of an approval
    prompt: str = ""
    choices: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    quorum: int = 1
    votes: tuple[VoteView, ...] = ()
    #: of a run
    run_id: str = ""
    dag_id: str = ""


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """An open approval."""

    run_id: str
    dag_id: str
    task: str
    attempt: int
    asked_at: datetime
    expires_at: datetime
    prompt: str
    choices: tuple[str, ...]
    roles: tuple[str, ...]
    #: votes for one choice that decide
    quorum: int
    votes: tuple[VoteView, ...] = ()


class PublishedView(msgspec.Struct, frozen=True):
    """What a run answers to a query."""

    name: str
    #: JSON
    value: msgspec.Raw
    at: datetime | None = None
    #: who published it; None = the system knows it
    task: str | None = None
    attempt: int | None = None


class SignalSent(msgspec.Struct, frozen=True):
    """Answer to a signal."""

    run_id: str
    #: core run state
    state: str
    name: str
    signal_id: str
    replayed: bool = False


class RunView(msgspec.Struct, frozen=True):
    """One run, as last committed."""

    run_id: str
    dag_id: str
    dag_version: int
    run_type: RunType
    #: core run state
    state: str
    window: Window | None
    attempts: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    sla_deadline: datetime | None = None
    parent_run_id: str | None = None
    error: str | None = None
    #: empty = a person, a schedule or a backfill
    triggered_by: tuple[Cause, ...] = ()
    #: its own SLA was missed; tasks that missed theirs, at most the first hundred
    sla_missed: bool = False
    tasks_sla_missed: tuple[str, ...] = ()
    #: what took too long, of a run that timed out: run | queued
    timed_out: str | None = None
    #: task id -> core task state; empty in lists
    tasks: dict[str, str] = msgspec.field(default_factory=dict)
    #: backfills only; at most the first 1,000 by date
    windows: tuple[WindowView, ...] | None = None
    windows_truncated: bool = False
    counts: Counts | None = None
    #: task -> what it waits for, of those that wait without a worker; empty in lists
    waiting_for: dict[str, WaitView] = msgspec.field(default_factory=dict)
    #: task -> the run that computed its result, of those that use one; empty in lists
    cached: dict[str, str] = msgspec.field(default_factory=dict)
    #: it is in the archive, as it was when it left
    archived: bool = False
    #: windows at a time; None = as many as the DAG allows
    max_active_runs: int | None = None
    #: share of the windows that are over, 0 to 1; None in lists
    progress: float | None = None
    #: when the last window ends, and how many end in a second; None when that cannot be told
    eta: datetime | None = None
    windows_per_s: float | None = None
    #: the task that called it; `parent_run_id` is its run then
    parent_task: str | None = None
    #: task -> the run that it called last; empty in lists
    children: dict[str, CalledView] = msgspec.field(default_factory=dict)
    #: the Ray actor that has it now; "" = nobody needs to
    actor: str = ""


class MapInstance(msgspec.Struct, frozen=True):
    """One instance of a mapped task. `state` is a core task state."""

    index: int
    task: str
    state: str
    #: the run that computed its result; "" = this one
    cached_from: str = ""


class MapView(msgspec.Struct, frozen=True):
    """A mapped task of a run, with a page of its instances."""

    run_id: str
    task: str
    #: core task state of the map
    state: str
    #: None = it has not expanded yet
    total: int | None
    #: core task state -> instances in it
    counts: dict[str, int]
    items: tuple[MapInstance, ...]
    next_cursor: str | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a manual run or a backfill, already validated in form."""

    dag_id: str
    run_type: RunType = "manual"
    #: both or none; dates, or for manual runs RFC 3339 instants
    start: str | None = None
    end: str | None = None
    #: of a manual run: the partition it is about, as `Window.partition`
    partition: str = ""
    #: of a manual run: the event because of which it starts; another trigger with it starts nothing
    event_id: str = ""
    causes: tuple[Cause, ...] = ()
    #: of a backfill that is not over dates; None = those that the DAG declares
    partitions: tuple[Dimension, ...] | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    plan_hash: str | None = None
    max_active_runs: int | None = None
    run_backwards: bool = False
    reprocess: str = "none"
    #: a restart keeps the version the run was pinned to, instead of the DAG's current one
    pinned_version: bool = False
    #: of a manual run: the trace that it belongs to (`traces.py`)
    traceparent: str = ""


class Widening(msgspec.Struct, frozen=True, kw_only=True):
    """A request for more windows of a backfill that goes on, already validated in form."""

    #: dates: it is over everything from the earliest to the latest afterwards; None = as now
    start: str | None = None
    end: str | None = None
    #: of a backfill over partitions
    partitions: tuple[Dimension, ...] | None = None
    #: of the runs that are created for them
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    plan_hash: str | None = None
    reprocess: str = "none"
    pinned_version: bool = False


class Wider(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a Widening."""

    run_id: str
    dag_id: str
    #: core run state
    state: str
    #: of all windows
    counts: Counts
    #: windows that came new
    added: int
    replayed: bool = False


class Triggered(msgspec.Struct, frozen=True):
    """What a trigger answered: a new run, or the one that already stood for that window."""

    run_id: str
    dag_id: str
    run_type: RunType
    state: str
    counts: Counts | None = None
    #: True when the answer was stored under the request's idempotency key
    replayed: bool = False
    #: the run was there already
    existing: bool = False


class PlannedWindow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a backfill would do about one window."""

    window: Window
    #: create | restart | skip | adopt
    action: str
    run_id: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """A dry run: everything a trigger would do, and the hash that pins it."""

    dag_id: str
    run_type: RunType
    plan_hash: str
    windows: tuple[PlannedWindow, ...]
    #: total, create, restart, skip
    counts: dict[str, int]
    #: tasks in generations: each group needs only groups before it
    task_groups: tuple[tuple[str, ...], ...]


class DagDefined(msgspec.Struct, frozen=True):
    """Answer to a definition."""

    dag_id: str
    version: int
    paused: bool
    replayed: bool = False


class Uncached(msgspec.Struct, frozen=True):
    """Answer to an uncache: of this DAG, or task of it, no attempt counts that had begun then."""

    dag_id: str
    #: None = all of them
    task: str | None
    at: datetime


class RunChanged(msgspec.Struct, frozen=True):
    """Answer to a command on a run or on one of its tasks."""

    run_id: str
    #: core run state after the command
    state: str
    attempts: int
    #: core task state after the command, for commands on a task
    task_state: str | None = None
    replayed: bool = False


class Frame(msgspec.Struct, eq=False):
    """One event of a stream, ready for any transport; many readers share it. `seq` is None for frames without an id."""

    seq: int | None
    #: the event class's wire name, or `end`, or `keep_alive`
    kind: str
    #: JSON object with core words, or None for keep_alive
    data: dict[str, Any] | None = None
    #: the frame as its surface sends it, once somebody has made that
    wire: bytes | None = None


class WorkerView(msgspec.Struct, frozen=True):
    """One worker slot."""

    worker_id: str
    pool: str
    #: starting | idle | busy | draining | lost
    state: str
    #: host name
    node: str = ""
    pid: int = 0
    #: of Ray's node
    node_id: str = ""


class LimitView(msgspec.Struct, frozen=True):
    """What is allowed under one name, and what is so now."""

    name: str
    #: limit | dag: all tasks of a DAG with `max_active_tasks`
    kind: str = "limit"
    #: False: tasks name it, and nobody has defined it, so they are only counted
    defined: bool = True
    max_running: int | None = None
    rate: Rate | None = None
    #: permits in use; of a pattern nothing: each key of it is counted by itself
    running: int = 0
    #: ready tasks that wait
    waiting: int = 0


class WaitingView(msgspec.Struct, frozen=True):
    """A ready task that has not started, and what it waits for."""

    task: str
    pool: str
    reasons: tuple[str, ...]


class LogChunk(msgspec.Struct, frozen=True):
    """Output of one attempt of a task, oldest first."""

    task: str
    attempt: int
    text: str
    truncated: bool = False


class TenantShare(msgspec.Struct, frozen=True):
    """A tenant's weight in the shares of worker slots."""

    tenant: str
    weight: float


class RunWaiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run waits for, as the scheduler sees it now; `tasks` as the limits do."""

    run_id: str
    #: place (among its DAG's active runs) | slot (of a worker) | None: for neither
    waiting_for: str | None = None
    #: scheduled | manual | backfill
    run_class: str | None = None
    #: runs that start before it in its lane; places its DAG has taken, and has
    ahead: int | None = None
    active_runs: int | None = None
    max_active_runs: int | None = None
    paused: bool = False
    #: what its DAG gets of all slots while everybody who wants some now goes on to
    share: float | None = None
    #: ready tasks that have not started, each with its reasons
    tasks: tuple[WaitingView, ...] = ()


class LiveRunWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a run of the runs surface, already validated in form."""

    #: redis | k8s
    mode: str = "redis"
    #: who asked for it, as the caller says
    owner: str | None = None
    #: JSON object as text, kept as it is
    metadata: msgspec.Raw = NO_JSON
    #: run the current version of this DAG
    dag_id: str | None = None
    #: an inline plan: its tasks, checked; None and no `dag_id` = a run that its caller drives by checkpoints
    tasks: tuple[TaskSpec, ...] | None = None
    #: the trace that it belongs to (`traces.py`)
    traceparent: str = ""


class LiveRunCreated(msgspec.Struct, frozen=True):
    """Answer to a LiveRunWanted."""

    run_id: str
    #: True when the answer was stored under the request's idempotency key
    replayed: bool = False


class LiveRunView(msgspec.Struct, frozen=True):
    """A run as the runs surface shows it."""

    run_id: str
    mode: str
    created_at: datetime
    #: core run state
    state: str
    owner: str | None = None
    #: JSON object as text
    metadata: msgspec.Raw = NO_JSON


class CheckpointView(msgspec.Struct, frozen=True):
    """Something that happened in a run, as told to who follows it; `at` strictly increases within a run."""

    id: str
    run_id: str
    #: whole milliseconds
    at: datetime
    kind: str
    data: msgspec.Raw = NO_JSON


class InstanceWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A request to work through a plan, validated in form."""

    #: name of the plan file, without `.md`
    plan: str
    #: None = the server's default executor
    executor: str | None = None
    batch_size: int = 5
    #: 0 = unlimited
    max_iterations: int = 50
    max_retries: int = 2
    #: the trace that it belongs to (`traces.py`)
    traceparent: str = ""


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """An orchestrator instance as the registry knows it."""

    instance_id: str
    pid: int
    plan_path: str
    plan_name: str
    started_at: datetime
    last_heartbeat: datetime
    #: running | stopping | stopped | crashed
    status: str
    #: its actor answers
    alive: bool
    #: complete | error | blocked | max_iterations | shutdown; None while it runs
    exit_reason: str | None = None
    executor: str | None = None


class PlanTaskView(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a plan, in the instances surface's words."""

    task_id: str
    #: as written, with its `(depends: …)` note
    description: str
    #: pending | in_progress | completed | failed | skipped
    status: str
    #: for instance `Phase 1: Setup`
    phase: str | None = None
    retry_count: int = 0
    last_error: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a plan is. Counts, phases and progress follow from `tasks` (in plan order)."""

    #: "" when no instance works on it
    instance_id: str
    plan_path: str
    plan_name: str
    #: running | paused | stopping | stopped
    status: str
    tasks: tuple[PlanTaskView, ...] = ()
    started_at: datetime | None = None
    #: batches so far
    iteration: int = 0
    max_iterations: int = 0
    exit_reason: str | None = None


class Acknowledged(msgspec.Struct, frozen=True):
    """What came of a command to an instance. `error` says why not; None when done."""

    success: bool
    message: str
    error: str | None = None


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """A plan file."""

    name: str
    #: absolute
    path: str
    has_status: bool = False
    last_modified: datetime | None = None
    output_dir: str | None = None


class FindingView(msgspec.Struct, frozen=True):
    """What a task of a plan left behind."""

    task_id: str
    #: absolute
    path: str
    size_bytes: int
    last_modified: datetime


class Idempotency(msgspec.Struct, frozen=True):
    """A caller's key for one command: same key and fingerprint give the stored answer."""

    #: already scoped by tenant, method, path
    key: str
    #: SHA-256 of the canonical body
    fingerprint: str
