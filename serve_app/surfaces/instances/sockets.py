"""The two WebSockets: who may open one, how one is refused, and what it carries.

unknown id, no token, no scope, foreign page   refused before it is accepted: HTTP 403
journal or core unreachable                    accepted and closed with 1013: a client takes a refused handshake
                                               for "no such instance", and would not come back
token taken back meanwhile                     closed with 1008
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial

from starlette.websockets import WebSocket

from orchestrator.errors import Refused, Unavailable
from serve_app import sse, ws
from serve_app.auth import Principal
from serve_app.ports import Clock, Instances
from serve_app.surfaces.instances import parse, streams
from serve_app.surfaces.instances.callers import Callers, require

Written = Callable[[streams.Opened, Clock], AsyncIterator[str]]

_log = logging.getLogger(__name__)


class Sockets:
    """WebSocket endpoints over one port."""

    def __init__(self, instances: Instances, callers: Callers, clock: Clock, draining: asyncio.Event) -> None:
        self._instances = instances
        self._callers = callers
        self._clock = clock
        self._draining = draining

    async def events(self, socket: WebSocket) -> None:
        """Everything that happens to an instance; `?since=` goes on after an event."""
        since = sse.cursor(None, socket.query_params.get("since"))
        await self._serve(socket, since, streams.event_texts, ws.KEEP_ALL)

    async def activity(self, socket: WebSocket) -> None:
        """Tool calls of an instance, from now on."""
        await self._serve(socket, None, streams.activity_texts, ws.KEEP_NEWEST)

    async def _serve(self, socket: WebSocket, since: int | None, written: Written, manner: ws.Manner) -> None:
        try:
            principal = self._callers.of_socket(socket)
            require(principal, "client")
            opened = await self._open(socket, principal.tenant, since)
        except Refused:
            await socket.close()
            return
        except Unavailable as error:
            _log.warning("no socket for now: %s", error)
            await ws.turn_away(socket, ws.Happening.FAILED)
            return
        except Exception:
            _log.exception("opening a socket broke")
            await ws.turn_away(socket, ws.Happening.BROKE)
            return
        await socket.accept()
        allowed = partial(self._still, socket, principal)
        await ws.converse(socket, written(opened, self._clock), manner, self._draining, allowed=allowed)

    def _still(self, socket: WebSocket, principal: Principal) -> bool:
        """Would this handshake be `principal`'s now, too?"""
        try:
            return self._callers.of_socket(socket) == principal
        except Refused:
            return False

    async def _open(self, socket: WebSocket, tenant: str, since: int | None) -> streams.Opened:
        instance_id = parse.instance_id(socket.path_params["instance_id"])
        return await streams.open_stream(self._instances, tenant, instance_id, since)
