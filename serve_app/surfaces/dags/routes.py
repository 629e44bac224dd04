"""Who may call what, and in which order a request is checked.

    token (401) ─▶ rate (429) ─▶ scope (403) ─▶ body (400) ─▶ gateway: exists (404), state (409)

`DagsSurface` does the first three for every endpoint and words every error, also for paths and methods that
do not exist. FastAPI matches and documents the routes; it neither validates nor serialises, which keeps a
request well under a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import HistoryGone, OrchestratorError
from serve_app.auth import Principal, Tokens
from serve_app.limits import Allowance, Buckets
from serve_app.options import ServerOptions
from serve_app.plain_route import Endpoint, PlainRoute
from serve_app.ports import Clock, Gateway
from serve_app.problems import TooManyRequests, Unauthenticated
from serve_app.requests import identity_of, told_problem
from serve_app.surfaces.dags import docs, words
from serve_app.surfaces.dags.answers import JSON, require
from serve_app.surfaces.dags.archive_handlers import ArchiveHandlers
from serve_app.surfaces.dags.artifact_handlers import ArtifactHandlers
from serve_app.surfaces.dags.bundle_handlers import BundleHandlers
from serve_app.surfaces.dags.handlers import Handlers
from serve_app.surfaces.dags.plane_handlers import PlaneHandlers
from serve_app.surfaces.dags.pool_handlers import PoolHandlers
from serve_app.surfaces.dags.starter_handlers import StarterHandlers
from serve_app.surfaces.dags.waiting_handlers import WaitingHandlers

BASE = "/api/v1/runtime/orchestrator"

Handler = Callable[[Request, Principal], Awaitable[Response]]

#: method, path, scope, name of the handler; literal segments before parameters.
#: A backfill needs scope admin too: that is seen in the bodies of `trigger` and `widen_run`.
ENDPOINTS = (
    ("POST", "/dags", "admin", "define_dag"),
    ("GET", "/dags", "client", "list_dags"),
    ("GET", "/dags/{dag_id}", "client", "get_dag"),
    ("GET", "/dags/{dag_id}/schedule/preview", "client", "preview_dag"),
    ("POST", "/schedule/preview", "client", "preview_schedule"),
    ("POST", "/dags/{dag_id}/pause", "admin", "pause_dag"),
    ("POST", "/dags/{dag_id}/resume", "admin", "resume_dag"),
    ("DELETE", "/dags/{dag_id}/cache", "admin", "uncache_dag"),
    ("POST", "/dags/{dag_id}/deploy", "admin", "deploy_dag"),
    ("POST", "/dags/{dag_id}/trigger/{event_id}", "client", "trigger_by_event"),
    ("POST", "/events", "client", "tell_event"),
    ("GET", "/assets", "client", "list_assets"),
    ("GET", "/assets/{asset:path}", "client", "get_asset"),
    ("POST", "/runs", "client", "trigger"),
    ("POST", "/runs/batch", "client", "trigger_batch"),
    ("GET", "/runs", "client", "list_runs"),
    ("GET", "/runs/{run_id}", "client", "get_run"),
    ("POST", "/runs/{run_id}/cancel", "client", "cancel_run"),
    ("POST", "/runs/{run_id}/pause", "client", "pause_run"),
    ("POST", "/runs/{run_id}/resume", "client", "resume_run"),
    ("POST", "/runs/{run_id}/widen", "client", "widen_run"),
    ("POST", "/runs/{run_id}/cap", "admin", "cap_run"),
    ("POST", "/runs/{run_id}/retry", "client", "retry_run"),
    ("GET", "/runs/{run_id}/events", "client", "run_events"),
    ("POST", "/runs/{run_id}/tasks/{task}/retry", "client", "retry_task"),
    ("POST", "/runs/{run_id}/tasks/{task}/skip", "client", "skip_task"),
    ("GET", "/runs/{run_id}/tasks/{task}/instances", "client", "map_instances"),
    ("GET", "/runs/{run_id}/tasks/{task}/logs", "client", "task_logs"),
    ("GET", "/shares", "admin", "list_shares"),
    ("POST", "/shares", "admin", "set_share"),
    ("POST", "/runs/{run_id}/tasks/{task}/decision", "client", "decide"),
    ("POST", "/runs/{run_id}/signals/{name}", "client", "signal"),
    ("GET", "/runs/{run_id}/query", "client", "queries"),
    ("GET", "/runs/{run_id}/query/{name}", "client", "query"),
    ("GET", "/approvals", "client", "list_approvals"),
    ("GET", "/runs/{run_id}/waiting", "client", "waiting_tasks"),
    ("GET", "/workers", "client", "list_workers"),
    ("POST", "/workers/scale", "admin", "scale_workers"),
    ("POST", "/workers/{worker_id}/drain", "admin", "drain_worker"),
    ("GET", "/limits", "client", "list_limits"),
    ("GET", "/limits/{name}", "client", "get_limit"),
    ("PUT", "/limits/{name}", "admin", "set_limit"),
    ("DELETE", "/limits/{name}", "admin", "delete_limit"),
    ("GET", "/pools", "client", "list_pools"),
    ("GET", "/pools/{name}", "client", "get_pool"),
    ("PUT", "/pools/{name}", "admin", "set_pool"),
    ("DELETE", "/pools/{name}", "admin", "delete_pool"),
    ("POST", "/archive", "admin", "sweep_archive"),
    ("GET", "/archive", "admin", "list_sweeps"),
    ("POST", "/artifacts", "admin", "sweep_artifacts"),
    ("GET", "/artifacts", "admin", "list_artifact_sweeps"),
    ("PUT", "/bundles/{bundle}", "admin", "put_bundle"),
    ("POST", "/bundles/{bundle}/deploy", "admin", "deploy_bundle"),
    ("DELETE", "/bundles/{bundle}", "admin", "delete_bundle"),
    ("DELETE", "/bundles", "admin", "prune_bundles"),
    ("GET", "/bundles", "admin", "list_bundles"),
    ("GET", "/plane", "client", "show_plane"),
    ("POST", "/plane/takeover", "admin", "take_over"),
)

_log = logging.getLogger(__name__)


class DagsSurface:
    """This surface over one gateway."""

    prefixes = (BASE,)
    credentialed = False

    def __init__(
        self, gateway: Gateway, tokens: Tokens, options: ServerOptions, clock: Clock, draining: asyncio.Event
    ) -> None:
        self._handlers = Handlers(gateway, options, clock, draining)
        self._owners = (
            WaitingHandlers(gateway.waiting, options),
            StarterHandlers(gateway.starters, options),
            ArchiveHandlers(gateway.archive, options),
            ArtifactHandlers(gateway.artifacts, options),
            BundleHandlers(gateway.bundles, options),
            PoolHandlers(gateway.pool_book, options),
            PlaneHandlers(gateway.planes, options),
            self._handlers,
        )
        self._tokens = tokens
        self._limit = f"{options.rate_limit_rps:g} requests per second per tenant"
        self._clock = clock
        self._buckets = Buckets(options.rate_limit_rps, options.rate_limit_burst, options.replicas)

    def routes(self) -> list[PlainRoute]:
        """Every endpoint, in the order in which they are matched."""
        operations = docs.operations()
        return [self._route(*each, operations[each[-1]]) for each in ENDPOINTS]

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
        return _with_allowance(_problem(request, error), self._buckets.untouched)

    def _route(self, method: str, path: str, scope: str, name: str, described: words.Json) -> PlainRoute:
        handler: Handler = next(getattr(each, name) for each in self._owners if hasattr(each, name))
        return PlainRoute(
            BASE + path,
            self._guarded(handler, scope),
            methods=[method],
            name=name,
            operation_id=f"dags_{name}",
            summary=(handler.__doc__ or name).strip().splitlines()[0].rstrip("."),
            description=f"Needs scope `{scope}`.",
            tags=["dags"],
            response_class=Response,
            openapi_extra=described,
        )

    def _guarded(self, handler: Handler, scope: str | None) -> Endpoint:
        async def answer(request: Request) -> Response:
            allowance = self._buckets.untouched
            try:
                principal = self._tokens.bearer(request.headers.get("authorization"))
                if principal is None:
                    raise Unauthenticated
                allowance = self._buckets.take(principal.tenant, self._clock.monotonic())
                if allowance.retry_after_s:
                    raise TooManyRequests(self._limit, allowance.retry_after_s)
                if scope is not None:
                    require(principal, scope)
                response = await handler(request, principal)
            except Exception as error:
                response = _problem(request, error)
            return _with_allowance(response, allowance)

        return answer


def _problem(request: Request, error: Exception) -> Response:
    """`error` in this surface's form."""
    problem, request_id = told_problem(request, error), identity_of(request).id
    body: words.Json = {"error": words.ERROR_CODES[problem.kind], "message": problem.message, "request_id": request_id}
    details, headers = problem.details, dict(problem.headers)
    if isinstance(error, HistoryGone):
        snapshot = f"{BASE}/runs/{error.run_id}"
        details = (("after", f"the run as it is now: GET {snapshot}"),)
        headers["Link"] = f'<{snapshot}>; rel="current"'
    if details:
        body["details"] = [{"field": field, "message": message} for field, message in details]
    return Response(orjson.dumps(body), words.http_status(problem.kind), headers, JSON)


def _with_allowance(response: Response, allowance: Allowance) -> Response:
    response.raw_headers.append((b"x-ratelimit-limit", b"%d" % allowance.limit))
    response.raw_headers.append((b"x-ratelimit-remaining", b"%d" % allowance.remaining))
    return response
