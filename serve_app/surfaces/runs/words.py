"""Views, events and errors in this surface's words: runs end in `completed`, and a run is `canceled` with one l.

core run    queued   running paused waiting  succeeded  failed timed_out quarantined  cancelling cancelled
here        pending  running                 completed  failed                        canceled

Metadata and data are the caller's own JSON text and go out as they came in: they are encoded as `msgspec.Raw`,
so no number in them ever passes through a float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

from orchestrator.errors import (
    AlreadyEnded,
    Conflict,
    HistoryGone,
    Invalid,
    KubernetesUnavailable,
    NotFound,
    NotInCharge,
)
from orchestrator.live_run_views import CheckpointView, LiveRunView
from orchestrator.views import Frame
from serve_app import sse
from serve_app.problems import Kind, Problem

Json = dict[str, Any]

RUN_WORDS = MappingProxyType(
    {
        "queued": "pending",
        "running": "running",
        "waiting": "running",
        "paused": "running",
        "cancelling": "canceled",
        "succeeded": "completed",
        "failed": "failed",
        "timed_out": "failed",
        "quarantined": "failed",
        "cancelled": "canceled",
    }
)

#: refusals of a request that are told by these words alone, without details
INVALID_MODE = "invalid mode"
INVALID_JSON = "invalid json"
INVALID_CHECKPOINT_TYPE = "invalid checkpoint type"
VALIDATION_FAILED = "validation failed"

ERRORS = MappingProxyType(
    {
        Kind.INVALID: VALIDATION_FAILED,
        Kind.TOO_LARGE: "payload too large",
        Kind.UNAUTHENTICATED: "unauthorized",
        Kind.FORBIDDEN: "forbidden",
        Kind.NOT_FOUND: "not found",
        Kind.WRONG_METHOD: "method not allowed",
        Kind.CONFLICT: "conflict",
        Kind.GONE: "gone",
        Kind.RATE_LIMITED: "rate_limited",
        Kind.BROKEN: "internal error",
        Kind.UNAVAILABLE: "dependency down",
    }
)

#: text of metadata or data when there is none
ABSENT = msgspec.Raw(b"")


def run(view: LiveRunView) -> Json:
    """A Run: closed, and without what is not known."""
    body: Json = {
        "id": view.run_id,
        "mode": view.mode,
        "createdAt": instant(view.created_at),
        "status": RUN_WORDS[view.state],
    }
    if view.owner is not None:
        body["owner"] = view.owner
    if view.metadata != ABSENT:
        body["metadata"] = view.metadata
    return body


def checkpoint(view: CheckpointView) -> Json:
    """A Checkpoint: closed; without `data` when none was given."""
    body: Json = {"id": view.id, "runId": view.run_id, "ts": instant(view.at), "type": view.kind}
    if view.data != ABSENT:
        body["data"] = view.data
    return body


def steps(groups: Sequence[Sequence[str]] | None) -> Json:
    """The answer to mode=plan: the nodes in groups, or without a definition what happens to any run."""
    return {"mode": "plan", "plan": {"steps": ("validate", "schedule", "execute") if groups is None else groups}}


def hello(run_id: str) -> bytes:
    """The first frame of every stream."""
    return sse.frame(None, "hello", encode({"runId": run_id}))


def event(frame: Frame) -> bytes:
    """A `checkpoint`, whose id is its `ts`, or a `status`, which has none."""
    return _FRAMES[frame.kind](frame.data or {})


def problem(found: Problem, error: Exception) -> Json:
    """The body that tells an error."""
    match error:
        case Invalid(details=()):
            return _refused(error.message)
        case Invalid():
            return {"error": VALIDATION_FAILED, "details": [f"/{field} {message}" for field, message in error.details]}
        case NotFound():
            return {"error": f"{error.kind.lower()} not found"}
        case AlreadyEnded():
            return {"error": "invalid status transition", "from": RUN_WORDS[error.state], "to": "canceled"}
        case Conflict():
            # the one conflict there is besides (`LiveRuns.create`)
            return {"error": "idempotency key reused"}
        case HistoryGone():
            return {"error": ERRORS[found.kind], "details": ["/lastEventId later checkpoints are no longer kept"]}
        case NotInCharge():
            return {"error": ERRORS[found.kind], "details": [str(error)]}
        case KubernetesUnavailable():
            return {"error": "k8s unavailable"}
        case _:
            return {"error": ERRORS[found.kind]}


def encode(body: Json) -> bytes:
    """`body` as JSON, with the caller's own text in it as it is."""
    return msgspec.json.encode(body)


def instant(moment: datetime) -> str:
    """UTC, exactly three digits of a second, `Z`: 24 characters, so that order of text is order of time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refused(message: str) -> Json:
    if message in (INVALID_MODE, INVALID_JSON, INVALID_CHECKPOINT_TYPE):
        return {"error": message}
    return {"error": VALIDATION_FAILED, "details": [f"/ {message}"]}


def _checkpoint_frame(told: Json) -> bytes:
    moment = told["ts"]
    ts = instant(moment) if isinstance(moment, datetime) else moment
    body = {"id": told["id"], "runId": told["runId"], "ts": ts, "type": told["type"]}
    if (data := told.get("data", ABSENT)) != ABSENT:
        body["data"] = data
    return sse.frame(ts, "checkpoint", encode(body))


def _status_frame(told: Json) -> bytes:
    return sse.frame(None, "status", encode({"runId": told["runId"], "status": RUN_WORDS[told["status"]]}))


_FRAMES: Mapping[str, Callable[[Json], bytes]] = MappingProxyType(
    {"checkpoint": _checkpoint_frame, "status": _status_frame}
)
