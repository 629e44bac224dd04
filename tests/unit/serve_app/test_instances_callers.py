"""Who may ask the instances surface, by which token, from which page (contracts/README.md 4)."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from serve_app.surfaces.instances.routes import ENDPOINTS
from tests.unit.serve_app.conftest import TOKENS, Connect, X, told

ONE = f"/api/orchestrators/{X}"
BODIES: dict[str, Any] = {
    "start_orchestrator": {"plan": "demo"},
    "skip_task": {"task_id": "2.1"},
    "retry_task": {"task_id": "2.1"},
}
EVERY_PATH = [
    (method, path.format(instance_id=X, plan_name="demo", task_id="1.1"), scope, BODIES.get(name))
    for method, path, scope, _, name in ENDPOINTS
    if name != "sse_events"
]


@pytest.mark.parametrize(("method", "path", "scope", "body"), EVERY_PATH)
async def test_off_loopback_every_endpoint_wants_a_token_and_its_scope(
    connect: Connect, method: str, path: str, scope: str, body: Any
) -> None:
    nobody = await connect(None, host="0.0.0.0").request(method, path, json=body)
    told(nobody, 401, "Not authenticated")
    assert nobody.headers["www-authenticate"] == "Bearer"
    told(await connect("worker").request(method, path, json=body), 403, "Not enough permissions")
    as_client = await connect("client").request(method, path, json=body)
    assert (as_client.status_code == 403) is (scope == "admin")
    assert (await connect("admin").request(method, path, json=body)).status_code not in (401, 403)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(("headers", "status"), [
    ({"Authorization": f"Bearer {TOKENS['client']}"}, 200),
    ({"x-api-key": TOKENS["client"]}, 200),
    ({"Authorization": basic(TOKENS["client"])}, 200),
    # the first that is present counts
    ({"Authorization": "Bearer wrong", "x-api-key": TOKENS["client"]}, 401),
    ({"Authorization": basic("wrong"), "x-api-key": TOKENS["client"]}, 200),
    ({"Authorization": basic(TOKENS["client"]), "x-api-key": "wrong"}, 401),
    ({"Authorization": "Basic no-base64!"}, 401), ({"Authorization": f"Digest {TOKENS['client']}"}, 401),
    ({"x-api-key": ""}, 401), ({}, 401),
])  # fmt: skip
async def test_a_token_comes_in_one_of_three_headers(connect: Connect, headers: dict[str, str], status: int) -> None:
    client = connect(None, host="0.0.0.0")
    assert (await client.get("/api/plans", headers=headers)).status_code == status


async def test_a_token_in_the_query_counts_for_streams_only(connect: Connect) -> None:
    client = connect(None, host="0.0.0.0")
    query = {"api_key": TOKENS["client"]}
    told(await client.get("/api/plans", params=query), 401, "Not authenticated")
    told(await client.get(f"{ONE}/events-sse"), 401, "Not authenticated")
    told(await client.get(f"{ONE}/events-sse", params=query), 404, f"Orchestrator '{X}' not found")


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=1.2.3.4"},
])  # fmt: skip
async def test_anonymity_ends_at_a_proxy_and_at_a_foreign_host_name(
    anybody: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await anybody.get("/api/plans")).status_code == 200
    told(await anybody.get("/api/plans", headers=headers), 401, "Not authenticated")


async def test_anonymity_can_be_turned_off(connect: Connect) -> None:
    told(await connect(None, allow_anonymous=False).get("/api/plans"), 401, "Not authenticated")


async def test_on_loopback_a_valid_token_counts_and_an_invalid_one_is_ignored(connect: Connect) -> None:
    other = await connect("other").get("/api/plans")
    assert (other.status_code, other.json()) == (200, [])
    told(await connect("worker").get("/api/plans"), 403, "Not enough permissions")
    ignored = await connect(None).get("/api/plans", headers={"Authorization": "Bearer wrong"})
    assert [each["name"] for each in ignored.json()] == ["demo"]


async def test_a_foreign_page_sends_no_command_anonymously(running: httpx.AsyncClient, connect: Connect) -> None:
    evil = {"Origin": "https://evil.example"}
    told(await running.post(f"{ONE}/shutdown", headers=evil), 401, "Not authenticated")
    assert (await running.get(ONE, headers=evil)).json()["status"] == "running"
    assert (await running.post(f"{ONE}/pause", headers={"Origin": "http://localhost:3000"})).status_code == 200
    assert (await connect("client").post(f"{ONE}/pause", headers=evil)).status_code == 200


async def test_another_tenants_instances_do_not_exist(running: httpx.AsyncClient, connect: Connect) -> None:
    other = connect("other")
    assert (await other.get("/api/orchestrators")).json() == []
    for path in (ONE, f"{ONE}/status", f"{ONE}/events-sse"):
        told(await other.get(path), 404, f"Orchestrator '{X}' not found")
    told(await other.post(f"{ONE}/pause"), 404, f"Orchestrator '{X}' not found")
    told(await other.get("/api/plans/demo/status"), 404, "Plan 'demo' not found")


@pytest.mark.parametrize(("origins", "origin", "credentials"), [
    ((), "http://localhost:3000", "true"), (("https://app.example",), "https://app.example", "true"),
    (("*",), "https://any.example", None),
])  # fmt: skip
async def test_allowed_origins_may_send_credentials_here_and_listed_ones_everywhere(
    connect: Connect, origins: tuple[str, ...], origin: str, credentials: str | None
) -> None:
    client = connect("admin", cors_origins=origins)
    here = await client.get("/api/plans", headers={"Origin": origin})
    assert here.headers.get("access-control-allow-credentials") == credentials
    assert here.headers["access-control-allow-origin"] in (origin, "*")
    preflight = await client.options(
        f"{ONE}/pause", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    assert (preflight.status_code, preflight.headers.get("access-control-allow-credentials")) == (200, credentials)
    elsewhere = await client.get("/health", headers={"Origin": origin})
    assert elsewhere.headers.get("access-control-allow-credentials") == (credentials if origins else None)
