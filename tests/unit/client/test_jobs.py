"""Jobs of blueprints as a client asks for them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestrator.client import Conflicting, ServerUnreachable
from tests.unit.client.conftest import Both, FakeClock, Wire, refusal

BUSY = refusal(503, {"Retry-After": "0"}, error="Service unavailable")
CUT = httpx.ReadError("cut")


@pytest.mark.parametrize(("given", "path"), [
    ({"endpoint": "/jobs/simple_flow"}, "/api/v1/jobs/simple_flow"),
    ({"endpoint": "jobs/simple_flow", "version": "v2"}, "/api/v2/jobs/simple_flow"),
    ({"endpoint": "/flow", "version": None}, "/api/flow"),
])  # fmt: skip
def test_a_job_is_created_at_the_endpoint_of_its_blueprint(
    client: Both, wire: Wire, given: dict[str, Any], path: str
) -> None:
    wire.on(f"POST {path}", httpx.Response(202, json={"status": "accepted", "job_id": "j"}))
    assert client("jobs.create", **given) == "j"
    assert wire.bodies() == [{"initial_data": {}}]


def test_a_creation_is_repeated_under_its_key_when_its_answer_is_lost(client: Both, wire: Wire) -> None:
    wire.on("POST /api/v1/flow", BUSY, CUT, httpx.Response(202, json={"status": "accepted", "job_id": "j"}))
    assert client("jobs.create", "/flow", {"clip": "a"}, webhook_url="https://x.example/h") == "j"
    assert wire.bodies() == [{"initial_data": {"clip": "a"}, "webhook_url": "https://x.example/h"}] * 3
    assert wire.headers("idempotency-key") == ["key-1"] * 3
    client("jobs.create", "/flow", key="k")
    assert wire.headers("idempotency-key")[-1] == "k"


def test_a_job_is_cancelled_approved_and_looked_at(client: Both, wire: Wire) -> None:
    wire.on("POST /api/v1/jobs/j/cancel", BUSY, CUT, {"status": "cancellation_request_accepted"})
    assert client("jobs.cancel", "j") == "cancellation_request_accepted"
    wire.on("POST /_public/webhooks/approval/j", {"status": "approval_received", "job_id": "j"})
    assert client("jobs.approve", "j", "approved") is None
    assert wire.bodies()[-1] == {"decision": "approved"}
    wire.on("GET /api/v1/jobs/j/history", [{"event_type": "job_created"}])
    assert client("jobs.history", "j") == [{"event_type": "job_created"}]
    wire.on("GET /api/v1/jobs", [])
    assert client("jobs.list", status="failed", limit=5, offset=10) == []
    assert dict(wire.asked[-1].url.params) == {"status": "failed", "limit": "5", "offset": "10"}
    for method in ("workers", "blueprints", "dashboard"):
        wire.on(f"GET /api/v1/{method}", [method])
        assert client(f"jobs.{method}") == [method]
    wire.on("GET /api/v1/blueprints/b/graph", httpx.Response(200, text="digraph {}"))
    assert client("jobs.graph", "b") == "digraph {}"


def test_a_job_is_released_and_its_webhooks_are_looked_at(client: Both, wire: Wire) -> None:
    wire.on("POST /api/v1/jobs/j/release", {"status": "released", "job_id": "j"})
    assert client("jobs.release", "j") is None
    wire.on("GET /api/v1/webhooks", [{"id": "msg_j"}])
    assert client("jobs.webhooks", status="dead", limit=5) == [{"id": "msg_j"}]
    assert dict(wire.asked[-1].url.params) == {"status": "dead", "limit": "5"}
    wire.on("POST /api/v1/webhooks/msg_j/retry", {"id": "msg_j", "status": "pending"})
    assert client("jobs.retry_webhook", "msg_j") == {"id": "msg_j", "status": "pending"}


@pytest.mark.parametrize(("asked", "path"), [
    (("jobs.approve", "j", "approved"), "/_public/webhooks/approval/j"),
    (("jobs.release", "j"), "/api/v1/jobs/j/release"),
    (("jobs.retry_webhook", "j"), "/api/v1/webhooks/j/retry"),
])  # fmt: skip
def test_what_cannot_be_told_from_somebody_elses_doing_is_not_repeated(
    client: Both, wire: Wire, asked: tuple[str, ...], path: str
) -> None:
    wire.on(f"POST {path}", CUT)
    with pytest.raises(ServerUnreachable):
        client(*asked)
    assert len(wire.asked) == 1


def test_a_refusal_tells_what_is_so(client: Both, wire: Wire) -> None:
    message = "Job is not in a state that can be cancelled (status: finished)."
    wire.on("POST /api/v1/jobs/j/cancel", refusal(409, error=message))
    with pytest.raises(Conflicting, match="status: finished"):
        client("jobs.cancel", "j")


def test_a_job_is_waited_for(client: Both, wire: Wire, clock: FakeClock) -> None:
    wire.on("GET /api/v1/jobs/j", {"id": "j", "status": "waiting_for_worker"}, {"id": "j", "status": "quarantined"})
    assert client("jobs.wait", "j")["status"] == "quarantined"
    assert clock.waits == [0.1]
