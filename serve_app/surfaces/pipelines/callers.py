"""Who asks: a token in one of this surface's ways, or anybody on this machine.

    Authorization: Bearer ▸ X-Runner-Token ▸ Authorization: Basic (password = token)

The first that is present counts. Basic lets a stock runner be pointed at `http://runner:TOKEN@host`. Who has no valid
one: `local_callers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from serve_app.auth import Principal, basic_password, bearer_token
from serve_app.local_callers import LocalCallers
from serve_app.problems import Forbidden


class Callers(LocalCallers):
    """Tells callers apart."""

    def of_request(self, request: Request, scope: str | None) -> Principal:
        """Who sends this request, and has the scope. Raises Unauthenticated, Forbidden."""
        known = self.known(_token(request.headers), request, may_be_anonymous=self.is_our_own(request))
        if scope is not None and scope not in known.scopes:
            raise Forbidden(scope)
        return known


def _token(headers: Mapping[str, str]) -> str | None:
    authorization = headers.get("authorization")
    found = (bearer_token(authorization), headers.get("x-runner-token"), basic_password(authorization))
    return next((each for each in found if each is not None), None)
