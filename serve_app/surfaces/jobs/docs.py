"""The OpenAPI of each operation: parameters, bodies, answers, headers and every error it can give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from serve_app import openapi
from serve_app.openapi import REQUEST_ID, RETRY_AFTER, Json, path, query, ref
from serve_app.problems import STATUS, Kind
from serve_app.surfaces.jobs import models as m
from serve_app.surfaces.jobs import parse, words
from serve_app.surfaces.jobs.client_handlers import ClientHandlers
from serve_app.surfaces.jobs.public_handlers import PublicHandlers
from serve_app.surfaces.jobs.worker_handlers import WorkerHandlers

Examples = dict[Kind, str]

_REPLAY = openapi.replayed("Idempotency-Key")
_SCHEMES = {
    "JobsClientToken": {"type": "apiKey", "in": "header", "name": "X-Client-Token"},
    "JobsWorkerToken": {"type": "apiKey", "in": "header", "name": "X-Worker-Token"},
    "JobsBearer": {"type": "http", "scheme": "bearer", "description": "the same token"},
}

_NO_JOB: Examples = {Kind.NOT_FOUND: "Job not found"}
_NO_WEBHOOK: Examples = {Kind.NOT_FOUND: "Webhook not found"}
_NO_PATH: Examples = {Kind.NOT_FOUND: words.ERRORS[Kind.NOT_FOUND]}
_CREATION: Examples = {
    Kind.INVALID: "initial_data must be an object",
    Kind.NOT_FOUND: words.ERRORS[Kind.NOT_FOUND],
    Kind.CONFLICT: words.KEY_REUSED,
    Kind.TOO_LARGE: words.ERRORS[Kind.TOO_LARGE],
    Kind.RATE_LIMITED: "Quota exceeded or not configured",
}
_BAD_BODY: Examples = {Kind.INVALID: words.INVALID_JSON, Kind.TOO_LARGE: words.ERRORS[Kind.TOO_LARGE]}
_BAD_ID: Examples = {Kind.INVALID: "Invalid worker_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """What an operation takes and gives beyond what all of its kind do."""

    #: schema and example of its answer, and the media type
    answer: Json
    media: str = "application/json"
    success: int = 200
    parameters: tuple[Json, ...] = ()
    body: type[BaseModel] | None = None
    problems: Examples
    description: str = ""
    headers: Json | None = None


def described(name: str) -> Json:
    """Arguments of the route whose handler has this name."""
    of, tag, security, always = _kind(name)
    operation = _operations()[name]
    return {
        "name": name,
        "operation_id": f"jobs_{name}",
        "summary": summary(name),
        "description": operation.description or of,
        "status_code": operation.success,
        "tags": [tag],
        "response_class": Response,
        "openapi_extra": _extra(operation, security, always),
    }


def summary(name: str) -> str:
    """What the operation does, in one line."""
    handler = next(getattr(each, name) for each in _HANDLERS if hasattr(each, name))
    return (handler.__doc__ or name).strip().splitlines()[0].rstrip(".")


def components() -> Json:
    """Schemas and security schemes that the operations refer to."""
    return {"schemas": openapi.schemas(openapi.models_in("Jobs", m)), "securitySchemes": _SCHEMES}


_HANDLERS = (ClientHandlers, WorkerHandlers, PublicHandlers)


def _kind(name: str) -> tuple[str, str, list[Json], Examples]:
    """Description, tag, security and the errors of every operation of that kind."""
    broken: Examples = {
        Kind.BROKEN: words.ERRORS[Kind.BROKEN],
        Kind.UNAVAILABLE: words.ERRORS[Kind.UNAVAILABLE],
    }
    if hasattr(PublicHandlers, name):
        return "Needs no token.", "jobs: public", [], broken
    who = {Kind.FORBIDDEN: words.ERRORS[Kind.FORBIDDEN]}
    if hasattr(WorkerHandlers, name):
        tokens: list[Json] = [{"JobsWorkerToken": []}, {"JobsBearer": []}]
        limited = {Kind.RATE_LIMITED: words.ERRORS[Kind.RATE_LIMITED]}
        unknown = {Kind.UNAUTHENTICATED: words.BAD_WORKER_TOKEN}
        text = "Needs the worker's own token where it has one, else scope `worker`."
        return text, "jobs: workers", tokens, broken | who | limited | unknown
    scope = "admin" if name == "reload_workers" else "client"
    security: list[Json] = [{"JobsClientToken": []}, {"JobsBearer": []}]
    return f"Needs scope `{scope}`.", "jobs", security, broken | who | {Kind.UNAUTHENTICATED: words.BAD_CLIENT_TOKEN}


@cache
def _operations() -> dict[str, _Operation]:
    return {
        "create_job": _Operation(
            answer=_one(m.JobsAccepted),
            success=202,
            parameters=(
                path("api_version", "v1"),
                path("api_endpoint", "jobs/simple_flow"),
                _header("Idempotency-Key", "kept 24 h: the same request gets the first answer again, another one 409"),
            ),
            body=m.JobsWanted,
            problems=_CREATION,
            description="Needs scope `client`. One path for each blueprint that has an endpoint, below its "
            "`api_version`, or right below `/api` when it has none. In the endpoint slashes may be written as `%2F`.",
            headers=_REPLAY,
        ),
        "list_jobs": _Operation(
            answer=_many(m.JobsJob),
            parameters=(
                query("limit", {"type": "integer", "minimum": 1, "maximum": parse.LIST_MAX, "default": 100}),
                query("offset", {"type": "integer", "minimum": 0, "maximum": parse.OFFSET_MAX, "default": 0}),
                query("status", {"type": "string", "enum": list(words.STATUSES)}),
            ),
            problems={Kind.INVALID: "Invalid limit or offset"},
        ),
        "get_job": _Operation(answer=_one(m.JobsJob), parameters=(_job_id(),), problems=_NO_JOB),
        "cancel_job": _Operation(
            answer=_one(m.JobsStatus, {"status": "cancellation_request_accepted"}),
            parameters=(_job_id(),),
            problems=_NO_JOB | {Kind.CONFLICT: words.cannot_cancel("finished")},
        ),
        "release_job": _Operation(
            answer=_one(m.JobsReleased),
            parameters=(_job_id(),),
            problems=_NO_JOB | {Kind.CONFLICT: words.not_quarantined("running")},
            description="Needs scope `client`. The state in which the job stopped is visited anew, as if it had just "
            "come there. A sub-job goes on for itself: its parent was told of its end.",
        ),
        "get_job_history": _Operation(answer=_many(m.JobsHistoryEvent), parameters=(_job_id(),), problems=_NO_JOB),
        "list_blueprints": _Operation(answer=_many(m.JobsBlueprint), problems={}),
        "get_blueprint_graph": _Operation(
            answer={"schema": {"type": "string"}, "example": "digraph simple_flow {\n    start -> finished;\n}\n"},
            media="text/vnd.graphviz",
            parameters=(path("blueprint_name", "simple_flow"),),
            problems={Kind.NOT_FOUND: "Blueprint not found"},
        ),
        "list_workers": _Operation(answer=_many(m.JobsWorker), problems={}),
        "list_webhooks": _Operation(
            answer=_many(m.JobsWebhook),
            parameters=(
                query("status", {"type": "string", "enum": list(words.DELIVERY_STATUSES)}),
                query("limit", {"type": "integer", "minimum": 1, "maximum": parse.LIST_MAX, "default": 100}),
            ),
            problems={Kind.INVALID: "Invalid limit"},
        ),
        "retry_webhook": _Operation(
            answer=_one(m.JobsWebhook, m.RETRIED_WEBHOOK),
            parameters=(_webhook_id(),),
            problems=_NO_WEBHOOK | {Kind.CONFLICT: words.not_dead("delivered")},
        ),
        "get_dashboard": _Operation(answer=_one(m.JobsDashboard), problems={}),
        "reload_workers": _Operation(
            answer=_one(m.JobsStatus, {"status": "worker_configs_reloaded"}),
            problems={Kind.INVALID: "workers.toml: cannot be read: TOMLDecodeError"},
        ),
        "register_worker": _Operation(
            answer=_one(m.JobsStatus, {"status": "registered"}), body=m.JobsRegistration, problems=_BAD_BODY
        ),
        "update_worker": _Operation(
            answer=_one(m.JobsAlive), parameters=(_worker_id(),), body=m.JobsHeartbeat, problems=_BAD_BODY | _BAD_ID
        ),
        "next_task": _Operation(
            answer=_one(m.JobsTask),
            parameters=(
                _worker_id(),
                query("timeout", {"type": "string"}, "seconds; can only shorten the wait of the server"),
                query("available_skills", {"type": "string"}, "names with commas between; they are added"),
                query("hot_skills", {"type": "string"}, "names with commas between"),
            ),
            problems=_BAD_ID,
        ),
        "submit_result": _Operation(answer=_one(m.JobsSettled), body=m.JobsResult, problems=_BAD_BODY | _NO_JOB),
        "emit_event": _Operation(answer=_one(m.JobsStatus), body=m.JobsEvent, problems=_BAD_BODY),
        "get_status": _Operation(answer=_one(m.JobsStatus), problems={}),
        "get_docs": _Operation(
            answer={"schema": {"type": "string"}, "example": "<!doctype html>"},
            media="text/html",
            problems={Kind.UNAUTHENTICATED: words.BAD_CLIENT_TOKEN},
        ),
        "approve_job": _Operation(
            answer=_one(m.JobsApproved),
            parameters=(_job_id(),),
            body=m.JobsDecision,
            problems=_BAD_BODY | _NO_JOB | {Kind.CONFLICT: words.CANNOT_APPROVE},
        ),
        "flush_db": _Operation(answer=_one(m.JobsStatus, {"status": "db_flushed"}), problems={}),
    }


def _extra(operation: _Operation, security: list[Json], always: Examples) -> Json:
    responses = {str(operation.success): _success(operation)}
    if operation.answer.get("schema") == ref(m.JobsTask):
        responses["204"] = {"description": "nothing came in time", "headers": REQUEST_ID}
    problems = always | operation.problems
    for kind in sorted(problems, key=lambda each: STATUS[each]):
        responses[str(STATUS[kind])] = _problem(kind, problems[kind])
    found: Json = {"security": security, "parameters": list(operation.parameters), "responses": responses}
    if operation.body is not None:
        found["requestBody"] = _body(operation.body)
    return found


def _success(operation: _Operation) -> Json:
    return openapi.answered("done", operation.answer, REQUEST_ID | (operation.headers or {}), operation.media)


def _problem(kind: Kind, text: str) -> Json:
    waits = kind in (Kind.RATE_LIMITED, Kind.UNAVAILABLE)
    headers = REQUEST_ID | RETRY_AFTER if waits else REQUEST_ID
    return openapi.answered(text, openapi.one(m.JobsError, {"error": text}), headers)


def _body(model: type[BaseModel]) -> Json:
    return openapi.asked(model, m.BODIES[model], required=model not in (m.JobsWanted, m.JobsHeartbeat))


def _one(model: type[BaseModel], example: Any = None) -> Json:
    return openapi.one(model, m.ANSWERS[model] if example is None else example)


def _many(model: type[BaseModel]) -> Json:
    return {"schema": {"type": "array", "items": ref(model)}, "example": [m.ANSWERS[model]]}


# -- parameters


def _job_id() -> Json:
    return path("job_id", m.JOB_ID, {"format": "uuid"})


def _webhook_id() -> Json:
    return path("webhook_id", m.WEBHOOK_ID, {"pattern": m.WORKER_ID_PATTERN})


def _worker_id() -> Json:
    return path("worker_id", "worker-123", {"pattern": m.WORKER_ID_PATTERN})


def _header(name: str, description: str) -> Json:
    return openapi.header(name, description, {"maxLength": parse.KEY_CHARACTERS_MAX})
