"""A real browser follows a run and an orchestrator, with plain EventSource and WebSocket, over the death of a replica.

The page is `tests/browser/follow.html`, served from another origin of this machine. It tells what it saw when it has
seen the end of both; what it saw is compared with what the server says happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import websockets

from tests.dags_api import Json
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAGE = Path(__file__).parents[1] / "browser" / "follow.html"
PATIENCE_S = 90.0
#: a page must not meet a browser's first-run questions, updates or GPU
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass
class Told:
    """What the page told."""

    progress: list[int] = field(default_factory=lambda: [0, 0])
    seen: Json | None = None
    changed: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def page() -> Iterator[tuple[str, Told]]:
    """Serves the page on loopback."""
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(PAGE.read_bytes() if self.path.startswith("/?") else b"")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/seen":
                told.seen = body
            else:
                told.progress = body
            told.changed.set()
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", told
    finally:
        server.shutdown()


@contextlib.contextmanager
def browser(url: str) -> Iterator[None]:
    """Debian's chromium, without a window, on that page."""
    if (path := shutil.which("chromium")) is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing")
        pytest.skip("chromium is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # it stays until it is ended: with a port for debugging, a headless browser does not leave when a page is loaded
        command = [path, *QUIET, "--remote-debugging-port=0", f"--user-data-dir={profile}", url]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            child.terminate()
            child.wait(20)


def until(told: Told, holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"the page saw {told.progress} and no more"
        told.changed.wait(1.0)
        told.changed.clear()


@pytest.fixture(scope="module", params=["1", "2"], ids=["one replica", "two replicas"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Servers of our own: their replicas are shot at."""
    with serving(environ={"ORCHESTRATOR_API_REPLICAS": request.param}) as started:
        yield started


def test_a_browser_sees_each_event_once_over_the_death_of_a_replica(server: Server) -> None:
    replicas = server.processes("ServeReplica")
    run_id, instance = start_run(server), start_instance(server)
    query = urlencode({"server": server.url, "run": run_id, "instance": instance})
    with page() as (url, told), browser(f"{url}?{query}"):
        until(told, lambda: told.progress[0] > 5 and told.progress[1] > 5)
        for process in replicas[:1]:
            process.kill()
        until(told, lambda: told.seen is not None)
    assert told.seen is not None
    listed = answered(f"{server.url}/runs/{run_id}/checkpoints")["checkpoints"]
    assert [each["id"] for each in told.seen["checkpoints"]] == [each["ts"] for each in listed]
    assert told.seen["seqs"] == list(range(1, len(told.seen["seqs"]) + 1))
    assert told.seen["seqs"] == asyncio.run(all_seqs(server, instance))
    if len(replicas) == 1:
        assert told.seen["opened"] > 1, "the stream was never cut"
        assert told.seen["sockets"] > 1, "the socket was never cut"


def start_run(server: Server) -> str:
    """A run of some seconds."""
    nodes = [{"id": f"t{n}", "type": "core.sleep", "params": {"seconds": 0.25}} for n in range(60)]
    made = httpx.post(f"{server.url}/runs", json={"plan": {"nodes": nodes, "edges": []}})
    assert made.status_code == 201, made.text
    run_id: str = made.json()["runId"]
    return run_id


def start_instance(server: Server) -> str:
    """An orchestrator at work for some seconds."""
    tasks = "\n".join(f"- [ ] 1.{n} Task {n}" for n in range(1, 13))
    plan = server.board().root / "docs" / "plans" / "browser.md"
    plan.write_text(f"# Implementation Plan: Browser\n## Phase 1: All\n{tasks}\n")
    body = {"plan": "browser", "executor": "slow", "batch_size": 4}
    made = httpx.post(f"{server.url}/api/orchestrators", json=body, timeout=30)
    assert made.status_code == 201, made.text
    instance: str = made.json()["id"]
    return instance


async def all_seqs(server: Server, instance: str) -> list[int]:
    """Every number there is."""
    url = f"{server.url.replace('http', 'ws')}/api/orchestrators/{instance}/events?since=0"
    found = []
    with contextlib.suppress(websockets.ConnectionClosed):
        async with websockets.connect(url) as socket:
            async for text in socket:
                found += [event["seq"] for event in [json.loads(text)] if "seq" in event]
    return found


def answered(url: str) -> Json:
    """The server's answer, once it gives one again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if (response := httpx.get(url, timeout=20)).status_code == 200:
                body: Json = response.json()
                return body
        assert time.monotonic() < deadline
        time.sleep(0.2)
