"""What an orchestrator instance looks like to who follows it: the fold from its run's events to the surface's.

    history ──tell(one commit)──▶ task_changed, phase_changed, tool_started, tool_completed    as they happen, then
                                  status_updated     once, if status.json is another one now, then
                                  orchestrator_state
            ──status()──▶ InstanceStatus        ──document()──▶ status.json

Nothing of this is stored: `seq` counts what is told, 1, 2, 3…, and follows from the log alone, of which the bounds of
commits are a part; so every replica, and every reader at any time, sees the same. The table of what an event tells
may grow for new events, but what an old one tells must not change.

The call of the executor is told from the task's own events: it begins when an attempt starts, and ends with it.
A task that failed and is to be tried again is `failed` until it is taken up again; one that waits for a failed
task, or was cut off by the end of the instance, is `pending`. Source: contracts/instances.md, sections 1, 3 and 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from orchestrator import events as e
from orchestrator import plan_entry as entries
from orchestrator import plan_status
from orchestrator.context import summarised
from orchestrator.instance_views import InstanceStatus
from orchestrator.messages import Value
from orchestrator.plan_entry import Json
from orchestrator.plan_progress import phase_order
from orchestrator.plan_status import PlanStatus

#: kind of the checkpoint that tells what other programs wrote into status.json
EDITED = "status.json"

_MS = timedelta(milliseconds=1)
_STATES: Mapping[type[e.Event], str] = {
    e.RunCreated: "running",
    e.RunStarted: "running",
    e.RunPaused: "paused",
    e.RunResumed: "running",
    e.RunCancelling: "stopping",
    e.RunSucceeded: "stopped",
    e.RunFailed: "stopped",
    e.RunTimedOut: "stopped",
    e.RunCancelled: "stopped",
}
_CORE_STATES: Mapping[type[e.Event], str] = {
    e.RunCreated: "queued",
    e.RunStarted: "running",
    e.RunPaused: "paused",
    e.RunResumed: "running",
    e.RunCancelling: "cancelling",
    e.RunSucceeded: "succeeded",
    e.RunFailed: "failed",
    e.RunTimedOut: "timed_out",
    e.RunCancelled: "cancelled",
}
#: outputs that leave no finding
_NOTHING = frozenset({b"", b"null", b"{}", b'""'})


class Told(msgspec.Struct, frozen=True):
    """One event of the surface. Of `status_updated` the document is not in it: ask for it at once."""

    seq: int
    kind: str
    at: datetime
    data: dict[str, Any] | None = None


class InstanceFold:
    """Follows one instance from its first event."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._plan: e.Plan | None = None
        #: status.json but for `tasks` and what follows from them
        self._head: Json = {}
        #: task id -> its entry, in the order of the plan
        self._entries: dict[str, Json] = {}
        self._counts: Counter[str] = Counter()
        #: phase string -> status -> tasks
        self._phases: dict[str, Counter[str]] = {}
        self._current: str | None = None
        #: task id -> attempt that runs, and since when
        self._running: dict[str, tuple[int, datetime]] = {}
        self._updated_at: datetime | None = None
        self._started_at: datetime | None = None
        self._exit_reason: str | None = None
        self._iteration = 0
        #: version of the last event told
        self.version = 0
        #: of the last event of the surface; 0 = there was none
        self.seq = 0
        #: core state of the run; None before its first event
        self.state: str | None = None
        #: word of the instance's state
        self.word = "running"

    def tell(self, commit: Sequence[e.Event]) -> list[Told]:
        """What one commit means."""
        out: list[tuple[str, datetime, dict[str, Any] | None]] = []
        states: list[tuple[str, datetime, dict[str, Any] | None]] = []
        changed: datetime | None = None
        for event in commit:
            self.version += 1
            if self._plan is None:
                assert isinstance(event, e.RunCreated), "an instance begins with run_created"
                self._begin(event)
                continue
            told = list(self._tell(event))
            moved = self._move_on(event)
            if moved or any(kind == "task_changed" for kind, _, _ in told):
                changed = event.at
            out += told
            states += self._state_changed(event)
        if changed is not None:
            self._updated_at = changed
            out.append(("status_updated", changed, None))
        return [self._numbered(*each) for each in (*out, *states)]

    def _numbered(self, kind: str, at: datetime, data: dict[str, Any] | None) -> Told:
        self.seq += 1
        return Told(self.seq, kind, at, data)

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    @property
    def plan(self) -> e.Plan:
        """The plan as it stood when the instance was asked for."""
        assert self._plan is not None, "nothing was told yet"
        return self._plan

    @property
    def started_at(self) -> datetime:
        """When the instance was asked for."""
        assert self._started_at is not None, "nothing was told yet"
        return self._started_at

    @property
    def exit_reason(self) -> str | None:
        """Why it has ended; None = it has not."""
        return self._exit_reason

    def word_of(self, task_id: str) -> str | None:
        """The status of a task; None = the plan has no such task."""
        entry = self._entries.get(task_id)
        return None if entry is None else entry["status"]

    def status(self) -> InstanceStatus:
        """How far it is."""
        plan = self.plan
        return InstanceStatus(
            instance_id=self._run_id,
            plan_path=plan.path,
            plan_name=plan.name,
            status=self.word,
            tasks=tuple(entries.entry_view(entry, plan.texts.get(name)) for name, entry in self._entries.items()),
            started_at=self._started_at,
            iteration=self._iteration,
            max_iterations=plan.max_iterations,
            exit_reason=self._exit_reason,
        )

    def document(self) -> PlanStatus:
        """status.json as it stands after the last event. Its entries are shared: change nothing in place."""
        counts = {word: self._counts[word] for word in ("completed", "pending", "in_progress", "failed", "skipped")}
        summary = entries.object_in(self._head.get("summary"))
        told = {"currentPhase": self._current} if "currentPhase" in summary else {}
        updated = {} if self._updated_at is None else {"lastUpdatedAt": entries.time_text(self._updated_at)}
        derived = {
            "currentPhase": self._current,
            "tasks": list(self._entries.values()),
            "summary": summary | {"totalTasks": len(self._entries), **counts} | told,
        }
        return PlanStatus(self._head | updated | derived)

    # ── events ────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, created: e.RunCreated) -> None:
        assert created.plan is not None, f"run {created.run_id} is of no plan"
        self._plan = created.plan
        self._started_at = created.at
        self.state = "queued"
        self._take_document(msgspec.json.decode(created.plan.status))

    def _take_document(self, raw: Json) -> None:
        self._head = {key: value for key, value in raw.items() if key != "tasks"}
        self._entries = {entry["id"]: entry for entry in raw["tasks"]}
        self._counts = Counter(entry["status"] for entry in self._entries.values())
        self._phases = {}
        for entry in self._entries.values():
            self._phases.setdefault(entry["phase"], Counter())[entry["status"]] += 1
        self._phases = {phase: self._phases[phase] for phase in sorted(self._phases, key=phase_order)}
        self._current = self._current_phase()

    def _tell(self, event: e.Event) -> Iterator[tuple[str, datetime, dict[str, Any] | None]]:
        match event:
            case e.TaskStarted():
                yield from self._change(entries.Started(event.task, event.at))
                self._running[event.task] = (event.attempt, event.at)
                yield "tool_started", event.at, self._call(event)
            case e.TaskSucceeded():
                yield from self._call_ended(event.task, event.at, True)
                yield from self._change(entries.Completed(event.task, event.at, self._finding(event.task, event.value)))
            case e.TaskFailed() | e.TaskRetrying(lost=False):
                yield from self._call_ended(event.task, event.at, False)
                stuck = event.timed_out if isinstance(event, e.TaskFailed) else _timed_out(event.error)
                yield from self._change(entries.Failed(event.task, event.at, event.error, stuck))
            case e.TaskRetrying() | e.TaskReturned() | e.TaskCancelled():
                yield from self._call_ended(event.task, event.at, False)
                if self.word_of(event.task) != "pending":
                    yield from self._change(entries.Reset(event.task, event.at))
            case e.TaskSkipped():
                yield from self._call_ended(event.task, event.at, False)
                if self.word_of(event.task) != "skipped":
                    yield from self._change(entries.Skipped(event.task, event.at, event.reason))
            case e.TaskMarked():
                yield from self._call_ended(event.task, event.at, False)
                if self.word_of(event.task) != "completed":
                    yield from self._change(entries.Completed(event.task, event.at))
            case e.TaskReset() if self.word_of(event.task) != "pending":
                count = self._retry_count(event.task) + 1
                yield from self._change(entries.Retried(event.task, event.at, count))
            case e.BatchFormed():
                for task in event.tasks:
                    if self.word_of(task) == "failed":
                        count = self._retry_count(task) + 1
                        yield from self._change(entries.TriedAgain(task, event.at, count))
            case e.ToolStarted():
                given = msgspec.json.decode(event.input, type=dict[str, Any]) if event.input else {}
                tool_id = f"{event.task}/{event.attempt}/{event.call}"
                yield (
                    "tool_started",
                    event.at,
                    {"tool_id": tool_id, "tool_name": event.name, "input_summary": summarised(given)},
                )
            case e.ToolCompleted():
                tool_id = f"{event.task}/{event.attempt}/{event.call}"
                yield "tool_completed", event.at, _answered(tool_id, event.name, event.took_ms, event.success)

    def _move_on(self, event: e.Event) -> bool:
        """What concerns the whole plan; whether status.json is another one because of it."""
        match event:
            case e.BatchFormed():
                self._iteration = event.iteration
            case e.RunStarted():
                self._change_runs(plan_status.RunStarted(self._run_id, event.at))
                return True
            case e.RunSucceeded() | e.RunFailed() | e.RunTimedOut() | e.RunCancelled():
                self._exit_reason = _exit_reason(event)
                self._change_runs(plan_status.RunEnded(self._run_id, event.at))
                return True
            case e.CheckpointPosted(kind=kind) if kind == EDITED:
                theirs = plan_status.read(bytes(event.data))
                if theirs is not None:
                    self._take_document(plan_status.overlay(theirs, self.document()).raw)
                    return True
        return False

    def _change_runs(self, change: plan_status.RunStarted | plan_status.RunEnded) -> None:
        self._head |= {"runs": plan_status.apply(self.document(), change).raw["runs"]}

    def _state_changed(self, event: e.Event) -> Iterator[tuple[str, datetime, dict[str, Any] | None]]:
        self.state = _CORE_STATES.get(type(event), self.state)
        before, self.word = self.word, _STATES.get(type(event), self.word)
        if before != self.word:
            yield "orchestrator_state", event.at, {"old_state": before, "new_state": self.word}

    # ── one task ──────────────────────────────────────────────────────────────────────────────────

    def _change(self, change: entries.TaskChange) -> Iterator[tuple[str, datetime, dict[str, Any] | None]]:
        """The entry is what it is after `change`: the task's event, and the phase's when that is another one now."""
        before = self._entries[change.task_id]
        after = self._entries[change.task_id] = entries.changed(before, change)
        old, new, phase = before["status"], after["status"], after["phase"]
        if old == new:
            return
        for counts in (self._counts, self._phases[phase]):
            counts[old] -= 1
            counts[new] += 1
        text = self.plan.texts.get(change.task_id, after["description"])
        told = {"task_id": change.task_id, "old_status": old, "new_status": new, "description": text, "phase": phase}
        yield "task_changed", change.at, told
        former, self._current = self._current, self._current_phase()
        if former != self._current:
            yield "phase_changed", change.at, {"old_phase": former, "new_phase": self._current}

    def _current_phase(self) -> str | None:
        """The earliest phase with a task in progress, else with a pending one."""
        for word in ("in_progress", "pending"):
            for phase, counts in self._phases.items():
                if counts[word]:
                    return phase
        return None

    def _retry_count(self, task: str) -> int:
        return entries.entry_view(self._entries[task]).retry_count

    def _finding(self, task: str, value: Value | None) -> str | None:
        if value is None or (value.artifact is None and bytes(value.inline) in _NOTHING):
            return None
        return findings_path(self.plan.name, task)

    # ── the executor's call ───────────────────────────────────────────────────────────────────────

    def _call(self, event: e.TaskStarted) -> dict[str, Any]:
        given = {"task_id": event.task, "description": self.plan.texts.get(event.task, "")}
        tool_id = f"{event.task}/{event.attempt}"
        return {"tool_id": tool_id, "tool_name": self.plan.executor, "input_summary": summarised(given)}

    def _call_ended(
        self, task: str, at: datetime, success: bool
    ) -> Iterator[tuple[str, datetime, dict[str, Any] | None]]:
        attempt, since = self._running.pop(task, (0, at))
        if attempt:
            took_ms = max(0, (at - since) // _MS)
            yield "tool_completed", at, _answered(f"{task}/{attempt}", self.plan.executor, took_ms, success)


def findings_path(plan: str, task_id: str) -> str:
    """Where the finding of a task is, beneath the plans root."""
    return f"docs/plan-outputs/{plan}/findings/{task_id.replace('.', '-')}.md"


def finding_text(value: object) -> str:
    """What a task returned, as the text of its finding."""
    text = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return text if text.endswith("\n") else f"{text}\n"


def _answered(tool_id: str, name: str, took_ms: int, success: bool) -> dict[str, Any]:
    took = {"duration": round(took_ms / 1000, 3), "duration_ms": took_ms}
    return {"tool_id": tool_id, "tool_name": name, **took, "success": success}


def _timed_out(error: str) -> bool:
    return error.startswith(("timed out", "TaskTimedOut"))


def _exit_reason(event: e.Event) -> str:
    match event:
        case e.RunSucceeded():
            return "complete"
        case e.RunCancelled():
            return "shutdown"
        case e.RunFailed(reason=("blocked" | "max_iterations") as reason):
            return str(reason)
    return "error"
