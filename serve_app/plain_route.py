"""A route that FastAPI matches and documents, and whose endpoint is called as it is.

FastAPI's own handler solves dependencies and serialises through pydantic, which costs more than most of our
requests do. What an operation takes and gives is told in `openapi_extra`.

FastAPI takes every endpoint's signature apart and keeps the last thousands of endpoints it has seen, with the
application they belong to. All of ours take a request and give a response: one function stands for all of them there.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import cleandoc
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class PlainRoute(APIRoute):
    """Calls its endpoint with the request alone; `described` are the other arguments of an `APIRoute`."""

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        name: str | None = None,
        description: str | None = None,
        **described: Any,
    ) -> None:
        self._called = endpoint
        super().__init__(
            path,
            _endpoint,
            name=endpoint.__name__ if name is None else name,
            description=description or cleandoc(endpoint.__doc__ or ""),
            response_model=None,
            **described,
        )
        self.endpoint = endpoint

    def get_route_handler(self) -> Endpoint:
        """The endpoint itself."""
        return self._called


async def _endpoint(request: Request) -> Response:
    raise NotImplementedError(request.url)


#: as types, so that they are not evaluated for each route
_endpoint.__annotations__ = {"request": Request, "return": Response}
