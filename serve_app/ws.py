"""One WebSocket session: what is sent when, and how it ends; and the loop that does it on a real socket.

    OPEN ──ended──▶ ENDING ──emptied──▶ CLOSED 1000
     │                │
     └── stalled 1013, failed 1013, broke 1011, drained 1012, replaced or revoked 1008, left (nothing to say) ──▶ CLOSED

`Session` decides and knows no socket: texts go in (`offer`) and out (`take`), things happen (`happens`). Between
in and out at most `capacity` texts wait. `converse` moves them: it never sends two messages at once, hands what the
client sends to whoever wants to hear it, and closes the socket with the session's code. Codes are those of RFC 6455 and
the IANA registry: 1012 Service Restart, 1013 Try Again Later; after either the client comes back and resumes. 1008
Policy Violation: the client has another socket, which counts, or no longer the right to this one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from starlette.websockets import WebSocket, WebSocketDisconnect

from orchestrator.errors import Unavailable

#: what is done with a text that the client sends; what it raises ends the session
Hear = Callable[[str], Awaitable[None]]

_CLOSE_WITHIN_S = 5.0
#: seconds between two looks whether the client may still have the socket
_LOOK_S = 30.0

_log = logging.getLogger(__name__)


class Replaced(Exception):
    """Raised by a source of texts: this socket is not the one that counts any more."""


class State(StrEnum):
    """Where a session is."""

    OPEN = "open"
    #: nothing more comes in; what waits still goes out
    ENDING = "ending"
    CLOSED = "closed"


class Happening(StrEnum):
    """What can happen to a session besides texts."""

    #: the source has nothing more
    ENDED = "ended"
    #: the last text has been sent
    EMPTIED = "emptied"
    #: the client takes too little
    STALLED = "stalled"
    #: what the source depends on does not answer
    FAILED = "failed"
    #: our bug
    BROKE = "broke"
    #: this process goes away
    DRAINED = "drained"
    #: the client has opened another socket instead
    REPLACED = "replaced"
    #: the client may not have this socket any more
    REVOKED = "revoked"
    #: the client has gone
    LEFT = "left"


_CUT: Mapping[Happening, State] = MappingProxyType(
    {each: State.CLOSED for each in Happening if each not in (Happening.ENDED, Happening.EMPTIED)}
)

#: what is not in a row has no effect in that state
TRANSITIONS: Mapping[State, Mapping[Happening, State]] = MappingProxyType(
    {
        State.OPEN: MappingProxyType({Happening.ENDED: State.ENDING, **_CUT}),
        State.ENDING: MappingProxyType({Happening.EMPTIED: State.CLOSED, **_CUT}),
        State.CLOSED: MappingProxyType({}),
    }
)

#: close code that goes with a way to CLOSED; None = nobody is there to be told
CODES: Mapping[Happening, int | None] = MappingProxyType(
    {
        Happening.EMPTIED: 1000,
        Happening.STALLED: 1013,
        Happening.FAILED: 1013,
        Happening.BROKE: 1011,
        Happening.DRAINED: 1012,
        Happening.REPLACED: 1008,
        Happening.REVOKED: 1008,
        Happening.LEFT: None,
    }
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a session treats a client that reads slowly."""

    #: most texts that wait
    capacity: int
    #: how long one text waits for room
    patience_s: float
    #: then: the oldest is dropped, or the session is closed
    drops_oldest: bool


#: nothing may be missed: a slow reader is cut off, and resumes
KEEP_ALL = Manner(capacity=256, patience_s=5.0, drops_oldest=False)
#: the newest matter
KEEP_NEWEST = Manner(capacity=100, patience_s=0.0, drops_oldest=True)


