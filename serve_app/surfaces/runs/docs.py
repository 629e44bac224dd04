"""The OpenAPI of each operation: parameters, bodies, answers, headers and every error it can give."""

from __future__ import annotations

from pydantic import BaseModel

from serve_app import openapi
from serve_app.openapi import LINK, REQUEST_ID, RETRY_AFTER, Json, header, query
from serve_app.problems import STATUS, Kind
from serve_app.surfaces.runs import models as m
from serve_app.surfaces.runs import parse, published, words

_ALWAYS = (Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.RATE_LIMITED, Kind.BROKEN, Kind.UNAVAILABLE)

#: kind -> body of an error of that kind, where it is not the general one
_EXAMPLES: dict[Kind, Json] = {
    Kind.INVALID: {"error": words.VALIDATION_FAILED, "details": ["/metadata must be object"]},
    Kind.NOT_FOUND: {"error": "run not found"},
    Kind.GONE: {"error": "gone", "details": ["/lastEventId later checkpoints are no longer kept"]},
}
_KEY_REUSED = {Kind.CONFLICT: {"error": "idempotency key reused"}, Kind.NOT_FOUND: {"error": "dag not found"}}
_ENDED = {Kind.CONFLICT: {"error": "invalid status transition", "from": "canceled", "to": "canceled"}}

_MORE_HEADERS = {Kind.RATE_LIMITED: RETRY_AFTER, Kind.UNAVAILABLE: RETRY_AFTER, Kind.GONE: LINK}
_REPLAY = openapi.replayed("Idempotency-Key")

#: none is needed on loopback, unless ORCHESTRATOR_API_KEY is set
_IN_HEADERS: list[Json] = [{"RunsToken": []}, {"RunsKey": []}, {}]
_ANYWHERE: list[Json] = [*_IN_HEADERS, {"RunsCookie": []}, {"RunsQuery": []}]
_SCHEMES = {
    "RunsToken": {"type": "http", "scheme": "bearer", "description": "a token with scope client"},
    "RunsKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "RunsCookie": {"type": "apiKey", "in": "cookie", "name": "orchestrator_api_key"},
    "RunsQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
}

_EVENT = openapi.event(
    {"description": "of a checkpoint only: its `ts`"},
    {"enum": ["hello", "checkpoint", "status"]},
    {"description": "the `data` of a RunsEvent, whose `type` is the name of the event"},
)


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
            "requestBody": openapi.asked(m.RunsCheckpointWanted, m.BODIES[m.RunsCheckpointWanted], required=True),
        },
        "run_events": _stream(),
    }


def components() -> Json:
    """Schemas and security schemes that the operations refer to."""
    return {
        "schemas": openapi.schemas(openapi.models_in("Runs", m)) | published.components(),
        "securitySchemes": _SCHEMES,
    }


# -- operations


def _create() -> Json:
    parameters = (_mode(), _owner(), _actor(), _key())
    kinds = (Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT, Kind.TOO_LARGE)
    described = _operation(parameters, {200: m.RunsPlan, 201: m.RunsCreated}, kinds, _KEY_REUSED)
    described["responses"]["201"]["headers"] = REQUEST_ID | _REPLAY
    return {**described, "requestBody": openapi.asked(m.RunsWanted, m.BODIES[m.RunsWanted], required=False)}


def _stream() -> Json:
    parameters = (
        _run_id(),
        query("replay", {}, "how many past checkpoints to start with, read like parseInt: else 10, clamped to 0..100"),
        header("Last-Event-ID", "`ts` to go on after; what is no instant counts as absent"),
        query("lastEventId", {}, "the same for clients that cannot set the header, which wins"),
    )
    events = openapi.answered(
        "`hello`, checkpoints, then what happens; it does not end when the run does",
        {"schema": _EVENT, "example": m.EVENTS},
        REQUEST_ID,
        "text/event-stream",
    )
    unknown = {"description": "run not found; the body is empty", "headers": REQUEST_ID}
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
    return openapi.answered((model.__doc__ or "").strip(), openapi.one(model, m.ANSWERS[model]), REQUEST_ID)


def _problems(kinds: tuple[Kind, ...], examples: dict[Kind, Json]) -> Json:
    by_status = sorted({*_ALWAYS, *kinds}, key=lambda kind: STATUS[kind])
    return {str(STATUS[kind]): _problem(kind, examples.get(kind, {"error": words.ERRORS[kind]})) for kind in by_status}


def _problem(kind: Kind, example: Json) -> Json:
    headers = REQUEST_ID | _MORE_HEADERS.get(kind, {})
    return openapi.answered(example["error"], openapi.one(m.RunsError, example), headers)


# -- parameters


def _run_id() -> Json:
    return openapi.path("run_id", "BCbPVCdF3kqz", {"pattern": f"^{parse.RUN_ID}$"})


def _mode() -> Json:
    return query("mode", {"enum": list(parse.MODES)}, "default `redis`, or what ORCHESTRATOR_RUNS_DEFAULT_MODE says")


def _owner() -> Json:
    return query("owner", {"maxLength": parse.OWNER_CHARACTERS_MAX}, "who asks for the run")


def _actor() -> Json:
    return header("x-actor-id", "the same, and wins", {"maxLength": parse.OWNER_CHARACTERS_MAX})


def _key() -> Json:
    return header(
        "Idempotency-Key",
        "kept 24 h: the same request gets the first answer again, another one 409",
        {"maxLength": parse.KEY_CHARACTERS_MAX},
    )


def _after() -> Json:
    return query("after", {"format": "date-time"}, "only strictly later ones")


def _limit() -> Json:
    schema = {"type": "integer", "minimum": 1, "maximum": parse.CHECKPOINTS_MAX}
    return query("limit", schema, "default: all")
