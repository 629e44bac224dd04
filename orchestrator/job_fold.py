"""What readers are shown of a job, from its events alone: the job as it stands, and its history.

    event                                             line of the history
    JobCreated                                        job_created
    StateStarted, StateFinished, StateFailed          state_started, state_finished, state_failed
    TaskDelivered                                     task_dispatched (a worker has it: core task state running)
    TaskFinished, TaskGivenUp                         task_finished
    TaskRedelivered                                   task_redelivered
    SubJobStarted                                     sub_blueprint_started
    ApprovalReceived, CancelRequested, JobEnded       approval_received, cancel_requested, job_finished
    JobReleased                                       job_released (additive)

Others have no line. `event_id` is the job's id and the version of the event, so a line has the same id whenever it is
read. `duration_ms` is that of the visit, of the task since its delivery, or of the whole job.
Source: jobs contract, section 1; README of the contracts, section 2 (core task state).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator import job_events as e
from orchestrator.job_state import LIVE, Job, Slot, Stage, revive
from orchestrator.job_views import HistoryEvent, JobView


def view(events: Sequence[e.AnyJobEvent]) -> JobView:
    """The job that these events, from its first, make. Raises Broken when they do not begin one."""
    return show(revive(events, None))


def show(job: Job) -> JobView:
    """The job as it stands."""
    current = job.current
    live = current if current is not None and current.stage in LIVE else None
    return JobView(
        id=job.job_id,
        blueprint_name=job.blueprint_name,
        current_state=str(job.state),
        status=str(job.status),
        initial_data=job.initial_data,
        state_history=job.state_history,
        webhook_url=job.webhook_url,
        error_message=job.error,
        parent_job_id=job.parent_job_id,
        child_job_id=job.child_id,
        current_task_id=live.task_id if live else None,
        task_worker_id=live.worker_id if live else None,
        retry_count=job.retry_count,
        progress=job.progress,
        progress_message=job.progress_message,
        current_task_info=_info(current),
        current_task_transitions=job.transitions,
        aggregation_target=job.aggregate_into,
        active_branches=tuple(slot.task_id for slot in job.slots if job.parallel and slot.stage is not Stage.DONE),
        aggregation_results=job.aggregation_results,
        data_metadata=job.data_metadata,
        client_config=job.client,
        task_dispatched_at=live.delivered_at if live else None,
        cancel_requested=job.cancel_requested_at is not None,
        created_at=job.created_at,
        updated_at=job.updated_at,
        finished_at=job.finished_at,
    )


def _info(slot: Slot | None) -> dict[str, Any] | None:
    if slot is None:
        return None
    return {name: getattr(slot.spec, name) for name in slot.spec.__struct_fields__}


# ── history ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Past:
    """What later lines need to know of earlier events."""

    job_id: str = ""
    created_at: datetime | None = None
    state: str | None = None
    #: the state before
    before: str | None = None
    visit_at: datetime | None = None
    visit_attempt: int = 1
    #: task id -> attempt, worker that has it, since when
    attempts: dict[str, int] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)
    delivered: dict[str, datetime] = field(default_factory=dict)


def history(events: Sequence[e.AnyJobEvent]) -> list[HistoryEvent]:
    """Lines of the history, oldest first; `events` from the first one."""
    past, lines = _Past(), []
    for version, event in enumerate(events, 1):
        following = events[version] if version < len(events) else None
        line = _line(past, event, _state_of(following))
        if line is not None:
            lines.append(_numbered(past.job_id, version, event, line))
    return lines


def _numbered(job_id: str, version: int, event: e.JobEvent, line: dict[str, Any]) -> HistoryEvent:
    return HistoryEvent(event_id=f"{job_id}-{version}", job_id=job_id, timestamp=event.at, **line)


def _state_of(event: e.AnyJobEvent | None) -> str | None:
    """The state that the job goes to by this event."""
    return event.state if isinstance(event, e.StateStarted | e.JobEnded) else None


def _line(past: _Past, event: e.AnyJobEvent, next_state: str | None) -> dict[str, Any] | None:
    match event:
        case e.JobCreated():
            past.job_id, past.created_at, past.state = event.job_id, event.at, event.state or None
            return {"event_type": "job_created", "state": past.state}
        case e.StateStarted():
            return _state_started(past, event)
        case e.StateFinished():
            took = _since(past.visit_at, event.at)
            return _of_state(past, "state_finished", duration_ms=took, next_state=next_state)
        case e.StateFailed():
            took, error = _since(past.visit_at, event.at), {"error": event.error}
            return _of_state(past, "state_failed", duration_ms=took, next_state=next_state, context_snapshot=error)
        case e.SubJobStarted():
            return _of_state(past, "sub_blueprint_started", context_snapshot={"child_job_id": event.child_id})
        case e.ApprovalReceived():
            decision = {"decision": event.decision}
            return _of_state(past, "approval_received", next_state=next_state, context_snapshot=decision)
        case e.CancelRequested():
            return _of_state(past, "cancel_requested")
        case e.JobReleased():
            past.before, past.state = past.state, past.before
            return _of_state(past, "job_released")
        case e.JobEnded():
            past.before, past.state = past.state, event.state
            took = _since(past.created_at, event.at)
            told = {"status": event.status, "error": event.error}
            return _of_state(past, "job_finished", duration_ms=took, context_snapshot=told)
        case _:
            return _task_line(past, event, next_state)


def _state_started(past: _Past, event: e.StateStarted) -> dict[str, Any]:
    if event.attempt == 1:
        past.before = past.state if event.serial > 1 else None
    past.state, past.visit_at, past.visit_attempt = event.state, event.at, event.attempt
    return _of_state(past, "state_started", attempt_number=event.attempt)


def _of_state(past: _Past, event_type: str, **more: Any) -> dict[str, Any]:
    attempt = past.visit_attempt if event_type in ("state_finished", "state_failed") else None
    return {
        "event_type": event_type,
        "state": past.state,
        "previous_state": past.before,
        "attempt_number": attempt,
    } | more


def _task_line(past: _Past, event: e.AnyJobEvent, next_state: str | None) -> dict[str, Any] | None:
    match event:
        case e.TaskQueued():
            past.attempts[event.task_id] = event.attempt
        case e.TaskDelivered():
            past.workers[event.task_id], past.delivered[event.task_id] = event.worker_id, event.at
            return _of_task(past, "task_dispatched", event.task_id)
        case e.TaskReturned():
            _forget(past, event.task_id)
        case e.TaskRedelivered():
            line = _of_task(past, "task_redelivered", event.task_id, at=event.at)
            _forget(past, event.task_id)
            return line
        case e.TaskFinished():
            past.workers[event.task_id] = event.worker_id
            told = {"status": event.status, "error": event.error}
            return _of_task(past, "task_finished", event.task_id, event.at, next_state, told)
        case e.TaskGivenUp():
            told = {"status": event.why, "error": event.error}
            return _of_task(past, "task_finished", event.task_id, event.at, next_state, told)
    return None


def _forget(past: _Past, task_id: str) -> None:
    past.workers.pop(task_id, None)
    past.delivered.pop(task_id, None)


def _of_task(
    past: _Past,
    event_type: str,
    task_id: str,
    at: datetime | None = None,
    next_state: str | None = None,
    told: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "event_type": event_type,
        "state": past.state,
        "previous_state": past.before,
        "next_state": next_state,
        "worker_id": past.workers.get(task_id),
        "attempt_number": past.attempts.get(task_id),
        "duration_ms": _since(past.delivered.get(task_id), at),
        "context_snapshot": {"task_id": task_id} | (told or {}),
    }


def _since(begin: datetime | None, end: datetime | None) -> int | None:
    return None if begin is None or end is None else max(0, round((end - begin).total_seconds() * 1000))
