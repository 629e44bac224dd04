"""`status.json`: how far a plan is, as a file that people and other programs read and edit.

    plan file ───new─────────▶ PlanStatus ──apply(Started, Completed, RunEnded, …)──▶ PlanStatus
    status.json ─read, merge──────▲                          view ──▶ InstanceStatus ◀──┤
                                                         to_bytes ──▶ status.json ◀─────┘

Nobody owns the file alone. Keys that we do not know are kept, at every level; what we derive (`summary`,
`currentPhase`, `lastUpdatedAt`, `dependencyGraph`, `sequentialGroups`) is derived again. A change about a task
or a run that the file does not have changes nothing else. A run's tasks are counted when it ends.

The items of `sequentialGroups` are {taskRange, taskIds, reason}; the contract does not say, and other programs that
write this file do it so. Source: contracts/instances.md, section 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from orchestrator.instance_views import InstanceStatus
from orchestrator.plan_entry import (
    ENTRY_KEYS,
    Json,
    TaskChange,
    changed,
    entry_view,
    instant_in,
    object_in,
    planned,
    status_in,
    text_in,
    time_text,
)
from orchestrator.plan_file import PlanDocument, SequentialGroup
from orchestrator.plan_progress import Totals, current_phase, totals

_COMMENT = "How far the plan is; the plan file itself is never changed. Keys that we do not know are kept."
#: keys of the document that follow from the plan and from what happened
_OURS = ("lastUpdatedAt", "currentPhase", "runs")
_REQUIRED = ("planPath", "planName", "createdAt")


@dataclass(frozen=True, slots=True)
class PlanStatus:
    """A well-formed `status.json`. Nothing in `raw` is ever changed in place."""

    raw: Json

    @property
    def current_phase(self) -> str | None:
        """As the file has it, where we write it or where others do."""
        return text_in(self.raw.get("currentPhase")) or text_in(object_in(self.raw.get("summary")).get("currentPhase"))


@dataclass(frozen=True, slots=True)
class RunStarted:
    """An instance works on the plan."""

    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RunEnded:
    """It does so no longer."""

    run_id: str
    at: datetime


Change = TaskChange | RunStarted | RunEnded


def read(data: bytes) -> PlanStatus | None:
    """The status in the bytes of a file; None when it is malformed."""
    try:
        raw = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):  # msgspec lets bad UTF-8 through as a UnicodeDecodeError
        return None
    if not isinstance(raw, dict) or any(not isinstance(raw.get(key), str) for key in _REQUIRED):
        return None
    tasks = raw.get("tasks")
    if not isinstance(tasks, list) or any(not isinstance(object_in(task).get("id"), str) for task in tasks):
        return None
    return PlanStatus(raw)


def to_bytes(status: PlanStatus) -> bytes:
    """The file."""
    return msgspec.json.format(msgspec.json.encode(status.raw), indent=2) + b"\n"


def new(document: PlanDocument, plan_path: str, now: datetime) -> PlanStatus:
    """The status of a plan that nobody has worked on; `plan_path` is relative to the plans root."""
    head = {"_comment": _COMMENT, "planPath": plan_path, "planName": document.title, "createdAt": time_text(now)}
    return merge(PlanStatus({**head, "lastUpdatedAt": None, "currentPhase": None, "tasks": []}), document, now)


def merge(status: PlanStatus, document: PlanDocument, now: datetime) -> PlanStatus:
    """`status` for the plan as it is now: new tasks are in, removed ones out, and `[x]` means completed."""
    known = _by_id(status.raw["tasks"])
    phases = {phase.number: phase.name for phase in document.phases}
    dependents: dict[str, list[str]] = {task.task_id: [] for task in document.tasks}
    for task in document.tasks:
        for above in task.depends_on:
            dependents[above].append(task.task_id)
    entries = [
        planned(known.get(task.task_id), task, phases[task.phase_number], dependents[task.task_id], now)
        for task in document.tasks
    ]
    news = {
        "planName": document.title,
        "tasks": entries,
        "sequentialGroups": _groups(status.raw.get("sequentialGroups"), document.groups),
        "dependencyGraph": _graph(object_in(status.raw.get("dependencyGraph")), entries),
    }
    return _derived(status.raw | news, now)


def apply(status: PlanStatus, *changes: Change) -> PlanStatus:
    """`status` after these facts, in this order."""
    if not changes:
        return status
    entries: list[Json] = list(status.raw["tasks"])
    places = {entry["id"]: place for place, entry in reversed(list(enumerate(entries)))}
    runs = _objects(status.raw.get("runs"))
    for change in changes:
        if isinstance(change, RunStarted | RunEnded):
            runs = _runs_after(runs, change, entries)
        elif (place := places.get(change.task_id)) is not None:
            entries[place] = changed(entries[place], change)
    return _derived(status.raw | {"tasks": entries, "runs": runs}, max(change.at for change in changes))


def overlay(theirs: PlanStatus, ours: PlanStatus) -> PlanStatus:
    """What another program wrote, with what we know of the plan's tasks and runs: their other keys stay.

    Of their tasks those that the plan does not have are left out.
    """
    known = _by_id(theirs.raw["tasks"])
    tasks = [known.get(entry["id"], {}) | _own(entry) for entry in ours.raw["tasks"]]
    summary = object_in(theirs.raw.get("summary")) | object_in(ours.raw.get("summary"))
    return PlanStatus(
        theirs.raw | {key: ours.raw[key] for key in _OURS if key in ours.raw} | {"tasks": tasks, "summary": summary}
    )


def _own(entry: Json) -> Json:
    """An entry without what we only carry along."""
    return {key: value for key, value in entry.items() if key in ENTRY_KEYS}


def view(status: PlanStatus, name: str, path: str, document: PlanDocument | None = None) -> InstanceStatus:
    """What people look at when no instance works on the plan; `document` has the descriptions as written."""
    written = {task.task_id: task.description for task in document.tasks} if document else {}
    runs = _objects(status.raw.get("runs"))
    entries = _by_id(status.raw["tasks"])
    return InstanceStatus(
        instance_id="",
        plan_path=path,
        plan_name=name,
        status="stopped",
        tasks=tuple(entry_view(entry, written.get(task_id)) for task_id, entry in entries.items()),
        started_at=instant_in(runs[-1].get("startedAt")) if runs else None,
    )


# ── what follows from the tasks ───────────────────────────────────────────────────────────────────


def _derived(raw: Json, now: datetime) -> PlanStatus:
    views = [entry_view(entry) for entry in _by_id(raw["tasks"]).values()]
    summary = object_in(raw.get("summary"))
    phase = {"currentPhase": current_phase(views)}
    news = {
        "lastUpdatedAt": time_text(now),
        **phase,
        "runs": _objects(raw.get("runs")),
        "summary": summary | _counts(totals(views)) | (phase if "currentPhase" in summary else {}),
    }
    return PlanStatus(raw | news)


def _counts(of: Totals) -> Json:
    return {
        "totalTasks": of.total,
        "completed": of.completed,
        "pending": of.pending,
        "in_progress": of.in_progress,
        "failed": of.failed,
        "skipped": of.skipped,
    }


def _graph(known: Json, entries: Iterable[Json]) -> Json:
    return {
        entry["id"]: object_in(known.get(entry["id"]))
        | {
            "dependencies": entry["dependencies"],
            "dependents": entry["dependents"],
            "inDegree": len(entry["dependencies"]),
        }
        for entry in entries
    }


def _groups(known: object, groups: Iterable[SequentialGroup]) -> list[Json]:
    by_range = {text_in(item.get("taskRange")): item for item in _objects(known)}
    return [
        by_range.get(group.label, {})
        | {"taskRange": group.label, "taskIds": list(group.task_ids), "reason": group.reason or None}
        for group in groups
    ]


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────


def _runs_after(runs: list[Json], change: RunStarted | RunEnded, entries: Iterable[Json]) -> list[Json]:
    if isinstance(change, RunEnded):
        return [_ended(run, change.at, entries) if run.get("runId") == change.run_id else run for run in runs]
    if any(run.get("runId") == change.run_id for run in runs):
        return runs
    start = {"runId": change.run_id, "startedAt": time_text(change.at), "completedAt": None}
    return [*runs, start | {"tasksCompleted": 0, "tasksFailed": 0}]


def _ended(run: Json, at: datetime, entries: Iterable[Json]) -> Json:
    """The run with its end, and with the tasks that are completed or failed since it started."""
    since = instant_in(run.get("startedAt")) or at
    counts = Counter(status_in(entry) for entry in entries if _ended_since(entry, since))
    return run | {
        "completedAt": time_text(at),
        "tasksCompleted": counts["completed"],
        "tasksFailed": counts["failed"],
    }


def _ended_since(entry: Json, since: datetime) -> bool:
    at = instant_in(entry.get("completedAt"))
    return at is not None and at >= since


def _by_id(entries: Iterable[Json]) -> dict[str, Json]:
    """Entries in their order; of several with one id the first."""
    found: dict[str, Json] = {}
    for entry in entries:
        found.setdefault(entry["id"], entry)
    return found


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
