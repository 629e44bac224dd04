"""The two drivers of scripts: one blocks, one awaits. All that knows httpx is here.

A driver performs effects and decides nothing. Of a stream it keeps the one response that is open, for as long as
the caller iterates; leaving the loop closes it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import Any, TypeVar

import httpx

from orchestrator.client.clock import Clock
from orchestrator.client.script import (
    ABSENT,
    Answer,
    Call,
    Effect,
    Emit,
    Lost,
    Mint,
    Now,
    Open,
    Read,
    Reply,
    Request,
    Script,
    Stream,
    Wait,
)

T = TypeVar("T")
E = TypeVar("E")

#: for a connection to be made; what is not there answers at once
_CONNECT_S = 10.0
#: errors that say that the request has not left
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Driver:
    """Performs scripts by blocking. May be shared between threads, as `httpx.Client` may."""

    def __init__(
        self, url: str, token: str | None, *, clock: Clock | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=_credentials(token), transport=transport)
        self._clock = clock or Clock()
        self._known = False

    def close(self) -> None:
        """Its connections are closed."""
        self._http.close()

    def run(self, script: Script[T]) -> T:
        """The script's result."""
        reply: Reply = None
        while True:
            try:
                effect = script.send(reply)
            except StopIteration as done:
                result: T = done.value
                return result
            reply = self._perform(effect, _Opened())

    def iterate(self, stream: Stream[E]) -> Generator[E, None, None]:
        """What the stream emits."""
        opened = _Opened()
        reply: Reply = None
        try:
            while True:
                try:
                    effect = stream.send(reply)
                except StopIteration:
                    return
                reply = None
                if isinstance(effect, Emit):
                    yield effect.value
                else:
                    reply = self._perform(effect, opened)
        finally:
            opened.close()

    def _perform(self, effect: Effect, opened: _Opened) -> Reply:
        match effect:
            case Call(request):
                return self._call(request)
            case Open(request):
                opened.close()
                return self._open(request, opened)
            case Read():
                return self._read(opened)
            case Wait(least_s, most_s):
                self._clock.sleep(self._clock.between(least_s, most_s))
                return None
            case Now():
                return self._clock.monotonic()
            case Mint():
                return self._clock.token()

    def _call(self, request: Request) -> Answer | Lost:
        try:
            response = self._http.send(_built(self._http, request))
        except _ERRORS as error:
            return self._lost(error)
        return self._answer(response, response.content)

    def _open(self, request: Request, opened: _Opened) -> Answer | Lost:
        try:
            response = self._http.send(_built(self._http, request), stream=True)
            if response.status_code != 200:
                response.read()
                return self._answer(response, response.content)
        except _ERRORS as error:
            return self._lost(error)
        opened.response, opened.chunks = response, response.iter_bytes()
        return self._answer(response)

    def _read(self, opened: _Opened) -> bytes | Lost | None:
        try:
            return next(opened.chunks, None)
        except httpx.HTTPError as error:
            return self._lost(error)

    def _answer(self, response: httpx.Response, content: bytes = b"") -> Answer:
        self._known = True
        return Answer(self.url, response.status_code, _headers(response), content)

    def _lost(self, error: Exception) -> Lost:
        return _lost(self.url, error, self._known)


class AsyncDriver:
    """Performs scripts by awaiting. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        clock: Clock | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, headers=_credentials(token), transport=transport)
        self._clock = clock or Clock()
        self._known = False

    async def close(self) -> None:
        """Its connections are closed."""
        await self._http.aclose()

    async def run(self, script: Script[T]) -> T:
        """The script's result."""
        reply: Reply = None
        while True:
            try:
                effect = script.send(reply)
            except StopIteration as done:
                result: T = done.value
                return result
            reply = await self._perform(effect, _AsyncOpened())

    async def iterate(self, stream: Stream[E]) -> AsyncGenerator[E, None]:
        """What the stream emits."""
        opened = _AsyncOpened()
        reply: Reply = None
        try:
            while True:
                try:
                    effect = stream.send(reply)
                except StopIteration:
                    return
                reply = None
                if isinstance(effect, Emit):
                    yield effect.value
                else:
                    reply = await self._perform(effect, opened)
        finally:
            await opened.close()

    async def _perform(self, effect: Effect, opened: _AsyncOpened) -> Reply:
        match effect:
            case Call(request):
                return await self._call(request)
            case Open(request):
                await opened.close()
                return await self._open(request, opened)
            case Read():
                return await self._read(opened)
            case Wait(least_s, most_s):
                await self._clock.sleep_async(self._clock.between(least_s, most_s))
                return None
            case Now():
                return self._clock.monotonic()
            case Mint():
                return self._clock.token()

    async def _call(self, request: Request) -> Answer | Lost:
        try:
            response = await self._http.send(_built(self._http, request))
        except _ERRORS as error:
            return self._lost(error)
        return self._answer(response, response.content)

    async def _open(self, request: Request, opened: _AsyncOpened) -> Answer | Lost:
        try:
            response = await self._http.send(_built(self._http, request), stream=True)
            if response.status_code != 200:
                await response.aread()
                return self._answer(response, response.content)
        except _ERRORS as error:
            return self._lost(error)
        opened.response, opened.chunks = response, response.aiter_bytes()
        return self._answer(response)

    async def _read(self, opened: _AsyncOpened) -> bytes | Lost | None:
        try:
            return await anext(opened.chunks, None)
        except httpx.HTTPError as error:
            return self._lost(error)

    def _answer(self, response: httpx.Response, content: bytes = b"") -> Answer:
        self._known = True
        return Answer(self.url, response.status_code, _headers(response), content)

    def _lost(self, error: Exception) -> Lost:
        return _lost(self.url, error, self._known)


class _Opened:
    """The response that a stream is being read from."""

    response: httpx.Response | None = None
    chunks: Iterator[bytes] = iter(())

    def close(self) -> None:
        if self.response is not None:
            self.response.close()


class _AsyncOpened:
    """The same, for who awaits."""

    response: httpx.Response | None = None
    chunks: AsyncIterator[bytes]

    async def close(self) -> None:
        if self.response is not None:
            await self.response.aclose()
            if isinstance(self.chunks, AsyncGenerator):  # else it would be left to the garbage collector
                await self.chunks.aclose()


_ERRORS = (httpx.HTTPError, httpx.InvalidURL)


def _credentials(token: str | None) -> Mapping[str, str]:
    """A bearer token is taken by every surface."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def _built(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    headers = dict(request.headers)
    content = request.content
    if request.body is not ABSENT:
        content = json.dumps(request.body, separators=(",", ":"), allow_nan=False).encode()
        headers["Content-Type"] = "application/json"
    timeout = httpx.Timeout(request.timeout_s, connect=_CONNECT_S)
    return http.build_request(
        request.method, request.path, params=request.query or None, headers=headers, content=content, timeout=timeout
    )


def _headers(response: httpx.Response) -> dict[str, Any]:
    return {name.lower(): value for name, value in response.headers.items()}


def _lost(url: str, error: Exception, known: bool) -> Lost:
    sent = not isinstance(error, (*_UNSENT, httpx.InvalidURL))
    return Lost(url, str(error) or type(error).__name__, sent=sent, known=known)
