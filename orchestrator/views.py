"""What people look at: the shapes that reads of DAGs and their runs return, whatever surface renders them.

Words here are the core's (`succeeded`, not a surface's `success`); a surface translates. What starts runs is in
`starts.py`, workers and limits in `cluster_views.py`, what other surfaces show in `live_run_views.py` and
`instance_views.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from orchestrator.definition import Definition, RunType, Window
from orchestrator.events import Counts
from orchestrator.messages import Cause

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


class LogChunk(msgspec.Struct, frozen=True):
    """Output of one attempt of a task, oldest first."""

    task: str
    attempt: int
    text: str
    truncated: bool = False
