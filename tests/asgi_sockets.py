"""WebSockets by hand: an ASGI application, and a client of it that is nothing but two queues."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Message


class Refused(Exception):
    """The handshake failed, with this status and body; a real server answers 403 when the application only closes."""

    def __init__(self, status: int = 403, body: bytes = b"") -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class Closed(Exception):
    """The application has closed the socket with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Dialled:
    """One client. What the application sends waits until it is read; `hold` keeps it from sending any more."""

    def __init__(self, app: ASGIApp, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        named = {"host": "localhost", **headers}
        self._scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "scheme": "ws",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self._in: asyncio.Queue[Message] = asyncio.Queue()
        self._out: asyncio.Queue[Message] = asyncio.Queue()
        self._held: frozenset[str] = frozenset()
        self._released = asyncio.Event()
        self._in.put_nowait({"type": "websocket.connect"})
        #: the application's side
        self.task = asyncio.ensure_future(app(self._scope, self._in.get, self._send))

    async def accepted(self) -> Dialled:
        """The socket itself, once it is open. Raises Refused."""
        message = await self._next()
        if message["type"] == "websocket.http.response.start":
            raise Refused(message["status"], (await self._next())["body"])
        if message["type"] != "websocket.accept":
            raise Refused
        return self

    async def text(self) -> str:
        """The next text. Raises Closed."""
        message = await self._next()
        if message["type"] == "websocket.close":
            raise Closed(message["code"])
        text: str = message["text"]
        return text

    async def frame(self) -> dict[str, Any]:
        """The next text, as JSON. Raises Closed."""
        body: dict[str, Any] = orjson.loads(await self.text())
        return body

    async def frames(self, count: int) -> list[dict[str, Any]]:
        """The next few."""
        return [await self.frame() for _ in range(count)]

    async def rest(self) -> tuple[list[str], int]:
        """Everything until the application closes, and its code."""
        texts = []
        while True:
            try:
                texts.append(await self.text())
            except Closed as closed:
                return texts, closed.code

    def say(self, **message: Any) -> None:
        """The client sends something."""
        self._in.put_nowait({"type": "websocket.receive", **message})

    def hang_up(self) -> None:
        """The client has gone."""
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1001})

    def hold(self, *kinds: str) -> None:
        """The client reads nothing and its buffers are full: messages of these types cannot be sent."""
        self._held = frozenset(kinds or ("websocket.send",))
        self._released.clear()

    def read_on(self) -> None:
        """It reads again."""
        self._held = frozenset()
        self._released.set()

    @property
    def unread(self) -> int:
        """Messages that wait for `text`."""
        return self._out.qsize()

    async def _send(self, message: Message) -> None:
        if message["type"] in self._held:
            await self._released.wait()
        self._out.put_nowait(message)

    async def _next(self) -> Message:
        """What the application sends next; raises when it ends without a word."""
        reading = asyncio.ensure_future(self._out.get())
        await asyncio.wait((reading, self.task), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done() and self._out.empty():
            reading.cancel()
            self.task.result()
            raise AssertionError("the application ended without closing the socket")
        return await reading


def dial(app: ASGIApp, url: str, **headers: str) -> Dialled:
    """A client at the door; header names with `_` for `-`."""
    return Dialled(app, url, {name.replace("_", "-"): value for name, value in headers.items()})


async def talk(app: ASGIApp, url: str, **headers: str) -> Dialled:
    """A client whose socket is open. Raises Refused."""
    return await dial(app, url, **headers).accepted()
