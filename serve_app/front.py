"""The outermost layer: every request gets an id, is measured and logged, and no exception reaches the server.

Pure ASGI, because it is on every request's way: the id is left in the scope (`requests.identity_of`), put
on the response and nowhere else; what was answered is told to `observe` with the pattern of the route, and to
`access_log` with its path, never with its query.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.access_log import AccessLog, Line
from serve_app.ports import Clock, Observation
from serve_app.request_traces import TRACE_KEY, RequestTrace, Spans
from serve_app.requests import IDENTITY_KEY, identity

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"

_log = logging.getLogger(__name__)


class Front:
    """Wraps the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        clock: Clock,
        observe: Callable[[Observation], None],
        access_log: AccessLog | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._app = app
        self._clock = clock
        self._observe = observe
        self._access_log = access_log
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        this = identity(Headers(scope=scope), self._clock.token)
        scope[IDENTITY_KEY] = this
        if self._access_log is not None:
            self._access_log.add(Line(self._clock.now(), "req", this.id, scope["method"], scope["path"]))
        started_s = self._clock.monotonic()
        started = self._clock.now() if self._trace(scope) else None
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", this.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            # the error handler of the application has answered already, or the response was half sent
            _log.exception("request %s failed", this.id)
        finally:
            seconds = self._clock.monotonic() - started_s
            self._observe(Observation(_method(scope), _route(scope), status, seconds))
            if self._access_log is not None:
                now = self._clock.now()
                self._access_log.add(Line(now, "res", this.id, scope["method"], scope["path"], status, seconds))
            if started is not None:
                self._end_trace(scope, status, started)

    def _trace(self, scope: Scope) -> bool:
        if self._spans is None:
            return False
        scope[TRACE_KEY] = RequestTrace(Headers(scope=scope).get("traceparent"), self._clock.token)
        return True

    def _end_trace(self, scope: Scope, status: int, started: datetime) -> None:
        trace: RequestTrace = scope[TRACE_KEY]
        span = trace.span(_method(scope), _route(scope), status, started, self._clock.now())
        if span is not None and self._spans is not None:
            self._spans.add(span)


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "OTHER"


def _route(scope: Scope) -> str:
    route: str = getattr(scope.get("route"), "path_format", _UNMATCHED)
    return route
