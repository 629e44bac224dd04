"""The whole application over a gateway in memory, and callers of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.app import build_app
from serve_app.auth import Grant, Tokens, grant
from serve_app.options import ServerOptions
from tests.fakes_gateway import FakeClock, FakeGateway

BASE = "/api/v1/runtime/orchestrator"
TOKENS = {
    "admin": "an-admin-token-0000",
    "client": "a-client-token-0000",
    "worker": "a-worker-token-0000",
    "other": "other-tenants-token",
}
GRANTS: tuple[Grant, ...] = (
    *(grant(TOKENS[scope], scope) for scope in ("admin", "client", "worker")),
    grant(TOKENS["other"], "admin", tenant="other"),
)

Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def connect(gateway: FakeGateway, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Connect]:
    """Clients of one server: `connect("admin", rate_limit_rps=1)`; options count for the first one."""
    stack = AsyncExitStack()
    apps: list[Any] = []

    def open_client(who: str | None = "admin", **options: Any) -> httpx.AsyncClient:
        if not apps:
            given = {"home": str(tmp_path), "rate_limit_rps": 1e6, "rate_limit_burst": 10**6} | options
            apps.append(build_app(gateway, Tokens(GRANTS), ServerOptions(**given), clock))
        headers = {"Authorization": f"Bearer {TOKENS[who]}"} if who else {}
        transport = httpx.ASGITransport(app=apps[0])
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)
        stack.push_async_callback(client.aclose)
        return client

    async with stack:
        yield open_client


@pytest.fixture
async def admin(connect: Connect) -> httpx.AsyncClient:
    """An admin whose paths start at the surface."""
    client = connect("admin")
    client.base_url = httpx.URL(f"http://localhost{BASE}")
    return client
