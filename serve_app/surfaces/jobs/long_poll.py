"""The answer to a worker that waits for a task: 200 with one, or 204.

    open ──task──▶ 200        ──time is over, server goes away──▶ 204        ──the worker hangs up──▶ withdrawn

A task that cannot be handed over goes back to the queue at once. Whether the last bytes arrived nobody can know: what
was lost behind our back is found by heartbeats and leases (jobs contract, section 4).
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.outside_ports import Polling
from serve_app.surfaces.jobs import words

JSON = "application/json; charset=utf-8"


class LongPoll(Response):
    """Waits while it is being sent, so that it sees its client leave."""

    def __init__(self, polling: Polling) -> None:
        super().__init__(status_code=204)
        self._polling = polling

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One response; whatever keeps it from being written withdraws the poll."""
        written = False
        try:
            answer = await self._answer(receive)
            await (answer or Response(status_code=204))(scope, receive, send)
            written = answer is not None
        finally:
            if not written:
                self._polling.withdraw()

    async def _answer(self, receive: Receive) -> Response | None:
        """The task, or None when there is none, or nobody to take it."""
        outcome = self._polling.outcome
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((outcome, gone), return_when=asyncio.FIRST_COMPLETED)
            task = outcome.result() if outcome.done() and not gone.done() else None
        finally:
            gone.cancel()
        return None if task is None else Response(words.encode(task), 200, media_type=JSON)


async def _disconnected(receive: Receive) -> None:
    """The client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
