"""Sockets stay open for days: that a token is taken back ends those that were opened with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from serve_app.app import build_app
from serve_app.auth import Grant, Tokens
from serve_app.options import ServerOptions
from tests.asgi_sockets import Dialled, talk
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_instances import FakeInstances
from tests.fakes_jobs import FakeJobs
from tests.unit.serve_app.conftest import GRANTS, TOKENS, X
from tests.virtual_time import virtually

EVENTS, COMMANDS = f"/api/orchestrators/{X}/events", "/_worker/ws/w1"
ADMIN = {"authorization": f"Bearer {TOKENS['admin']}"}


class Server:
    """All of its tokens are those of the file, which may become empty."""

    def __init__(self, home: Path, instances: FakeInstances, jobs: FakeJobs) -> None:
        self.revoked = False
        tokens = Tokens([replace(each, of_file=True) for each in GRANTS], self._changed)
        options = ServerOptions(home=str(home))
        self.app: ASGIApp = build_app(FakeGateway(), tokens, options, FakeClock(), instances=instances, jobs=jobs)

    def _changed(self) -> tuple[Grant, ...] | None:
        return () if self.revoked else None

    async def opened(self, path: str, headers: dict[str, str]) -> Dialled:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=ADMIN) as client:
            await client.post("/api/orchestrators", json={"plan": "demo"})
        return await talk(self.app, path, **headers)


@pytest.fixture
def server(tmp_path: Path, instances: FakeInstances, jobs: FakeJobs) -> Server:
    return Server(tmp_path, instances, jobs)


@pytest.mark.parametrize(("path", "headers"), [
    (EVENTS, ADMIN), (COMMANDS, {"x_worker_token": TOKENS["worker"]}), (COMMANDS, ADMIN),
])  # fmt: skip
def test_a_socket_ends_with_1008_within_half_a_minute_after_its_token_was_taken_back(
    server: Server, path: str, headers: dict[str, str]
) -> None:
    async def story() -> tuple[bool, int, float]:
        client = await server.opened(path, headers)
        await asyncio.sleep(100)
        was_over = client.task.done()
        server.revoked = True
        _, code = await client.rest()
        return was_over, code, asyncio.get_running_loop().time()

    was_over, code, end_s = virtually(story())
    assert (was_over, code) == (False, 1008)
    assert 100 <= end_s <= 130


def test_a_socket_of_nobody_in_particular_stays(server: Server) -> None:
    async def story() -> bool:
        client = await server.opened(EVENTS, {})
        server.revoked = True
        await asyncio.sleep(100)
        return client.task.done()

    assert not virtually(story())
