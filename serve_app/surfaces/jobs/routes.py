"""Who may call what, and in which order a request is checked.

    clients    token (401) ─▶ scope (403) ─▶ route (404) ─▶ body (400) ─▶ port: exists (404), quota (429), state (409)
    workers    token (401, 403) ─▶ id (400) ─▶ rate (429) ─▶ body (400) ─▶ gateway: exists (404)

A worker's token can only be judged once its id is known, and that may stand in the body: bodies of workers are read
first. `JobsSurface` does all that for every endpoint and words every error, also for paths and methods that do not
exist. Blueprints are mounted as exact routes behind everything else below `/api`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, WebSocketRoute
from starlette.types import Scope

from orchestrator.blueprint import Blueprint
from orchestrator.blueprint_checks import is_reserved
from orchestrator.errors import OrchestratorError
from serve_app.auth import Tokens
from serve_app.clients import Clients
from serve_app.options import ServerOptions
from serve_app.outside_ports import Jobs
from serve_app.plain_route import Endpoint, PlainRoute
from serve_app.problems import STATUS, Forbidden, NoSuchPath, TooManyRequests, WrongMethod
from serve_app.requests import raw_body, told_problem
from serve_app.surfaces.jobs import docs, page, parse, words
from serve_app.surfaces.jobs.callers import Callers, ClientCaller, WorkerCaller, worker_token
from serve_app.surfaces.jobs.client_handlers import ClientHandlers
from serve_app.surfaces.jobs.endpoints import (
    CLIENT,
    CLIENT_ENDPOINTS,
    CREATE,
    DEBUG_ENDPOINTS,
    PUBLIC,
    PUBLIC_ENDPOINTS,
    SOCKETS,
    WORKER,
    WORKER_ENDPOINTS,
)
from serve_app.surfaces.jobs.long_poll import JSON
from serve_app.surfaces.jobs.public_handlers import PublicHandlers
from serve_app.surfaces.jobs.sockets import Sockets
from serve_app.surfaces.jobs.worker_handlers import Said, WorkerHandlers

ClientHandler = Callable[[Request, ClientCaller], Awaitable[Response]]
WorkerHandler = Callable[[Said], Awaitable[Response]]

#: below this everything is unknown, whoever asks: workers learn that there are no tokens to be had
_AUTH = f"{WORKER}/auth"

_log = logging.getLogger(__name__)


class JobsSurface:
    """This surface over one port. Its sockets end once `draining` is set."""

    prefixes = (PUBLIC, WORKER, CLIENT)
    credentialed = False

    def __init__(
        self,
        jobs: Jobs,
        tokens: Tokens,
        clients: Clients,
        options: ServerOptions,
        draining: asyncio.Event,
    ) -> None:
        self._jobs = jobs
        self._options = options
        self._callers = Callers(tokens, clients, jobs)
        self._public = PublicHandlers(jobs, tokens, options, lambda: page.html(jobs.blueprints()))
        self._clients = ClientHandlers(jobs, options)
        self._workers = WorkerHandlers(jobs, options)
        self._sockets = Sockets(jobs, self._callers, options, draining)

    def routes(self) -> list[BaseRoute]:
        """Every endpoint, those of blueprints last."""
        if self._options.debug:
            _log.warning("ORCHESTRATOR_DEBUG is set: anybody can erase all jobs at POST %s", DEBUG_ENDPOINTS[0][1])
        public = PUBLIC_ENDPOINTS + (DEBUG_ENDPOINTS if self._options.debug else ())
        return [
            *(_route(*each, self._open(getattr(self._public, each[-1]))) for each in public),
            *(
                _route(method, path, name, self._for_client(getattr(self._clients, name), scope))
                for method, path, name, scope in CLIENT_ENDPOINTS
            ),
            *(_route(*each, self._for_worker(getattr(self._workers, each[-1]))) for each in WORKER_ENDPOINTS),
            *(WebSocketRoute(path, self._sockets.commands) for path in SOCKETS),
            _Described(CREATE[1], _nothing, methods=[CREATE[0]], **docs.described(CREATE[2])),
            *(self._mounted(each) for each, _ in self._jobs.blueprints() if each.path is not None),
        ]

    def components(self) -> words.Json:
        """What the descriptions of the routes refer to."""
        return docs.components()

    async def refuse(self, request: Request, error: OrchestratorError) -> Response:
        """The answer to a request that no endpoint takes. Even for that a caller must be known, but not for OPTIONS."""
        path = request.scope["path"]
        if isinstance(error, WrongMethod) and request.method == "POST" and _is_below(path, CLIENT):
            # `GET /api/v1/jobs/{job_id}` is in the way of a blueprint that there is not
            error = error if is_reserved(path) else NoSuchPath(path)
        try:
            if request.method != "OPTIONS":
                await self._check_caller(request, path)
        except OrchestratorError as unknown:
            return _problem(request, unknown)
        return _problem(request, error)

    def fault(self, request: Request, error: Exception) -> Response:
        """The answer when something broke outside of every handler."""
        return _problem(request, error)

    # -- what comes before a handler

    def _open(self, handler: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except Exception as error:
                return _problem(request, error)

        return answer

    def _for_client(self, handler: ClientHandler, scope: str) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                principal, caller = self._callers.client(request.headers)
                if scope not in principal.scopes:
                    raise Forbidden(scope)
                return await handler(request, caller)
            except Exception as error:
                return _problem(request, error)

        return answer

    def _for_worker(self, handler: WorkerHandler) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                worker_token(request.headers)
                text = b"" if request.method == "GET" else await raw_body(request, self._options.max_body_bytes)
                body = parse.json_object(text) if text else None
                caller = await self._worker(request, body)
                await self._check_rate(request, caller)
                return await handler(Said(request, caller, body))
            except Exception as error:
                return _problem(request, error)

        return answer

    async def _worker(self, request: Request, body: parse.Json | None) -> WorkerCaller:
        in_body = None if body is None else body.get("worker_id")
        named = request.path_params.get("worker_id")
        if request.scope["path"].endswith("/register"):
            named, in_body = in_body, None
        caller = await self._callers.worker(request.headers, named, in_body)
        if "worker_id" in request.path_params:
            parse.worker_id(caller.worker_id)
        return caller

    async def _check_rate(self, request: Request, caller: WorkerCaller) -> None:
        if not self._options.rate_limiting:
            return
        wait_s = await self._jobs.ask_leave(f"{caller.tenant}:{caller.worker_id}", request.scope["path"])
        if wait_s:
            raise TooManyRequests("50 requests per second and path", wait_s)

    async def _check_caller(self, request: Request, path: str) -> None:
        if _is_below(path, WORKER) and not _is_below(path, _AUTH):
            await self._callers.worker(request.headers, None, None)
        elif _is_below(path, CLIENT):
            self._callers.client(request.headers)

    def _mounted(self, blueprint: Blueprint) -> PlainRoute:
        async def create(request: Request, caller: ClientCaller) -> Response:
            return await self._clients.create_job(request, caller, blueprint)

        path = blueprint.path
        assert path is not None
        return PlainRoute(
            path,
            self._for_client(create, "client"),
            methods=["POST"],
            name=f"create_{blueprint.name}",
            status_code=202,
            response_class=Response,
            include_in_schema=False,
        )


class _Described(PlainRoute):
    """Stands in the description for routes that are mounted one by one; it takes no request."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Nothing."""
        return Match.NONE, {}


def _route(method: str, path: str, name: str, endpoint: Endpoint) -> PlainRoute:
    return PlainRoute(path, endpoint, methods=[method], **docs.described(name))


async def _nothing(request: Request) -> Response:
    raise NoSuchPath(request.scope["path"])


def _is_below(path: str, prefix: str) -> bool:
    return path.startswith(f"{prefix}/")


def _problem(request: Request, error: Exception) -> Response:
    """`error` in this surface's form."""
    found = told_problem(request, error)
    body = words.encode({"error": words.problem(found, error)})
    return Response(body, STATUS[found.kind], dict(found.headers), JSON)
