"""Server-sent events: cursors in, frames out, and one response class that is never in a reader's way.

    id: 3                      a frame with an id can be resumed after it
    event: task_state
    data: {"seq":3,…}

    : keep-alive 1795380373794 a comment; carries milliseconds since the epoch

A stream starts with a `retry:` line and has a bounded life: a client that is cut off reconnects with the
last id it saw and misses nothing. Frames that are ready together leave together; of frames that a slow
reader has not taken yet at most `BACKLOG` are held here, the rest waits (bounded) in the gateway.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

BACKLOG = 256
RETRY_MS = 1000

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_CURSOR = re.compile(r"[0-9]+", re.ASCII)
#: any id above this is above every real one
_FAR = 10**15


def cursor(last_event_id: str | None, after: str | None) -> int | None:
    """The id to go on after; the header wins over the query, and what is no id means "from the first"."""
    text = after if last_event_id is None else last_event_id
    if text is None or not _CURSOR.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return _FAR if len(digits) > 15 else int(digits or "0")


def frame(seq: int | None, event: str, data: object) -> bytes:
    """One event; without `seq` it has no id, and the client keeps its last one."""
    head = b"" if seq is None else b"id: %d\n" % seq
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode(), orjson.dumps(data))


def keep_alive(now_ms: int) -> bytes:
    """A comment that keeps proxies from closing an idle stream."""
    return b": keep-alive %d\n\n" % now_ms


class EventStream(Response):
    """Sends frames as they come, until they end, the client is gone, or the stream has lived long enough."""

    media_type = "text/event-stream; charset=utf-8"

    def __init__(self, frames: AsyncIterator[bytes], *, life_s: float) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._frames = frames
        self._life_s = life_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        backlog = _Backlog(BACKLOG)
        tasks = [asyncio.create_task(_fill(backlog, self._frames)), asyncio.create_task(_watch(backlog, receive))]
        end_of_life = asyncio.get_running_loop().call_later(self._life_s, backlog.close)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            chunk = b"retry: %d\n\n" % RETRY_MS
            while chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await backlog.take()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            end_of_life.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if (close := getattr(self._frames, "aclose", None)) is not None:
                await close()


class _Backlog:
    """Frames on their way from the gateway to one reader."""

    def __init__(self, capacity: int) -> None:
        self._frames: list[bytes] = []
        self._capacity = capacity
        self._open = True
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    async def put(self, one: bytes) -> None:
        """`one` is queued, once there is room."""
        while len(self._frames) >= self._capacity:
            self._drained.clear()
            await self._drained.wait()
        self._frames.append(one)
        self._filled.set()

    async def take(self) -> bytes:
        """All that is queued, as soon as there is something; empty once closed and drained."""
        while not self._frames and self._open:
            self._filled.clear()
            await self._filled.wait()
        chunk = b"".join(self._frames)
        self._frames.clear()
        self._drained.set()
        return chunk

    def close(self) -> None:
        """Nothing will follow."""
        self._open = False
        self._filled.set()


async def _fill(backlog: _Backlog, frames: AsyncIterator[bytes]) -> None:
    """Closes the backlog when the frames end, or fail: the client resumes either way."""
    try:
        async for each in frames:
            await backlog.put(each)
    finally:
        backlog.close()


async def _watch(backlog: _Backlog, receive: Receive) -> None:
    """Closes the backlog when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    backlog.close()
