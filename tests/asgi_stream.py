"""An open response of an application, read as it comes: httpx waits for the end, and a stream has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson

#: more than anything here takes, also on a busy machine
PATIENCE_S = 10.0

Json = dict[str, Any]


class OpenResponse:
    """What has come of one response so far."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        #: the server has said that this was all
        self.ended = False
        self._text = b""
        self._came = asyncio.Event()
        self._gone = asyncio.Event()
        self._broken = False

    async def block(self) -> str:
        """The next event or comment, without the empty line after it."""
        while b"\n\n" not in self._text:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), PATIENCE_S)
        block, _, self._text = self._text.partition(b"\n\n")
        return block.decode()

    async def event(self) -> tuple[str | None, str, Json]:
        """The next block as (id, event, data), which stand in this order and on one line each."""
        lines = (await self.block()).split("\n")
        mark = lines.pop(0).removeprefix("id: ") if lines[0].startswith("id: ") else None
        name, data = lines
        assert (name[:7], data[:6]) == ("event: ", "data: ")
        return mark, name[7:], orjson.loads(data[6:])

    async def events(self, count: int) -> list[tuple[str | None, str, Json]]:
        """The next `count` events."""
        return [await self.event() for _ in range(count)]

    async def silent(self) -> bool:
        """Nothing more comes, however often the server gets its turn."""
        for _ in range(50):
            await asyncio.sleep(0)
        return not self._text

    async def receive(self) -> Json:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self._broken:
            raise OSError("the connection is lost")
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self._text += message.get("body", b"")
            self.ended = not message.get("more_body", False)
        self._came.set()

    def fail_sending(self) -> None:
        """Nothing can be written any more, and nobody has said so."""
        self._broken = True

    def hang_up(self) -> None:
        """The client is gone."""
        self._gone.set()


@asynccontextmanager
async def opened(
    app: Any, url: str, headers: Mapping[str, str] | None = None, *, host: str = "localhost"
) -> AsyncIterator[OpenResponse]:
    """GET `url` (path and query) as long as the block lasts."""
    parts = urlsplit(url)
    given = {"host": host, **(headers or {})}
    scope = {
        "type": "http",
        "method": "GET",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 5000),
        "server": (host, 80),
        "scheme": "http",
        "root_path": "",
        "http_version": "1.1",
    }
    response = OpenResponse()
    answering = asyncio.create_task(app(scope, response.receive, response.send))
    try:
        yield response
    finally:
        response.hang_up()
        await asyncio.wait_for(answering, PATIENCE_S)
