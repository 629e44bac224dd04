"""Bodies, queries and path names of this surface, read into what the port takes.

What is wrong with a body or a query is told as FastAPI tells it: RequestValidationError with `type`, `loc`, `msg`
and `input` of each fault. A path name that no object can have is NotFound, like an unknown one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from orchestrator.errors import NotFound
from orchestrator.instance_views import InstanceWanted
from serve_app.requests import DEEPEST, raw_body, too_deep
from serve_app.surfaces.instances import models as m

M = TypeVar("M", bound=BaseModel)

_INSTANCE_ID = re.compile(m.INSTANCE_ID, re.ASCII)
_NAME = re.compile(m.NAME, re.ASCII)
_JSON = re.compile(r"application/([^;\s]+\+)?json", re.ASCII | re.IGNORECASE)
_FLAG = TypeAdapter(bool)


def instance_id(given: str) -> str:
    """`given` itself. Raises NotFound when no instance can have that id."""
    if not _INSTANCE_ID.fullmatch(given):
        raise NotFound("instance", given)
    return given


def plan_name(given: str) -> str:
    """`given` itself. Raises NotFound when no plan can have that name."""
    if not may_be_name(given):
        raise NotFound("plan", given)
    return given


def may_be_name(given: str) -> bool:
    """Can a plan or a task have this name?"""
    return _NAME.fullmatch(given) is not None and ".." not in given


def wanted(body: m.StartOrchestratorRequest) -> InstanceWanted:
    """What POST /api/orchestrators asks for."""
    return InstanceWanted(
        plan=plan_name(body.plan),
        executor=body.executor,
        batch_size=body.batch_size,
        max_iterations=body.max_iterations,
        max_retries=body.max_retries,
    )


def flag(name: str, query: Mapping[str, str]) -> bool:
    """A boolean in the query, false when absent."""
    try:
        return _FLAG.validate_python(query.get(name, False))
    except ValidationError as error:
        raise _invalid(error, "query", name) from None


async def body_of(request: Request, model: type[M], limit_bytes: int) -> M:
    """The request's body as a `model`. Raises also BodyTooLarge."""
    given = await raw_body(request, limit_bytes)
    if not given:
        raise _fault("missing", "Field required", None)
    try:
        return model.model_validate(_decoded(request, given), from_attributes=True)
    except ValidationError as error:
        raise _invalid(error, "body") from None


def _decoded(request: Request, given: bytes) -> object:
    """The JSON in the body; what is not declared as JSON stays text, which no model accepts."""
    if not _JSON.fullmatch(request.headers.get("content-type", "").partition(";")[0].strip()):
        return given.decode(errors="replace")
    try:
        parsed: object = orjson.loads(given)
    except orjson.JSONDecodeError as error:
        raise _fault("json_invalid", "JSON decode error", {}, error.pos, ctx={"error": error.msg}) from None
    if too_deep(given, parsed):
        why = f"nested deeper than {DEEPEST} levels"
        raise _fault("json_invalid", "JSON decode error", {}, ctx={"error": why})
    return parsed


def _invalid(error: ValidationError, *where: str) -> RequestValidationError:
    faults = error.errors(include_url=False)
    return RequestValidationError([{**each, "loc": (*where, *each["loc"])} for each in faults])


def _fault(kind: str, message: str, given: object, *where: int, **more: object) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("body", *where), "msg": message, "input": given, **more}])
