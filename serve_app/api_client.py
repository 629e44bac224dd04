"""The dags surface as the command line sees it: paths below its base, and what `orchestrator.client` makes of them.

Commands carry an `X-Request-Id` that begins with `cli-`; "try again" and restarts are waited out for a while, as that
client does for everybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import httpx

from orchestrator.client import dags, instances, script
from orchestrator.client.clock import Clock
from orchestrator.client.dags import BASE
from orchestrator.client.drivers import Driver
from orchestrator.client.errors import ApiRefused, ServerUnreachable
from orchestrator.client.follow import Event
from orchestrator.client.script import ABSENT, Answer, Call, Lost, Request, Script, Stream

__all__ = ["BASE", "Api", "ApiRefused", "Json", "ServerUnreachable", "StreamEvent"]

Json = dict[str, Any]
T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a run. `id` is None for `end`."""

    id: int | None
    kind: str
    data: Json


class Api:
    """One principal's client of one server."""

    def __init__(self, url: str, token: str | None, transport: httpx.BaseTransport | None = None) -> None:
        self._driver = Driver(url, token, transport=transport)
        self.url = self._driver.url

    def __enter__(self) -> Api:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._driver.close()

    def get(self, path: str, **params: Any) -> Json:
        """The JSON object at `path` below the surface. Raises ApiRefused, ServerUnreachable."""
        answer: Json = self._driver.run(script.get(BASE + path, **params))
        return answer

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """The answer to a command. Raises ApiRefused, ServerUnreachable."""
        request = Request(method="POST", path=BASE + path, body=body or {})
        answer: Json = self._driver.run(script.keyed(request, "X-Request-Id", f"cli-{Clock().token()}"))
        return answer

    def surface(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """The JSON at a path of another surface. Raises ApiRefused, ServerUnreachable."""
        request = Request(
            method=method,
            path=path,
            query=query,
            body=ABSENT if body is None else body,
            repeatable=method == "GET",
        )
        return self._driver.run(script.json_of(request))

    def run(self, script: Script[T]) -> T:
        """The result of a script of `orchestrator.client`. Raises what that says."""
        return self._driver.run(script)

    def iterate(self, stream: Stream[E]) -> Iterator[E]:
        """What a stream of `orchestrator.client` brings."""
        return self._driver.iterate(stream)

    def root(self, path: str) -> tuple[int, Json]:
        """Status and body of a shared route such as /ready, asked once. Raises ServerUnreachable."""
        answer = self._driver.run(_once(path))
        try:
            body = json.loads(answer.content)
        except ValueError:
            body = {}
        return answer.status, body if isinstance(body, dict) else {}

    def items(self, path: str, limit: int, **params: Any) -> list[Json]:
        """The first `limit` items of a list, over as many pages as that takes."""
        found: list[Json] = []
        cursor = None
        while len(found) < limit:
            page = self.get(path, limit=min(200, limit - len(found)), cursor=cursor, **params)
            found += page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found

    def follow(self, run_id: str, after: int | None = None) -> Iterator[StreamEvent]:
        """A run's events from `after` on until it ends, each once, over lost connections and restarts."""
        return (_numbered(each) for each in self._driver.iterate(dags.events(run_id, after)))

    def history(self, run_id: str, after: int | None = None) -> Iterator[StreamEvent]:
        """A run's events from `after` on that have happened already."""
        return (_numbered(each) for each in self._driver.iterate(dags.history(run_id, after)))

    def follow_instance(self, instance_id: str, after: int, *, live: bool) -> Iterator[StreamEvent]:
        """An instance's events from `after` on, over lost connections; until it stops, or up to now."""
        told = instances.events(instance_id, after) if live else instances.history(instance_id, after)
        return (_numbered(each) for each in self._driver.iterate(told) if each.id is not None)


def _once(path: str) -> Script[Answer]:
    reply = yield Call(Request(method="GET", path=path))
    if isinstance(reply, Lost):
        raise ServerUnreachable(reply.url, reply.why)
    assert isinstance(reply, Answer)
    return reply


def _numbered(event: Event) -> StreamEvent:
    return StreamEvent(None if event.id is None else int(event.id), event.kind, dict(event.data))
