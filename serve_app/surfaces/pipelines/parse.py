"""Bodies, queries, ids and headers of this surface, read into what the port takes. All raise Invalid, or BodyTooLarge.

The message of an Invalid is what the caller is told. JSON is read by msgspec: unlike orjson it keeps integers beyond 64
bits, so that they are refused and not rounded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar, get_args

import msgspec
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from orchestrator.errors import Invalid
from orchestrator.idempotency import Idempotency
from orchestrator.pipeline_views import CompletionWanted, JobResult, LogEntry, PipelineConfig, PipelineWanted
from serve_app.requests import DEEPEST, raw_body, too_deep
from serve_app.surfaces.pipelines import models as m

M = TypeVar("M", bound=BaseModel)

ENTRIES_MAX = 1000
MESSAGE_CHARACTERS_MAX = 10_000
KEY_CHARACTERS_MAX = 255
JOBS_DEFAULT, JOBS_MAX = 100, 1000

STATUSES: tuple[str, ...] = get_args(m.JobStatus)
LEVELS: tuple[str, ...] = get_args(m.LogLevel)

_UUID = re.compile(m.UUID, re.ASCII | re.IGNORECASE)
_LOG_TIME = re.compile(m.LOG_TIME, re.ASCII)
_FRACTION = re.compile(r"\.[0-9]+", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NO_EMPTY_CAPABILITY = "Capability cannot be empty"


# -- paths, queries, headers


def job_id(given: str) -> str:
    """The id in a path, in lower case."""
    return _uuid(given, "Invalid job id")


def pipeline_id(given: str) -> str:
    """The id in a path, in lower case."""
    return _uuid(given, "Invalid pipeline id")


def listed(query: Mapping[str, str]) -> tuple[str | None, int]:
    """`status` and `limit` of GET /api/jobs."""
    status = query.get("status")
    if status is not None and status not in STATUSES:
        raise Invalid(f"Invalid status: {status[:100]!r} (one of {', '.join(STATUSES)})")
    limit = query.get("limit", str(JOBS_DEFAULT))
    if not _WHOLE.fullmatch(limit) or not 1 <= int(limit) <= JOBS_MAX:
        raise Invalid(f"Invalid limit: {limit[:100]!r} (1 to {JOBS_MAX})")
    return status, int(limit)


def idempotency(request: Request, tenant: str, command: str, body: BaseModel) -> Idempotency | None:
    """The caller's key for `command`, with a fingerprint of what was asked; None when there is none."""
    key = request.headers.get("idempotency-key", "").strip()
    if not key:
        return None
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid(f"Idempotency-Key is too long (max {KEY_CHARACTERS_MAX} characters)")
    asked = orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return Idempotency(f"{tenant}:{command}:{key}", hashlib.sha256(asked).hexdigest())


def _uuid(given: str, refusal: str) -> str:
    if not _UUID.fullmatch(given):
        raise Invalid(refusal)
    return given.lower()


# -- bodies


async def body_of(request: Request, model: type[M], limit_bytes: int) -> M:
    """The request's body as a `model`."""
    parsed = await _json(request, limit_bytes)
    if not isinstance(parsed, dict):
        raise _invalid("JSON object expected")
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _invalid(f"{'/'.join(map(str, first['loc']))}: {first['msg']}") from None


def registration(body: m.PipelinesRegisterRequest) -> tuple[str, tuple[str, ...] | None]:
    """Who registers, and what it can; None = it does not say."""
    runner_id = _runner_id(body.runner_id)
    if body.capabilities is None:
        return runner_id, None
    if not body.capabilities:
        raise Invalid("Runner must have at least one capability")
    if not all(each.strip() for each in body.capabilities):
        raise Invalid(_NO_EMPTY_CAPABILITY)
    return runner_id, tuple(body.capabilities)


def claimant(body: m.PipelinesClaimJobRequest) -> str:
    """Who claims."""
    if not body.runner_id:
        raise Invalid("runner_id is required")
    return _runner_id(body.runner_id)


