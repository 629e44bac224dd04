"""What a run looks like to who follows it by checkpoints: the fold from events to checkpoints and statuses.

    history ──▶ Checkpoints.tell(event) ──▶ Status | CheckpointView, in the order in which they are told

The surface of contracts/runs.md shows a run as a list of checkpoints: those that the server makes (`started`,
`task.completed`, `failed`, …) and those that its caller posts. Nothing of this is stored: it follows from the
events alone, so that every replica, and every reader at any time, sees the same ids and instants.

- `at` is the event's own instant in whole milliseconds, or a millisecond after the checkpoint before, whichever is
  later: strictly increasing within a run, whatever the clock did. A run has one writer, which gave the events their
  order.
- An id is `c` and the version of its event in five base-62 digits. An event gives at most one checkpoint.

So the table below may grow, but what an event gives must not change: it would move the instants, which are cursors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from orchestrator import events as e
from orchestrator.ids import base62
from orchestrator.live_run_views import CheckpointView
from orchestrator.messages import NO_JSON, Value

_MILLISECOND = timedelta(milliseconds=1)
_JSON = msgspec.json.Encoder()
#: words of the surface for the end of a run
_ENDS: Mapping[type[e.Event], tuple[str, str]] = {
    e.RunSucceeded: ("succeeded", "completed"),
    e.RunFailed: ("failed", "failed"),
    e.RunTimedOut: ("timed_out", "failed"),
    e.RunCancelled: ("cancelled", "canceled"),
}

#: who skipped a task (as in TaskSkipped) -> why, for who follows the run
_SKIPS: Mapping[str, str] = {"branch": "branch", "rule": "trigger_rule"}

#: (dag version, compiled or not) -> what `started` tells of the definition; None for a run that its caller drives
About = Callable[[int], dict[str, Any] | None]


class Status(msgspec.Struct, frozen=True):
    """The run is in another state now."""

    run_id: str
    #: core run state
    state: str


Told = Status | CheckpointView


def checkpoint_id(version: int) -> str:
    """Id of the checkpoint that the event of that version gives."""
    return f"c{base62(version, 5)}"


class Checkpoints:
    """Follows one run from its first event."""

    __slots__ = ("_about", "_at", "_attempts", "_dag_version", "_run_id", "state", "version")

    def __init__(self, run_id: str, about: About) -> None:
        self._run_id = run_id
        self._about = about
        self._at: datetime | None = None
        self._dag_version = 0
        #: task -> last attempt
        self._attempts: dict[str, int] = {}
        #: core run state after the last event told
        self.state = "queued"
        #: version of the last event told
        self.version = 0

    def tell(self, event: e.Event) -> list[Told]:
        """What the next event means: at most one status, then at most one checkpoint."""
        self.version += 1
        match event:
            case e.RunCreated():
                self._dag_version = event.dag_version
                return []
            case e.RunStarted() | e.RunRevived():
                return [self._status("running"), self._checkpoint(event, "started", self._about(self._dag_version))]
            case e.RunRestarted():
                self._dag_version = event.dag_version
                return [self._status("queued")]
            case e.RunCancelling():  # for who follows it, it is cancelled at once
                return [self._status("cancelling")]
            case e.RunSucceeded() | e.RunFailed() | e.RunTimedOut() | e.RunCancelled():
                state, kind = _ENDS[type(event)]
                told: list[Told] = [] if self.state == "cancelling" else [self._status(state)]
                self.state = state
                return [*told, self._checkpoint(event, kind, _why(event))]
            case e.CheckpointPosted():
                return [self._posted(event)]
            case e.HistoryRemoved():
                self.version, self.state, self._at = event.through + 1, event.state, event.until
                self._attempts = dict(event.task_attempts)
                return []
            case _ if (task := getattr(event, "task", None)) is not None:
                return self._task(event, task)
        return []

    def _task(self, event: e.Event, task: str) -> list[Told]:
        attempt = self._attempts[task] = getattr(event, "attempt", self._attempts.get(task, 0))
        kind, more = _of_task(event)
        return [self._checkpoint(event, kind, {"task": task, "attempt": attempt, **more})] if kind else []

    def _status(self, state: str) -> Status:
        self.state = state
        return Status(self._run_id, state)

    def _checkpoint(self, event: e.Event, kind: str, data: dict[str, Any] | None) -> CheckpointView:
        raw = NO_JSON if data is None else msgspec.Raw(_JSON.encode(data))
        return CheckpointView(checkpoint_id(self.version), self._run_id, self._next(event.at), kind, raw)

    def _posted(self, event: e.CheckpointPosted) -> CheckpointView:
        return CheckpointView(checkpoint_id(self.version), self._run_id, self._next(event.at), event.kind, event.data)

    def _next(self, at: datetime) -> datetime:
        whole = at.replace(microsecond=at.microsecond // 1000 * 1000)
        self._at = whole if self._at is None else max(whole, self._at + _MILLISECOND)
        return self._at


def _of_task(event: e.Event) -> tuple[str, dict[str, Any]]:
    """Kind of the checkpoint and what it tells beside task and attempt; ("", …) = none."""
    match event:
        case e.TaskStarted() | e.TaskWaiting():
            return "task.started", {}
        case e.TaskSucceeded():
            return "task.completed", {"result": _result(event.value)}
        case e.TaskRetrying():
            wait_s = max(0.0, (event.due - event.at).total_seconds())
            return "task.retrying", {"error": _error(event.error), "retry_in_s": round(wait_s, 3)}
        case e.TaskFailed():
            error = {"code": "timed_out", "message": event.error} if event.timed_out else _error(event.error)
            return "task.failed", {"error": error}
        case e.TaskSkipped():
            return "task.skipped", {"reason": _SKIPS.get(event.by, "skipped")}
        case e.TaskUpstreamFailed():
            return "task.skipped", {"reason": "upstream_failed"}
        case e.TaskCancelled():
            return "task.canceled", {}
        case e.TaskProgressed():
            told = msgspec.json.decode(event.data)
            return "task.progress", {"progress": told.get("fraction"), "message": told.get("message", "")}
        case e.TaskCheckpointed():
            return "task.checkpoint", {"data": event.data}
    return "", {}


def _result(value: Value | None) -> object:
    if value is None:
        return None
    return {"truncated": True} if value.artifact is not None else value.inline


def _error(text: str) -> dict[str, str]:
    """`ValueError: it was red` -> its code and message."""
    code, colon, message = text.partition(": ")
    return {"code": code, "message": message} if colon and code.isidentifier() else {"code": "failed", "message": text}


def _why(event: e.Event) -> dict[str, Any] | None:
    match event:
        case e.RunFailed(reason=None):
            return {"error": {"code": "task_failed", "message": event.error}}
        case e.RunFailed():
            return {"reason": event.reason, "error": {"code": event.reason, "message": event.error}}
        case e.RunTimedOut():
            return {"error": {"code": "timed_out", "message": event.error}}
    return None
