"""What the endpoints about control planes do; see `handlers.py` for what holds of all."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Planes
from serve_app.requests import optional_json_body, unhindered
from serve_app.surfaces.dags import words
from serve_app.surfaces.dags.answers import answer, check_operator


class PlaneHandlers:
    """The endpoints over one port."""

    def __init__(self, planes: Planes, options: ServerOptions) -> None:
        self._planes = planes
        self._most_bytes = options.max_body_bytes

    async def show_plane(self, _: Request, principal: Principal) -> Response:
        """Show which control plane is in charge of the journal"""
        check_operator(principal, "control plane")
        return answer(words.plane(await self._planes.view()))

    async def take_over(self, request: Request, principal: Principal) -> Response:
        """Ask whoever is in charge to hand over to this control plane, which takes seconds"""
        await optional_json_body(request, self._most_bytes)
        check_operator(principal, "control plane")
        return answer(words.plane(await unhindered(self._planes.take_over())))
