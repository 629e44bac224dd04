"""The OpenAPI of each operation: parameters, bodies, answers and every error it can give."""

from __future__ import annotations

from types import MappingProxyType

from pydantic import BaseModel

from serve_app import openapi
from serve_app.openapi import Json, path, query, ref
from serve_app.surfaces.instances import models as m

_INSTANCE_ID = "orch-1767323045678"

#: any of these, or none on a loopback listener; names are FastAPI's
_SECURITY: list[Json] = [{}, {"HTTPBearer": []}, {"APIKeyHeader": []}, {"HTTPBasic": []}]
_SCHEMES: Json = {
    "HTTPBearer": {"type": "http", "scheme": "bearer"},
    "APIKeyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "HTTPBasic": {"type": "http", "scheme": "basic", "description": "the password is the token"},
    "APIKeyQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
}

#: status -> an example of its text; every operation can answer the first three
_ALWAYS = MappingProxyType({401: "Not authenticated", 403: "Not enough permissions", 500: "Internal Server Error"})
_UNAVAILABLE = "Service Unavailable"
_DEAD = f"Orchestrator '{_INSTANCE_ID}' is not running (process dead)"
_NO_INSTANCE = f"Orchestrator '{_INSTANCE_ID}' not found"
_NO_PLAN = "Plan 'demo' not found"
_NO_STATUS = "No status found for plan 'demo'. Run /plan:implement first."

_SOCKETS = """

The same events come over `WebSocket /api/orchestrators/{instance_id}/events` (`?since=` resumes), tool calls alone and
flat over `WebSocket /api/orchestrators/{instance_id}/activity`.
Types: `initial_status`, `status_updated`, `task_changed`,
`phase_changed`, `tool_started`, `tool_completed`, `orchestrator_state`, `ping`."""

_EVENT = openapi.event({"pattern": "^[0-9]+$"})
_FINDING: Json = {
    "type": "object",
    "required": ["task_id", "content"],
    "properties": {"task_id": {"type": "string"}, "content": {"type": "string"}},
}


def operations() -> dict[str, Json]:
    """Name of a handler -> its operation."""
    finding = {"task_id": "1.1", "content": "Create the folder"}
    return {
        "list_orchestrators": _operation((), _list(m.OrchestratorInfo)),
        "start_orchestrator": _operation(
            (),
            _one(m.OrchestratorInfo),
            {
                400: "Unknown executor 'y'",
                404: _NO_PLAN,
                409: f"Plan 'demo' is already being run by '{_INSTANCE_ID}'",
            },
            body=m.StartOrchestratorRequest,
            status=201,
        ),
        "get_orchestrator": _operation((_instance(),), _one(m.OrchestratorInfo), {404: _NO_INSTANCE}),
        "get_orchestrator_status": _operation((_instance(),), _one(m.StatusResponse), {404: _NO_INSTANCE}),
        "pause_orchestrator": _command(),
        "resume_orchestrator": _command(),
        "shutdown_orchestrator": _validated(_command(query("force", {"type": "boolean", "default": False}))),
        "skip_task": _on_task(m.SkipTaskRequest, _NO_INSTANCE),
        "retry_task": _on_task(m.RetryTaskRequest, "Task '9.9' not found in plan"),
        "list_plans": _operation((), _list(m.PlanInfo)),
        "get_plan_status": _operation((_plan(),), _one(m.StatusResponse), {404: _NO_STATUS}),
        "get_plan_tasks": _operation((_plan(),), _list(m.TaskInfo), {404: _NO_STATUS}),
        "list_plan_findings": _operation((_plan(),), _list(m.FindingInfo), {404: _NO_PLAN}),
        "get_finding_content": _operation(
            (_plan(), _task()), {"schema": _FINDING, "example": finding}, {404: _NO_PLAN}
        ),
        "sse_events": _stream(),
    }


def components() -> Json:
    """Schemas and security schemes that the operations refer to."""
    return {"schemas": openapi.schemas(m.COMPONENTS), "securitySchemes": _SCHEMES}


def success(name: str) -> int:
    """Status of an operation that did what was asked."""
    return 201 if name == "start_orchestrator" else 200


def description(name: str, scope: str) -> str:
    """What the summary does not say."""
    return f"Off loopback needs scope `{scope}`.{_SOCKETS if name == 'sse_events' else ''}"


# -- operations


def _command(*parameters: Json) -> Json:
    return _operation((_instance(), *parameters), _one(m.CommandResponse), {404: _NO_INSTANCE, 503: _DEAD})


def _on_task(body: type[BaseModel], missing: str) -> Json:
    return _operation((_instance(),), _one(m.CommandResponse), {404: missing}, body=body)


def _stream() -> Json:
    since = "seq to go on after; what is no such number, or greater than the latest, is ignored"
    parameters = (
        _instance(),
        query("since", {"type": "string"}, since),
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": "wins over `since`"},
    )
    described = _operation(parameters, {}, {404: _NO_INSTANCE})
    described["security"] = [*_SECURITY, {"APIKeyQuery": []}]
    described["responses"]["200"] = {
        "description": "events with ids, a `ping` every 30 s, comments as keep-alive",
        "content": {"text/event-stream": {"schema": _EVENT, "example": m.EVENTS}},
    }
    return described


def _operation(
    parameters: tuple[Json, ...],
    answer: Json,
    problems: dict[int, str] | None = None,
    *,
    body: type[BaseModel] | None = None,
    status: int = 200,
) -> Json:
    texts = {**_ALWAYS, 503: _UNAVAILABLE, **(problems or {})}
    described: Json = {
        "security": _SECURITY,
        "parameters": list(parameters),
        "responses": {
            str(status): {"description": "Successful Response", "content": {"application/json": answer}},
            **{str(each): _problem(text) for each, text in sorted(texts.items())},
        },
    }
    if body is None:
        return described
    content = {"schema": ref(body), "example": m.BODIES[body]}
    described["requestBody"] = {"required": True, "content": {"application/json": content}}
    described["responses"]["413"] = _problem("body is larger than 16777216 bytes")
    return _validated(described)


def _validated(described: Json) -> Json:
    content = {"application/json": {"schema": ref(m.HTTPValidationError)}}
    described["responses"]["422"] = {"description": "Validation Error", "content": content}
    return described


def _problem(text: str) -> Json:
    schema = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
    return {"description": text, "content": {"application/json": {"schema": schema, "example": {"detail": text}}}}


def _one(model: type[BaseModel]) -> Json:
    return openapi.one(model, m.ANSWERS[model])


def _list(model: type[BaseModel]) -> Json:
    return openapi.many(model, m.ANSWERS[model])


# -- parameters


def _instance() -> Json:
    return path("instance_id", _INSTANCE_ID)


def _plan() -> Json:
    return path("plan_name", "demo")


def _task() -> Json:
    return path("task_id", "1.1")
