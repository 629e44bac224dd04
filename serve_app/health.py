"""Routes that belong to no surface: liveness, readiness, metrics, and the API's own description and schemas.

`/health` answers 200 as long as the process does; `/ready` tells whether work can be accepted. Nothing here
needs a token, except that `ORCHESTRATOR_PRIVATE_DOCS` closes metrics and descriptions; nothing is rate limited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import orjson
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import OrchestratorError
from serve_app.auth import Tokens
from serve_app.observations import Observations
from serve_app.plain_route import Endpoint, PlainRoute
from serve_app.ports import Clock, Gateway

TITLE = "Orchestrator API"
VERSION = "1.0.0"

Json = dict[str, Any]

_JSON = "application/json; charset=utf-8"
_SCHEMA = "application/schema+json; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
#: what must answer for the status to be "healthy"
_NEEDED = ("journal", "ray")


class HealthResponse(BaseModel):
    """Is this process alive, and does it reach what it needs."""

    ok: bool = True
    service: str = "orchestrator"
    status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
    version: str = VERSION
    timestamp: datetime
    orchestrators_running: int = 0


class SharedRoutes:
    """The routes over one gateway; `documents` are JSON Schemas by their path."""

    def __init__(
        self,
        gateway: Gateway,
        tokens: Tokens,
        clock: Clock,
        observations: Observations,
        *,
        private_docs: bool,
        documents: Mapping[str, bytes],
    ) -> None:
        self._gateway = gateway
        self._tokens = tokens
        self._clock = clock
        self._observations = observations
        self._private = private_docs
        self._documents = documents

    def routes(self, openapi: Callable[[], Json]) -> list[PlainRoute]:
        """Every shared route; `openapi` describes the whole application."""

        async def description(_: Request) -> Response:
            return Response(orjson.dumps(openapi()), media_type=_JSON)

        async def swagger(_: Request) -> Response:
            return get_swagger_ui_html(openapi_url="/openapi.json", title=TITLE)

        async def redoc(_: Request) -> Response:
            return get_redoc_html(openapi_url="/openapi.json", title=TITLE)

        return [
            _route("/health", self._health, "Is this process alive", _HEALTH_DOC, name="health_check", tag="Health"),
            _route("/ready", self._ready, "Can work be accepted", _READY_DOC),
            _route("/metrics", self._guarded(self._metrics), "Prometheus metrics of the whole system", _METRICS_DOC),
            _route("/_public/metrics", self._guarded(self._metrics), "Same as /metrics", _METRICS_DOC),
            _route("/openapi.json", self._guarded(description)),
            _route("/docs", self._guarded(swagger)),
            _route("/redoc", self._guarded(redoc)),
            *(_route(path, self._guarded(_document(text))) for path, text in self._documents.items()),
        ]

    def components(self) -> Json:
        """What the descriptions of the routes refer to."""
        return {"schemas": {"HealthResponse": HealthResponse.model_json_schema()}}

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Endpoint:
        async def answer(request: Request) -> Response:
            if self._private and self._tokens.bearer(request.headers.get("authorization")) is None:
                return _json({"detail": "Not authenticated"}, 401, {"WWW-Authenticate": "Bearer"})
            return await endpoint(request)

        return answer

    async def _health(self, _: Request) -> Response:
        try:
            found = await self._gateway.health()
        except OrchestratorError:
            found = {}
        healthy = all(found.get(each) is True for each in _NEEDED)
        body = {
            "ok": True,
            "service": "orchestrator",
            "status": "healthy" if healthy else "degraded",
            "version": VERSION,
            "timestamp": self._clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "orchestrators_running": found.get("orchestrators_running", 0),
        }
        return _json(body)

    async def _ready(self, _: Request) -> Response:
        try:
            reason = await self._gateway.ready()
        except OrchestratorError:
            reason = "gateway"
        return _json({"ok": True}) if reason is None else _not_ready(reason)

    async def _metrics(self, _: Request) -> Response:
        await self._observations.flush()
        try:
            families = await self._gateway.metrics()
        except OrchestratorError:
            return _not_ready("journal")
        # with thousands of DAGs that takes a second or two, in which others want answers
        text = await asyncio.to_thread(exposition, families)
        return Response(text, media_type=_METRICS)


def exposition(families: Iterable[Metric]) -> bytes:
    """The families in Prometheus' text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    """Families that somebody else has collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return ()


def _document(text: bytes) -> Endpoint:
    async def document(_: Request) -> Response:
        return Response(text, media_type=_SCHEMA)

    return document


def _json(body: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, _JSON)


def _not_ready(reason: str) -> Response:
    return _json({"ok": False, "reason": reason}, 503, {"Retry-After": "1"})


def _route(
    path: str,
    endpoint: Endpoint,
    summary: str = "",
    described: Json | None = None,
    *,
    name: str | None = None,
    tag: str = "shared",
) -> PlainRoute:
    """A route; with a `name` of a contract FastAPI makes the operation's id of it."""
    return PlainRoute(
        path,
        endpoint,
        methods=["GET"],
        name=name,
        summary=summary or None,
        tags=[tag],
        operation_id=None if name else path.strip("/").replace("/", "_"),
        response_class=Response,
        include_in_schema=described is not None,
        openapi_extra=described,
    )


def _object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


_OK: Json = {"type": "boolean"}
_NOT_READY_DOC: Json = {
    "description": "not now",
    "headers": {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
    "content": {
        "application/json": {
            "schema": _object({"ok": _OK, "reason": {"type": "string"}}),
            "example": {"ok": False, "reason": "journal"},
        }
    },
}
_HEALTH_DOC: Json = {
    "responses": {
        "200": {
            "description": "it is; `status` tells whether journal and Ray answer",
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/HealthResponse"},
                    "example": {
                        "ok": True,
                        "service": "orchestrator",
                        "status": "healthy",
                        "version": VERSION,
                        "timestamp": "2026-01-02T03:04:05.678901Z",
                        "orchestrators_running": 0,
                    },
                }
            },
        }
    }
}
_READY_DOC: Json = {
    "responses": {
        "200": {
            "description": "yes",
            "content": {"application/json": {"schema": _object({"ok": _OK}), "example": {"ok": True}}},
        },
        "503": _NOT_READY_DOC,
    }
}
_METRICS_DOC: Json = {
    "responses": {
        "200": {
            "description": "text format 0.0.4",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        "401": {
            "description": "only with ORCHESTRATOR_PRIVATE_DOCS",
            "content": {"application/json": {"schema": _object({"detail": {"type": "string"}})}},
        },
        "503": _NOT_READY_DOC,
    }
}
