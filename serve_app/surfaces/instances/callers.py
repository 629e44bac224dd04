"""Who asks: a token in one of this surface's ways, or anybody on this machine.

    Authorization: Bearer ▸ x-api-key ▸ Authorization: Basic (password = token) ▸ on streams ?api_key=

The first that is present counts. On a loopback listener callers without a valid token act anonymously
(`auth.anonymous`), with one exception beyond the contract: not when a foreign web page makes a browser send a
command. A page cannot read our answers, but a POST without a body needs no leave to be sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import HTTPConnection, Request

from serve_app.auth import Principal, Tokens, anonymous, basic_password
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

    def of_request(self, request: Request) -> Principal:
        """Who sends this request. Raises Unauthenticated."""
        may_be_anonymous = request.method in ("GET", "HEAD") or self._origins.allow(request.headers)
        return self._known(_token(request.headers), request, may_be_anonymous)

    def of_stream(self, request: Request) -> Principal:
        """Who wants this event stream. Raises Unauthenticated."""
        return self._known(_token(request.headers) or request.query_params.get("api_key"), request, True)

    def of_socket(self, socket: HTTPConnection) -> Principal:
        """Whose handshake this is. Raises Unauthenticated, or Forbidden for a foreign page."""
        if not self._origins.allow(socket.headers):
            raise Forbidden("client")
        return self._known(_token(socket.headers) or socket.query_params.get("api_key"), socket, True)

    def _known(self, token: str | None, connection: HTTPConnection, may_be_anonymous: bool) -> Principal:
        known = self._tokens.principal(token) if token is not None else None
        if known is None and may_be_anonymous:
            known = anonymous(self._host, connection.headers, allowed=self._allow_anonymous)
        if known is None:
            raise Unauthenticated
        return known


def require(principal: Principal, scope: str) -> None:
    """Raise Forbidden unless the caller has the scope."""
    if scope not in principal.scopes:
        raise Forbidden(scope)


def _token(headers: Mapping[str, str]) -> str | None:
    authorization = headers.get("authorization")
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key") or basic_password(authorization)
