"""A scripted server, and both clients before it as one: every test runs blocking and asynchronous."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from orchestrator.client import AsyncClient, Client
from orchestrator.client.clock import Clock

URL = "http://server"

Answer = httpx.Response | Exception


class FakeClock(Clock):
    """Time that moves when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waits: list[float] = []
        self._tokens = 0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def between(self, least: float, most: float) -> float:
        return most

    def token(self) -> str:
        self._tokens += 1
        return f"key-{self._tokens}"


@dataclass
class Wire:
    """Answers what it is told, in turn; the last one is repeated. Remembers what it was asked."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[httpx.Request] = field(default_factory=list)

    def on(self, what: str, *answers: Any) -> None:
        """`what` is "GET /path"; an answer is a Response, an Exception, a function of the request or a JSON value."""
        self.answers.setdefault(what, []).extend(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        left = self.answers.get(f"{request.method} {request.url.path}") or [refusal(404, error="not_found")]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):  # one that was sent is used up
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return answer(request) if callable(answer) else httpx.Response(200, json=answer)

    def headers(self, name: str) -> list[str | None]:
        """What each request had in this header."""
        return [each.headers.get(name) for each in self.asked]

    def bodies(self) -> list[Any]:
        """The JSON body of each request."""
        return [json.loads(each.content) if each.content else None for each in self.asked]


@dataclass
class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    pieces: list[bytes]
    error: Exception | None = None
    closed: bool = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self:
            yield each

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def stream(*pieces: str, cut: Exception | None = None) -> Callable[[httpx.Request], httpx.Response]:
    """An event stream of these pieces, that then ends in good order, or by an error."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return lambda _: httpx.Response(200, headers=headers, stream=Pieces([each.encode() for each in pieces], cut))


def event(kind: str, data: Any, id: object = None) -> str:
    """One frame."""
    return ("" if id is None else f"id: {id}\n") + f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def refusal(status: int, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """An answer with a JSON body."""
    return httpx.Response(status, json=body, headers=headers)


class Both:
    """One of the two clients, told what to do as if it blocked."""

    def __init__(self, wire: Wire, clock: FakeClock, asynchronous: bool) -> None:
        self._loop = asyncio.new_event_loop() if asynchronous else None
        transport = httpx.MockTransport(wire)
        if asynchronous:
            self._client: Any = AsyncClient(URL, "secret", transport=transport, clock=clock)
        else:
            self._client = Client(URL, "secret", transport=transport, clock=clock)

    def __call__(self, method: str, *given: Any, **named: Any) -> Any:
        """The result of `client.<method>(…)`; of a stream, all that it brings, as a list."""
        return self._wait(self._method(method)(*given, **named))

    def first(self, count: int, method: str, *given: Any, **named: Any) -> list[Any]:
        """The first few that a stream brings; then it is left."""
        found = self._method(method)(*given, **named)
        if self._loop is None:
            taken = [next(found) for _ in range(count)]
            found.close()
            return taken
        return self._loop.run_until_complete(_take(found, count))

    def close(self) -> None:
        self._wait(self._client.close())
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _method(self, name: str) -> Any:
        found = self._client
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _wait(self, given: Any) -> Any:
        if inspect.isgenerator(given):
            return list(given)
        if inspect.isasyncgen(given):
            assert self._loop is not None
            return self._loop.run_until_complete(_take(given, None))
        if inspect.iscoroutine(given):
            assert self._loop is not None
            return self._loop.run_until_complete(given)
        return given


async def _take(found: Any, count: int | None) -> list[Any]:
    taken = []
    async for each in found:
        taken.append(each)
        if len(taken) == count:
            break
    await found.aclose()
    return taken


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[False, True], ids=["blocking", "async"])
def client(request: pytest.FixtureRequest, wire: Wire, clock: FakeClock) -> Iterator[Both]:
    both = Both(wire, clock, request.param)
    yield both
    both.close()
