"""What a live stream says while nothing happens: when a ping is due, when a comment, and frames with both in between.

    0 s        15 s      30 s     45 s      60 s
    frames … … comment   ping     comment   ping      a ping whatever else is sent, a comment after silence

`Rhythm` is arithmetic on seconds of one monotonic clock; `with_beats` waits for frames and for the rhythm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

PING_EVERY_S = 30.0
COMMENT_AFTER_S = 15.0


class Beat(StrEnum):
    """One sign of life."""

    #: a frame of its own, every 30 s
    PING = "ping"
    #: after 15 s in which nothing else was sent
    COMMENT = "comment"


class Rhythm:
    """What is due when. A stream that cannot carry comments takes no notice of them."""

    def __init__(self, start_s: float) -> None:
        self._ping_s = start_s + PING_EVERY_S
        self._comment_s = start_s + COMMENT_AFTER_S

    @property
    def next_s(self) -> float:
        """When something is due next, unless a frame is sent before."""
        return min(self._ping_s, self._comment_s)

    def sent(self, now_s: float) -> None:
        """A frame went out: the silence starts anew."""
        self._comment_s = now_s + COMMENT_AFTER_S

    def due(self, now_s: float) -> Beat | None:
        """What has to be sent now; it counts as sent. Beats that were missed are not made up for."""
        if now_s >= self._ping_s:
            self._ping_s += PING_EVERY_S * (1 + (now_s - self._ping_s) // PING_EVERY_S)
            self.sent(now_s)
            return Beat.PING
        if now_s >= self._comment_s:
            self.sent(now_s)
            return Beat.COMMENT
        return None


async def with_beats(source: AsyncIterator[T]) -> AsyncGenerator[T | Beat, None]:
    """Everything of `source` in its order, and the beats of a rhythm that starts now. Ends with `source`."""
    time_s = asyncio.get_running_loop().time
    rhythm = Rhythm(time_s())
    following = asyncio.ensure_future(_next(source))
    try:
        while True:
            await asyncio.wait((following,), timeout=max(0.0, rhythm.next_s - time_s()))
            if (beat := rhythm.due(time_s())) is not None:
                yield beat
            if not following.done():
                continue
            found = following.result()
            if not found:
                return
            following = asyncio.ensure_future(_next(source))
            rhythm.sent(time_s())
            yield found[0]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        if (close := getattr(source, "aclose", None)) is not None:
            await close()


async def _next(source: AsyncIterator[T]) -> tuple[T] | tuple[()]:
    """The next one; () at the end."""
    async for each in source:
        return (each,)
    return ()
