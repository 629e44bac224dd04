"""What a run's events say to a person who follows it: the fold from events to stream frames.

    history ──▶ Narrator.tell(event) ──▶ Frame(seq, run_state | task_state | window_state | …, data)

A frame says where something came from, which an event does not carry; so a narrator reads a history from
its first event, whatever part of it is shown. Every event gives exactly one frame, and a frame's `seq` is
the event's version: 1, 2, 3… without a gap but for what was removed. States are core words; a surface translates them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from orchestrator import events as e
from orchestrator import partitions
from orchestrator.mapped import index_in, map_of
from orchestrator.views import Frame

_RUN_STATES: dict[type[e.Event], str] = {
    e.RunCreated: "queued",
    e.BackfillCreated: "queued",
    e.RunStarted: "running",
    e.RunPaused: "paused",
    e.RunResumed: "running",
    e.RunCancelling: "cancelling",
    e.RunCancelled: "cancelled",
    e.RunSucceeded: "succeeded",
    e.RunFailed: "failed",
    e.RunOverdue: "running",
    e.RunTimedOut: "timed_out",
    e.RunRestarted: "queued",
    e.RunRevived: "running",
}
_TASK_STATES: dict[type[e.Event], str] = {
    e.TaskStarted: "running",
    e.TaskExpanded: "running",
    e.TaskReturned: "pending",
    e.TaskSucceeded: "succeeded",
    e.TaskRetrying: "retrying",
    e.TaskFailed: "failed",
    e.TaskSkipped: "skipped",
    e.TaskMarked: "succeeded",
    e.TaskUpstreamFailed: "upstream_failed",
    e.TaskCancelled: "cancelled",
    e.TaskReset: "pending",
    e.TaskWaiting: "waiting",
    e.TaskSuspended: "suspended",
}
_NOTES: dict[type[e.Event], str] = {e.TaskCheckpointed: "task_checkpoint", e.TaskProgressed: "task_progress"}


class Narrator:
    """Follows one run or backfill from its first event."""

    __slots__ = ("_attempts", "_run_id", "_tasks", "seq", "state")

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._attempts = 0
        #: task -> (state, attempt), of tasks that have had an event
        self._tasks: dict[str, tuple[str, int]] = {}
        #: version of the last event told
        self.seq = 0
        #: run state after it; None before the first
        self.state: str | None = None

    def tell(self, event: e.Event) -> Frame:
        """The frame of the next event."""
        self.seq += 1
        kind = type(event)
        if kind in _RUN_STATES:
            return self._frame("run_state", event, self._run_changed(event))
        if kind in _TASK_STATES:
            return self._frame("task_state", event, self._task_changed(event))
        if isinstance(event, e.WindowChanged):
            return self._frame("window_state", event, _window_changed(event))
        if isinstance(event, e.BackfillWidened | e.BackfillCapped):
            return self._frame(*_reshaped(event))
        if isinstance(event, e.HistoryRemoved):
            return self._history_removed(event)
        if isinstance(event, e.SlaMissed):
            return self._frame("sla_missed", event, {"deadline": instant_text(event.deadline), "task": event.task})
        if isinstance(event, e.CheckpointPosted):
            posted = {"kind": event.kind, **({"data": msgspec.json.decode(event.data)} if event.data else {})}
            return self._frame("checkpoint", event, posted)
        if isinstance(event, e.ToolStarted | e.ToolCompleted):
            return self._frame("task_tool", event, _tool_called(event))
        if isinstance(event, e.RunCompensating):
            return self._frame("compensation", event, {"tasks": list(event.tasks)})
        if isinstance(event, e.BatchFormed):
            return self._frame("batch", event, {"tasks": list(event.tasks), "iteration": event.iteration})
        if (about := _of_waiting(event)) is not None:
            return self._frame(about[0], event, about[1])
        assert isinstance(event, e.TaskCheckpointed | e.TaskProgressed)
        told = {"task": event.task, "attempt": event.attempt, "data": msgspec.json.decode(event.data)}
        return self._frame(_NOTES[kind], event, told)

    def _frame(self, kind: str, event: e.Event, told: dict[str, Any]) -> Frame:
        return Frame(self.seq, kind, {"seq": self.seq, "ts": instant_text(event.at), "run_id": self._run_id, **told})

    def _history_removed(self, event: e.HistoryRemoved) -> Frame:
        self.seq, self.state, self._attempts = event.through + 1, event.state, event.attempts
        self._tasks = {task: ("pending", attempt) for task, attempt in event.task_attempts.items()}
        return self._frame("history_removed", event, {"until": instant_text(event.until)})

    def _run_changed(self, event: e.Event) -> dict[str, Any]:
        before, self.state = self.state, _RUN_STATES[type(event)]
        if isinstance(event, e.RunStarted | e.RunRevived):
            self._attempts = event.attempt
        if isinstance(event, e.RunRestarted):
            self._tasks = {task: ("pending", attempt) for task, (_, attempt) in self._tasks.items()}
        told: dict[str, Any] = {"from": before, "to": self.state, "attempts": self._attempts}
        if isinstance(event, e.RunFailed | e.RunOverdue | e.RunTimedOut):
            told["error"] = event.error
        if isinstance(event, e.RunTimedOut):
            told["timed_out"] = event.reason
        return told

    def _task_changed(self, event: Any) -> dict[str, Any]:
        before, attempt = self._tasks.get(event.task, ("pending", 0))
        after = "timed_out" if isinstance(event, e.TaskFailed) and event.timed_out else _TASK_STATES[type(event)]
        attempt = getattr(event, "attempt", attempt)
        self._tasks[event.task] = (after, attempt)
        told: dict[str, Any] = {"task": event.task, "from": before, "to": after, "attempt": attempt}
        if (index := index_in(event.task)) is not None:
            told["map_index"] = index
        if isinstance(event, e.TaskExpanded):
            self._begin_afresh(event)
            told["instances"] = event.count
        if isinstance(event, e.TaskSucceeded) and event.cached is not None:
            of = event.cached
            source = {"run_id": of.run_id, "task": of.task, "attempt": of.attempt, "at": instant_text(of.at)}
            told |= {"cached": True, "cached_from": source}
        if isinstance(event, e.TaskFailed | e.TaskRetrying):
            told["error"] = event.error
            if event.reason or after == "timed_out":
                told["timed_out"] = event.reason or "run"
        if isinstance(event, e.TaskSkipped) and event.by:
            told |= {"by": event.by, "reason": event.reason}
        if isinstance(event, e.TaskReturned) and event.missing:
            told["missing"] = list(event.missing)
        if isinstance(event, e.TaskReset) and event.lost:
            told["lost"] = event.lost
        if isinstance(event, e.TaskWaiting):
            told["waiting_for"] = _wait(event.wait)
        if isinstance(event, e.TaskSuspended):
            told["waiting_for"] = {"kind": "sleep", "until": instant_text(event.until)}
        return told

    def _begin_afresh(self, event: e.TaskExpanded) -> None:
        """Instances of a list that is another one now."""
        if event.kept or event.attempt == 1:
            return
        for name, (_, attempt) in self._tasks.items():
            if name.endswith("]") and map_of(name) == event.task:
                self._tasks[name] = ("pending", attempt)


def _wait(wait: e.Wait) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": wait.kind or "nothing", "until": instant_text(wait.until)}
    if wait.kind == "signal":
        told["name"] = wait.name
    if wait.call is not None:
        told |= {"run_id": wait.call.run_id, "dag_id": wait.call.dag_id}
    if wait.kind == "approval":
        told |= {"prompt": wait.prompt, "choices": list(wait.choices), "roles": list(wait.roles)}
        told["quorum"] = wait.quorum
    return told


def _of_waiting(event: e.Event) -> tuple[str, dict[str, Any]] | None:
    """Kind and data of a frame about signals, votes and published values."""
    match event:
        case e.SignalReceived():
            told = {"name": event.name, "number": event.number, "signal_id": event.signal_id}
            return "signal", told | {"data": msgspec.json.decode(event.data)}
        case e.SignalConsumed():
            told = {"name": event.name, "number": event.number, "task": event.task, "attempt": event.attempt}
            return "signal_consumed", told
        case e.VoteCast():
            told = {"task": event.task, "attempt": event.attempt, "choice": event.choice, "by": event.by}
            return "vote", told | {"comment": event.comment}
        case e.VoteRefused():
            told = {"task": event.task, "attempt": event.attempt, "choice": event.choice, "by": event.by}
            return "vote_refused", told
        case e.ValuePublished():
            told = {"task": event.task, "attempt": event.attempt, "name": event.name}
            return "published", told | {"value": msgspec.json.decode(event.data)}
    return None


def _window_changed(event: e.WindowChanged) -> dict[str, Any]:
    return {
        "window": partitions.shown(event.window),
        "child": event.child,
        "from": event.before,
        "to": event.after,
        "counts": msgspec.structs.asdict(event.counts),
    }


def _reshaped(event: e.BackfillWidened | e.BackfillCapped) -> tuple[str, e.Event, dict[str, Any]]:
    if isinstance(event, e.BackfillCapped):
        return "backfill_capped", event, {"max_active_runs": event.max_active_runs}
    window = None if event.window is None else partitions.shown(event.window)
    told = {"window": window, "added": event.added, "total": event.total, "skipped": event.skipped}
    return "backfill_widened", event, told


def _tool_called(event: e.ToolStarted | e.ToolCompleted) -> dict[str, Any]:
    told: dict[str, Any] = {"task": event.task, "attempt": event.attempt, "call": event.call, "name": event.name}
    if isinstance(event, e.ToolStarted):
        return told | {"input": msgspec.json.decode(event.input) if event.input else None}
    return told | {"took_ms": event.took_ms, "success": event.success}


def instant_text(instant: datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
