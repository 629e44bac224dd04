"""What the jobs surface says."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from orchestrator.job_views import JobStatus

JobsJobStatus = JobStatus


class JobsJob(TypedDict):
    """A job of a blueprint. At the end `status` and `current_state` both tell the end."""

    id: str
    blueprint_name: str
    current_state: str
    status: JobsJobStatus
    initial_data: dict[str, Any]
    state_history: dict[str, Any]
    webhook_url: str | None
    error_message: str | None
    parent_job_id: str | None
    child_job_id: str | None
    current_task_id: str | None
    task_worker_id: str | None
    retry_count: int
    progress: float
    progress_message: str
    current_task_info: dict[str, Any] | None
    current_task_transitions: dict[str, str]
    aggregation_target: str | None
    active_branches: list[str]
    aggregation_results: dict[str, Any]
    data_metadata: dict[str, Any]
    tracing_context: dict[str, Any]
    client_config: dict[str, Any]
    #: seconds since the epoch
    task_dispatched_at: float | None
    cancel_requested: bool
    created_at: str
    updated_at: str
    finished_at: str | None
    #: why a job that is fetched alone waits for a worker; None in lists, and while nobody can say
    waiting_reason: str | None


class JobsHistoryEvent(TypedDict):
    """One line of a job's history."""

    event_id: str
    job_id: str
    timestamp: str
    state: str | None
    event_type: str
    duration_ms: int | None
    previous_state: str | None
    next_state: str | None
    worker_id: str | None
    attempt_number: int | None
    context_snapshot: dict[str, Any]


class JobsWebhookAttempt(TypedDict):
    """One try to tell a receiver."""

    timestamp: str
    status_code: int | None
    error: str | None


class JobsWebhook(TypedDict):
    """What somebody is told of a job's end, and what became of that."""

    id: str
    event: str
    job_id: str
    url: str
    status: Literal["pending", "delivered", "dead"]
    attempt_count: int
    attempts: list[JobsWebhookAttempt]
    created_at: str
    next_attempt_at: str | None
    ended_at: str | None


class JobsBlueprint(TypedDict):
    """A blueprint that is loaded, and where its jobs are created."""

    name: str
    api_version: str | None
    api_endpoint: str | None
    version: int


class JobsDashboard(TypedDict):
    """How many workers there are, and jobs by status."""

    workers: dict[str, int]
    jobs: dict[str, int]
