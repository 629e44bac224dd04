"""Views, events and refusals in this surface's words. Nothing is left out: what is unknown is null.

A phase is known by its string, `Phase N: Title`; counts, phases and progress follow from the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from orchestrator.errors import InstanceDead, NotFound, NotInCharge
from orchestrator.instance_views import Acknowledged, FindingView, InstanceStatus, InstanceView, PlanTaskView, PlanView
from orchestrator.plan_progress import PhaseTotals, current_phase, phase_totals, progress, totals
from orchestrator.views import Frame
from serve_app.problems import Kind, Problem

Json = dict[str, Any]

#: a heartbeat older than this is stale
STALE_AFTER = timedelta(seconds=60)

#: command -> what it says when done, and when not
_COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "pause": ("Orchestrator '{0}' pause requested", "Pause not acknowledged"),
        "resume": ("Orchestrator '{0}' resume requested", "Resume not acknowledged"),
        "shutdown": ("Orchestrator '{0}' shutdown requested", "Shutdown not acknowledged"),
        "skip": ("Task '{0}' skipped", "Skip failed"),
        "retry": ("Task '{0}' reset for retry", "Task is not in a retriable state"),
    }
)

#: kind of NotFound -> text
_NOT_FOUND: Mapping[str, str] = MappingProxyType(
    {
        "instance": "Orchestrator '{instance_id}' not found",
        "plan": "Plan '{plan_name}' not found",
        "status": "No status found for plan '{plan_name}'. Run /plan:implement first.",
        "finding": "Finding for task '{task_id}' not found in plan '{plan_name}'",
        "task": "Task '{task_id}' not found in plan",
    }
)

_DETAILS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.UNAUTHENTICATED: "Not authenticated",
        Kind.FORBIDDEN: "Not enough permissions",
        Kind.NOT_FOUND: "Not Found",
        Kind.WRONG_METHOD: "Method Not Allowed",
        Kind.BROKEN: "Internal Server Error",
        Kind.UNAVAILABLE: "Service Unavailable",
    }
)


# -- views


def instance(view: InstanceView, now: datetime) -> Json:
    """An OrchestratorInfo."""
    return {
        "id": view.instance_id,
        "pid": view.pid,
        "plan_path": view.plan_path,
        "plan_name": view.plan_name,
        "worktree_path": None,
        "started_at": instant(view.started_at),
        "last_heartbeat": instant(view.last_heartbeat),
        "status": view.status,
        "socket_path": None,
        "is_alive": view.alive,
        "is_stale": now - view.last_heartbeat > STALE_AFTER,
        "exit_reason": view.exit_reason,
        "executor": view.executor,
    }


def status(view: InstanceStatus) -> Json:
    """A StatusResponse."""
    return {
        "instance_id": view.instance_id,
        "plan_path": view.plan_path,
        "plan_name": view.plan_name,
        "status": view.status,
        "summary": summary(view.tasks),
        "tasks": [task(each) for each in view.tasks],
        "phases": [phase(each) for each in phase_totals(view.tasks)],
        "started_at": _instant_or_none(view.started_at),
        "iteration": view.iteration,
        "max_iterations": view.max_iterations,
        "exit_reason": view.exit_reason,
    }


def summary(tasks: Sequence[PlanTaskView]) -> Json:
    """A StatusSummary."""
    counts = totals(tasks)
    return {
        "total_tasks": counts.total,
        "completed": counts.completed,
        "pending": counts.pending,
        "in_progress": counts.in_progress,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "current_phase": current_phase(tasks),
        "progress_percent": progress(tasks),
    }


def phase(counts: PhaseTotals) -> Json:
    """A PhaseSummary."""
    return {
        "phase_number": counts.number,
        "name": counts.title,
        "total_tasks": counts.total,
        "completed_tasks": counts.completed,
        "pending_tasks": counts.pending,
        "failed_tasks": counts.failed,
        "is_current": counts.is_current,
    }


def task(view: PlanTaskView) -> Json:
    """A TaskInfo."""
    return {
        "id": view.task_id,
        "description": view.description,
        "status": view.status,
        "phase": view.phase,
        "retry_count": view.retry_count,
        "last_error": view.last_error,
        "started_at": _instant_or_none(view.started_at),
        "completed_at": _instant_or_none(view.completed_at),
    }


def plan(view: PlanView) -> Json:
    """A PlanInfo."""
    return {
        "name": view.name,
        "path": view.path,
        "has_status": view.has_status,
        "last_modified": _instant_or_none(view.last_modified),
        "output_dir": view.output_dir,
    }


def finding(view: FindingView) -> Json:
    """A FindingInfo."""
    return {
        "task_id": view.task_id,
        "file_path": view.path,
        "size_bytes": view.size_bytes,
        "last_modified": instant(view.last_modified),
    }


def acknowledged(command: str, of: str, answer: Acknowledged) -> Json:
    """A CommandResponse about the instance or task `of`; its message follows from command and success."""
    done, failed = _COMMANDS[command]
    message = done.format(of) if answer.success else failed
    return {"success": answer.success, "message": message, "error": answer.error}


# -- events


def initial_status(view: InstanceStatus, instance_id: str, now: datetime) -> Json:
    """The first frame of every stream."""
    return {"type": "initial_status", "timestamp": instant(now), "instance_id": instance_id, "data": status(view)}


def event(frame: Frame, instance_id: str) -> Json:
    """One event in its envelope."""
    told = frame.data or {}
    return {
        "type": frame.kind,
        "timestamp": _told_instant(told.get("timestamp")),
        "instance_id": instance_id,
        "seq": frame.seq,
        "data": told.get("data"),
    }


def ping(now: datetime) -> Json:
    """A sign of life."""
    return {"type": "ping", "timestamp": instant(now)}


def connected(instance_id: str, now: datetime) -> Json:
    """The first frame of an activity stream."""
    return {
        "type": "connected",
        "timestamp": instant(now),
        "instance_id": instance_id,
        "message": "Activity stream connected",
    }


def activity(frame: Frame, instance_id: str) -> Json | None:
    """A tool call, flat; None for any other event."""
    if frame.kind not in ("tool_started", "tool_completed"):
        return None
    told = frame.data or {}
    data = told.get("data") or {}
    flat = {
        "type": frame.kind,
        "timestamp": _told_instant(told.get("timestamp")),
        "instance_id": instance_id,
        "tool_name": data.get("tool_name"),
        "tool_id": data.get("tool_id"),
        "input_summary": data.get("input_summary"),
    }
    if frame.kind == "tool_completed":
        flat |= {name: data.get(name) for name in ("duration", "duration_ms", "success")}
    return flat


# -- refusals


def detail(error: Exception, problem: Problem, path_params: Mapping[str, str]) -> str:
    """What is told about `error` to who asked for a path with these parameters."""
    if isinstance(error, InstanceDead):
        name = path_params.get("instance_id", error.instance_id)
        return f"Orchestrator '{name}' is not running (process dead)"
    if isinstance(error, NotFound) and error.kind in _NOT_FOUND:
        names = dict.fromkeys(("instance_id", "plan_name", "task_id"), error.name)
        return _NOT_FOUND[error.kind].format(**{**names, **path_params})
    if isinstance(error, NotInCharge):
        return f"{_DETAILS[problem.kind]}: {error}"
    return _DETAILS.get(problem.kind, problem.message)


# -- time


def instant(moment: datetime) -> str:
    """UTC, six digits, Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _told_instant(told: datetime | str | None) -> str | None:
    """The time of an event; the port may have read it as text or not."""
    return instant(told) if isinstance(told, datetime) else told


def _instant_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else instant(moment)
