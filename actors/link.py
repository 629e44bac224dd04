"""One pipelined connection to a Redis-protocol server, for asyncio.

    ask() ──▶ written at once ──▶ server answers in order ──▶ the oldest waiting future

Any number of tasks may ask at the same time; their commands share the connection and nobody waits for
anybody's answer but the server. redis-py's client spends 0.18-0.25 ms of CPU on a command, this 0.05-0.08
(`tests/benchmarks/journal_figures.py`): three commands a task are the difference, on two cores, between
reaching our figures and not, and importing it costs each actor 8 MB. Packing and parsing are hiredis', and URLs
are read as redis-py reads them: `redis://user:password@host:port/db`, `rediss://`, `unix:///path?db=&password=`.

A lost connection fails everything in flight with `LinkLost`, and the next `ask` connects again. When the
oldest command has waited for longer than its patience, the connection is given up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

#: how often waiting commands are looked at
_WATCH_S = 0.25


class LinkLost(ConnectionError):
    """Nobody knows whether the command was carried out."""


class _Wire(asyncio.Protocol):
    """One life of the connection."""

    def __init__(self, when_lost: Callable[[_Wire], None]) -> None:
        self._reader = hiredis.Reader()
        self._when_lost = when_lost
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def ask(self, args: tuple[Any, ...], patience_s: float) -> asyncio.Future[Any]:
        """The answer to come; its exception is LinkLost or hiredis.ReplyError."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            answer.set_exception(LinkLost("connection lost"))
            return answer
        self._waiting.append((answer, self._loop.time() + patience_s))
        self._transport.write(hiredis.pack_command(args))
        if self._watch is None:
            self._watch = self._loop.call_later(_WATCH_S, self._look)
        return answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            reply = self._reader.gets()
            if reply is False:
                return
            answer, _ = self._waiting.popleft()
            if answer.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
        self._when_lost(self)
        for answer, _ in self._waiting:
            if not answer.done():
                answer.set_exception(LinkLost(str(error) if error else "connection lost"))
        self._waiting.clear()

    def _look(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        if self._waiting[0][1] < self._loop.time():
            self.abort()
        else:
            self._watch = self._loop.call_later(_WATCH_S, self._look)


class Link:
    """A connection that is made when it is first needed, and again after it was lost."""

    def __init__(self, url: str, patience_s: float) -> None:
        self._address = address_of(url)
        self._tls = url.startswith("rediss://")
        self._patience_s = patience_s
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def ask(self, *args: Any, patience_s: float | None = None) -> Any:
        """The server's answer. Raises LinkLost, OSError when it cannot be reached, hiredis.ReplyError."""
        wire = self._wire or await self._connect()
        return await wire.ask(args, patience_s or self._patience_s)

    def drop(self) -> None:
        """Give up this life of the connection: what is in flight fails, the next `ask` connects anew."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()

    def close(self) -> None:
        """For good."""
        self._closed = True
        self.drop()

    async def _connect(self) -> _Wire:
        async with self._connecting:
            if self._closed:
                raise LinkLost("closed")
            if self._wire is None:
                async with asyncio.timeout(self._patience_s):
                    self._wire = await self._greet(await self._open())
            return self._wire

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        if "path" in self._address:
            _, wire = await loop.create_unix_connection(lambda: _Wire(self._lost), self._address["path"])
        else:
            host, port = self._address.get("host", "localhost"), self._address.get("port", 6379)
            tls = self._context() if self._tls else None
            _, wire = await loop.create_connection(lambda: _Wire(self._lost), host, port, ssl=tls)
        return wire

    async def _greet(self, wire: _Wire) -> _Wire:
        login = [self._address[key] for key in ("username", "password") if self._address.get(key)]
        if login:
            await wire.ask(("AUTH", *login), self._patience_s)
        if self._address.get("db"):
            await wire.ask(("SELECT", self._address["db"]), self._patience_s)
        return wire

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._address.get("ssl_ca_certs"))
        if self._address.get("ssl_cert_reqs") == "none":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self._address.get("ssl_certfile"):
            context.load_cert_chain(self._address["ssl_certfile"], self._address.get("ssl_keyfile"))
        return context

    def _lost(self, wire: _Wire) -> None:
        if self._wire is wire:
            self._wire = None


def address_of(url: str) -> dict[str, Any]:
    """Where and as whom to connect: host and port or path, username, password, db, and the query's own keys."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"a journal's URL begins with redis://, rediss:// or unix://, not with {parts.scheme}://")
    found: dict[str, Any] = {key: values[0] for key, values in parse_qs(parts.query).items()}
    if parts.scheme == "unix":
        found["path"] = unquote(parts.path)
    else:
        found |= {"host": unquote(parts.hostname or "localhost"), "port": parts.port or 6379}
        if parts.path.strip("/"):
            found["db"] = parts.path.strip("/")
    found |= {
        key: unquote(value) for key, value in (("username", parts.username), ("password", parts.password)) if value
    }
    if "db" in found:
        found["db"] = int(found["db"])
    return found
