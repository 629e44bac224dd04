"""The application, put together; and the same as a Ray Serve deployment.

`build_app` needs no Ray: tests and other servers run it over any gateway. Under Serve one deployment `api`
holds it; each replica opens a gateway of its own and keeps nothing that the journal does not have. Requests
reach a replica through `edge` and then:

    Front (id, measure) ─▶ CORS ─▶ FastAPI routes ─▶ a surface, or a shared route
                                        └ no such path or method ─▶ the surface whose prefix it is

WebSockets take the same way, without id and measure; a path that has none is refused with 403.
Add a surface here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp

from actors import placement
from actors.clock import Clock as SystemClock
from actors.hosted import milliseconds
from actors.process import log, logs_json
from actors.settings import Settings
from actors.span_export import Exporter, open_exporter
from actors.token_files import read_clients, read_worker_tokens
from orchestrator.errors import OrchestratorError
from serve_app.access_log import AccessLog
from serve_app.auth import Grant, Tokens, read_grants
from serve_app.clients import Agreement, Clients, agreements_of
from serve_app.front import Front
from serve_app.health import TITLE, VERSION, SharedRoutes
from serve_app.observations import Observations
from serve_app.options import ServerOptions
from serve_app.origins import Cors, is_under
from serve_app.outside_ports import Jobs, Pipelines
from serve_app.ports import Clock, Gateway, Instances, LiveRuns
from serve_app.problems import STATUS, Kind, NoSuchPath, WrongMethod, problem_of
from serve_app.request_traces import Spans
from serve_app.route_group import RouteGroup
from serve_app.surfaces.dags import DagsSurface
from serve_app.surfaces.instances import InstancesSurface
from serve_app.surfaces.jobs import JobsSurface
from serve_app.surfaces.pipelines import PipelinesSurface
from serve_app.surfaces.runs import RunsSurface, published
from serve_app.token_file import TokenFile
from serve_app.worker_tokens import KeptTokens

if TYPE_CHECKING:
    from ray.serve import Application

    from serve_app.gateway import Gateway as JournalGateway

_JSON = "application/json; charset=utf-8"


class Surface(Protocol):
    """What every surface gives to the application."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Its paths are these and what is below them."""

    @property
    def credentialed(self) -> bool:
        """May browsers send credentials along to it?"""

    def routes(self) -> Sequence[BaseRoute]:
        """Its endpoints."""

    def components(self) -> dict[str, Any]:
        """OpenAPI components that they refer to."""

    async def refuse(self, request: Request, error: OrchestratorError) -> Response:
        """Its answer to a path or method that it has not."""

    def fault(self, request: Request, error: Exception) -> Response:
        """Its answer when something broke."""


def build_app(
    gateway: Gateway,
    tokens: Tokens,
    options: ServerOptions,
    clock: Clock,
    *,
    live_runs: LiveRuns | None = None,
    instances: Instances | None = None,
    pipelines: Pipelines | None = None,
    jobs: Jobs | None = None,
    clients: Clients | None = None,
    draining: asyncio.Event | None = None,
    exporter: Exporter | None = None,
) -> ASGIApp:
    """The whole application over `gateway`, with the surfaces whose ports are given.

    Streams and sockets end in good order once `draining` is set. Spans of requests go to `exporter`.
    """
    observations = Observations(gateway.count_http)
    access_log = AccessLog(Path(options.home, "logs", "access.log")) if options.access_log else None
    draining = draining or asyncio.Event()
    surfaces = _surfaces(
        gateway, tokens, options, clock, draining, live_runs, instances, pipelines, jobs, clients or Clients()
    )
    shared = _shared(gateway, tokens, options, clock, observations)
    spans = None if exporter is None else Spans(exporter)
    noted = tuple(each for each in (observations, access_log, spans) if each is not None)
    app = _routed(surfaces, shared, _lifespan(draining, noted))
    credentialed = tuple(prefix for each in surfaces if each.credentialed for prefix in each.prefixes)
    return Front(Cors(app, options.cors_origins, credentialed), clock, observations.add, access_log, spans)


def describe() -> dict[str, Any]:
    """The OpenAPI of the whole application, as `GET /openapi.json` answers it. Needs no server."""
    nobody: Any = _Nobody()
    tokens, options = Tokens(()), ServerOptions(home="")
    surfaces = _surfaces(nobody, tokens, options, nobody, nobody, nobody, nobody, nobody, nobody, Clients())
    shared = _shared(nobody, tokens, options, nobody, nobody)
    return _openapi(_routed(surfaces, shared, None), (shared, *surfaces))


