"""Who may call what, and in which order a request is checked.

    token (401) ─▶ rate (429) ─▶ scope (403) ─▶ body (400) ─▶ port: exists (404), state (409)

Only posting a checkpoint asks whether the run exists before it complains about the body. `RunsSurface` does the
first three for every endpoint and words every error, also for paths and methods that do not exist. A caller
without a token is let in on loopback, unless ORCHESTRATOR_API_KEY is set (contracts/README.md, section 4).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import HistoryGone, OrchestratorError
from serve_app.auth import Principal, Tokens, bearer_token
from serve_app.local_callers import LocalCallers
from serve_app.options import ServerOptions
from serve_app.plain_route import Endpoint, PlainRoute
from serve_app.ports import Clock, Gateway, LiveRuns
from serve_app.problems import STATUS, Forbidden, NoSuchPath, TooManyRequests, WrongMethod
from serve_app.requests import told_problem
from serve_app.surfaces.runs import docs, words
from serve_app.surfaces.runs.handlers import JSON, Handlers

BASE = "/runs"
SCOPE = "client"
COOKIE = "orchestrator_api_key"

Handler = Callable[[Request, Principal], Awaitable[Response]]

#: method, path, status of success, name of the handler
ENDPOINTS = (
    ("POST", "", 201, "create_run"),
    ("GET", "/{run_id}", 200, "get_run"),
    ("DELETE", "/{run_id}", 200, "cancel_run"),
    ("GET", "/{run_id}/checkpoints", 200, "list_checkpoints"),
    ("POST", "/{run_id}/checkpoints", 201, "post_checkpoint"),
    ("GET", "/{run_id}/events", 200, "run_events"),
)


class RunsSurface:
    """This surface over one `LiveRuns`."""

    prefixes = (BASE,)
    credentialed = False

    def __init__(
        self,
        live_runs: LiveRuns,
        gateway: Gateway,
        tokens: Tokens,
        options: ServerOptions,
        clock: Clock,
        draining: asyncio.Event,
    ) -> None:
        self._handlers = Handlers(live_runs, gateway, options, clock, draining)
        self._callers = LocalCallers(tokens, options)
        self._may_be_anonymous = not tokens.api_key_set
        self._options = options
        self._live_runs = live_runs

    def routes(self) -> list[PlainRoute]:
        """Every endpoint."""
        operations = docs.operations()
        return [self._route(*each, operations[each[-1]]) for each in ENDPOINTS]

    def components(self) -> words.Json:
        """What the descriptions of the routes refer to."""
        return docs.components()

    async def refuse(self, request: Request, error: OrchestratorError) -> Response:
        """The answer to a request that no endpoint takes. Even for that a caller must be known, but not for OPTIONS."""
        if request.method == "OPTIONS":
            return _problem(request, error)

        async def refuse(_: Request, __: Principal) -> Response:
            raise NoSuchPath(BASE) if _asks_for_list(request, error) else error

        return await self._guarded(refuse, in_headers)(request)

    def fault(self, request: Request, error: Exception) -> Response:
        """The answer when something broke outside of every handler."""
        return _problem(request, error)

    def _route(self, method: str, path: str, status: int, name: str, described: words.Json) -> PlainRoute:
        handler: Handler = getattr(self._handlers, name)
        return PlainRoute(
            BASE + path,
            self._guarded(handler, anywhere if name == "run_events" else in_headers),
            methods=[method],
            status_code=status,
            name=name,
            operation_id=f"runs_{name}",
            summary=(handler.__doc__ or name).strip().splitlines()[0].rstrip("."),
            description=f"Needs scope `{SCOPE}`.",
            tags=["runs"],
            response_class=Response,
            openapi_extra=described,
        )

    def _guarded(self, handler: Handler, presented: Callable[[Request], str | None]) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                principal = self._callers.known(presented(request), request, may_be_anonymous=self._may_be_anonymous)
                await self._check_rate(request)
                if SCOPE not in principal.scopes:
                    raise Forbidden(SCOPE)
                return await handler(request, principal)
            except Exception as error:
                return _problem(request, error)

        return answer

    async def _check_rate(self, request: Request) -> None:
        most, window_s = self._options.runs_rate_max, self._options.runs_rate_window_s
        wait_s = await self._live_runs.ask_leave(_caller(request), most, window_s)
        if wait_s:
            raise TooManyRequests(f"{most} requests in {window_s:g} s", wait_s)


def in_headers(request: Request) -> str | None:
    """The token in the first header that brings one."""
    return bearer_token(request.headers.get("authorization")) or request.headers.get("x-api-key")


def anywhere(request: Request) -> str | None:
    """The same, else the one in the cookie or the query: an EventSource cannot set headers."""
    return in_headers(request) or request.cookies.get(COOKIE) or request.query_params.get("api_key")


def _caller(request: Request) -> str:
    """Whose requests are counted together. Of a token only its digest is kept."""
    if token := in_headers(request):
        return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return request.client.host if request.client else ""


def _asks_for_list(request: Request, error: OrchestratorError) -> bool:
    """There is no list of runs, and never was: that is 404, not a matter of the method."""
    return isinstance(error, WrongMethod) and request.method in ("GET", "HEAD") and request.scope["path"] == BASE


def _problem(request: Request, error: Exception) -> Response:
    """`error` in this surface's form."""
    problem = told_problem(request, error)
    body, headers = words.encode(words.problem(problem, error)), dict(problem.headers)
    if isinstance(error, HistoryGone):
        headers["Link"] = f'<{BASE}/{error.run_id}>; rel="current"'
    return Response(body, STATUS[problem.kind], headers, JSON)
