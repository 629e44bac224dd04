"""Who may call what, and in which order a request is checked.

    caller (401) ─▶ scope (403) ─▶ body (422) ─▶ port: exists (404), state (409, 503, or `success:false`)

`InstancesSurface` does the first two for every endpoint and words every error, also for paths and methods that do
not exist. FastAPI matches and documents the routes and names the operations, by its own rule, after the handlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute

from orchestrator.errors import InstanceDead, OrchestratorError
from serve_app.auth import Principal, Tokens
from serve_app.options import ServerOptions
from serve_app.plain_route import Endpoint, PlainRoute
from serve_app.ports import Clock, Instances
from serve_app.problems import STATUS, problem_of
from serve_app.requests import told_problem
from serve_app.surfaces.instances import docs, words
from serve_app.surfaces.instances.callers import Callers, require
from serve_app.surfaces.instances.handlers import JSON, Handlers
from serve_app.surfaces.instances.sockets import Sockets

ORCHESTRATORS = "/api/orchestrators"
PLANS = "/api/plans"

Handler = Callable[[Request, Principal], Awaitable[Response]]

_ONE = ORCHESTRATORS + "/{instance_id}"
_PLAN = PLANS + "/{plan_name}"

#: method, path, scope, tag, name of the handler
ENDPOINTS = (
    ("GET", ORCHESTRATORS, "client", "Orchestrators", "list_orchestrators"),
    ("POST", ORCHESTRATORS, "admin", "Orchestrators", "start_orchestrator"),
    ("GET", _ONE, "client", "Orchestrators", "get_orchestrator"),
    ("GET", f"{_ONE}/status", "client", "Orchestrators", "get_orchestrator_status"),
    ("POST", f"{_ONE}/pause", "client", "Commands", "pause_orchestrator"),
    ("POST", f"{_ONE}/resume", "client", "Commands", "resume_orchestrator"),
    ("POST", f"{_ONE}/shutdown", "client", "Commands", "shutdown_orchestrator"),
    ("POST", f"{_ONE}/skip-task", "client", "Commands", "skip_task"),
    ("POST", f"{_ONE}/retry-task", "client", "Commands", "retry_task"),
    ("GET", PLANS, "client", "Plans", "list_plans"),
    ("GET", f"{_PLAN}/status", "client", "Plans", "get_plan_status"),
    ("GET", f"{_PLAN}/tasks", "client", "Plans", "get_plan_tasks"),
    ("GET", f"{_PLAN}/findings", "client", "Plans", "list_plan_findings"),
    ("GET", _PLAN + "/findings/{task_id}", "client", "Plans", "get_finding_content"),
    ("GET", f"{_ONE}/events-sse", "client", "Events", "sse_events"),
)


class InstancesSurface:
    """This surface over one port. Its streams and sockets end once `draining` is set."""

    prefixes = (ORCHESTRATORS, PLANS)
    credentialed = True

    def __init__(
        self, instances: Instances, tokens: Tokens, options: ServerOptions, clock: Clock, draining: asyncio.Event
    ) -> None:
        self._callers = Callers(tokens, options)
        self._handlers = Handlers(instances, options, clock, draining)
        self._sockets = Sockets(instances, self._callers, clock, draining)

    def routes(self) -> list[BaseRoute]:
        """Every endpoint, in the order in which they are matched."""
        operations = docs.operations()
        sockets = (
            WebSocketRoute(f"{_ONE}/events", self._sockets.events),
            WebSocketRoute(f"{_ONE}/activity", self._sockets.activity),
        )
        return [*(self._route(*each, operations[each[-1]]) for each in ENDPOINTS), *sockets]

    def components(self) -> words.Json:
        """What the descriptions of the routes refer to."""
        return docs.components()

    async def refuse(self, request: Request, error: OrchestratorError) -> Response:
        """The answer to a request that no endpoint takes; a caller must be known even for that."""

        async def refuse(_: Request, __: Principal) -> Response:
            raise error

        return await self._guarded(refuse, None, self._callers.of_request)(request)

    def fault(self, request: Request, error: Exception) -> Response:
        """The answer when something broke outside of every handler."""
        return _problem(request, error)

    def _route(self, method: str, path: str, scope: str, tag: str, name: str, described: words.Json) -> PlainRoute:
        handler: Handler = getattr(self._handlers, name)
        caller = self._callers.of_stream if tag == "Events" else self._callers.of_request
        return PlainRoute(
            path,
            self._guarded(handler, scope, caller),
            methods=[method],
            name=name,
            status_code=docs.success(name),
            summary=(handler.__doc__ or name).strip().splitlines()[0],
            description=docs.description(name, scope),
            tags=[tag],
            response_class=Response,
            openapi_extra=described,
        )

    def _guarded(self, handler: Handler, scope: str | None, caller: Callable[[Request], Principal]) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                principal = caller(request)
                if scope is not None:
                    require(principal, scope)
                return await handler(request, principal)
            except Exception as error:
                return _problem(request, error)

        return answer


def _problem(request: Request, error: Exception) -> Response:
    """`error` in this surface's form."""
    if isinstance(error, RequestValidationError):
        return _refusal(422, error.errors())
    # who died is an answer, not an outage: asking again would not help
    dead = isinstance(error, InstanceDead)
    problem = problem_of(error) if dead else told_problem(request, error)
    detail = words.detail(error, problem, request.path_params)
    return _refusal(STATUS[problem.kind], detail, {} if dead else dict(problem.headers))


def _refusal(status: int, detail: object, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"detail": detail}), status, headers, JSON)
