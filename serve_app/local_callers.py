"""Callers of the surfaces whose contracts let in who has no valid token, on a loopback listener (`auth.anonymous`).

Where a command needs no body, or may look like a form, they make one exception beyond those contracts: not when a
foreign web page makes a browser send it (`is_our_own`). A page cannot read our answers, but need not ask for leave.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request

from serve_app.auth import Principal, Tokens, anonymous
from serve_app.options import ServerOptions
from serve_app.origins import Origins
from serve_app.problems import Unauthenticated


class LocalCallers:
    """Tells callers apart."""

    def __init__(self, tokens: Tokens, options: ServerOptions) -> None:
        self._tokens = tokens
        self._host = options.host
        self._allow_anonymous = options.allow_anonymous
        self._origins = Origins(options.cors_origins)

    def known(self, token: str | None, connection: HTTPConnection, *, may_be_anonymous: bool = True) -> Principal:
        """Who presents the token, else anybody on this machine, if that may be. Raises Unauthenticated."""
        known = None if token is None else self._tokens.principal(token)
        if known is None and may_be_anonymous:
            known = anonymous(self._host, connection.headers, allowed=self._allow_anonymous)
        if known is None:
            raise Unauthenticated
        return known

    def is_our_own(self, request: Request) -> bool:
        """Is it no command that a foreign page made a browser send?"""
        return request.method in ("GET", "HEAD") or self._origins.allow(request.headers)
