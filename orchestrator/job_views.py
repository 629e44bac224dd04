"""What is shown of a job. Source: jobs contract, section 1."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

#: where a job is, in the words of the contract
JobStatus = Literal[
    "pending",
    "running",
    "waiting_for_worker",
    "waiting_for_human",
    "waiting_for_parallel_tasks",
    "waiting_for_sub_job",
    "awaiting_retry",
    "finished",
    "failed",
    "error",
    "quarantined",
    "cancelled",
]


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands."""

    id: str
    blueprint_name: str
    current_state: str
    status: str
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
    #: {type, params, transitions, dispatch_strategy, resource_requirements, timeout_seconds, max_cost, priority}
    current_task_info: dict[str, Any] | None
    current_task_transitions: dict[str, str]
    aggregation_target: str | None
    active_branches: tuple[str, ...]
    aggregation_results: dict[str, Any]
    data_metadata: dict[str, Any]
    client_config: dict[str, Any]
    task_dispatched_at: datetime | None
    cancel_requested: bool
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    #: why it waits for a worker; None = it does not, or nobody could say, or it was not asked for alone
    waiting_reason: str | None = None


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's history; `timestamp` is rendered by the surface."""

    event_id: str
    job_id: str
    timestamp: datetime
    event_type: str
    state: str | None = None
    duration_ms: int | None = None
    previous_state: str | None = None
    next_state: str | None = None
    worker_id: str | None = None
    attempt_number: int | None = None
    context_snapshot: dict[str, Any] = {}
