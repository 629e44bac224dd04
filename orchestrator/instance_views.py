"""What the instances surface asks for and shows: who works through which plan, and how far it is."""

from __future__ import annotations

from datetime import datetime

import msgspec


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
