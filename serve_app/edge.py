"""What stands between the network and Ray Serve: a middleware that Serve itself loads, in each process that listens.

Serve reads control headers from anybody (`x-request-timeout-seconds`, `x-request-disconnect-disabled`,
model and session routing) before our application sees a request, and it gives every request an id of its
own and puts that on the response beside ours. So, outermost of all:

- those headers are dropped from requests;
- a request without a valid `X-Request-Id` gets a fresh one, marked, so that it is not taken for the
  caller's idempotency key;
- of several `X-Request-Id` on a response only the first, ours, is kept.

Serve finds it through `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` (`serve_environment`), which has to be set
before Ray's processes start. This holds for the Python proxy and for replicas behind HAProxy alike.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.clock import Clock
from serve_app.requests import FRESH_ID_HEADER, identity

_ID = b"x-request-id"
_FRESH_ID = FRESH_ID_HEADER.encode()
_DROPPED = frozenset(
    {
        _ID,
        _FRESH_ID,
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id",
        b"x-session-id",
    }
)


class Edge:
    """Pure ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._clock = Clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        this = identity(Headers(scope=_without_mark(scope)), self._clock.token)
        kept = [(name, value) for name, value in scope["headers"] if not _is_dropped(name)]
        mark = [] if this.chosen else [(_FRESH_ID, b"1")]
        scope["headers"] = [*kept, (_ID, this.id.encode()), *mark]

        async def send_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_one_id(message.get("headers", ()))
            await send(message)

        await self._app(scope, receive, send_one_id)


def middlewares() -> list[Middleware]:
    """What Serve's callback hook expects."""
    return [Middleware(Edge)]


def serve_environment() -> dict[str, str]:
    """Environment that Ray's processes need, set before any of them starts."""
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.edge:middlewares",
        # handlers are async and never block: no second thread and loop between server and handler
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # a proxy that is not ready within so many seconds of its start is ended; 5 are few for a slow machine
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    }


def _without_mark(scope: Scope) -> Scope:
    return {**scope, "headers": [each for each in scope["headers"] if each[0].lower() != _FRESH_ID]}


def _is_dropped(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-") in _DROPPED


def _with_one_id(headers: object) -> list[tuple[bytes, bytes]]:
    kept: list[tuple[bytes, bytes]] = []
    seen = False
    for name, value in headers:  # type: ignore[attr-defined]  # ASGI messages are untyped
        if name.lower() == _ID:
            if seen:
                continue
            seen = True
        kept.append((name, value))
    return kept
