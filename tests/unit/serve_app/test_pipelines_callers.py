"""Who may ask the pipelines surface, by which token, with which scope (contracts/pipelines.md 4, README 4)."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from serve_app.surfaces.pipelines.routes import ENDPOINTS
from tests.unit.serve_app.conftest import TOKENS, Connect

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NAMES = {"{job_id}": UNKNOWN, "{pipeline_id}": UNKNOWN, "{runner_id:path}": "r1", "{name}": "log"}
WORKER = {
    "register_runner", "heartbeat", "list_scheduled_jobs", "claim_job", "execute_job", "set_job_status",
    "complete_job", "send_logs",
}  # fmt: skip
ADMIN = {"delete_runner", "delete_pipeline"}
LIST = "/api/pipeline/list"


def filled(path: str) -> str:
    for name, value in NAMES.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize(("method", "path", "name"), [(each[0], filled(each[1]), each[4]) for each in ENDPOINTS])
async def test_off_loopback_every_endpoint_wants_a_token_and_its_scope(
    connect: Connect, method: str, path: str, name: str
) -> None:
    nobody = await connect(None, host="0.0.0.0").request(method, path)
    assert (nobody.status_code, nobody.json()) == (401, {"error": "Unauthorized"})
    assert nobody.headers["www-authenticate"] == "Bearer"
    scopes = {"worker"} if name in WORKER else set() if name in ADMIN else {"client"}
    for who in ("worker", "client", "admin"):
        response = await connect(who).request(method, path)
        assert (response.status_code == 403) is (who not in scopes | {"admin"}), who
        if response.status_code == 403:
            assert response.json() == {"error": "Forbidden"}


async def test_health_needs_no_token_anywhere(connect: Connect) -> None:
    client = connect(None, host="0.0.0.0", allow_anonymous=False)
    assert (await client.get("/api/health")).text == "OK"
    for path in ("/api/jobs/x/y/z", "/api/pipeline"):
        assert (await client.get(path)).json() == {"error": "Unauthorized"}


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"runner:{password}".encode()).decode()


@pytest.mark.parametrize(("headers", "status"), [
    ({"Authorization": f"Bearer {TOKENS['client']}"}, 200),
    ({"X-Runner-Token": TOKENS["client"]}, 200),
    ({"Authorization": basic(TOKENS["client"])}, 200),
    # the first that is present counts
    ({"Authorization": "Bearer wrong", "X-Runner-Token": TOKENS["client"]}, 401),
    ({"Authorization": basic("wrong"), "X-Runner-Token": TOKENS["client"]}, 200),
    ({"Authorization": basic(TOKENS["client"]), "X-Runner-Token": "wrong"}, 401),
    ({"Authorization": "Basic no-base64!"}, 401), ({"Authorization": f"Digest {TOKENS['client']}"}, 401),
    ({"x-api-key": TOKENS["client"]}, 401), ({"X-Runner-Token": ""}, 401), ({}, 401),
])  # fmt: skip
async def test_a_token_comes_in_one_of_three_headers(connect: Connect, headers: dict[str, str], status: int) -> None:
    client = connect(None, host="0.0.0.0")
    assert (await client.get(LIST, headers=headers)).status_code == status


async def test_a_stock_runner_may_carry_its_token_in_the_address(connect: Connect) -> None:
    client = connect(None, host="0.0.0.0")
    response = await client.get("http://localhost/api/jobs/scheduled", auth=httpx.BasicAuth("runner", TOKENS["worker"]))
    assert (response.status_code, response.json()) == (200, [])


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=1.2.3.4"},
])  # fmt: skip
async def test_anonymity_ends_at_a_proxy_and_at_a_foreign_host_name(
    anybody: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await anybody.get(LIST)).status_code == 200
    assert (await anybody.get(LIST, headers=headers)).status_code == 401


async def test_anonymity_can_be_turned_off(connect: Connect) -> None:
    assert (await connect(None, allow_anonymous=False).get(LIST)).status_code == 401


async def test_on_loopback_a_valid_token_counts_and_an_invalid_one_is_ignored(connect: Connect) -> None:
    assert (await connect("worker").get(LIST)).json() == {"error": "Forbidden"}
    assert (await connect(None).get(LIST, headers={"Authorization": "Bearer wrong"})).status_code == 200


async def test_a_foreign_page_sends_no_command_anonymously(anybody: httpx.AsyncClient, connect: Connect) -> None:
    body, evil = {"runner_id": "r1"}, {"Origin": "https://evil.example"}
    path = "/api/runners/register"
    assert (await anybody.post(path, json=body, headers=evil)).status_code == 401
    assert (await anybody.get("/api/runners", headers=evil)).json() == []
    assert (await anybody.post(path, json=body, headers={"Origin": "http://localhost:3000"})).status_code == 200
    assert (await connect("worker").post(path, json=body, headers=evil)).status_code == 200


async def test_another_tenants_pipelines_do_not_exist(anybody: httpx.AsyncClient, connect: Connect) -> None:
    created: dict[str, Any] = (await anybody.post("/api/pipeline/create", json={"script": "return {}"})).json()
    other = connect("other")
    assert (await other.get(LIST)).json() == []
    for method in ("GET", "DELETE"):
        response = await other.request(method, f"/api/pipeline/{created['id']}")
        assert (response.status_code, response.json()) == (404, {"error": f"Pipeline {created['id']} not found"})
