"""What the server's answers look like, under the names of its OpenAPI components.

Instants are RFC 3339 text in UTC. A key that is `NotRequired` is left out when there is nothing to say. That they
agree with the server's own description is what `tests/unit/client/test_shapes.py` checks.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

# -- dags

DagsWindow = TypedDict("DagsWindow", {"from": str, "to": str})
DagsRunState = Literal["queued", "running", "success", "failed", "cancelled"]
DagsRunType = Literal["manual", "backfill", "scheduled"]


class DagsDagDefined(TypedDict):
    """What a definition, a pause or a resume came to."""

    dag_id: str
    status: Literal["active", "paused"]
    version: int


class DagsDagView(TypedDict):
    """A DAG with what the server knows about it."""

    dag_id: str
    owner: str
    schedule: str | None
    timezone: str
    tasks: list[dict[str, Any]]
    catchup: str
    overlap: str
    max_active_runs: int
    sla_s: int | None
    callback_url: str | None
    description: NotRequired[str | None]
    tags: list[str]
    status: Literal["active", "paused"]
    version: int
    created_at: str
    updated_at: str
    next_run_at: str | None
    run_counts: dict[str, int]


class DagsCounts(TypedDict):
    """The windows of a backfill by state; each counts once."""

    total: int
    queued: int
    running: int
    success: int
    failed: int
    cancelled: int
    skipped: int


class DagsTriggered(TypedDict):
    """A new run, or the one that stood for that window already."""

    run_id: str
    state: DagsRunState
    dag_id: str
    run_type: DagsRunType
    counts: NotRequired[DagsCounts | None]


class DagsBatchItem(TypedDict):
    """What became of one entry: `run_id` and `state`, or `error` and `message`."""

    run_id: NotRequired[str | None]
    state: NotRequired[DagsRunState | None]
    error: NotRequired[str | None]
    message: NotRequired[str | None]


class DagsPlannedWindow(TypedDict):
    """What a backfill would do about one window."""

    window: DagsWindow
    action: Literal["create", "restart", "skip", "adopt"]
    run_id: NotRequired[str | None]


class DagsPlan(TypedDict):
    """A dry run; `plan_hash` makes the real one do exactly this or nothing."""

    dag_id: str
    run_type: DagsRunType
    dry_run: Literal[True]
    plan_hash: str
    counts: dict[str, int]
    windows: list[DagsPlannedWindow]
    task_groups: list[list[str]]


class DagsRunSummary(TypedDict):
    """A run as lists show it."""

    run_id: str
    dag_id: str
    dag_version: int
    run_type: DagsRunType
    state: DagsRunState
    window: DagsWindow | None
    attempts: int
    sla_deadline: str | None
    #: task -> pending, running, retrying, done, failed, skipped, upstream_failed or cancelled
    tasks: dict[str, str]
    created_at: str
    started_at: str | None
    finished_at: str | None
    parent_run_id: str | None
    error: str | None
    paused: NotRequired[bool | None]
    counts: NotRequired[DagsCounts | None]


class DagsRunWindow(TypedDict):
    """One window of a backfill and the run that serves it."""

    window: DagsWindow
    run_id: str
    state: str


class DagsRun(DagsRunSummary):
    """A run; `windows` and `counts` belong to backfills."""

    windows: NotRequired[list[DagsRunWindow] | None]
    windows_truncated: NotRequired[bool | None]


class DagsRunChanged(TypedDict):
    """What a command on a run came to."""

    run_id: str
    state: DagsRunState
    attempts: int
    paused: NotRequired[bool | None]


class DagsTaskChanged(TypedDict):
    """What a command on a task came to; `attempts` are the run's."""

    run_id: str
    task: str
    state: str
    attempts: int


class DagsLog(TypedDict):
    """Captured output of one attempt."""

    task: str
    attempt: int
    text: str
    truncated: bool


# -- runs


class RunsRun(TypedDict):
    """A run of the runs surface."""

    id: str
    mode: Literal["plan", "redis", "k8s"]
    createdAt: str
    status: Literal["pending", "running", "completed", "failed", "canceled"]
    owner: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]


class RunsCheckpoint(TypedDict):
    """Something that happened in a run; `ts` strictly increases and is the id to resume after."""

    id: str
    runId: str
    ts: str
    type: str
    data: NotRequired[Any]


# -- instances


class OrchestratorInfo(TypedDict):
    """An orchestrator instance as the registry knows it."""

    id: str
    pid: int
    plan_path: str
    plan_name: str
    worktree_path: str | None
    started_at: str
    last_heartbeat: str
    status: Literal["running", "stopping", "stopped", "crashed"]
    socket_path: str | None
    is_alive: bool
    is_stale: bool
    exit_reason: str | None
    executor: str | None


class StatusSummary(TypedDict):
    """How many tasks are how far."""

    total_tasks: int
    completed: int
    pending: int
    in_progress: int
    failed: int
    skipped: int
    current_phase: str | None
    progress_percent: float


class TaskInfo(TypedDict):
    """One task of a plan."""

    id: str
    description: str
    status: Literal["pending", "in_progress", "completed", "failed", "skipped"]
    phase: str | None
    retry_count: int
    last_error: str | None
    started_at: str | None
    completed_at: str | None


class PhaseSummary(TypedDict):
    """One phase of a plan."""

    phase_number: int
    name: str
    total_tasks: int
    completed_tasks: int
    pending_tasks: int
    failed_tasks: int
    is_current: bool


class StatusResponse(TypedDict):
    """How far a plan is."""

    instance_id: str
    plan_path: str
    plan_name: str
    status: Literal["running", "paused", "stopping", "stopped"]
    summary: StatusSummary
    tasks: list[TaskInfo]
    phases: list[PhaseSummary]
    started_at: str | None
    iteration: int
    max_iterations: int
    exit_reason: str | None


class CommandResponse(TypedDict):
    """What came of a command; with `success` false `message` and `error` say why not."""

    success: bool
    message: str
    error: str | None


class PlanInfo(TypedDict):
    """A plan file."""

    name: str
    path: str
    has_status: bool
    last_modified: str | None
    output_dir: str | None


class FindingInfo(TypedDict):
    """What a task of a plan left behind."""

    task_id: str
    file_path: str
    size_bytes: int
    last_modified: str


class HealthResponse(TypedDict):
    """How the server is."""

    ok: bool
    service: str
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    timestamp: str
    orchestrators_running: int