def completion(body: m.PipelinesCompleteJobRequest) -> CompletionWanted:
    """How a job is said to have ended."""
    result = body.result
    exit_code = result.exit_code if result.exit_code is not None else 0 if result.success else 1
    return CompletionWanted(JobResult(result.success, exit_code, result.output, result.error_message), body.status)


def wanted(body: m.PipelinesCreatePipelineRequest) -> PipelineWanted:
    """What POST /api/pipeline/create asks for."""
    config = body.config or m.PipelinesPipelineConfig()
    tags = None if body.tags is None else tuple(_plain(each) for each in body.tags)
    return PipelineWanted(
        script=body.script,
        name=body.name,
        description=body.description,
        required_modules=tuple(body.required_modules or ()),
        tags=tags,
        config=PipelineConfig(
            config.timeout_seconds, config.max_retries, config.env_vars, config.secret_env_vars or {}
        ),
    )


def launched(body: m.PipelinesCreateJobRequest) -> tuple[str, dict[str, Any]]:
    """Which pipeline is launched, and its parameters."""
    if not _UUID.fullmatch(body.pipeline_id):
        raise _invalid("pipeline_id: UUID expected")
    return body.pipeline_id.lower(), body.parameters or {}


def _runner_id(given: str) -> str:
    if not given.strip():
        raise Invalid("Runner id cannot be empty")
    if len(given) > m.ID_CHARACTERS_MAX:
        raise Invalid(f"Runner id is too long (max {m.ID_CHARACTERS_MAX} characters)")
    return given


def _plain(tag: str | m.PipelinesTag) -> str | dict[str, Any]:
    return tag if isinstance(tag, str) else tag.model_dump()


# -- logs


async def entries(request: Request, limit_bytes: int) -> list[LogEntry]:
    """The batch in the body of POST …/logs, wrapped or bare; all of it is good."""
    parsed = await _json(request, limit_bytes)
    batch = parsed.get("entries") if isinstance(parsed, dict) else parsed
    if not isinstance(batch, list):
        raise _invalid("an array of log entries expected")
    if len(batch) > ENTRIES_MAX:
        raise Invalid(f"Too many log entries in batch (max: {ENTRIES_MAX})")
    return [_entry(place, each) for place, each in enumerate(batch)]


def _entry(place: int, given: object) -> LogEntry:
    match given:
        case {"timestamp": str(timestamp), "level": str(level), "message": str(message)}:
            pass
        case dict():
            wrong = [name for name in ("timestamp", "level", "message") if not isinstance(given.get(name), str)]
            raise Invalid(f"Invalid log entry {place}: {wrong[0]}: text expected")
        case _:
            raise Invalid(f"Invalid log entry {place}: object expected")
    if level not in LEVELS:
        raise Invalid(f"Invalid log entry {place}: level: one of {', '.join(LEVELS)} expected")
    if not _is_instant(timestamp):
        raise Invalid(f"Invalid log entry {place}: timestamp: RFC 3339 with up to 9 digits of a second expected")
    if len(message) > MESSAGE_CHARACTERS_MAX:
        raise Invalid(f"Log entry {place} message too long (max: {MESSAGE_CHARACTERS_MAX} chars)")
    return LogEntry(timestamp, level, message)


def _is_instant(text: str) -> bool:
    """Does it name an instant that there is? Digits beyond microseconds are dropped for the question only."""
    if not _LOG_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(_FRACTION.sub("", text).upper())
    except ValueError:
        return False
    return True


# -- JSON


async def _json(request: Request, limit_bytes: int) -> object:
    text = await raw_body(request, limit_bytes)
    try:
        parsed: object = msgspec.json.decode(text)
    except RecursionError:
        raise _TOO_DEEP from None
    except ValueError as error:  # msgspec's own errors, and UnicodeDecodeError
        raise _invalid("text is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)) from None
    if too_deep(text, parsed):
        raise _TOO_DEEP
    return parsed


def _invalid(what: str) -> Invalid:
    return Invalid(f"Invalid request body: {what}")


_TOO_DEEP = _invalid(f"nested deeper than {DEEPEST} levels")
