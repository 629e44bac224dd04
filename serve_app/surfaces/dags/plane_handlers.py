"""What the endpoints about control planes do; see `handlers.py` for what holds of all."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound
from orchestrator.ids import DEFAULT_TENANT
from serve_app.auth import Principal
from serve_app.ports import Planes
from serve_app.requests import unhindered
from serve_app.surfaces.dags import words
from serve_app.surfaces.dags.answers import answer


class PlaneHandlers:
    """The endpoints over one port."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes

    async def show_plane(self, _: Request, principal: Principal) -> Response:
        """Show which control plane is in charge of the journal"""
        _check_operator(principal)
        return answer(words.plane(await self._planes.view()))

    async def take_over(self, _: Request, principal: Principal) -> Response:
        """Ask whoever is in charge to hand over to this control plane, which takes seconds"""
        _check_operator(principal)
        return answer(words.plane(await unhindered(self._planes.take_over())))


def _check_operator(principal: Principal) -> None:
    """Control planes are the operator's."""
    if principal.tenant != DEFAULT_TENANT:
        raise NotFound("control plane of tenant", principal.tenant)
