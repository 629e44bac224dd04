"""What starts runs of a DAG, and what answers it: triggers, backfills and more windows for them, events, dry runs."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.definition import Dimension, RunType, Window
from orchestrator.events import Counts
from orchestrator.messages import Cause


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


class EventTold(msgspec.Struct, frozen=True):
    """What became of an event."""

    name: str
    event_id: str
    #: one for each DAG that listened when it was told first
    runs: tuple[Triggered, ...]
    #: it had been told before: nothing started now
    duplicate: bool = False
    replayed: bool = False