@dataclass(slots=True)
class Session:
    """One socket's conversation."""

    manner: Manner
    state: State = State.OPEN
    #: close code once CLOSED
    code: int | None = None
    _waiting: deque[str] = field(default_factory=deque)

    @property
    def full(self) -> bool:
        """Is there no room for one more text?"""
        return len(self._waiting) >= self.manner.capacity

    @property
    def idle(self) -> bool:
        """Is there nothing to do for whoever takes?"""
        return self.state is State.OPEN and not self._waiting

    def offer(self, text: str) -> None:
        """`text` waits to be taken; without room for it the oldest goes, or the session has stalled."""
        if self.state is not State.OPEN:
            return
        if self.full and not self.manner.drops_oldest:
            self.happens(Happening.STALLED)
            return
        if self.full:
            self._waiting.popleft()
        self._waiting.append(text)

    def take(self) -> str | None:
        """The next text to send. Whoever takes has sent the one before."""
        if self._waiting and self.state is not State.CLOSED:
            return self._waiting.popleft()
        self.happens(Happening.EMPTIED)
        return None

    def happens(self, what: Happening) -> None:
        """The session has gone on to where `what` leads, if anywhere."""
        following = TRANSITIONS[self.state].get(what)
        if following is None:
            return
        self.state = following
        if following is State.CLOSED:
            self.code = CODES[what]


async def _forget(_: str) -> None:
    """What the client says does not matter."""


async def converse(
    socket: WebSocket,
    texts: AsyncIterator[str],
    manner: Manner,
    draining: asyncio.Event,
    hear: Hear = _forget,
    allowed: Callable[[], bool] = lambda: True,
) -> None:
    """`texts` have been sent, or the session ended earlier; either way the accepted `socket` is closed.

    It ends within `_LOOK_S` after it is not `allowed` any more.
    """
    line = _Line(Session(manner))
    doing = (
        line.feed(texts),
        line.write(socket),
        line.listen(socket, hear),
        line.drain(draining),
        line.mind(allowed),
    )
    tasks = [asyncio.create_task(each) for each in doing]
    try:
        code = await line.closed()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _close(socket, code)


async def turn_away(socket: WebSocket, why: Happening) -> None:
    """The handshake succeeds and the session ends at once, so that the client learns the code."""
    session = Session(KEEP_ALL)
    session.happens(why)
    await socket.accept()
    await _close(socket, session.code)


class _Line:
    """A session between the tasks that serve it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._closed = asyncio.Event()
        self._offered = asyncio.Event()
        self._taken = asyncio.Event()

    async def closed(self) -> int | None:
        """The close code, once there is one."""
        await self._closed.wait()
        return self._session.code

    async def feed(self, texts: AsyncIterator[str]) -> None:
        """Hand on every text, and how the source ended."""
        try:
            async for each in texts:
                if self._session.full:
                    await self._room()
                self._session.offer(each)
                self._tell()
            self._happens(Happening.ENDED)
        except Replaced:
            self._happens(Happening.REPLACED)
        except Unavailable as error:
            _log.warning("a socket's source failed: %s", error)
            self._happens(Happening.FAILED)
        except Exception:
            _log.exception("a socket's source broke")
            self._happens(Happening.BROKE)
        finally:
            if (close := getattr(texts, "aclose", None)) is not None:
                await close()

    async def write(self, socket: WebSocket) -> None:
        """Send what waits, one after the other."""
        try:
            while self._session.state is not State.CLOSED:
                if self._session.idle:
                    self._offered.clear()
                    await self._offered.wait()
                text = self._session.take()
                self._taken.set()
                if text is not None:
                    await socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError):
            # the words servers have for "the other side is gone"
            self._session.happens(Happening.LEFT)
        self._tell()

    async def listen(self, socket: WebSocket, hear: Hear) -> None:
        """Hand on the texts that the client sends, until it leaves."""
        try:
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                if (text := message.get("text")) is not None:
                    await hear(text)
            self._happens(Happening.LEFT)
        except Exception:
            _log.exception("hearing a socket's client broke")
            self._happens(Happening.BROKE)

    async def drain(self, draining: asyncio.Event) -> None:
        """End with the process."""
        await draining.wait()
        self._happens(Happening.DRAINED)

    async def mind(self, allowed: Callable[[], bool]) -> None:
        """End with the right to the socket."""
        while allowed():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(_LOOK_S)
        self._happens(Happening.REVOKED)

    async def _room(self) -> None:
        """Somebody took a text, or patience is at its end."""
        self._taken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._session.manner.patience_s):
                await self._taken.wait()

    def _happens(self, what: Happening) -> None:
        self._session.happens(what)
        self._tell()

    def _tell(self) -> None:
        self._offered.set()
        if self._session.state is State.CLOSED:
            self._closed.set()


async def _close(socket: WebSocket, code: int | None) -> None:
    """A client that does not even take the close frame is left to the server."""
    if code is None:
        return
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await socket.close(code)
