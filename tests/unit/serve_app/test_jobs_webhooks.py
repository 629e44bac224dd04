"""The log of webhooks and their retry over HTTP, over an outbox in memory."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestrator.webhook import DEAD, DELIVERED, PENDING, Delivery, Try
from tests.fakes_gateway import EPOCH
from tests.fakes_jobs import FakeJobs
from tests.jobs_surface import CLIENT, UNKNOWN, is_error
from tests.unit.serve_app.conftest import TOKENS, Connect

AT = "2026-01-02T03:04:05.678000+00:00"


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """A client of the default tenant."""
    found = connect(None)
    found.headers.update(CLIENT)
    return found


def delivery(number: int, state: str = PENDING, tenant: str = "default", **more: Any) -> Delivery:
    return Delivery(
        id=f"msg_{number}",
        tenant=tenant,
        client="acme",
        url="https://example.com/hook",
        event="job_failed",
        about=UNKNOWN,
        created_at=EPOCH,
        state=state,
        **more,
    )


async def test_a_webhook_has_every_key_and_the_log_of_its_attempts(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    log = (Try(EPOCH, status=500), Try(EPOCH, error="no answer within 10 s"))
    jobs.outbox = [delivery(1, DEAD, attempts=6, ended_at=EPOCH, next_at=EPOCH, log=log), delivery(2)]
    dead, fresh = (await client.get("/api/v1/webhooks")).json()
    assert dead == {
        "id": "msg_1",
        "event": "job_failed",
        "job_id": UNKNOWN,
        "url": "https://example.com/hook",
        "status": "dead",
        "attempt_count": 6,
        "attempts": [
            {"timestamp": AT, "status_code": 500, "error": None},
            {"timestamp": AT, "status_code": None, "error": "no answer within 10 s"},
        ],
        "created_at": AT,
        "next_attempt_at": AT,
        "ended_at": AT,
    }
    assert (fresh["status"], fresh["attempts"], fresh["next_attempt_at"], fresh["ended_at"]) == (
        *("pending", [], None, None),
    )


async def test_webhooks_are_listed_by_tenant_and_status(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.outbox = [delivery(3, DEAD), delivery(2, DELIVERED), delivery(1), delivery(4, tenant="t2")]

    async def listed(query: str, **headers: str) -> list[str]:
        return [each["id"] for each in (await client.get(f"/api/v1/webhooks{query}", headers=headers)).json()]

    assert await listed("") == ["msg_3", "msg_2", "msg_1"]
    assert await listed("?limit=2") == ["msg_3", "msg_2"]
    assert [await listed(f"?status={each}") for each in ("dead", "delivered", "pending")] == [
        *(["msg_3"], ["msg_2"], ["msg_1"]),
    ]
    assert "msg_1" not in await listed("", **{"X-Client-Token": TOKENS["other"]})


@pytest.mark.parametrize(
    ("query", "text"),
    [
        *((f"status={each}", "Invalid status") for each in ("", "lost", "DEAD")),
        *((f"limit={each}", "Invalid limit") for each in ("", "0", "1001", "x", "-1")),
    ],
)
async def test_a_list_that_cannot_be_is_refused(client: httpx.AsyncClient, query: str, text: str) -> None:
    is_error(await client.get(f"/api/v1/webhooks?{query}"), 400, text)


async def test_a_dead_webhook_is_tried_again_once(client: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.outbox = [delivery(1, DEAD, attempts=6), delivery(2, DELIVERED), delivery(3, DEAD, tenant="t2")]
    response = await client.post("/api/v1/webhooks/msg_1/retry")
    assert (response.status_code, response.json()["status"], response.json()["attempt_count"]) == (200, "pending", 0)
    is_error(await client.post("/api/v1/webhooks/msg_1/retry"), 409, "Webhook is not dead (status: pending).")
    is_error(await client.post("/api/v1/webhooks/msg_2/retry"), 409, "Webhook is not dead (status: delivered).")
    for unknown in ("msg_3", "msg_9", "%00", "x" * 200):
        is_error(await client.post(f"/api/v1/webhooks/{unknown}/retry"), 404, "Webhook not found")