class _Nobody:
    """Stands for collaborators that describing never asks."""

    def __getattr__(self, _: str) -> _Nobody:
        return self

    def blueprints(self) -> tuple[()]:
        """Their routes are described as one."""
        return ()


def _surfaces(
    gateway: Gateway,
    tokens: Tokens,
    options: ServerOptions,
    clock: Clock,
    draining: asyncio.Event,
    live_runs: LiveRuns | None,
    instances: Instances | None,
    pipelines: Pipelines | None,
    jobs: Jobs | None,
    clients: Clients,
) -> list[Surface]:
    surfaces: list[Surface] = [DagsSurface(gateway, tokens, options, clock, draining)]
    if live_runs is not None:
        surfaces.append(RunsSurface(live_runs, gateway, tokens, options, clock, draining))
    if instances is not None:
        surfaces.append(InstancesSurface(instances, tokens, options, clock, draining))
    if pipelines is not None:
        surfaces.append(PipelinesSurface(pipelines, tokens, options, clock, draining))
    if jobs is not None:
        # last: its blueprints come after every fixed path below `/api`
        surfaces.append(JobsSurface(jobs, tokens, clients, options, draining))
    return surfaces


def _shared(
    gateway: Gateway, tokens: Tokens, options: ServerOptions, clock: Clock, observations: Observations
) -> SharedRoutes:
    documents = published.documents()
    return SharedRoutes(gateway, tokens, clock, observations, private_docs=options.private_docs, documents=documents)


def _routed(surfaces: Sequence[Surface], shared: SharedRoutes, lifespan: Callable[[FastAPI], Any] | None) -> FastAPI:
    app = FastAPI(
        title=TITLE,
        version=VERSION,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _unrouted(surfaces),
            Exception: _broken(surfaces),
        },
    )
    app.router.routes.extend(RouteGroup(surface.prefixes, surface.routes()) for surface in surfaces)
    app.router.routes.extend(shared.routes(lambda: _openapi(app, (shared, *surfaces))))
    return app


class Api:
    """One replica of the deployment."""

    def __init__(
        self,
        settings: dict[str, Any],
        grants: list[dict[str, Any]],
        agreements: list[dict[str, Any]],
        worker_tokens: dict[str, Any],
    ) -> None:
        self._settings = Settings.from_dict(settings)
        token_file = TokenFile(self._settings.more_tokens_path)
        self._tokens = Tokens((Grant(**each) for each in grants), token_file.changed)
        self._clients = Clients(Agreement(**each) for each in agreements)
        self._worker_tokens = KeptTokens(**worker_tokens)
        self._gateway: JournalGateway | None = None
        if logs_json():
            log()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        from serve_app.gateway import open_gateway

        self._gateway = await open_gateway(self._settings, self._worker_tokens)
        options = ServerOptions.from_settings(self._settings)
        gateway, clock = self._gateway, SystemClock()
        exporter = open_exporter(self._settings.otlp_endpoint) if self._settings.traced else None
        return build_app(
            gateway,
            self._tokens,
            options,
            clock,
            live_runs=gateway.live_runs,
            instances=gateway.instances,
            pipelines=gateway.pipelines,
            jobs=gateway.jobs,
            clients=self._clients,
            draining=gateway.draining,
            exporter=exporter,
        )

    async def check_health(self) -> None:
        """Serve replaces this replica when the gateway breaks; a journal that is down is no reason to."""
        if self._gateway is not None:
            await self._gateway.health()


def deployment(
    settings: Settings, grants: Sequence[Grant], agreements: Sequence[Agreement], worker_tokens: KeptTokens
) -> Application:
    """The Serve application, not yet running."""
    from ray import serve

    decorate = serve.deployment(
        name="api",
        num_replicas=settings.api_replicas,
        max_ongoing_requests=20_000,
        graceful_shutdown_timeout_s=5,
        health_check_period_s=5,
        ray_actor_options={"num_cpus": 0, **placement.control_options(settings)},
        logging_config={
            "enable_access_log": False,
            "log_level": "WARNING",
            "encoding": "JSON" if logs_json() else "TEXT",
        },
    )
    bound: Application = decorate(serve.ingress()(Api)).bind(
        settings.to_dict(),
        [asdict(each) for each in grants],
        [asdict(each) for each in agreements],
        {"read_ms": worker_tokens.read_ms, "digests": worker_tokens.digests},
    )
    return bound


