"""Views and errors in this surface's words: jobs, history, workers, and `{"error": text}`.

Job views already speak the contract's words (`orchestrator/job_views.py`); what is left is times, and what is always
empty. Errors are told by fixed texts; a test of the contract may compare them letter by letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, get_args

import orjson

from orchestrator.blueprint import Blueprint
from orchestrator.errors import Conflict, Invalid, NotFound, NotInCharge
from orchestrator.job_views import HistoryEvent, JobStatus, JobView
from orchestrator.webhook import DEAD, DELIVERED, PENDING, Delivery
from serve_app.problems import Kind, NotThatWorker, Problem, QuotaExhausted, Unauthenticated

Json = dict[str, Any]

STATUSES = get_args(JobStatus)

DELIVERY_STATUSES = (PENDING, DELIVERED, DEAD)

INVALID_JSON = "Invalid JSON body"
NO_CLIENT_TOKEN = "Missing X-Client-Token header"
NO_WORKER_TOKEN = "Missing X-Worker-Token header"
BAD_CLIENT_TOKEN = "Unauthorized: Invalid token"
BAD_WORKER_TOKEN = "Unauthorized: No valid token found"
BAD_INDIVIDUAL_TOKEN = "Unauthorized: Invalid individual worker token"
KEY_REUSED = "Idempotency key reused"

ERRORS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.INVALID: INVALID_JSON,
        Kind.TOO_LARGE: "Payload too large",
        Kind.UNAUTHENTICATED: BAD_CLIENT_TOKEN,
        Kind.FORBIDDEN: "Forbidden",
        Kind.NOT_FOUND: "Not found",
        Kind.WRONG_METHOD: "Method not allowed",
        Kind.CONFLICT: "Conflict",
        Kind.RATE_LIMITED: "Too Many Requests",
        Kind.BROKEN: "Internal server error",
        Kind.UNAVAILABLE: "Service unavailable",
    }
)


def job(view: JobView) -> Json:
    """A Job: every key, always."""
    return {
        "id": view.id,
        "blueprint_name": view.blueprint_name,
        "current_state": view.current_state,
        "status": view.status,
        "initial_data": view.initial_data,
        "state_history": view.state_history,
        "webhook_url": view.webhook_url,
        "error_message": view.error_message,
        "parent_job_id": view.parent_job_id,
        "child_job_id": view.child_job_id,
        "current_task_id": view.current_task_id,
        "task_worker_id": view.task_worker_id,
        "retry_count": view.retry_count,
        "progress": view.progress,
        "progress_message": view.progress_message,
        "current_task_info": view.current_task_info,
        "current_task_transitions": view.current_task_transitions,
        "aggregation_target": view.aggregation_target,
        "active_branches": view.active_branches,
        "aggregation_results": view.aggregation_results,
        "data_metadata": view.data_metadata,
        "tracing_context": {},
        "client_config": view.client_config,
        "task_dispatched_at": None if view.task_dispatched_at is None else view.task_dispatched_at.timestamp(),
        "cancel_requested": view.cancel_requested,
        "created_at": instant(view.created_at),
        "updated_at": instant(view.updated_at),
        "finished_at": None if view.finished_at is None else instant(view.finished_at),
        "waiting_reason": view.waiting_reason,
    }


def history_event(event: HistoryEvent) -> Json:
    """One line of a job's history: every key, always."""
    return {
        "event_id": event.event_id,
        "job_id": event.job_id,
        "timestamp": instant(event.timestamp),
        "state": event.state,
        "event_type": event.event_type,
        "duration_ms": event.duration_ms,
        "previous_state": event.previous_state,
        "next_state": event.next_state,
        "worker_id": event.worker_id,
        "attempt_number": event.attempt_number,
        "context_snapshot": event.context_snapshot,
    }


def webhook(of: Delivery) -> Json:
    """A webhook and its last attempts: every key, always."""
    return {
        "id": of.id,
        "event": of.event,
        "job_id": of.about,
        "url": of.url,
        "status": of.state,
        "attempt_count": of.attempts,
        "attempts": [
            {"timestamp": instant(each.at), "status_code": each.status, "error": each.error} for each in of.log
        ],
        "created_at": instant(of.created_at),
        "next_attempt_at": None if of.next_at is None else instant(of.next_at),
        "ended_at": None if of.ended_at is None else instant(of.ended_at),
    }


def blueprint(of: Blueprint, version: int) -> Json:
    """A blueprint as lists show it."""
    return {"name": of.name, "api_version": of.api_version, "api_endpoint": of.api_endpoint, "version": version}


def dashboard(workers: int, counts: Mapping[str, int]) -> Json:
    """How many there are; `queued` always, other statuses when there are some."""
    return {"workers": {"total": workers}, "jobs": {"queued": 0} | {name: n for name, n in counts.items() if n}}


def invalid_decision(decision: str) -> str:
    """No transition of the job has this name."""
    return f"Invalid decision '{decision}' for this job"


def cannot_cancel(status: str) -> str:
    """The job is over."""
    return f"Job is not in a state that can be cancelled (status: {status})."


def not_quarantined(status: str) -> str:
    """Only what is quarantined can be released."""
    return f"Job is not quarantined (status: {status})."


def not_dead(status: str) -> str:
    """Only what was given up can be tried from the start."""
    return f"Webhook is not dead (status: {status})."


CANNOT_APPROVE = "Job is not in a state that can be approved"


def problem(found: Problem, error: Exception) -> str:
    """The text that tells an error."""
    match error:
        case Invalid() | Conflict():
            return error.message
        case NotFound():
            return f"{error.kind.capitalize()} not found"
        case Unauthenticated():
            return str(error)
        case NotThatWorker():
            return f"Forbidden: {error}"
        case QuotaExhausted():
            return "Quota exceeded or not configured"
        case NotInCharge():
            return f"{ERRORS[found.kind]}: {error}"
        case _:
            return ERRORS[found.kind]


def encode(body: object) -> bytes:
    """`body` as JSON."""
    return orjson.dumps(body)


def instant(moment: datetime) -> str:
    """ISO 8601, UTC with its offset, six digits of a second."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
