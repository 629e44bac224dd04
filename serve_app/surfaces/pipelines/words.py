"""Views, frames and refusals in this surface's words. Every key is always there: what is unknown is null.

Statuses, levels and messages are the port's; log times are the callers' own text. Clients decode strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from orchestrator.errors import Invalid, NotFound, NotInCharge
from orchestrator.pipeline_views import (
    Claimed,
    JobResult,
    LogEntry,
    PipelineConfig,
    PipelineJobView,
    PipelineView,
    RunnerView,
)
from orchestrator.views import Frame
from serve_app.problems import Kind, Problem

Json = dict[str, Any]

#: what is told about an error of each kind, when it has no text of its own
ERRORS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.UNAUTHENTICATED: "Unauthorized",
        Kind.FORBIDDEN: "Forbidden",
        Kind.NOT_FOUND: "Not found",
        Kind.WRONG_METHOD: "Method not allowed",
        Kind.CONFLICT: "Idempotency key reused",
        Kind.BROKEN: "Internal server error",
        Kind.UNAVAILABLE: "Service unavailable",
    }
)


# -- views


def pipeline(view: PipelineView) -> Json:
    """A Pipeline."""
    return {
        "id": view.id,
        "name": view.name,
        "description": view.description,
        "script": view.script,
        "required_modules": view.required_modules,
        "created_at": instant(view.created_at),
        "updated_at": instant(view.updated_at),
        "tags": view.tags,
        "config": _config(view.config),
        "version": view.version,
    }


def job(view: PipelineJobView) -> Json:
    """A Job, in lists as well."""
    return {
        "id": view.id,
        "pipeline_id": view.pipeline_id,
        "status": view.status,
        "requested_at": instant(view.requested_at),
        "started_at": _instant_or_none(view.started_at),
        "completed_at": _instant_or_none(view.completed_at),
        "runner_id": view.runner_id,
        "parameters": view.parameters,
        "result": None if view.result is None else _result(view.result),
        "retry_count": view.retry_count,
        "timeout_seconds": view.timeout_seconds,
    }


def execution(claimed: Claimed) -> Json:
    """A JobExecutionInfo."""
    return {
        "job_id": claimed.job_id,
        "pipeline_id": claimed.pipeline_id,
        "pipeline_source": claimed.pipeline_source,
        "parameters": claimed.parameters,
        "env_vars": claimed.env_vars,
    }


def runner(view: RunnerView) -> Json:
    """A Runner."""
    return {
        "id": view.id,
        "capabilities": view.capabilities,
        "capability_count": len(view.capabilities),
        "registered_at": instant(view.registered_at),
        "last_heartbeat_at": instant(view.last_heartbeat_at),
        "status": view.status,
    }


def log_entry(entry: LogEntry) -> Json:
    """A LogEntry, its time as it came."""
    return {"timestamp": entry.timestamp, "level": entry.level, "message": entry.message}


def told(frame: Frame) -> Json:
    """The data of a frame of a log stream."""
    data = frame.data or {}
    if frame.kind == "log":
        return {name: data[name] for name in ("timestamp", "level", "message")}
    return {"status": data["status"]}


def _config(config: PipelineConfig) -> Json:
    """Secrets are masked by the port; the key is there only when there are any."""
    shown: Json = {name: getattr(config, name) for name in ("timeout_seconds", "max_retries", "env_vars")}
    return shown | ({"secret_env_vars": config.secret_env_vars} if config.secret_env_vars else {})


def _result(result: JobResult) -> Json:
    return {
        "success": result.success,
        "exit_code": result.exit_code,
        "output": result.output,
        "error_message": result.error_message,
    }


# -- refusals


def error(refused: Exception, problem: Problem) -> str:
    """What is told about an error."""
    match refused:
        case Invalid():
            return refused.message
        case NotFound(kind="stub"):
            return f"Stub '{refused.name}' not found"
        case NotFound():
            return f"{refused.kind.capitalize()} {refused.name} not found"
        case NotInCharge():
            return f"{ERRORS[problem.kind]}: {refused}"
    return ERRORS.get(problem.kind, problem.message)


# -- time


def instant(moment: datetime) -> str:
    """UTC, six digits, Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _instant_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else instant(moment)