def configured(settings: Settings) -> Application:
    """The same with the tokens and agreements that are configured. Raises Invalid for files that cannot be read."""
    clients = read_clients(settings.clients_config_path)
    worker_tokens = KeptTokens(milliseconds(SystemClock().now()), read_worker_tokens(settings.workers_config_path))
    return deployment(settings, grants_of(settings), agreements_of(clients), worker_tokens)


def grants_of(settings: Settings) -> tuple[Grant, ...]:
    """Every token that is configured. Raises Invalid for files that cannot be read."""
    clients = read_clients(settings.clients_config_path)
    return read_grants(os.environ, settings.path("credentials.json"), settings.more_tokens_path, clients)


def deploy(settings: Settings) -> None:
    """HTTP answers at the settings' host and port once this returns. Ray must be connected.

    `edge.serve_environment` must have been set before Ray's processes started. Replicas get digests of the
    tokens, never the tokens.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    bound = configured(settings)
    http = HTTPOptions(host=settings.host, port=settings.port, request_timeout_s=None, keep_alive_timeout_s=90)
    with ThreadPoolExecutor(1) as pool:
        # the proxies take seconds to start, and so do replicas: once the controller is there, both at the same time
        starting = pool.submit(serve.start, proxy_location="HeadOnly", http_options=http)
        while not starting.done() and not _controller_exists():
            time.sleep(0.02)
        if starting.done():
            starting.result()
        serve.run(bound, name="orchestrator", route_prefix="/")
        starting.result()


def _controller_exists() -> bool:
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def _lifespan(draining: asyncio.Event, noted: Sequence[Observations | AccessLog | Spans]) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        flushing = [asyncio.create_task(each.keep_flushing()) for each in noted]
        yield
        draining.set()
        for task in flushing:
            task.cancel()
        for each in noted:
            await each.flush()

    return lifespan


def _all_routes(app: FastAPI) -> list[BaseRoute]:
    return [route for each in app.routes for route in (each.routes if isinstance(each, RouteGroup) else [each])]


def _openapi(app: FastAPI, described: Sequence[SharedRoutes | Surface]) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=TITLE, version=VERSION, routes=_all_routes(app))
        components: dict[str, Any] = schema.setdefault("components", {})
        for each in described:
            for kind, parts in each.components().items():
                components.setdefault(kind, {}).update(parts)
        app.openapi_schema = schema
    return app.openapi_schema


def _unrouted(surfaces: Sequence[Surface]) -> Callable[[Request, Exception], Any]:
    async def handle(request: Request, exception: Exception) -> Response:
        error = _refusal(request, exception)
        surface = _surface_of(request, surfaces)
        return await surface.refuse(request, error) if surface else _plain_problem(error)

    return handle


def _broken(surfaces: Sequence[Surface]) -> Callable[[Request, Exception], Any]:
    async def handle(request: Request, error: Exception) -> Response:
        surface = _surface_of(request, surfaces)
        return surface.fault(request, error) if surface else _plain_problem(error)

    return handle


def _surface_of(request: Request, surfaces: Sequence[Surface]) -> Surface | None:
    path = request.scope["path"]
    return next((each for each in surfaces if is_under(path, each.prefixes)), None)


def _refusal(request: Request, exception: Exception) -> OrchestratorError:
    """What the router's own exception means: no such path, or not with this method."""
    app: FastAPI = request.scope["app"]
    if not isinstance(exception, HTTPException) or exception.status_code != 405:
        return NoSuchPath(request.scope["path"])
    matches = [
        route
        for route in _all_routes(app)
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is Match.PARTIAL
    ]
    # of `/runs/batch` and `/runs/{run_id}` the first is meant
    allowed = {method for route in matches if route.path == matches[0].path for method in route.methods or ()}
    return WrongMethod(request.method, tuple(sorted(allowed)))


#: what is answered under no surface: the texts of two of them
_TEXTS = {
    Kind.NOT_FOUND: ("not found", "Not Found"),
    Kind.WRONG_METHOD: ("method not allowed", "Method Not Allowed"),
    Kind.BROKEN: ("internal error", "Internal Server Error"),
}


def _plain_problem(error: Exception) -> Response:
    problem = problem_of(error)
    error_text, detail = _TEXTS.get(problem.kind, _TEXTS[Kind.BROKEN])
    body = orjson.dumps({"error": error_text, "detail": detail})
    return Response(body, STATUS[problem.kind], dict(problem.headers), _JSON)
