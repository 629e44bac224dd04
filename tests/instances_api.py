"""The instances surface as one caller sees it, for tests: HTTP, WebSockets and event streams, plans as files.

Deliberately knows nothing of the product's own modules: what it understands is what the contract says.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

Json = dict[str, Any]

#: the plan of the contract, section 6
DEMO = """\
# Implementation Plan: Demo
## Phase 1: Setup
**Execution Note:** Tasks 1.2-1.3 are [SEQUENTIAL] - same file
- [ ] 1.1 Create the folder
- [x] 1.2 Already done
- [ ] 1.3 Write the file (depends: 1.1, 1.2)
## Phase 2: Check
**Execution Note:** Phases 1-2 are [PARALLEL] - independent
- [ ] 2.1 Run the checks (depends: 1.3)
**VERIFY Phase 2:** all green (non-blocking)
"""

#: executors of the tests' server: `slow` takes 2 s a task, `brief` a moment
EXECUTORS = """\
slow: {kind: task, type: core.sleep, params: {seconds: 2}}
brief: {kind: task, type: core.sleep, params: {seconds: 0.02}}
"""

ENDED = frozenset({"stopped"})


def write_project(root: Path, executors: Path) -> None:
    """A plans root with the demo plan, and executors to name."""
    (root / "docs" / "plans").mkdir(parents=True)
    (root / "docs" / "plans" / "demo.md").write_text(DEMO)
    executors.write_text(EXECUTORS)


@dataclass(slots=True)
class Board:
    """One caller's view of instances and plans. `root` is the server's plans root."""

    url: str
    root: Path
    token: str | None = None
    timeout_s: float = 20.0
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=self.timeout_s)

    # -- plans

    def fresh_plan(self, text: str = DEMO) -> str:
        """The name of a plan that nobody has run yet."""
        name = f"demo-{secrets.token_hex(4)}"
        (self.root / "docs" / "plans" / f"{name}.md").write_text(text)
        return name

    def status_json(self, plan: str) -> Json:
        """The plan's status.json."""
        found: Json = json.loads((self.root / "docs" / "plan-outputs" / plan / "status.json").read_bytes())
        return found

    # -- instances

    def start(self, plan: str, **more: Any) -> str:
        """The id of a new instance on that plan."""
        answer = self.http.post("/api/orchestrators", json={"plan": plan, **more})
        info = answered(answer, 201)
        assert (info["plan_name"], info["status"]) == (plan, "running")
        instance_id: str = info["id"]
        return instance_id

    def get(self, instance_id: str, path: str = "") -> httpx.Response:
        """GET below an instance."""
        return self.http.get(f"/api/orchestrators/{instance_id}{path}")

    def command(self, instance_id: str, name: str, body: Json | None = None) -> httpx.Response:
        """A command to an instance."""
        return self.http.post(f"/api/orchestrators/{instance_id}/{name}", json=body)

    def status(self, instance_id: str) -> Json:
        """How far an instance is."""
        found: Json = answered(self.get(instance_id, "/status"))
        return found

    def task(self, instance_id: str, task_id: str) -> Json:
        """One task of it."""
        return next(each for each in self.status(instance_id)["tasks"] if each["id"] == task_id)

    def until(self, instance_id: str, holds: Callable[[Json], bool], timeout_s: float = 30) -> Json:
        """Its status once `holds(status)`; fails the test when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not holds(status := self.status(instance_id)):
            assert time.monotonic() < deadline, f"still waiting after {timeout_s} s: {status}"
            time.sleep(0.05)
        return status

    def ended(self, instance_id: str, timeout_s: float = 30) -> Json:
        """Its status once it has stopped."""
        return self.until(instance_id, lambda status: status["status"] in ENDED, timeout_s)

    # -- events

    def socket(self, instance_id: str, kind: str) -> ClientConnection:
        """An open WebSocket; a context manager. `kind` may have a query."""
        url = f"{self.url.replace('http', 'ws', 1)}/api/orchestrators/{instance_id}/{kind}"
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return connect(url, additional_headers=headers, proxy=None)

    @contextlib.contextmanager
    def stream(self, instance_id: str, last_event_id: int | None = None) -> Iterator[Iterator[Event]]:
        """An open event stream; comments are left out."""
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        path = f"/api/orchestrators/{instance_id}/events-sse"
        with self.http.stream("GET", path, headers=headers, timeout=60) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield events_of(response.iter_lines())


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, as the wire carried it."""

    id: int | None
    name: str
    data: Json


def events_of(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events by the rules of the WHATWG, as far as the surface uses them."""
    number: int | None = None
    name, data = "message", ""
    for line in lines:
        key, _, value = line.partition(": ")
        if not line:
            if data:
                yield Event(number, name, json.loads(data))
            number, name, data = None, "message", ""
        elif key == "id":
            number = int(value)
        elif key == "event":
            name = value
        elif key == "data":
            data += value


def frames_of(socket: ClientConnection, timeout_s: float = 30) -> Iterator[Json]:
    """Frames of a socket until the server closes it; fails the test after so long without one."""
    while (frame := next_frame(socket, timeout_s)) is not None:
        yield frame


def next_frame(socket: ClientConnection, timeout_s: float = 30) -> Json | None:
    """The next frame; None when the server has closed."""
    try:
        text = socket.recv(timeout=timeout_s)
    except ConnectionClosed:
        return None
    assert isinstance(text, str), "frames are text"
    frame: Json = json.loads(text)
    return frame


def answered(response: httpx.Response, status: int = 200) -> Any:
    """The JSON body of a response that must have `status`."""
    where = f"{response.request.method} {response.url}"
    assert response.status_code == status, f"{where}: {response.status_code} {response.text}"
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.json()


def told(response: httpx.Response, status: int, detail: str) -> None:
    """The response is that refusal."""
    assert answered(response, status) == {"detail": detail}


def instant(text: str) -> datetime:
    """A time of the instances surface: UTC, six digits."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text), text
    return datetime.fromisoformat(text)
