"""Who asks: a token in one of this surface's ways, or anybody on this machine.

    Authorization: Bearer ▸ X-Runner-Token ▸ Authorization: Basic (password = token)

The first that is present counts. Basic lets a stock runner be pointed at `http://runner:TOKEN@host`. On a loopback
listener callers without a valid token act anonymously (`auth.anonymous`), with one exception beyond the contract: not
when a foreign web page makes a browser send a command, which needs no leave when it looks like a form.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from serve_app.auth import Principal, Tokens, anonymous, basic_password, bearer_token
from serve_app.options import ServerOptions
from serve_app.origins import Origins
from serve_app.problems import Forbidden, Unauthenticated


class Callers:
    """Tells callers apart."""

    def __init__(self, tokens: Tokens, options: ServerOptions) -> None:
        self._tokens = tokens
        self._host = options.host
        self._allow_anonymous = options.allow_anonymous
        self._origins = Origins(options.cors_origins)

    def of_request(self, request: Request, scope: str | None) -> Principal:
        """Who sends this request, and has the scope. Raises Unauthenticated, Forbidden."""
        token = _token(request.headers)
        known = self._tokens.principal(token) if token is not None else None
        if known is None and (request.method in ("GET", "HEAD") or self._origins.allow(request.headers)):
            known = anonymous(self._host, request.headers, allowed=self._allow_anonymous)
        if known is None:
            raise Unauthenticated
        if scope is not None and scope not in known.scopes:
            raise Forbidden(scope)
        return known


def _token(headers: Mapping[str, str]) -> str | None:
    authorization = headers.get("authorization")
    found = (bearer_token(authorization), headers.get("x-runner-token"), basic_password(authorization))
    return next((each for each in found if each is not None), None)
