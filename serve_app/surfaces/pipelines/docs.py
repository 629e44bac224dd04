"""The OpenAPI of each operation: parameters, bodies, answers, headers and every error it can give."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel

from serve_app import openapi
from serve_app.openapi import REQUEST_ID, RETRY_AFTER, Json, path, query, ref
from serve_app.surfaces.pipelines import editor, parse
from serve_app.surfaces.pipelines import models as m

_JOB_ID: str = m.ANSWERS[m.PipelinesJob]["id"]
_PIPELINE_ID: str = m.ANSWERS[m.PipelinesPipeline]["id"]

#: any of these, or none on a loopback listener
_SECURITY: list[Json] = [{}, {"PipelinesToken": []}, {"PipelinesRunnerToken": []}, {"PipelinesBasic": []}]
_SCHEMES: Json = {
    "PipelinesToken": {"type": "http", "scheme": "bearer"},
    "PipelinesRunnerToken": {"type": "apiKey", "in": "header", "name": "X-Runner-Token"},
    "PipelinesBasic": {"type": "http", "scheme": "basic", "description": "the password is the token"},
}

#: status -> an example of its text; every operation can answer these
_ALWAYS: Mapping[int, str] = MappingProxyType(
    {401: "Unauthorized", 403: "Forbidden", 500: "Internal server error", 503: "Service unavailable"}
)
_KEY_REUSED = {409: "Idempotency key reused"}
_BAD_JOB, _BAD_PIPELINE = "Invalid job id", "Invalid pipeline id"
_NO_JOB, _NO_PIPELINE = f"Job {_JOB_ID} not found", f"Pipeline {_PIPELINE_ID} not found"
_NO_RUNNER = "Runner r9 not found"

_HINT = {
    "X-Job-Status": {
        "description": "present when the job was cancelled or has timed out: nobody waits for it any more",
        "schema": {"type": "string", "enum": ["Cancelled", "TimedOut"]},
    }
}

_EVENT = openapi.event(
    {"pattern": "^[0-9]+$", "description": "place of the line: 1, 2, 3…"},
    {"enum": ["log", "end"]},
    {"description": "of `log` a PipelinesLogEntry, of `end` the job's `status`"},
)


def operations() -> dict[str, Json]:
    """Name of a handler -> its operation."""
    job, pipeline, runner = _job(), _pipeline(), _runner()
    claim = _operation((job, _key()), _one(m.PipelinesJobExecutionInfo), {
        400: f"Job {_JOB_ID} is not in Queued state (current: Running)", 404: _NO_JOB, **_KEY_REUSED,
    }, body=m.PipelinesClaimJobRequest)  # fmt: skip
    return {
        "register_runner": _operation(
            (), _one(m.PipelinesRunner), {400: "Runner id cannot be empty"}, body=m.PipelinesRegisterRequest
        ),
        "heartbeat": _operation((runner,), _one(m.PipelinesRunner), {404: _NO_RUNNER}),
        "list_runners": _operation((), _list(m.PipelinesRunner)),
        "get_runner": _operation((runner,), _one(m.PipelinesRunner), {404: _NO_RUNNER}),
        "delete_runner": _operation((runner,), None, {404: _NO_RUNNER}, status=204),
        "list_scheduled_jobs": _operation((_scheduled_for(),), _list(m.PipelinesJob)),
        "claim_job": claim,
        "execute_job": claim,
        "set_job_status": _operation(
            (job,),
            None,
            {400: "Invalid status transition: Succeeded -> Running", 404: _NO_JOB},
            body=m.PipelinesUpdateStatusRequest,
            status=204,
        ),
        "complete_job": _operation(
            (job,),
            None,
            {400: f"Job {_JOB_ID} is already completed (current: Succeeded)", 404: _NO_JOB},
            body=m.PipelinesCompleteJobRequest,
            status=204,
        ),
        "send_logs": _send_logs(),
        "get_logs": _operation((job,), _list(m.PipelinesLogEntry), {400: _BAD_JOB, 404: _NO_JOB}),
        "follow_logs": _stream(),
        "get_job": _operation((job,), _one(m.PipelinesJob), {400: _BAD_JOB, 404: _NO_JOB}),
        "list_jobs": _operation((_status(), _limit()), _list(m.PipelinesJob), {400: "Invalid limit: '0' (1 to 1000)"}),
        "list_pipeline_jobs": _operation((pipeline,), _list(m.PipelinesJob), {400: _BAD_PIPELINE}),
        "cancel_job": _operation(
            (job,),
            _one(m.PipelinesJob),
            {400: f"Job {_JOB_ID} is already completed (current: Failed)", 404: _NO_JOB},
        ),
        "create_pipeline": _operation(
            (_key(),),
            _one(m.PipelinesPipeline),
            {400: "Pipeline must have at least one stage", **_KEY_REUSED},
            body=m.PipelinesCreatePipelineRequest,
        ),
        "launch_pipeline": _operation(
            (_key(),),
            _one(m.PipelinesJob),
            {400: "Missing required input 'x' (type: string)", 404: _NO_PIPELINE, **_KEY_REUSED},
            body=m.PipelinesCreateJobRequest,
        ),
        "list_pipelines": _operation((), _list(m.PipelinesPipeline)),
        "get_pipeline": _operation((pipeline,), _one(m.PipelinesPipeline), {400: _BAD_PIPELINE, 404: _NO_PIPELINE}),
        "delete_pipeline": _operation((pipeline,), None, {400: _BAD_PIPELINE, 404: _NO_PIPELINE}, status=204),
        "list_stubs": _operation((), _names()),
        "get_stub": _operation((_stub(),), _one(m.PipelinesStub), {404: "Stub 'x' not found"}),
    }


def health() -> Json:
    """The operation that anybody may call."""
    content = {"text/plain": {"schema": {"type": "string", "enum": ["OK"]}, "example": "OK"}}
    return {"responses": {"200": {"description": "it is", "headers": REQUEST_ID, "content": content}}}


def components() -> Json:
    """Schemas and security schemes that the operations refer to."""
    return {"schemas": openapi.schemas(openapi.models_in("Pipelines", m)), "securitySchemes": _SCHEMES}


# -- operations


def _send_logs() -> Json:
    described = _operation((_job(),), None, {400: "Too many log entries in batch (max: 1000)", 404: _NO_JOB},
                           body=m.PipelinesSendLogsRequest, status=201)  # fmt: skip
    bare = {"type": "array", "maxItems": parse.ENTRIES_MAX, "items": ref(m.PipelinesLogEntry)}
    described["requestBody"]["content"]["application/json"]["schema"] = {
        "anyOf": [ref(m.PipelinesSendLogsRequest), bare]
    }
    described["responses"]["201"]["headers"] = REQUEST_ID | _HINT
    return described


def _stream() -> Json:
    last = {"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "place of the line to go on after; what is no such number means from the first"}  # fmt: skip
    described = _operation((_job(), last), None, {400: _BAD_JOB, 404: _NO_JOB}, status=204)
    described["responses"]["204"]["description"] = "the job has ended, and no line comes after this one"
    described["responses"]["200"] = openapi.answered(
        "lines as they come, then `end`; a comment every 15 s of silence",
        {"schema": _EVENT, "example": m.EVENTS},
        REQUEST_ID,
        "text/event-stream",
    )
    return described


def _operation(
    parameters: tuple[Json, ...],
    answer: Json | None,
    problems: dict[int, str] | None = None,
    *,
    body: type[BaseModel] | None = None,
    status: int = 200,
) -> Json:
    texts = {**_ALWAYS, **(problems or {})}
    if body is not None:
        texts[413] = "body is larger than 16777216 bytes"
    success: Json = {"description": "done", "headers": REQUEST_ID}
    if answer is not None:
        success |= {"description": "Successful Response", "content": {"application/json": answer}}
    described: Json = {
        "security": _SECURITY,
        "parameters": list(parameters),
        "responses": {
            str(status): success,
            **{str(each): _problem(each, text) for each, text in sorted(texts.items())},
        },
    }
    if body is not None:
        described["requestBody"] = openapi.asked(body, m.BODIES[body], required=True)
    return described


def _problem(status: int, text: str) -> Json:
    headers = REQUEST_ID | RETRY_AFTER if status == 503 else REQUEST_ID
    return openapi.answered(text, openapi.one(m.PipelinesError, {"error": text}), headers)


def _one(model: type[BaseModel]) -> Json:
    return openapi.one(model, m.ANSWERS[model])


def _list(model: type[BaseModel]) -> Json:
    return openapi.many(model, m.ANSWERS[model])


def _names() -> Json:
    names = {"type": "string", "enum": list(editor.NAMES)}
    return {"schema": {"type": "array", "items": names}, "example": list(editor.NAMES)}


# -- parameters


def _job() -> Json:
    return path("job_id", _JOB_ID, {"format": "uuid"})


def _pipeline() -> Json:
    return path("pipeline_id", _PIPELINE_ID, {"format": "uuid"})


def _runner() -> Json:
    return path("runner_id", "r1")


def _stub() -> Json:
    return path("name", "log")


def _key() -> Json:
    about = "kept 24 h: the same request gets the first answer again, another one 409"
    return openapi.header("Idempotency-Key", about, {"maxLength": parse.KEY_CHARACTERS_MAX})


def _scheduled_for() -> Json:
    return query("runner_id", {"type": "string"}, "only jobs that fit this runner; missing or empty: all")


def _status() -> Json:
    return query("status", {"type": "string", "enum": list(parse.STATUSES)}, "only jobs with this status")


def _limit() -> Json:
    schema = {"type": "integer", "minimum": 1, "maximum": parse.JOBS_MAX, "default": parse.JOBS_DEFAULT}
    return query("limit", schema, "at most so many")
