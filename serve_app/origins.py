"""Which web pages may talk to this server: one rule for CORS, for WebSocket handshakes and for anonymous callers.

A browser says in `Origin` which page is asking. A request without `Origin` comes from no other page and passes; so
does one from a page of this very host. CORS alone keeps a page from reading answers, not from sending: hence the other
two. (contracts/README.md, section 4)

    CORS_ORIGINS        may read                        with credentials
    not set             pages of loopback origins       under the paths of surfaces that say so
    https://a,https://b pages of these                  yes
    *                   any page                        no, except of origins also listed by name

Methods and headers are what all surfaces together need: a preflight asks about one path, and a surface refuses
what it has not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: headers that pages may send; Accept and Content-Type always may
SENT = (
    *("Accept", "Content-Type", "Origin", "X-Requested-With", "X-Request-Id", "Authorization"),
    *("x-api-key", "x-actor-id", "Idempotency-Key", "Last-Event-ID"),
    "If-Match",
    *("X-Client-Token", "X-Worker-Token", "X-Worker-ID", "X-Runner-Token"),
)
#: headers that pages may read
READ = ("X-Request-Id", "Idempotent-Replay", "X-RateLimit-Limit", "X-RateLimit-Remaining", "Retry-After")

_LOOPBACK = r"https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"
_NONE = r"(?!)"


class Origins:
    """The pages that may ask. `named` empty = those of this machine, "*" in it = any."""

    def __init__(self, named: tuple[str, ...]) -> None:
        self._named = named

    def allow(self, headers: Mapping[str, str]) -> bool:
        """May the page that sends these headers ask?"""
        origin = headers.get("origin")
        if origin is None or "*" in self._named or origin.partition("://")[2] == headers.get("host"):
            return True
        return origin in self._named if self._named else re.fullmatch(_LOOPBACK, origin) is not None


class Cors:
    """CORS over the whole application. Pages of this machine may use credentials under the prefixes `credentialed`."""

    def __init__(self, app: ASGIApp, named: tuple[str, ...], credentialed: tuple[str, ...]) -> None:
        self._named = frozenset(named)
        self._credentialed = credentialed
        unnamed = _NONE if named else _LOOPBACK
        self._with_credentials = _middleware(app, tuple(self._named - {"*"}), unnamed, credentials=True)
        self._without = _middleware(app, ("*",) if "*" in named else (), unnamed, credentials=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trusted = scope["type"] == "http" and self._may_use_credentials(scope)
        await (self._with_credentials if trusted else self._without)(scope, receive, send)

    def _may_use_credentials(self, scope: Scope) -> bool:
        if self._named:
            return Headers(scope=scope).get("origin") in self._named
        return is_under(scope["path"], self._credentialed)


def is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    """Is `path` one of these prefixes, or below one?"""
    return any(path == each or path.startswith(f"{each}/") for each in prefixes)


def _middleware(app: ASGIApp, origins: tuple[str, ...], pattern: str, *, credentials: bool) -> CORSMiddleware:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_origin_regex=pattern,
        allow_methods=METHODS,
        allow_headers=SENT,
        allow_credentials=credentials,
        expose_headers=READ,
    )
