"""The OpenAPI of each operation: parameters, bodies, answers, headers and every error it can give."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator import bundle, published, spec_form
from serve_app.problems import STATUS, Kind
from serve_app.surfaces.dags import archive_models as a
from serve_app.surfaces.dags import artifact_models as v
from serve_app.surfaces.dags import bundle_models as b
from serve_app.surfaces.dags import cluster_models as c
from serve_app.surfaces.dags import dag_models as d
from serve_app.surfaces.dags import models as m
from serve_app.surfaces.dags import paging, parse, words
from serve_app.surfaces.dags import plane_models as pl
from serve_app.surfaces.dags import pool_models as o
from serve_app.surfaces.dags import run_models as r
from serve_app.surfaces.dags import starter_models as s
from serve_app.surfaces.dags import waiting_models as w

Json = dict[str, Any]

_ANSWERS = d.ANSWERS | r.ANSWERS | w.ANSWERS | s.ANSWERS | a.ANSWERS | v.ANSWERS | b.ANSWERS | o.ANSWERS | pl.ANSWERS
_BODIES = d.BODIES | r.BODIES | c.BODIES | w.BODIES | s.BODIES | a.BODIES | v.BODIES | o.BODIES

_PROBLEM_EXAMPLES = {
    Kind.INVALID: "to is before from",
    Kind.UNAUTHENTICATED: "missing or invalid bearer token",
    Kind.FORBIDDEN: "scope admin required",
    Kind.NOT_FOUND: "run run_99 not found",
    Kind.CONFLICT: "run run_9 is already success",
    Kind.GONE: "events of run run_9 up to 41 are no longer kept",
    Kind.RATE_LIMITED: "10 requests per second per tenant",
    Kind.BROKEN: "internal error",
    Kind.UNAVAILABLE: "journal unavailable",
}
_ALWAYS = (Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.RATE_LIMITED, Kind.BROKEN, Kind.UNAVAILABLE)
_OF_READS = (Kind.INVALID, Kind.NOT_FOUND)
_OF_COMMANDS = (Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT)

_SECURITY: list[Json] = [{"DagsToken": []}]
_HEADERS = {
    "X-Request-Id": {"required": True, "schema": {"type": "string"}},
    "X-RateLimit-Limit": {"required": True, "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"required": True, "schema": {"type": "integer"}},
}
_RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
_LINK = {"Link": {"description": "the run as it is now", "required": True, "schema": {"type": "string"}}}
_MORE_HEADERS: dict[Kind, Json] = {Kind.RATE_LIMITED: _RETRY_AFTER, Kind.UNAVAILABLE: _RETRY_AFTER, Kind.GONE: _LINK}
_REPLAY = {
    "Idempotent-Replay": {
        "description": "present when the answer was stored under this X-Request-Id",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "idempotency key, kept 24 h; one of another form than `[A-Za-z0-9._:-]{1,128}` is no key",
    "schema": {"type": "string"},
}

#: one event of a stream; of a stream, OpenAPI 3.1 describes a single event
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


def operations() -> dict[str, Json]:
    """Name of a handler -> its operation."""
    return {
        "define_dag": _post((_if_match(),), d.DagsDag, d.DagsDagDefined, problems=(Kind.INVALID, Kind.CONFLICT)),
        "list_dags": _get(
            (_query("status", {"enum": ["active", "paused"]}), _query("owner"), *_paging()), d.DagsDagList, Kind.INVALID
        ),
        "get_dag": _get((_dag_id(),), d.DagsDagView, Kind.NOT_FOUND),
        "preview_dag": _get((_dag_id(), *_preview()), d.DagsPreview, Kind.INVALID, Kind.NOT_FOUND),
        "preview_schedule": _post((), d.DagsSchedule, d.DagsPreview, problems=(Kind.INVALID,)),
        "pause_dag": _switch(),
        "resume_dag": _switch(),
        "uncache_dag": _get((_dag_id(), _query("task")), d.DagsUncached, Kind.INVALID, Kind.NOT_FOUND),
        "deploy_dag": _command((_dag_id(),), d.DagsDagDefined),
        "trigger": _post((), r.DagsTrigger, r.DagsTriggered, r.DagsPlan, problems=_OF_COMMANDS),
        "trigger_by_event": _post(
            (_dag_id(), _event_id()), r.DagsEvent, r.DagsTriggered, problems=_OF_COMMANDS, body_required=False
        ),
        "tell_event": _post((), s.DagsEventToTell, s.DagsEventTold, problems=(Kind.INVALID, Kind.CONFLICT)),
        "list_assets": _get((), s.DagsAssetList),
        "get_asset": _get((_asset(),), s.DagsAsset, Kind.NOT_FOUND),
        "trigger_batch": _post((), r.DagsBatch, r.DagsBatchDone, problems=(Kind.INVALID, Kind.CONFLICT)),
        "list_runs": _get((*_run_filters(), *_paging()), r.DagsRunList, Kind.INVALID),
        "get_run": _get((_run_id(), _wait()), r.DagsRun, Kind.INVALID, Kind.NOT_FOUND),
        "cancel_run": _command((_run_id(),), r.DagsRunChanged),
        "pause_run": _command((_run_id(),), r.DagsRunChanged),
        "resume_run": _command((_run_id(),), r.DagsRunChanged),
        "widen_run": _post((_run_id(),), r.DagsWidening, r.DagsWider, r.DagsPlan, problems=_OF_COMMANDS),
        "cap_run": _post((_run_id(),), r.DagsCap, r.DagsRunChanged, problems=_OF_COMMANDS),
        "retry_run": _command((_run_id(),), r.DagsRunChanged),
        "run_events": _stream(),
        "retry_task": _command((_run_id(), _task()), r.DagsTaskChanged),
        "skip_task": _command((_run_id(), _task()), r.DagsTaskChanged),
        "map_instances": _get(
            (_run_id(), _task(), _query("state", {"enum": list(parse.TASK_STATES)}), *_paging()),
            r.DagsMapInstances,
            Kind.INVALID,
            Kind.NOT_FOUND,
        ),
        "task_logs": _get((_run_id(), _task(), _attempt()), r.DagsLogList, Kind.INVALID, Kind.NOT_FOUND),
        "list_shares": _get((), c.DagsShareList, Kind.NOT_FOUND),
        "set_share": _post((), c.DagsShare, c.DagsShare, problems=_OF_READS),
        "decide": _post((_run_id(), _task()), w.DagsDecision, r.DagsTaskChanged, problems=_OF_COMMANDS),
        "signal": _post(
            (_run_id(), _path("name", parse.SIGNAL_NAME, "data_ready")),
            w.DagsSignal,
            w.DagsSignalSent,
            problems=_OF_COMMANDS,
            body_required=False,
        ),
        "query": _get((_run_id(), _path("name", published.NAME.pattern, "rows")), w.DagsPublished, *_OF_READS),
        "queries": _get((_run_id(),), w.DagsPublishedList, *_OF_READS),
        "list_approvals": _get((_query("dag_id"), _query("run_id")), w.DagsApprovalList),
        "waiting_tasks": _get((_run_id(),), c.DagsWaitingList, Kind.NOT_FOUND),
        "list_workers": _get((), c.DagsWorkerList),
        "scale_workers": _post((), c.DagsScale, c.DagsWorkerList, problems=_OF_COMMANDS),
        "drain_worker": _command((_worker_id(),), c.DagsWorker),
        "list_limits": _get((), c.DagsLimitList),
        "get_limit": _get((_limit(),), c.DagsLimitView, Kind.NOT_FOUND),
        "set_limit": _post((_limit(),), c.DagsLimit, c.DagsLimitView, problems=(Kind.INVALID, Kind.NOT_FOUND)),
        "delete_limit": _get((_limit(),), c.DagsLimitDeleted, Kind.NOT_FOUND),
        "list_pools": _get((), o.DagsPoolList),
        "get_pool": _get((_pool(),), o.DagsPoolView, Kind.NOT_FOUND),
        "set_pool": _post((_pool(),), o.DagsPool, o.DagsPoolView, problems=_OF_COMMANDS),
        "delete_pool": _get((_pool(),), o.DagsPoolDeleted, Kind.NOT_FOUND),
        "sweep_archive": _post((), a.DagsSweep, a.DagsSweepView, problems=_OF_COMMANDS),
        "list_sweeps": _get((), a.DagsSweepList, Kind.NOT_FOUND),
        "sweep_artifacts": _post((), v.DagsArtifactSweep, v.DagsArtifactSweepView, problems=_OF_READS),
        "list_artifact_sweeps": _get((), v.DagsArtifactSweepList, Kind.NOT_FOUND),
        "put_bundle": _upload(),
        "deploy_bundle": _command((_bundle(),), b.DagsBundleDeployed),
        "prune_bundles": _get((_older_than(),), b.DagsBundlesPruned, Kind.INVALID),
        "list_bundles": _get((), b.DagsBundleList),
        "delete_bundle": _get((_bundle(),), b.DagsBundleDeleted, Kind.NOT_FOUND, Kind.CONFLICT),
        "show_plane": _get((), pl.DagsPlane, Kind.NOT_FOUND),
        "take_over": _command((), pl.DagsPlane),
    }


def components() -> Json:
    """Schemas and the security scheme that the operations refer to."""
    modules = (m, d, r, c, s, w, a, v, b, o, pl)
    every = dict.fromkeys(each for module in modules for each in vars(module).values() if _is_model(each))
    template = "#/components/schemas/{model}"
    _, definitions = models_json_schema([(each, "validation") for each in every], ref_template=template)
    scheme = {"type": "http", "scheme": "bearer", "description": "a token with scope client or admin"}
    return {"schemas": definitions["$defs"], "securitySchemes": {"DagsToken": scheme}}


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value.__name__.startswith("Dags")


# -- operations


def _get(parameters: tuple[Json, ...], answer: type[BaseModel], *problems: Kind) -> Json:
    return _operation(parameters, (answer,), problems, _HEADERS)


def _post(
    parameters: tuple[Json, ...],
    body: type[BaseModel],
    *answers: type[BaseModel],
    problems: tuple[Kind, ...],
    body_required: bool = True,
) -> Json:
    examples = {name: {"value": value} for name, value in _BODIES[body].items()}
    content = {"application/json": {"schema": _ref(body), "examples": examples}}
    described = _operation((*parameters, _REQUEST_ID), answers, problems, _HEADERS | _REPLAY)
    return {**described, "requestBody": {"required": body_required, "content": content}}


def _command(parameters: tuple[Json, ...], answer: type[BaseModel]) -> Json:
    """A command says everything in its path; a JSON object as body is accepted and ignored."""
    return _operation((*parameters, _REQUEST_ID), (answer,), _OF_COMMANDS, _HEADERS | _REPLAY)


def _upload() -> Json:
    described = _operation((_bundle(),), (b.DagsBundleStored,), _OF_COMMANDS, _HEADERS)
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {**described, "requestBody": {"required": True, "content": content}}


def _switch() -> Json:
    return _post((_dag_id(),), d.DagsReason, d.DagsDagDefined, problems=_OF_COMMANDS, body_required=False)


def _stream() -> Json:
    parameters = (
        _run_id(),
        _query("after", {"type": "string"}, "id to go on after; what is no integer counts as none"),
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": "wins over `after`"},
    )
    events = {
        "description": "events with ids, comments as keep-alive, at last `end`",
        "headers": _HEADERS,
        "content": {"text/event-stream": {"schema": _EVENT, "example": r.EVENTS}},
    }
    over = {"description": "the run is over and everything was delivered", "headers": _HEADERS}
    responses = {"200": events, "204": over, **_problems((Kind.NOT_FOUND, Kind.GONE))}
    return {"security": _SECURITY, "parameters": list(parameters), "responses": responses}


def _operation(
    parameters: tuple[Json, ...], answers: tuple[type[BaseModel], ...], problems: tuple[Kind, ...], headers: Json
) -> Json:
    schemas = [_ref(each) for each in answers]
    content: Json = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if answers[0] in _ANSWERS:
        content["example"] = _ANSWERS[answers[0]]
    success = {
        "description": (answers[0].__doc__ or "").strip(),
        "headers": headers,
        "content": {"application/json": content},
    }
    return {
        "security": _SECURITY,
        "parameters": list(parameters),
        "responses": {"200": success, **_problems(problems)},
    }


def _problems(kinds: tuple[Kind, ...]) -> Json:
    by_status = sorted({*_ALWAYS, *kinds}, key=lambda kind: STATUS[kind])
    return {str(STATUS[kind]): _problem(kind) for kind in by_status}


def _problem(kind: Kind) -> Json:
    code = words.ERROR_CODES[kind]
    example = {"error": code, "message": _PROBLEM_EXAMPLES[kind], "request_id": "5f0c"}
    return {
        "description": code,
        "headers": _HEADERS | _MORE_HEADERS.get(kind, {}),
        "content": {"application/json": {"schema": _ref(m.DagsError), "example": example}},
    }


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


# -- parameters


def _dag_id() -> Json:
    return _path("dag_id", parse.DAG_ID, "sales_gdp")


def _event_id() -> Json:
    return _path("event_id", parse.EVENT_ID, "order-7")


def _run_id() -> Json:
    return _path("run_id", parse.RUN_ID, "run_9")


def _task() -> Json:
    return _path("task", parse.ANY_TASK_ID, "extract")


def _worker_id() -> Json:
    return _path("worker_id", parse.WORKER_ID, "worker-default-0")


def _limit() -> Json:
    return _path("name", parse.LIMIT_NAME, "warehouse")


def _pool() -> Json:
    return _path("name", parse.POOL_NAME, "gpu")


def _asset() -> Json:
    return _path("asset", spec_form.ASSET.removeprefix("^").removesuffix("$"), "s3://lake/sales")


def _bundle() -> Json:
    return _path("bundle", bundle.ID, "3f5a0c7be1d24c9f8a6b5e4d3c2b1a09f8e7d6c5b4a392817060504030201000")


def _older_than() -> Json:
    schema = {"type": "integer", "minimum": 0, "maximum": parse.LONGEST_SPAN_S, "default": parse.GRACE_S}
    return _query("older_than_s", schema, "sent or deployed longer ago, in seconds")


def _attempt() -> Json:
    return _query("attempt", {"type": "integer", "minimum": 1, "maximum": parse.MOST_ATTEMPTS})


def _run_filters() -> tuple[Json, ...]:
    return (
        _query("dag_id"),
        _query("state", {"enum": list(parse.RUN_STATES)}),
        _query("run_type", {"enum": list(parse.LISTED_RUN_TYPES)}),
        _query("parent_run_id"),
        _query("archived", {"enum": list(parse.ARCHIVED)}, "true: runs that left for the archive, and only those"),
    )


def _paging() -> tuple[Json, ...]:
    return (
        _query("cursor", {"pattern": f"^{paging.FORM}$"}, "`next_cursor` of a page of the same list"),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
    )


def _preview() -> tuple[Json, ...]:
    return (
        _query("n", {"type": "integer", "minimum": 1, "maximum": parse.MOST_TICKS, "default": 10}),
        _query("from", {"pattern": m.INSTANT}, "first instant to look at, RFC 3339 in `Z`; default now"),
    )


def _if_match() -> Json:
    return {
        "name": "If-Match",
        "in": "header",
        "description": "version being replaced, or `*`: the DAG must exist",
        "schema": {"type": "string", "pattern": r'^(\*|(W/)?"[0-9]{1,15}"|(W/)?[0-9]{1,15})$'},
        "example": '"3"',
    }


def _path(name: str, form: str, example: str) -> Json:
    schema = {"type": "string", "pattern": f"^{form}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": example}


def _wait() -> Json:
    schema = {"type": "integer", "minimum": 0, "maximum": parse.MOST_WAIT_S}
    return _query("wait_s", schema, "Answer when the run has ended, or after so many seconds")


def _query(name: str, schema: Json | None = None, description: str = "") -> Json:
    schema = {"type": "string", **(schema or {})}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
