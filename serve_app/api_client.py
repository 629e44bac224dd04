"""The dags surface as the command line sees it: one method per verb, errors as values of our tree.

A command carries an `X-Request-Id` of its own, so that repeating it after a lost answer does nothing twice:
429 and 503 are waited out for a while, and once a server has answered, so are its restarts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import httpx

from actors.clock import Clock
from orchestrator.errors import Refused, Unavailable

BASE = "/api/v1/runtime/orchestrator"
#: how long an answer "try again" is waited out
PATIENCE_S = 30.0
#: streams send a comment at least every 15 s
_STREAM_SILENCE_S = 45.0

Json = dict[str, Any]


class ApiRefused(Refused):
    """The server answered 4xx."""

    def __init__(self, status: int, code: str, message: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(status, code, message, details)
        self.status = status
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return "\n".join((self.message, *self.details))


class ServerUnreachable(Unavailable):
    """Nobody answers at the server's address, or it cannot serve now."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        return f"no answer from {self.url}: {self.why}"


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One frame of a run's event stream. `id` is None for `end`."""

    id: int | None
    kind: str
    data: Json


class Api:
    """One principal's client of one server."""

    def __init__(self, url: str, token: str | None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=30.0, transport=transport)
        self._answered = False

    def __enter__(self) -> Api:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Json:
        """The JSON object at `path` below the surface. Raises ApiRefused, ServerUnreachable."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._request("GET", BASE + path, params=given)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """The answer to a command. Raises ApiRefused, ServerUnreachable."""
        return self._request("POST", BASE + path, json=body or {}, headers={"X-Request-Id": f"cli-{request_id()}"})

    def root(self, path: str) -> tuple[int, Json]:
        """Status and body of a shared route such as /ready. Raises ServerUnreachable."""
        response = self._once("GET", path)
        try:
            body = response.json()
        except ValueError:
            body = {}
        return response.status_code, body if isinstance(body, dict) else {}

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
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                for event in self._stream(run_id, after):
                    deadline = time.monotonic() + PATIENCE_S
                    after = event.id if event.id is not None else after
                    yield event
                    if event.kind == "end":
                        return
                why = "the stream was cut"
            except _NothingFollows:
                return
            except httpx.HTTPError as error:
                why = _why(error)
            if not self._answered or time.monotonic() > deadline:
                raise ServerUnreachable(self.url, why)
            time.sleep(0.5)

    def history(self, run_id: str, after: int | None = None) -> Iterator[StreamEvent]:
        """A run's events from `after` on that have happened already."""
        try:
            yield from self._stream(run_id, after, silence_s=1.0)
        except (_NothingFollows, httpx.ReadTimeout):
            return
        except httpx.HTTPError as error:
            raise ServerUnreachable(self.url, _why(error)) from None

    def _stream(self, run_id: str, after: int | None, silence_s: float = _STREAM_SILENCE_S) -> Iterator[StreamEvent]:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        timeout = httpx.Timeout(30.0, read=silence_s)
        with self._http.stream("GET", f"{BASE}/runs/{run_id}/events", headers=headers, timeout=timeout) as response:
            self._answered = True
            if response.status_code == 204:
                raise _NothingFollows
            if response.status_code != 200:
                response.read()
                self._judge(response)
                return
            yield from stream_events(response.iter_lines())

    def _request(self, method: str, path: str, **options: Any) -> Json:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                response = self._once(method, path, **options)
                if (again_in_s := self._judge(response)) is None:
                    body: Json = response.json()
                    return body
                why = f"{response.status_code} {_error_of(response)[1]}"
            except ServerUnreachable as error:
                if not self._answered:
                    raise
                again_in_s, why = 0.5, error.why
            if time.monotonic() + again_in_s > deadline:
                raise ServerUnreachable(self.url, why)
            time.sleep(again_in_s)

    def _once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self.url, _why(error)) from None

    def _judge(self, response: httpx.Response) -> float | None:
        """None for a good answer, seconds to wait for "try again". Raises ApiRefused for any other."""
        if response.status_code in (429, 502, 503, 504):
            self._answered = True
            return _seconds(response.headers.get("Retry-After"))
        self._answered = True
        return None if response.is_success else _raise_refused(response)


def stream_events(lines: Iterator[str]) -> Iterator[StreamEvent]:
    """The events in an SSE body; comments and `retry:` are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif not line:
            if "data" in fields:
                number = int(fields["id"]) if "id" in fields else None
                yield StreamEvent(number, fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


def request_id() -> str:
    """A fresh idempotency key."""
    return Clock().token()


class _NothingFollows(Exception):
    """The stream has ended before, and we have read it to its end."""


def _raise_refused(response: httpx.Response) -> NoReturn:
    code, message, details = _error_of(response)
    raise ApiRefused(response.status_code, code, message, details)


def _error_of(response: httpx.Response) -> tuple[str, str, tuple[str, ...]]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return "", f"{response.status_code} {response.reason_phrase}", ()
    details = tuple(f"  {each.get('field')}: {each.get('message')}" for each in body.get("details") or ())
    return str(body.get("error", "")), str(body.get("message") or body.get("error") or response.reason_phrase), details


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.1, float(retry_after or 0.5))
    except ValueError:
        return 1.0


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
