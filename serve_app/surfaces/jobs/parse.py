"""Bodies, headers and queries of this surface. All raise Invalid with the contract's text, NotFound, or BodyTooLarge.

Bodies are read as JSON whatever their Content-Type: the SDKs' generations disagree about it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request

from orchestrator.errors import Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.webhook import check_webhook_url
from serve_app.requests import too_deep
from serve_app.surfaces.jobs import words

Json = dict[str, Any]

KEY_CHARACTERS_MAX = 255
LIST_MAX, LIST_DEFAULT, OFFSET_MAX = 1_000, 100, 100_000
#: longest wait for a task that an SDK bears, seconds
POLL_MAX_S = 33.0
SKILLS_MAX = 1_000

_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_WORKER_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}", re.ASCII)
_WEBHOOK_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Creation:
    """A body that asks for a job."""

    initial_data: Json
    webhook_url: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """A worker's result, whichever of the two shapes it had."""

    job_id: str
    task_id: str
    status: str
    data: Any
    error: Any
    data_metadata: Any


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker is with a task."""

    job_id: str
    task_id: str
    #: 0..1
    progress: float
    message: str


def json_object(text: bytes) -> Json | None:
    """The JSON object that `text` is; None for anything else."""
    try:
        body = json_value(text)
    except Invalid:
        return None
    return body if isinstance(body, dict) else None


def json_value(text: bytes) -> object:
    """The JSON value that `text` is. Raises Invalid, also when it is nested deeper than anything of ours."""
    try:
        body: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid(words.INVALID_JSON) from None
    if too_deep(text, body):
        raise Invalid(words.INVALID_JSON)
    return body


def needed(body: Json | None) -> Json:
    """`body` itself. Raises Invalid when there is no JSON object."""
    if body is None:
        raise Invalid(words.INVALID_JSON)
    return body


# -- clients


def creation(text: bytes, *, private_webhooks: bool) -> Creation:
    """The body of a creation; none at all is an empty object."""
    body = json_value(text) if text.strip() else {}
    if not isinstance(body, dict):
        raise Invalid("initial_data must be an object")
    if "initial_data" not in body and "webhook_url" not in body:
        return Creation(body, None)
    initial_data = body.get("initial_data")
    if initial_data is None:
        initial_data = {}
    if not isinstance(initial_data, dict):
        raise Invalid("initial_data must be an object")
    return Creation(initial_data, _webhook_url(body.get("webhook_url"), private_webhooks))


def idempotency(request: Request, tenant: str, wanted: Creation) -> Idempotency | None:
    """The caller's key, with a fingerprint of what it asks for; None when there is none."""
    key = request.headers.get("idempotency-key", "").strip()
    if not key:
        return None
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid("Invalid Idempotency-Key")
    asked = orjson.dumps([wanted.initial_data, wanted.webhook_url], option=orjson.OPT_SORT_KEYS)
    return Idempotency(f"{tenant}:POST:{request.scope['path']}:{key}", hashlib.sha256(asked).hexdigest())


def job_id(text: str) -> str:
    """`text` itself. Raises NotFound when no job can have such an id."""
    if not _JOB_ID.fullmatch(text):
        raise NotFound("job", repr(text[:100]))
    return text


def page(query: Mapping[str, str]) -> tuple[int, int]:
    """`limit` and `offset` of a list."""
    refusal = "Invalid limit or offset"
    first = _whole(query.get("limit"), LIST_DEFAULT, 1, LIST_MAX, refusal)
    return first, _whole(query.get("offset"), 0, 0, OFFSET_MAX, refusal)


def limit(query: Mapping[str, str]) -> int:
    """`limit` of a list without pages."""
    return _whole(query.get("limit"), LIST_DEFAULT, 1, LIST_MAX, "Invalid limit")


def status(text: str | None) -> str | None:
    """A job status to list; None = all."""
    if text is not None and text not in words.STATUSES:
        raise Invalid("Invalid status")
    return text


def webhook_id(text: str) -> str:
    """`text` itself. Raises NotFound when no webhook can have such an id."""
    if not _WEBHOOK_ID.fullmatch(text):
        raise NotFound("webhook", repr(text[:100]))
    return text


def delivery_status(text: str | None) -> str | None:
    """A status of webhooks to list; None = all."""
    if text is not None and text not in words.DELIVERY_STATUSES:
        raise Invalid("Invalid status")
    return text


def decision(body: Json | None) -> str:
    """What a human has decided."""
    found = needed(body).get("decision")
    if not isinstance(found, str) or not found:
        raise Invalid("decision is required in body")
    return found


# -- workers


def worker_id(given: object) -> str:
    """`given` itself, when a worker can have such an id."""
    if not isinstance(given, str) or not _WORKER_ID.fullmatch(given):
        raise Invalid("Invalid worker_id")
    return given


def wait_s(query: Mapping[str, str], most_s: float) -> float:
    """How long a poll waits; what is no number is not said."""
    most_s = min(most_s, POLL_MAX_S)
    try:
        asked_s = float(query.get("timeout", ""))
    except ValueError:
        return most_s
    return max(0.0, min(asked_s, most_s)) if math.isfinite(asked_s) else most_s


def skills(text: str | None) -> tuple[str, ...]:
    """A comma list of names."""
    return tuple(name for each in (text or "").split(",") if (name := each.strip()))[:SKILLS_MAX]


def result(body: Json | None) -> Result:
    """The body of a result. A missing status is success: that is what flat results of the first kind mean."""
    body = needed(body)
    job, task = body.get("job_id"), body.get("task_id")
    if not isinstance(job, str) or not isinstance(task, str) or not job or not task:
        raise Invalid("job_id and task_id are required")
    inner = body.get("result")
    effective = inner if isinstance(inner, dict) else body
    said = effective.get("status")
    return Result(
        job,
        task,
        said if isinstance(said, str) and said else "success",
        effective.get("data"),
        effective.get("error"),
        effective.get("data_metadata"),
    )


def progress(body: Json) -> Progress | None:
    """What a message or an event says of a task's progress; None when it is about something else.

    Three generations: `type` progress_update, `event` progress_update, and the event envelope.
    """
    if body.get("event_type") == "progress":
        payload = body.get("payload")
        told = payload if isinstance(payload, dict) else {}
        job, task = body.get("target_job_id"), body.get("target_task_id")
    elif "progress_update" in (body.get("type"), body.get("event")):
        told, job, task = body, body.get("job_id"), body.get("task_id")
    else:
        return None
    share, message = told.get("progress"), told.get("message")
    if not isinstance(job, str) or not isinstance(task, str) or type(share) not in (int, float):
        return None
    return Progress(job, task, min(1.0, max(0.0, float(share or 0))), message if isinstance(message, str) else "")


# -- inside


def _whole(text: str | None, default: int, least: int, most: int, refusal: str) -> int:
    if text is None:
        return default
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise Invalid(refusal)
    return int(text)


def _webhook_url(given: object, private: bool) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise Invalid("Invalid webhook_url")
    check_webhook_url(given, private)
    return given
