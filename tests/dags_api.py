"""The dags surface as one principal sees it, for tests: a thin client over httpx, event frames, builders.

Deliberately knows nothing of the product's own modules: what it understands is what the contract says.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

BASE = "/api/v1/runtime/orchestrator"
TERMINAL = frozenset({"success", "failed", "cancelled"})

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of an event stream, as the wire carried it."""

    id: int | None
    event: str
    data: Json


@dataclass(slots=True)
class Api:
    """The dags surface as one principal sees it. Paths are relative to the surface."""

    url: str
    token: str | None
    timeout_s: float = 20.0
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.http = httpx.Client(base_url=self.url + BASE, headers=headers, timeout=self.timeout_s)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET below the surface's base path."""
        return self.http.get(path, **options)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST of a JSON body; header names with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, json={} if body is None else body, headers=named)

    def define(self, dag_id: str, *tasks: Json, **more: Any) -> Json:
        """Defines a DAG with default owner; returns the answer."""
        body = {"dag_id": dag_id, "owner": "tests", "tasks": list(tasks), **more}
        return answered(self.post("/dags", body))

    def trigger(self, dag_id: str, **more: Any) -> Json:
        """Starts a run (`start`/`end` stand for `from`/`to`); returns the answer."""
        for ours, theirs in (("start", "from"), ("end", "to")):
            if ours in more:
                more[theirs] = more.pop(ours)
        return answered(self.post("/runs", {"dag_id": dag_id, **more}))

    def run(self, run_id: str) -> Json:
        """One run as it is now."""
        return answered(self.get(f"/runs/{run_id}"))

    def runs(self, **filters: Any) -> list[Json]:
        """Every run that matches, page by page."""
        items: list[Json] = []
        cursor: str | None = None
        while True:
            page = answered(self.get("/runs", params={**filters, **({"cursor": cursor} if cursor else {})}))
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def wait(self, run_id: str, *states: str, timeout_s: float = 30, every_s: float = 0.03) -> Json:
        """The run once it is in one of `states` (default: any terminal one)."""
        wanted = frozenset(states) or TERMINAL
        return self.until(run_id, lambda run: run["state"] in wanted, timeout_s, every_s)

    def until(self, run_id: str, holds: Callable[[Json], bool], timeout_s: float = 30, every_s: float = 0.03) -> Json:
        """The run once `holds(run)`; fails the test when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not holds(run := self.run(run_id)):
            assert time.monotonic() < deadline, f"still waiting after {timeout_s} s: {run}"
            time.sleep(every_s)
        return run

    def events(self, run_id: str, after: int | None = None, timeout_s: float = 60) -> list[Frame]:
        """All frames of a run's stream until the server ends it."""
        with self.stream(run_id, after, timeout_s) as frames:
            return list(frames)

    @contextlib.contextmanager
    def stream(self, run_id: str, after: int | None = None, timeout_s: float = 60) -> Iterator[Iterator[Frame]]:
        """An open event stream; comments are left out."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.http.stream("GET", f"/runs/{run_id}/events", headers=headers, timeout=timeout_s) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield frames_of(response.iter_lines())


def answered(response: httpx.Response, status: int = 200) -> Json:
    """The JSON body of a response that must have `status`."""
    assert response.status_code == status, (
        f"{response.request.method} {response.url}: {response.status_code} {response.text}"
    )
    body: Json = response.json()
    return body


def frames_of(lines: Iterator[str]) -> Iterator[Frame]:
    """Server-sent events by the rules of the WHATWG, as far as the surface uses them."""
    number: int | None = None
    name, data = "message", ""
    for line in lines:
        if not line:
            if data:
                yield Frame(number, name, json.loads(data))
            number, name, data = None, "message", ""
        elif not line.startswith(":"):
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "id":
                number = int(value)
            elif key == "event":
                name = value
            elif key == "data":
                data += value


def task(name: str, *needs: str, kind: str = "core.noop", **more: Any) -> Json:
    """One task of a definition."""
    how = {} if "entrypoint" in more else {"type": kind}
    return {"id": name, "depends_on": list(needs), **how, **more}


def fresh(name: str) -> str:
    """A DAG id nobody used before on this server."""
    return f"{name}_{secrets.token_hex(4)}"


def refused(response: httpx.Response, status: int, code: str) -> Json:
    """The body of a refusal, after checking everything all refusals have in common."""
    body = answered(response, status)
    assert body["error"] == code, body
    assert body["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def instant(text: str) -> datetime:
    """An RFC 3339 UTC instant of the dags surface."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text), text
    return datetime.fromisoformat(text)


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Results of `count` calls made in parallel."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def failing(api: Api) -> tuple[str, str]:
    """A failed run of a (fails for good) -> b, and c on its own."""
    name = fresh("failing")
    api.define(
        name,
        task("a", kind="core.fail", params={"permanent": True, "message": "boom"}, retries=3),
        task("b", "a"),
        task("c"),
    )
    run_id = api.trigger(name)["run_id"]
    run = api.wait(run_id)
    assert (run["state"], run["tasks"]) == ("failed", {"a": "failed", "b": "upstream_failed", "c": "done"})
    assert "boom" in run["error"]
    return name, run_id


def fresh_noop(api: Api) -> str:
    """A new DAG with one no-op task."""
    name = fresh("noop")
    api.define(name, task("a"))
    return name
