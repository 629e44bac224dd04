"""A route that FastAPI matches and documents, and whose endpoint is called as it is.

FastAPI's own handler solves dependencies and serialises through pydantic, which costs more than most of our
requests do. What an operation takes and gives is told in `openapi_extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class PlainRoute(APIRoute):
    """Calls its endpoint with the request alone."""

    def get_route_handler(self) -> Endpoint:
        """The endpoint itself."""
        endpoint: Endpoint = self.endpoint
        return endpoint
