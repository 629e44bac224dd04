"""Who may call what, and in which order a request is checked.

    caller (401) ─▶ scope (403) ─▶ ids and body (400) ─▶ port: exists (404), state (400; 409 for a reused key)

`PipelinesSurface` does the first two for every endpoint and words every error, also for paths and methods that do not
exist. Literal segments (`scheduled`, `execute`, `pipeline`, `register`, …) come before ids. Runner ids are
percent-decoded and may hold a slash, so they take all that is left of a path.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import OrchestratorError
from serve_app.auth import Principal, Tokens
from serve_app.options import ServerOptions
from serve_app.outside_ports import Pipelines
from serve_app.plain_route import Endpoint, PlainRoute
from serve_app.ports import Clock
from serve_app.problems import STATUS
from serve_app.requests import told_problem
from serve_app.surfaces.pipelines import docs, words
from serve_app.surfaces.pipelines.callers import Callers
from serve_app.surfaces.pipelines.handlers import JSON, Handlers, health

PIPELINE, JOBS, RUNNERS, STUBS, HEALTH = (f"/api/{each}" for each in ("pipeline", "jobs", "runners", "stubs", "health"))
PREFIXES = (PIPELINE, JOBS, RUNNERS, STUBS, HEALTH)

Handler = Callable[[Request, Principal], Awaitable[Response]]

_JOB = JOBS + "/{job_id}"
_RUNNER = RUNNERS + "/{runner_id:path}"
_ONE = PIPELINE + "/{pipeline_id}"

#: method, path, status of success, scope, name of the handler; in the order in which they are matched
ENDPOINTS = (
    ("POST", f"{RUNNERS}/register", 200, "worker", "register_runner"),
    ("POST", f"{_RUNNER}/heartbeat", 200, "worker", "heartbeat"),
    ("GET", RUNNERS, 200, "client", "list_runners"),
    ("GET", _RUNNER, 200, "client", "get_runner"),
    ("DELETE", _RUNNER, 204, "admin", "delete_runner"),
    ("GET", f"{JOBS}/scheduled", 200, "worker", "list_scheduled_jobs"),
    ("GET", JOBS + "/pipeline/{pipeline_id}", 200, "client", "list_pipeline_jobs"),
    ("POST", JOBS + "/execute/{job_id}", 200, "worker", "execute_job"),
    ("POST", f"{_JOB}/claim", 200, "worker", "claim_job"),
    ("PUT", f"{_JOB}/status", 204, "worker", "set_job_status"),
    ("POST", f"{_JOB}/complete", 204, "worker", "complete_job"),
    ("POST", f"{_JOB}/logs", 201, "worker", "send_logs"),
    ("GET", f"{_JOB}/logs", 200, "client", "get_logs"),
    ("GET", f"{_JOB}/logs/stream", 200, "client", "follow_logs"),
    ("POST", f"{_JOB}/cancel", 200, "client", "cancel_job"),
    ("GET", JOBS, 200, "client", "list_jobs"),
    ("GET", _JOB, 200, "client", "get_job"),
    ("POST", f"{PIPELINE}/create", 200, "client", "create_pipeline"),
    ("POST", f"{PIPELINE}/launch", 200, "client", "launch_pipeline"),
    ("GET", f"{PIPELINE}/list", 200, "client", "list_pipelines"),
    ("GET", _ONE, 200, "client", "get_pipeline"),
    ("DELETE", _ONE, 204, "admin", "delete_pipeline"),
    ("GET", STUBS, 200, "client", "list_stubs"),
    ("GET", STUBS + "/{name}", 200, "client", "get_stub"),
)

_log = logging.getLogger(__name__)


class PipelinesSurface:
    """This surface over one port. Its streams end once `draining` is set."""

    prefixes = PREFIXES
    credentialed = False

    def __init__(
        self, pipelines: Pipelines, tokens: Tokens, options: ServerOptions, clock: Clock, draining: asyncio.Event
    ) -> None:
        self._callers = Callers(tokens, options)
        self._handlers = Handlers(pipelines, options, clock, draining)

    def routes(self) -> list[PlainRoute]:
        """Every endpoint, in the order in which they are matched. `/api/health` alone asks nobody who he is."""
        operations = docs.operations()
        described = [
            _route(method, path, status, name, f"Off loopback needs scope `{scope}`.", operations[name],
                   self._guarded(getattr(self._handlers, name), scope), _summary(getattr(self._handlers, name)))
            for method, path, status, scope, name in ENDPOINTS
        ]  # fmt: skip
        open_to_all = _route("GET", HEALTH, 200, "health", "Needs no token.", docs.health(), health, _summary(health))
        return [*described, open_to_all]

    def components(self) -> words.Json:
        """What the descriptions of the routes refer to."""
        return docs.components()

    async def refuse(self, request: Request, error: OrchestratorError) -> Response:
        """The answer to a request that no endpoint takes; a caller must be known even for that."""

        async def refuse(_: Request, __: Principal) -> Response:
            raise error

        return await self._guarded(refuse, None)(request)

    def fault(self, request: Request, error: Exception) -> Response:
        """The answer when something broke outside of every handler."""
        return _problem(request, error)

    def _guarded(self, handler: Handler, scope: str | None) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                return await handler(request, self._callers.of_request(request, scope))
            except Exception as error:
                return _problem(request, error)

        return answer


def _route(
    method: str, path: str, status: int, name: str, about: str, described: words.Json, endpoint: Endpoint, summary: str
) -> PlainRoute:
    return PlainRoute(
        path,
        endpoint,
        methods=[method],
        status_code=status,
        name=name,
        operation_id=f"pipelines_{name}",
        summary=summary,
        description=about,
        tags=["pipelines"],
        response_class=Response,
        openapi_extra=described,
    )


def _summary(handler: Callable[..., object]) -> str:
    return (handler.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _problem(request: Request, error: Exception) -> Response:
    """`error` in this surface's form."""
    problem = told_problem(request, error)
    body = orjson.dumps({"error": words.error(error, problem)})
    return Response(body, STATUS[problem.kind], dict(problem.headers), JSON)
