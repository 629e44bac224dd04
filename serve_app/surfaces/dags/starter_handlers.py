"""What the endpoints about events and assets do, as `handlers.py` does for the others."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound
from serve_app.auth import Principal
from serve_app.options import ServerOptions
from serve_app.ports import Starters
from serve_app.requests import idempotency, json_body, unhindered
from serve_app.surfaces.dags import starter_words as words
from serve_app.surfaces.dags.answers import answer
from serve_app.surfaces.dags.starter_words import ASSET


class StarterHandlers:
    """The endpoints over one port."""

    def __init__(self, starters: Starters, options: ServerOptions) -> None:
        self._starters = starters
        self._most_bytes = options.max_body_bytes

    async def tell_event(self, request: Request, principal: Principal) -> Response:
        """Tell of an event: every DAG that listens to it runs, once however often it is told"""
        body = await json_body(request, self._most_bytes)
        name, event_id, payload = words.event_request(body)
        idem = idempotency(request, principal.tenant, body)
        told = await unhindered(self._starters.tell(principal.tenant, name, event_id, payload, idem))
        return answer(words.event_told(told), replayed=told.replayed)

    async def list_assets(self, _: Request, principal: Principal) -> Response:
        """List assets: who updates and who consumes them, and their latest updates"""
        found = await self._starters.assets(principal.tenant)
        return answer({"items": [words.asset(each) for each in found]})

    async def get_asset(self, request: Request, principal: Principal) -> Response:
        """Read one asset; its name is the rest of the path, slashes included"""
        name = request.path_params["asset"]
        if not ASSET.fullmatch(name):
            raise NotFound("asset", repr(name[:100]))
        return answer(words.asset(await self._starters.asset(principal.tenant, name)))
