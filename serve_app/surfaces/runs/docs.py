"""The OpenAPI of each operation: parameters, bodies, answers, headers and every error it can give."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve_app.problems import STATUS, Kind
from serve_app.surfaces.runs import models as m
from serve_app.surfaces.runs import parse, published, words

Json = dict[str, Any]

_ALWAYS = (Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.RATE_LIMITED, Kind.BROKEN, Kind.UNAVAILABLE)

#: kind -> body of an error of that kind, where it is not the general one
_EXAMPLES: dict[Kind, Json] = {
    Kind.INVALID: {"error": words.VALIDATION_FAILED, "details": ["/metadata must be object"]},
    Kind.NOT_FOUND: {"error": "run not found"},
    Kind.GONE: {"error": "gone", "details": ["/lastEventId later checkpoints are no longer kept"]},
}
_KEY_REUSED = {Kind.CONFLICT: {"error": "idempotency key reused"}, Kind.NOT_FOUND: {"error": "dag not found"}}
_ENDED = {Kind.CONFLICT: {"error": "invalid status transition", "from": "canceled", "to": "canceled"}}

_HEADERS = {"X-Request-Id": {"required": True, "schema": {"type": "string"}}}
_RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
_LINK = {"Link": {"description": "the run as it is now", "required": True, "schema": {"type": "string"}}}
_MORE_HEADERS: dict[Kind, Json] = {Kind.RATE_LIMITED: _RETRY_AFTER, Kind.UNAVAILABLE: _RETRY_AFTER, Kind.GONE: _LINK}
_REPLAY = {
    "Idempotent-Replay": {
        "description": "present when the answer was stored under this Idempotency-Key",
        "schema": {"type": "string", "enum": ["true"]},
    }
}

#: none is needed on loopback, unless ORCHESTRATOR_API_KEY is set
_IN_HEADERS: list[Json] = [{"RunsToken": []}, {"RunsKey": []}, {}]
_ANYWHERE: list[Json] = [*_IN_HEADERS, {"RunsCookie": []}, {"RunsQuery": []}]
_SCHEMES = {
    "RunsToken": {"type": "http", "scheme": "bearer", "description": "a token with scope client"},
    "RunsKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "RunsCookie": {"type": "apiKey", "in": "cookie", "name": "orchestrator_api_key"},
    "RunsQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
}

#: one event of a stream; of a stream, OpenAPI 3.1 describes a single event
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "of a checkpoint only: its `ts`"},
        "event": {"type": "string", "enum": ["hello", "checkpoint", "status"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "the `data` of a RunsEvent, whose `type` is the name of the event",
        },
    },
}


def operations() -> dict[str, Json]:
    """Name of a handler -> its operation."""
    return {
        "create_run": _create(),
        "get_run": _operation((_run_id(),), {200: m.RunsFound}, (Kind.NOT_FOUND,)),
        "cancel_run": _operation((_run_id(),), {200: m.RunsCanceled}, (Kind.NOT_FOUND, Kind.CONFLICT), _ENDED),
        "list_checkpoints": _operation(
            (_run_id(), _after(), _limit()), {200: m.RunsCheckpointList}, (Kind.INVALID, Kind.NOT_FOUND)
        ),
        "post_checkpoint": {
            **_operation((_run_id(),), {201: m.RunsCheckpointAdded}, (Kind.INVALID, Kind.NOT_FOUND, Kind.TOO_LARGE)),
            "requestBody": _body(m.RunsCheckpointWanted, required=True),
        },
        "run_events": _stream(),
    }


def components() -> Json:
    """Schemas and security schemes that the operations refer to."""
    every = [each for each in vars(m).values() if _is_model(each)]
    template = "#/components/schemas/{model}"
    _, definitions = models_json_schema([(each, "validation") for each in every], ref_template=template)
    return {"schemas": definitions["$defs"] | published.components(), "securitySchemes": _SCHEMES}


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value.__name__.startswith("Runs")


# -- operations


def _create() -> Json:
    parameters = (_mode(), _owner(), _actor(), _key())
    kinds = (Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT, Kind.TOO_LARGE)
    described = _operation(parameters, {200: m.RunsPlan, 201: m.RunsCreated}, kinds, _KEY_REUSED)
    described["responses"]["201"]["headers"] = _HEADERS | _REPLAY
    return {**described, "requestBody": _body(m.RunsWanted, required=False)}


def _stream() -> Json:
    parameters = (
        _run_id(),
        _query("replay", {}, "how many past checkpoints to start with, read like parseInt: else 10, clamped to 0..100"),
        _header("Last-Event-ID", "`ts` to go on after; what is no instant counts as absent"),
        _query("lastEventId", {}, "the same for clients that cannot set the header, which wins"),
    )
    events = {
        "description": "`hello`, checkpoints, then what happens; it does not end when the run does",
        "headers": _HEADERS,
        "content": {"text/event-stream": {"schema": _EVENT, "example": m.EVENTS}},
    }
    unknown = {"description": "run not found; the body is empty", "headers": _HEADERS}
    responses = {"200": events, "404": unknown, **_problems((Kind.GONE,), _EXAMPLES)}
    return {"security": _ANYWHERE, "parameters": list(parameters), "responses": responses}


def _operation(
    parameters: tuple[Json, ...],
    answers: dict[int, type[BaseModel]],
    kinds: tuple[Kind, ...],
    examples: dict[Kind, Json] | None = None,
) -> Json:
    responses = {str(status): _success(model) for status, model in answers.items()}
    return {
        "security": _IN_HEADERS,
        "parameters": list(parameters),
        "responses": {**responses, **_problems(kinds, _EXAMPLES | (examples or {}))},
    }


def _success(model: type[BaseModel]) -> Json:
    content = {"application/json": {"schema": _ref(model), "example": m.ANSWERS[model]}}
    return {"description": (model.__doc__ or "").strip(), "headers": _HEADERS, "content": content}


def _problems(kinds: tuple[Kind, ...], examples: dict[Kind, Json]) -> Json:
    by_status = sorted({*_ALWAYS, *kinds}, key=lambda kind: STATUS[kind])
    return {str(STATUS[kind]): _problem(kind, examples.get(kind, {"error": words.ERRORS[kind]})) for kind in by_status}


def _problem(kind: Kind, example: Json) -> Json:
    return {
        "description": example["error"],
        "headers": _HEADERS | _MORE_HEADERS.get(kind, {}),
        "content": {"application/json": {"schema": _ref(m.RunsError), "example": example}},
    }


def _body(model: type[BaseModel], *, required: bool) -> Json:
    examples = {name: {"value": value} for name, value in m.BODIES[model].items()}
    return {"required": required, "content": {"application/json": {"schema": _ref(model), "examples": examples}}}


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


# -- parameters


def _run_id() -> Json:
    schema = {"type": "string", "pattern": f"^{parse.RUN_ID}$"}
    return {"name": "run_id", "in": "path", "required": True, "schema": schema, "example": "BCbPVCdF3kqz"}


def _mode() -> Json:
    return _query("mode", {"enum": list(parse.MODES)}, "default `redis`, or what ORCHESTRATOR_RUNS_DEFAULT_MODE says")


def _owner() -> Json:
    return _query("owner", {"maxLength": parse.OWNER_CHARACTERS_MAX}, "who asks for the run")


def _actor() -> Json:
    return _header("x-actor-id", "the same, and wins", {"maxLength": parse.OWNER_CHARACTERS_MAX})


def _key() -> Json:
    return _header(
        "Idempotency-Key",
        "kept 24 h: the same request gets the first answer again, another one 409",
        {"maxLength": parse.KEY_CHARACTERS_MAX},
    )


def _after() -> Json:
    return _query("after", {"format": "date-time"}, "only strictly later ones")


def _limit() -> Json:
    schema = {"type": "integer", "minimum": 1, "maximum": parse.CHECKPOINTS_MAX}
    return _query("limit", schema, "default: all")


def _query(name: str, schema: Json, description: str) -> Json:
    schema = {"type": "string", **schema}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, description: str, schema: Json | None = None) -> Json:
    schema = {"type": "string", **(schema or {})}
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
