"""Server-sent events: cursors in, frames out, and one response class that is never in a reader's way.

    id: 3                      a frame with an id can be resumed after it
    event: task_state
    data: {"seq":3,…}

    : keep-alive 1795380373794 a comment; carries milliseconds since the epoch

What a stream opens with, whether its life is bounded, and whether a reader may be too slow for it, is the
surface's choice. A client that is cut off reconnects with the last id it saw and misses nothing. Frames that
are ready together come and leave together; of what a slow reader has not taken yet at most `BACKLOG` such chunks, or
about `BACKLOG_BYTES`, are held here, the rest waits (bounded) in the gateway.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.views import Frame
from serve_app.ports import Clock

BACKLOG = 256
BACKLOG_BYTES = 1024 * 1024
#: tells the client to reconnect after a second
RETRY = b"retry: 1000\n\n"

# `Connection` concerns this hop only: what stands in front of us may drop it
_HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
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


def frame(mark: int | str | None, event: str, data: object) -> bytes:
    """One event; without `mark` it has no id, and the client keeps its last one. Bytes are JSON on one line already."""
    head = b"" if mark is None else f"id: {mark}\n".encode()
    text = data if isinstance(data, bytes) else orjson.dumps(data)
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode(), text)


def keep_alive(now_ms: int) -> bytes:
    """A comment that keeps proxies from closing an idle stream."""
    return b": keep-alive %d\n\n" % now_ms


async def written(
    chunks: AsyncIterator[Sequence[Frame]], write: Callable[[Frame], bytes], clock: Clock
) -> AsyncIterator[bytes]:
    """The chunks as bytes. What `write` makes of a frame is made once for all of its readers."""
    try:
        async for frames in chunks:
            yield b"".join([_wire(each, write, clock) for each in frames])
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


def _wire(frame: Frame, write: Callable[[Frame], bytes], clock: Clock) -> bytes:
    if frame.kind == "keep_alive":
        return keep_alive(int(clock.now().timestamp() * 1000))
    if frame.wire is None:
        frame.wire = write(frame)
    return frame.wire


class EventStream(Response):
    """Sends frames as they come, until they end, the client is gone, the stream has lived long enough, or a drain.

    A reader that makes no room in a full backlog for `patience_s` is cut off: the connection is closed without
    the end of the response. `ended` is called once, however the stream ends.
    """

    media_type = "text/event-stream; charset=utf-8"

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        *,
        opening: bytes = RETRY,
        life_s: float | None = None,
        patience_s: float | None = None,
        ended: Callable[[], None] | None = None,
        draining: asyncio.Event | None = None,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._frames = frames
        self._opening = opening
        self._life_s = life_s
        self._patience_s = patience_s
        self._ended = ended
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(None) as cut:
                await self._send_all(receive, send, cut)
        except TimeoutError:
            if not cut.expired():
                raise
        finally:
            if self._ended is not None:
                self._ended()

    async def _send_all(self, receive: Receive, send: Send, cut: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        backlog = _Backlog(BACKLOG, self._patience_s)
        filling = _fill(backlog, self._frames, lambda: cut.reschedule(loop.time()))
        tasks = [asyncio.create_task(filling), asyncio.create_task(_watch(backlog, receive))]
        if self._draining is not None:
            tasks.append(asyncio.create_task(_drain(backlog, self._draining)))
        end_of_life = None if self._life_s is None else loop.call_later(self._life_s, backlog.close)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            chunk = self._opening
            while chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await backlog.take()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if end_of_life is not None:
                end_of_life.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if (close := getattr(self._frames, "aclose", None)) is not None:
                await close()


class _Backlog:
    """Frames on their way from the gateway to one reader."""

    def __init__(self, capacity: int, patience_s: float | None) -> None:
        self._frames: list[bytes] = []
        self._bytes = 0
        self._capacity = capacity
        self._patience_s = patience_s
        self._open = True
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    async def put(self, one: bytes) -> bool:
        """`one` is queued, once there is room; False when there was none for too long."""
        while len(self._frames) >= self._capacity or self._bytes >= BACKLOG_BYTES:
            self._drained.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._drained.wait()
            except TimeoutError:
                return False
        self._frames.append(one)
        self._bytes += len(one)
        self._filled.set()
        return True

    async def take(self) -> bytes:
        """All that is queued, as soon as there is something; empty once closed and drained."""
        while not self._frames and self._open:
            self._filled.clear()
            await self._filled.wait()
        chunk = b"".join(self._frames)
        self._frames.clear()
        self._bytes = 0
        self._drained.set()
        return chunk

    def close(self) -> None:
        """Nothing will follow."""
        self._open = False
        self._filled.set()


async def _fill(backlog: _Backlog, frames: AsyncIterator[bytes], cut: Callable[[], None]) -> None:
    """Closes the backlog when the frames end, or fail: the client resumes either way. Cuts off who is too slow."""
    try:
        async for each in frames:
            if not await backlog.put(each):
                cut()
                return
    finally:
        backlog.close()


async def _watch(backlog: _Backlog, receive: Receive) -> None:
    """Closes the backlog when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    backlog.close()


async def _drain(backlog: _Backlog, draining: asyncio.Event) -> None:
    """Closes the backlog when the process goes away."""
    await draining.wait()
    backlog.close()
