"""The OpenAPI of each operation: parameters, bodies, answers, headers and every error it can give."""

from __future__ import annotations

from pydantic import BaseModel

from orchestrator import bundle, published, spec_form
from serve_app import openapi
from serve_app.openapi import LINK, RETRY_AFTER, Json, query, ref
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
    **openapi.REQUEST_ID,
    "X-RateLimit-Limit": {"required": True, "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"required": True, "schema": {"type": "integer"}},
}
_MORE_HEADERS = {Kind.RATE_LIMITED: RETRY_AFTER, Kind.UNAVAILABLE: RETRY_AFTER, Kind.GONE: LINK}
_REPLAY = openapi.replayed("X-Request-Id")
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "idempotency key, kept 24 h; one of another form than `[A-Za-z0-9._:-]{1,128}` is no key",
    "schema": {"type": "string"},
}

_EVENT = openapi.event({"pattern": "^[1-9][0-9]*$"})


def operations() -> dict[str, Json]:
    """Name of a handler -> its operation."""
    return {
        "define_dag": _post((_if_match(),), d.DagsDag, d.DagsDagDefined, problems=(Kind.INVALID, Kind.CONFLICT)),
        "list_dags": _get(
            (query("status", {"enum": ["active", "paused"]}), query("owner"), *_paging()), d.DagsDagList, Kind.INVALID
        ),
        "get_dag": _get((_dag_id(),), d.DagsDagView, Kind.NOT_FOUND),
        "preview_dag": _get((_dag_id(), *_preview()), d.DagsPreview, Kind.INVALID, Kind.NOT_FOUND),
        "preview_schedule": _post((), d.DagsSchedule, d.DagsPreview, problems=(Kind.INVALID,)),
        "pause_dag": _switch(),
        "resume_dag": _switch(),
        "uncache_dag": _get((_dag_id(), query("task")), d.DagsUncached, Kind.INVALID, Kind.NOT_FOUND),
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
            (_run_id(), _task(), query("state", {"enum": list(parse.TASK_STATES)}), *_paging()),
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
        "list_approvals": _get((query("dag_id"), query("run_id")), w.DagsApprovalList),
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
    every = openapi.models_in("Dags", m, d, r, c, s, w, a, v, b, o, pl)
    scheme = {"type": "http", "scheme": "bearer", "description": "a token with scope client or admin"}
    return {"schemas": openapi.schemas(every), "securitySchemes": {"DagsToken": scheme}}


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
    described = _operation((*parameters, _REQUEST_ID), answers, problems, _HEADERS | _REPLAY)
    return {**described, "requestBody": openapi.asked(body, _BODIES[body], required=body_required)}


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
        query("after", {"type": "string"}, "id to go on after; what is no integer counts as none"),
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": "wins over `after`"},
    )
    events = openapi.answered(
        "events with ids, comments as keep-alive, at last `end`",
        {"schema": _EVENT, "example": r.EVENTS},
        _HEADERS,
        "text/event-stream",
    )
    over = {"description": "the run is over and everything was delivered", "headers": _HEADERS}
    responses = {"200": events, "204": over, **_problems((Kind.NOT_FOUND, Kind.GONE))}
    return {"security": _SECURITY, "parameters": list(parameters), "responses": responses}


def _operation(
    parameters: tuple[Json, ...], answers: tuple[type[BaseModel], ...], problems: tuple[Kind, ...], headers: Json
) -> Json:
    schemas = [ref(each) for each in answers]
    content: Json = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    if answers[0] in _ANSWERS:
        content["example"] = _ANSWERS[answers[0]]
    success = openapi.answered((answers[0].__doc__ or "").strip(), content, headers)
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
    return openapi.answered(code, openapi.one(m.DagsError, example), _HEADERS | _MORE_HEADERS.get(kind, {}))


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
    return query("older_than_s", schema, "sent or deployed longer ago, in seconds")


def _attempt() -> Json:
    return query("attempt", {"type": "integer", "minimum": 1, "maximum": parse.MOST_ATTEMPTS})


def _run_filters() -> tuple[Json, ...]:
    return (
        query("dag_id"),
        query("state", {"enum": list(parse.RUN_STATES)}),
        query("run_type", {"enum": list(parse.LISTED_RUN_TYPES)}),
        query("parent_run_id"),
        query("archived", {"enum": list(parse.ARCHIVED)}, "true: runs that left for the archive, and only those"),
    )


def _paging() -> tuple[Json, ...]:
    return (
        query("cursor", {"pattern": f"^{paging.FORM}$"}, "`next_cursor` of a page of the same list"),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
    )


def _preview() -> tuple[Json, ...]:
    return (
        query("n", {"type": "integer", "minimum": 1, "maximum": parse.MOST_TICKS, "default": 10}),
        query("from", {"pattern": m.INSTANT}, "first instant to look at, RFC 3339 in `Z`; default now"),
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
    return openapi.path(name, example, {"pattern": f"^{form}$"})


def _wait() -> Json:
    schema = {"type": "integer", "minimum": 0, "maximum": parse.MOST_WAIT_S}
    return query("wait_s", schema, "Answer when the run has ended, or after so many seconds")
