"""What the instances surface says."""

from __future__ import annotations

from typing import Literal, TypedDict


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
