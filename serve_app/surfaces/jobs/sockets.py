"""The workers' WebSocket: commands out, progress in.

    /_worker/ws/{worker_id}    a worker by its id       /_worker/ws    by X-Worker-ID, by its own token, else anonymous

    no valid token, a foreign page          refused before it is accepted: HTTP 401, 403
    gateway unreachable, going away         accepted and closed with 1013, 1012: the SDKs come back
    another socket of the same worker       closed with 1008, as is one whose token was taken back

Protocol pings are the server's (uvicorn: every 20 s, 20 s for the pong). What a worker says is heard one message after
the other; anything but progress is ignored, and progress that cannot be kept is dropped: the next one tells more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from starlette.responses import Response
from starlette.websockets import WebSocket

from orchestrator.errors import Invalid, OrchestratorError, Refused, Unavailable
from serve_app import ws
from serve_app.options import ServerOptions
from serve_app.origins import Origins
from serve_app.outside_ports import Commands, Jobs
from serve_app.problems import STATUS, Unauthenticated, problem_of
from serve_app.surfaces.jobs import parse, words
from serve_app.surfaces.jobs.callers import Callers, WorkerCaller
from serve_app.surfaces.jobs.long_poll import JSON
from serve_app.surfaces.jobs.worker_handlers import progress_of

#: extension of servers that can answer a handshake with more than 403
_DENIAL = "websocket.http.response"

_log = logging.getLogger(__name__)


class Sockets:
    """The WebSocket endpoints over one port."""

    def __init__(self, jobs: Jobs, callers: Callers, options: ServerOptions, draining: asyncio.Event) -> None:
        self._jobs = jobs
        self._callers = callers
        self._origins = Origins(options.cors_origins)
        self._draining = draining

    async def commands(self, socket: WebSocket) -> None:
        """What one worker is to be told, and what it tells."""
        if not self._origins.allow(socket.headers):
            await socket.close()
            return
        try:
            caller = await self._callers.worker(socket.headers, socket.path_params.get("worker_id"), None)
            commands = await self._jobs.socket(caller.tenant, caller.worker_id)
        except Refused as refused:
            await _deny(socket, refused)
        except Unavailable as away:
            _log.warning("no socket for now: %s", away)
            await ws.turn_away(socket, ws.Happening.FAILED)
        else:
            try:
                await socket.accept()
                hear, allowed = self._hearing(caller), self._callers.watched(socket.headers)
                await ws.converse(socket, _written(commands), ws.KEEP_ALL, self._draining, hear, allowed)
            finally:
                await commands.aclose()

    def _hearing(self, caller: WorkerCaller) -> ws.Hear:
        async def hear(text: str) -> None:
            body = parse.json_object(text.encode("utf-8", "replace"))
            told = None if body is None else parse.progress(body)
            if told is None:
                return
            try:
                await self._jobs.ask(progress_of(caller, told))
            except OrchestratorError as lost:
                _log.info("progress of task %s is not kept: %s", told.task_id[:64], lost)

        return hear


async def _written(commands: Commands) -> AsyncIterator[str]:
    """Ends only when the socket was replaced."""
    async for body in commands:
        yield words.encode(body).decode()
    raise ws.Replaced


async def _deny(socket: WebSocket, refused: Refused) -> None:
    """The handshake fails, with this surface's answer where the server can give one."""
    found = problem_of(refused)
    if not isinstance(refused, Unauthenticated | Invalid) or _DENIAL not in socket.scope.get("extensions", {}):
        await socket.close()
        return
    body = words.encode({"error": words.problem(found, refused)})
    await socket.send_denial_response(Response(body, STATUS[found.kind], dict(found.headers), JSON))
