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
from serve_app.clients import Agreement, Clients
from serve_app.options import ServerOptions
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_instances import FakeInstances
from tests.fakes_jobs import FakeJobs
from tests.fakes_live_runs import FakeLiveRuns
from tests.fakes_pipelines import FakePipelines

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

UNLIMITED = {"rate_limit_rps": 1e6, "rate_limit_burst": 10**6, "runs_rate_max": 10**6, "allow_bundles": True}
#: the first instance that is started
X = "orch-1767323045678"

Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def live_runs(clock: FakeClock) -> FakeLiveRuns:
    return FakeLiveRuns(clock=clock)


@pytest.fixture
def instances() -> FakeInstances:
    return FakeInstances()


@pytest.fixture
def pipelines() -> FakePipelines:
    return FakePipelines()


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def connect(
    gateway: FakeGateway,
    live_runs: FakeLiveRuns,
    instances: FakeInstances,
    pipelines: FakePipelines,
    jobs: FakeJobs,
    clock: FakeClock,
    tmp_path: Path,
) -> AsyncIterator[Connect]:
    """Clients of one server: `connect("admin", rate_limit_rps=1)`; options, grants, agreements count for the first."""
    stack = AsyncExitStack()
    apps: list[Any] = []

    def open_client(
        who: str | None = "admin",
        grants: tuple[Grant, ...] = GRANTS,
        agreements: tuple[Agreement, ...] = (),
        **options: Any,
    ) -> httpx.AsyncClient:
        if not apps:
            given = {"home": str(tmp_path), **UNLIMITED} | options
            apps.append(
                build_app(
                    gateway,
                    Tokens(grants),
                    ServerOptions(**given),
                    clock,
                    live_runs=live_runs,
                    instances=instances,
                    pipelines=pipelines,
                    jobs=jobs,
                    clients=Clients(agreements),
                )
            )
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


@pytest.fixture
def anybody(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine, without a token."""
    return connect(None)


@pytest.fixture
async def running(anybody: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same, once an instance works on the plan."""
    response = await anybody.post("/api/orchestrators", json={"plan": "demo", "executor": "echo"})
    assert (response.status_code, response.json()["id"]) == (201, X)
    return anybody


def told(response: httpx.Response, status: int, detail: Any) -> None:
    """The response is that refusal."""
    assert (response.status_code, response.json()) == (status, {"detail": detail})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
