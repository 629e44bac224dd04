"""One task's entry in `status.json`: what the plan says of it, what happened to it, and how it is shown.

    pending ──Started──▶ in_progress ──Completed──▶ completed
       ▲                     │  └──────Failed─────▶ failed
       ├──Reset──────────────┘                        │
       ├──TriedAgain──────────────────────────────────┤      skipped ◀──Skipped── pending, in_progress, failed
       └──Retried────────────── failed, skipped ◀─────┘

Changes are facts and carry their time: they are not refused here, and a sequence of them that is told once more,
in order, ends in the same entry. Keys that we do not know are kept; a status word that we do not know reads as
`pending`. An entry carries the description without its `(depends: …)` note, as dependencies have keys of
their own. Times: UTC, 3 digits, `Z`; `duration` in ms. Source: contracts/instances.md, sections 2, 3 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from orchestrator.instance_views import PlanTaskView
from orchestrator.plan_file import PlanTask, SequentialGroup

Json = dict[str, Any]

STATUSES = frozenset({"pending", "in_progress", "completed", "failed", "skipped"})
_MS = timedelta(milliseconds=1)
_PENDING: Json = {
    "status": "pending",
    "startedAt": None,
    "completedAt": None,
    "duration": None,
    "error": None,
    "stuckDetected": False,
}
_FRESH: Json = {
    "id": "",
    "phase": None,
    "description": "",
    "status": "pending",
    "startedAt": None,
    "completedAt": None,
    "duration": None,
    "findingsPath": None,
    "error": None,
    "notes": None,
    "retryCount": 0,
    "lastError": None,
    "lastErrorAt": None,
    "stuckDetected": False,
}

#: keys of an entry that tell what the plan says and what happened; others belong to whoever wrote them
ENTRY_KEYS = frozenset(_FRESH) - {"notes"} | {"reason", "dependencies", "dependents", "executionConstraints"}


@dataclass(frozen=True, slots=True)
class Started:
    """The executor works on the task."""

    task_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Completed:
    """The executor succeeded."""

    task_id: str
    at: datetime
    #: relative to the plans root; None = it left none
    findings_path: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The executor failed."""

    task_id: str
    at: datetime
    error: str
    #: it was in progress for too long
    stuck: bool = False
    #: relative to the plans root; None = it left none
    findings_path: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A person lets the plan go on without it."""

    task_id: str
    at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """What was in progress is pending as before: it was cancelled, or its instance was lost."""

    task_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TriedAgain:
    """A failed task is pending again by itself; its last error stays to be seen."""

    task_id: str
    at: datetime
    #: with this one
    retry_count: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A person wants it again; what went wrong is forgotten."""

    task_id: str
    at: datetime
    #: with this one
    retry_count: int


TaskChange = Started | Completed | Failed | Skipped | Reset | TriedAgain | Retried


def planned(known: Json | None, task: PlanTask, phase: str, dependents: Sequence[str], now: datetime) -> Json:
    """The entry of a task of the plan; `known` is the one that the file had."""
    entry = _FRESH | (known or {})
    if task.done and entry["status"] != "completed":
        # a checkbox does not say since when; that it was ticked meanwhile is noticed now
        entry |= _PENDING | {"status": "completed", "completedAt": time_text(now) if known else None}
        entry.pop("reason", None)
    constraints = object_in(entry.get("executionConstraints"))
    return entry | {
        "id": task.task_id,
        "phase": phase,
        "description": task.text,
        "dependencies": list(task.depends_on),
        "dependents": list(dependents),
        "executionConstraints": constraints | _constraints(task.group) if task.group else None,
    }


def changed(entry: Json, change: TaskChange) -> Json:
    """The entry after `change`; `entry` stays what it was."""
    after = entry | _news(entry, change)
    if not isinstance(change, Skipped):
        after.pop("reason", None)
    return after


def entry_view(entry: Json, description: str | None = None) -> PlanTaskView:
    """What people look at, whoever wrote the entry; `description` is the one as written in the plan."""
    retries = entry.get("retryCount")
    return PlanTaskView(
        task_id=entry["id"],
        description=text_in(entry.get("description")) or "" if description is None else description,
        status=status_in(entry),
        phase=text_in(entry.get("phase")),
        retry_count=retries if type(retries) is int and retries > 0 else 0,
        last_error=text_in(entry.get("lastError")) or text_in(entry.get("error")),
        started_at=instant_in(entry.get("startedAt")),
        completed_at=instant_in(entry.get("completedAt")),
    )


def status_in(entry: Json) -> str:
    """One of STATUSES; a word that we do not know is `pending`."""
    word = text_in(entry.get("status")) or "pending"
    return word if word in STATUSES else "pending"


def time_text(instant: datetime) -> str:
    """An instant as the file has it."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def instant_in(value: object) -> datetime | None:
    """The instant that somebody wrote, in any ISO 8601 form (without an offset: UTC); None for anything else."""
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
        return instant and (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def text_in(value: object) -> str | None:
    """The text, or None for anything else."""
    return value if isinstance(value, str) else None


def object_in(value: object) -> Json:
    """The JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _constraints(group: SequentialGroup) -> Json:
    return {"sequential": True, "sequentialGroup": group.label, "reason": group.reason or None}


def _news(entry: Json, change: TaskChange) -> Json:
    """The keys that `change` sets."""
    match change:
        case Started():
            return _PENDING | {"status": "in_progress", "startedAt": time_text(change.at)}
        case Completed():
            done = {"error": None, "stuckDetected": False} | _found(change.findings_path)
            return _ended(entry, "completed", change.at) | done
        case Failed():
            error = {"error": change.error, "lastError": change.error, "lastErrorAt": time_text(change.at)}
            return (
                _ended(entry, "failed", change.at)
                | error
                | _found(change.findings_path)
                | {"stuckDetected": change.stuck}
            )
        case Skipped():
            return _ended(entry, "skipped", change.at) | {"reason": change.reason}
        case Reset():
            return _PENDING
        case TriedAgain():
            return _PENDING | {"retryCount": change.retry_count}
        case Retried():
            return _PENDING | {"retryCount": change.retry_count, "lastError": None, "lastErrorAt": None}
        case _:
            assert_never(change)


def _ended(entry: Json, status: str, at: datetime) -> Json:
    started = instant_in(entry.get("startedAt"))
    duration = None if started is None else max(0, (at - started) // _MS)
    return {"status": status, "completedAt": time_text(at), "duration": duration}


def _found(path: str | None) -> Json:
    return {} if path is None else {"findingsPath": path}
