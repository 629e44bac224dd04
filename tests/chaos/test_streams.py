"""Twenty readers of one run of 10,000 events, while the API replica and the run's actor are killed.

Each reader's ids, over all its connections, are exactly the log's: none missing, none twice, in order. The seed is
printed; `CHAOS_SEED=<n>` repeats it.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException

import httpx
import pytest

from tests.chaos.monkey import Monkey
from tests.live import Server, serving

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.slow]
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
READERS, TASKS = 20, 5000
PATIENCE_S = 120.0
_CHECKPOINT = re.compile(rb"id: (\S+)\nevent: checkpoint\n")
_END = b'"type":"completed"'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: it is shot at."""
    with serving() as started:
        yield started


def test_every_reader_sees_each_event_once_whoever_dies(server: Server) -> None:
    nodes = [{"id": f"t{n}", "type": "core.sleep", "params": {"seconds": 0.002}} for n in range(TASKS)]
    run_id = httpx.post(f"{server.url}/runs", json={"plan": {"nodes": nodes, "edges": []}}, timeout=30).json()["runId"]
    replica, actor = Monkey(server, "API replica", SEED), Monkey(server, "run actor", SEED + 1)
    with ThreadPoolExecutor(READERS) as pool, replica.at_work(1, 3.0), actor.at_work(2, 3.0):
        readers = [pool.submit(follow, server.url, run_id) for _ in range(READERS)]
        seen = [reader.result(PATIENCE_S + 30) for reader in readers]
    listed = httpx.get(f"{server.url}/runs/{run_id}/checkpoints", timeout=60).json()["checkpoints"]
    ids = [each["ts"] for each in listed]
    assert len(ids) > 2 * TASKS
    assert ids == sorted(set(ids))
    assert [len(each) for each, _ in seen] == [len(ids)] * READERS
    assert all(each == ids for each, _ in seen)
    assert max(connections for _, connections in seen) > 1, "no stream was cut"


def follow(url: str, run_id: str) -> tuple[list[str], int]:
    """Ids of all checkpoints until the end of the run, and over how many connections they came."""
    ids: list[str] = []
    connections = 0
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(OSError, HTTPException):
            for frames in stream(url, run_id, ids[-1] if ids else "2000-01-01T00:00:00Z"):
                connections += frames == b""
                ids += [each.decode() for each in _CHECKPOINT.findall(frames)]
                if _END in frames:
                    return ids, connections
        time.sleep(0.2)
    raise TimeoutError(f"no end after {len(ids)} checkpoints")


def stream(url: str, run_id: str, after: str) -> Iterator[bytes]:
    """Whole frames as they come; nothing at first, once the stream is there."""
    with closing(HTTPConnection(url.rpartition("//")[2], timeout=20)) as connection:
        connection.request("GET", f"/runs/{run_id}/events", headers={"Last-Event-ID": after})
        response = connection.getresponse()
        if response.status != 200:
            raise ConnectionError(response.status)
        yield b""
        rest = b""
        while more := response.read1(1 << 18):
            whole, cut, rest = (rest + more).rpartition(b"\n\n")
            if cut:
                yield whole + cut
