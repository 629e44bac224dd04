"""Weights of tenants over HTTP, and in the journal."""

from __future__ import annotations

import httpx
import pytest

from orchestrator import codec
from orchestrator.cluster_views import TenantShare
from orchestrator.errors import ActorUnreachable
from orchestrator.records import TENANT_SHARES
from serve_app.shares import TenantShares
from tests.dags_requests import is_error
from tests.fakes_journal import MemoryJournal
from tests.unit.serve_app.conftest import BASE, Connect


class Scheduler:
    """The part of a control plane that is asked; `away` = it does not answer."""

    def __init__(self) -> None:
        self.told = 0
        self.away = False

    async def weights_changed(self) -> None:
        self.told += 1
        if self.away:
            raise ActorUnreachable("scheduler", "away")


async def test_a_weight_is_durable_also_when_the_scheduler_does_not_answer() -> None:
    journal, scheduler = MemoryJournal(), Scheduler()
    shares = TenantShares(journal, scheduler)  # type: ignore[arg-type]  # the part of it that is asked
    await shares.put("b", 3)
    scheduler.away = True
    await shares.put("a", 2)
    assert await shares.all() == [TenantShare("a", 2), TenantShare("b", 3)]
    await shares.put("a", 1)
    assert await journal.records(TENANT_SHARES) == {"b": codec.encode_share(3)}
    assert scheduler.told == 3


async def test_weights_are_set_and_listed(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/shares")).json() == {"items": []}
    assert (await admin.post("/shares", json={"tenant": "acme", "weight": 2})).json() == {"tenant": "acme", "weight": 2}
    assert (await admin.get("/shares")).json() == {"items": [{"tenant": "acme", "weight": 2}]}


@pytest.mark.parametrize(
    "body", [{}, {"tenant": "a"}, {"weight": 1}, {"tenant": "", "weight": 1}, {"tenant": "a", "weight": 0}]
)
async def test_a_share_without_a_tenant_and_a_weight_is_refused(
    admin: httpx.AsyncClient, body: dict[str, object]
) -> None:
    response = await admin.post("/shares", json=body)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


async def test_only_an_admin_sees_and_sets_weights(connect: Connect) -> None:
    client = connect("client")
    assert (await client.get(f"{BASE}/shares")).status_code == 403
    assert (await client.post(f"{BASE}/shares", json={"tenant": "a", "weight": 2})).status_code == 403


async def test_a_run_says_what_it_waits_for_to_its_tenant_alone(admin: httpx.AsyncClient) -> None:
    answer = (await admin.get("/runs/run_1/waiting")).json()
    assert (answer["waiting_for"], answer["run_class"], answer["share"]) == ("slot", "manual", 0.5)
    assert answer["items"][0]["reasons"] == ["pool gpu has no workers", "a worker slot of pool gpu"]
    assert (await admin.get("/runs/none/waiting")).status_code == 404


async def test_weights_are_the_operators_and_no_other_tenants_business(connect: Connect) -> None:
    other = connect("other")
    is_error(await other.get(f"{BASE}/shares"), 404, "not_found")
    is_error(await other.post(f"{BASE}/shares", json={"tenant": "other", "weight": 1000}), 404, "not_found")
    assert (await connect("admin").get(f"{BASE}/shares")).json() == {"items": []}
