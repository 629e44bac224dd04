"""Reading requests: ids, bodies, JSON, fields. Whatever is wrong becomes Invalid, with every field named.

A request's id is the caller's `X-Request-Id` when it has the right form, otherwise a fresh one. Only an id
that the caller chose can be an idempotency key. Under Serve the header is always there; `edge` marks the
ones it made up.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request

from orchestrator.errors import Invalid
from orchestrator.faults import json_fault, refusal
from orchestrator.idempotency import Idempotency
from serve_app.problems import BodyTooLarge, Kind, Problem, problem_of

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: set by `edge` on a request whose id it made up
FRESH_ID_HEADER = "x-orchestrator-fresh-id"
#: where `front` leaves the Identity of a request
IDENTITY_KEY = "orchestrator.identity"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,15}", re.ASCII)

#: JSON nested deeper than this is refused: journal scripts and encoders have limits of their own
DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Identity:
    """The id of one request."""

    id: str
    #: True when the caller chose it, so that it may serve as an idempotency key
    chosen: bool


def identity(headers: Headers, mint: Callable[[], str]) -> Identity:
    """The caller's id when it has the right form, otherwise a new one."""
    given = headers.get("x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return Identity(given, FRESH_ID_HEADER not in headers)
    return Identity(mint(), False)


def identity_of(request: Request) -> Identity:
    """The identity that `front` gave to this request."""
    found: Identity = request.scope[IDENTITY_KEY]
    return found


def told_problem(request: Request, error: Exception) -> Problem:
    """The problem that `error` is; whoever runs this is told of it unless it is the caller's doing."""
    problem = problem_of(error)
    if problem.kind is Kind.BROKEN:
        _log.error("request %s broke", identity_of(request).id, exc_info=error)
    elif problem.kind is Kind.UNAVAILABLE:
        _log.warning("request %s: %s", identity_of(request).id, error)
    return problem


def idempotency(request: Request, tenant: str, body: object) -> Idempotency | None:
    """The caller's key, scoped by tenant, method and path, with a fingerprint of the parsed body."""
    this = identity_of(request)
    if not this.chosen:
        return None
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    key = f"{tenant}:{request.method}:{request.url.path}:{this.id}"
    return Idempotency(key, hashlib.sha256(canonical).hexdigest())


async def json_body(request: Request, limit_bytes: int) -> object:
    """The parsed JSON body. Raises Invalid, or BodyTooLarge."""
    return _parse(request, await raw_body(request, limit_bytes))


async def optional_json_body(request: Request, limit_bytes: int) -> dict[str, Any]:
    """The parsed JSON object, or {} when the request has no body."""
    body = await raw_body(request, limit_bytes)
    return object_of(_parse(request, body)) if body else {}


async def raw_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, never held beyond the limit. Raises BodyTooLarge."""
    announced = request.headers.get("content-length", "")
    if _WHOLE.fullmatch(announced) and int(announced) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        parts.append(part)
    return b"".join(parts)


def too_deep(text: bytes, parsed: object) -> bool:
    """Is `parsed`, the JSON value of `text`, nested deeper than DEEPEST levels?"""
    return text.count(b"[") + text.count(b"{") > DEEPEST and _deeper_than(parsed, DEEPEST)


def object_of(body: object) -> dict[str, Any]:
    """`body` itself, when it is a JSON object. Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid("body must be a JSON object", (("", "object expected"),))
    return body


async def unhindered(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end even when the caller hangs up.

    It runs in an empty context: Ray cancels what was started in the context of a cancelled request.
    """
    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
    _unhindered.add(task)
    task.add_done_callback(_forget)
    return await asyncio.shield(task)


def whole_number(name: str, text: str | None, least: int, most: int) -> int | None:
    """A query parameter that must be a whole number; None when absent. Raises Invalid."""
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise Invalid(f"{name} must be a whole number from {least} to {most}", ((name, f"{least}..{most} expected"),))
    return int(text)


def word(name: str, text: str | None, words: Mapping[str, T]) -> T | None:
    """What a query parameter's word stands for; None when absent. Raises Invalid."""
    if text is None:
        return None
    if text not in words:
        raise Invalid(f"unknown {name} {text[:50]!r}", ((name, f"one of {', '.join(words)} expected"),))
    return words[text]


class Fields:
    """Reads a JSON object field by field and collects all that is wrong. A null counts as absent."""

    def __init__(self, body: object) -> None:
        self._of = object_of(body)
        self._wrong: list[tuple[str, str]] = []
        self._refusals: list[Invalid] = []

    def text(self, name: str, *, required: bool = False, shortest: int = 0, longest: int = 1000) -> str | None:
        """A string of that length."""
        value = self._value(name, required)
        if value is None:
            return None
        if isinstance(value, str) and shortest <= len(value) <= longest and "\0" not in value:
            return value
        self.wrong(name, f"string of {shortest} to {longest} characters expected")
        return None

    def choice(self, name: str, words: tuple[str, ...], default: str) -> str:
        """One of `words`."""
        value = self._of.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in words:
            self.wrong(name, f"one of {', '.join(words)} expected")
            return default
        return value

    def whole(self, name: str, least: int, most: int, *, required: bool = False) -> int | None:
        """A whole number in that range; 1.0 is one, as JSON Schema has it, and true is none."""
        value = self._value(name, required)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and least <= value <= most:
            return value
        self.wrong(name, f"whole number from {least} to {most} expected")
        return None

    def flag(self, name: str) -> bool:
        """A boolean, false when absent."""
        value = self._of.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "boolean expected")
        return value is True

    def anything(self, name: str) -> object:
        """Whatever JSON value is there, None when absent: somebody else reads it."""
        return self._of.get(name)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, empty when absent."""
        value = self._of.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(name, "object expected")
            return {}
        if (fault := json_fault(value)) is not None:
            self.wrong(f"{name}/{fault[0]}", fault[1])
        return value

    def wrong(self, name: str, message: str) -> None:
        """Note that `name` is at fault."""
        self._wrong.append((name, message))

    def refused(self, error: Invalid) -> None:
        """Note what somebody else found wrong with some of the fields."""
        self._refusals.append(error)
        self._wrong.extend(error.details)

    def check(self) -> None:
        """Raise Invalid when anything was wrong."""
        if len(self._refusals) == 1 and len(self._wrong) == len(self._refusals[0].details):
            raise self._refusals[0]
        if self._wrong:
            raise refusal(self._wrong)

    def _value(self, name: str, required: bool) -> object:
        value = self._of.get(name)
        if value is None and required:
            self.wrong(name, "required")
        return value


def _parse(request: Request, body: bytes) -> object:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Invalid("Content-Type must be application/json", (("Content-Type", "application/json expected"),))
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid("malformed JSON", (("", str(error)),)) from None
    if too_deep(body, parsed):
        raise Invalid(f"JSON nested deeper than {DEEPEST} levels", (("", "nested too deeply"),))
    return parsed


def _deeper_than(value: object, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)


def _inside(value: object) -> list[object]:
    """Containers (and what may be one) directly inside `value`."""
    if isinstance(value, dict):
        return [each for each in value.values() if isinstance(each, dict | list)]
    return [each for each in value if isinstance(each, dict | list)] if isinstance(value, list) else []


_unhindered: set[asyncio.Task[Any]] = set()


def _forget(task: asyncio.Task[Any]) -> None:
    """Drop a finished task; an error nobody waits for any more is not worth a traceback."""
    _unhindered.discard(task)
    if not task.cancelled():
        task.exception()
