"""`orchestrator down` with open streams: each of them ends in good order, on every surface."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.dags_api import BASE, fresh, task
from tests.instances_api import frames_of
from tests.live import Server, serving
from tests.runs_api import Runs

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own: it is taken down."""
    with serving() as started:
        yield started


def test_open_streams_end_in_good_order_when_the_server_goes_away(server: Server) -> None:
    api, board = server.api(), server.board()
    name = fresh("long")
    api.define(name, task("a", kind="core.sleep", params={"seconds": 60}))
    run_id = api.trigger(name)["run_id"]
    instance_id = board.start(board.fresh_plan(), executor="slow", batch_size=1)
    taskless = Runs(server.url).create()
    paths = (f"{BASE}/runs/{run_id}/events", f"/runs/{taskless}/events", f"/api/orchestrators/{instance_id}/events-sse")
    with ThreadPoolExecutor(len(paths) + 1) as pool, board.socket(instance_id, "events") as socket:
        streams = [pool.submit(read_to_the_end, server, path) for path in paths]
        frames = pool.submit(lambda: list(frames_of(socket)))
        Runs(server.url).until(lambda: all(each.running() for each in streams))
        board.until(instance_id, lambda status: status["summary"]["in_progress"] > 0)
        server.down()
        assert all(each.result(timeout=20) for each in streams)
        assert frames.result(timeout=20)
        assert socket.close_code == 1012


def read_to_the_end(server: Server, path: str) -> str:
    """All of an open stream; raises when it breaks off without an end."""
    headers = {"Authorization": f"Bearer {server.tokens['admin']}"}
    with httpx.stream("GET", server.url + path, headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        return response.read().decode()
