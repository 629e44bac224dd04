"""Acceptance example 14 of contracts/dags.md: the rate limit, with its default settings and a second tenant.

On the application without a cluster (`build_app` over the in-memory gateway): the shared live server runs with a
limit that no test reaches, and the limit is the replica's own arithmetic.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest

from serve_app.app import build_app
from serve_app.auth import Grant, Tokens
from serve_app.options import ServerOptions
from tests.dags_api import BASE, refused
from tests.fakes_gateway import FakeClock, FakeGateway

TENANTS = {"default": "d" * 43, "other": "o" * 43}


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still unless a test moves it."""
    return FakeClock()


@pytest.fixture
def http(clock: FakeClock, tmp_path: Path) -> httpx.AsyncClient:
    """A client of the application with default limits: 10 requests a second, 20 at once."""
    grants = (
        Grant(hashlib.sha256(token.encode()).hexdigest(), tenant, ("admin",)) for tenant, token in TENANTS.items()
    )
    app = build_app(FakeGateway(), Tokens(grants), ServerOptions(home=str(tmp_path)), clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://127.0.0.1:8000{BASE}")


def of(tenant: str) -> dict[str, str]:
    """Headers of a request of `tenant`."""
    return {"Authorization": f"Bearer {TENANTS[tenant]}"}


async def test_thirty_requests_at_once_are_too_many_for_one_tenant_alone(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(http.get("/dags", headers=of("default")) for _ in range(30)))
    limited = [answer for answer in answers if answer.status_code == 429]
    assert len(limited) == 10
    for answer in limited:
        refused(answer, 429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
    assert {answer.status_code for answer in answers} == {200, 429}
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["20"] * 30
    assert (await http.get("/dags", headers=of("other"))).status_code == 200


async def test_a_tenant_may_ask_again_after_the_time_it_was_told(http: httpx.AsyncClient, clock: FakeClock) -> None:
    while (answer := await http.get("/dags", headers=of("default"))).status_code == 200:
        pass
    clock.seconds += int(answer.headers["retry-after"])
    allowed = [(await http.get("/dags", headers=of("default"))).status_code for _ in range(12)]
    assert allowed == [200] * 10 + [429] * 2


async def test_a_batch_counts_as_one_request(http: httpx.AsyncClient) -> None:
    answer = await http.post("/runs/batch", json={"runs": [{"dag_id": "x"}] * 100}, headers=of("default"))
    assert answer.headers["x-ratelimit-remaining"] == "19"


async def test_who_is_not_known_uses_up_nobodys_requests(http: httpx.AsyncClient) -> None:
    for _ in range(30):
        assert (await http.get("/dags")).status_code == 401
    assert (await http.get("/dags", headers=of("default"))).headers["x-ratelimit-remaining"] == "19"


async def test_shared_routes_are_never_limited(http: httpx.AsyncClient) -> None:
    root = {"url": "http://127.0.0.1:8000/ready"}
    assert {(await http.get(**root, headers=of("default"))).status_code for _ in range(50)} == {200}
