"""The runs surface as one caller sees it, for tests: a thin client over httpx, and its event streams.

Deliberately knows nothing of the product's own modules: what it understands is what the contract says.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.runs_schemas import PATHS, Schemas

ENDED = frozenset({"completed", "failed", "canceled"})

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two empty lines of a stream: an event, or a comment."""

    lines: tuple[str, ...]

    @property
    def id(self) -> str | None:
        return self._value("id")

    @property
    def event(self) -> str | None:
        return self._value("event")

    @property
    def data(self) -> Json:
        parsed: Json = json.loads(self._value("data") or "null")
        return parsed

    @property
    def names(self) -> list[str]:
        """Names of its fields in their order; of a comment, the empty one."""
        return [line.partition(":")[0] for line in self.lines]

    def _value(self, name: str) -> str | None:
        return next((line[len(name) + 2 :] for line in self.lines if line.startswith(f"{name}: ")), None)


@dataclass(slots=True)
class Runs:
    """The runs surface as one caller sees it; without headers, somebody on this machine."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 20.0
    #: within which a command is answered and its event is there
    prompt_s: float = 1.0
    http: httpx.Client = field(init=False)
    schemas: Schemas = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, headers=self.headers, timeout=self.timeout_s)
        self.schemas = Schemas({path: self.http.get(path).text for path in PATHS.values()})

    def create(self, body: Any = None, **options: Any) -> str:
        """The id of a new run."""
        content = None if body is None else json.dumps(body).encode()
        answer = answered(self.http.post("/runs", content=content, **options), 201)
        assert set(answer) == {"runId"}
        run_id: str = answer["runId"]
        return run_id

    def run(self, run_id: str) -> Json:
        """One run as it is now."""
        answer = answered(self.http.get(f"/runs/{run_id}"))
        assert set(answer) == {"run"}
        run: Json = self.schemas.check("run", answer["run"])
        return run

    def checkpoints(self, run_id: str, **query: Any) -> list[Json]:
        """Its checkpoints, oldest first."""
        answer = answered(self.http.get(f"/runs/{run_id}/checkpoints", params=query))
        assert (set(answer), answer["runId"]) == ({"runId", "checkpoints"}, run_id)
        return [self.schemas.check("checkpoint", each) for each in answer["checkpoints"]]

    def kinds(self, run_id: str) -> list[str]:
        """Types of its checkpoints, oldest first."""
        return [each["type"] for each in self.checkpoints(run_id)]

    def post(self, run_id: str, kind: str, **data: Any) -> httpx.Response:
        """POST of a checkpoint; `data=` is its data."""
        return self.http.post(f"/runs/{run_id}/checkpoints", json={"type": kind, **data})

    def cancel(self, run_id: str) -> httpx.Response:
        """DELETE of the run."""
        return self.http.delete(f"/runs/{run_id}")

    def until(self, holds: Callable[[], bool], timeout_s: float = 30, every_s: float = 0.02) -> None:
        """Returns once `holds()`; fails the test when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"still waiting after {timeout_s} s"
            time.sleep(every_s)

    def ended(self, run_id: str, timeout_s: float = 30) -> Json:
        """The run, once it has ended."""
        self.until(lambda: self.run(run_id)["status"] in ENDED, timeout_s)
        return self.run(run_id)

    @contextlib.contextmanager
    def stream(self, run_id: str, *, timeout_s: float = 20, **options: Any) -> Iterator[Iterator[Block]]:
        """An open stream; every event in it keeps to the published schema."""
        path = f"/runs/{run_id}/events"
        with self.http.stream("GET", path, timeout=timeout_s, **options) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert response.headers["cache-control"] == "no-cache"
            assert response.headers["x-accel-buffering"] == "no"
            assert response.headers["x-request-id"]
            yield self._blocks(response.iter_lines())

    def _blocks(self, lines: Iterator[str]) -> Iterator[Block]:
        gathered: list[str] = []
        for line in lines:
            if line:
                gathered.append(line)
                continue
            block = Block(tuple(gathered))
            gathered.clear()
            if block.event is not None:
                self.schemas.check("event", {"type": block.event, "data": block.data})
            yield block


def answered(response: httpx.Response, status: int = 200) -> Json:
    """The JSON body of a response that must have `status`."""
    assert response.status_code == status, (
        f"{response.request.method} {response.url}: {response.status_code} {response.text}"
    )
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body: Json = response.json()
    return body


def refused(response: httpx.Response, status: int, error: str, **more: Any) -> None:
    """The response is that refusal and says nothing else."""
    assert answered(response, status) == {"error": error, **more}


def take(blocks: Iterator[Block], count: int) -> list[Block]:
    """The next `count` events; comments are left out."""
    events = (block for block in blocks if block.event is not None)
    return [next(events) for _ in range(count)]


def in_order(wanted: list[str], kinds: list[str]) -> bool:
    """Do `wanted` stand in `kinds` in this order, whatever is between them?"""
    rest = iter(kinds)
    return all(each in rest for each in wanted)
