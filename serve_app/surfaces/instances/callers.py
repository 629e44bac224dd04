"""Who asks: a token in one of this surface's ways, or anybody on this machine.

    Authorization: Bearer ▸ x-api-key ▸ Authorization: Basic (password = token) ▸ on streams ?api_key=

The first that is present counts. Who has no valid one: `local_callers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import HTTPConnection, Request

from serve_app.auth import Principal, basic_password
from serve_app.local_callers import LocalCallers
from serve_app.problems import Forbidden


class Callers(LocalCallers):
    """Tells callers apart."""

    def of_request(self, request: Request) -> Principal:
        """Who sends this request. Raises Unauthenticated."""
        return self.known(_token(request.headers), request, may_be_anonymous=self.is_our_own(request))

    def of_stream(self, request: Request) -> Principal:
        """Who wants this event stream. Raises Unauthenticated."""
        return self.known(_token(request.headers) or request.query_params.get("api_key"), request)

    def of_socket(self, socket: HTTPConnection) -> Principal:
        """Whose handshake this is. Raises Unauthenticated, or Forbidden for a foreign page."""
        if not self._origins.allow(socket.headers):
            raise Forbidden("client")
        return self.known(_token(socket.headers) or socket.query_params.get("api_key"), socket)


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
