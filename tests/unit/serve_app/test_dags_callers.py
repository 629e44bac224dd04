"""The dags surface: who may ask, how often and how, and what goes wrong behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from orchestrator import errors
from serve_app.surfaces.dags.routes import ENDPOINTS
from tests.dags_requests import BACKFILL, DAG, JSON, define, is_error, start
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.unit.serve_app.conftest import BASE, Connect

EVERY_PATH = [
    (
        method,
        path.replace(":path", "").format(
            dag_id="sales_gdp",
            run_id="run_9",
            task="extract",
            worker_id="w",
            name="go",
            event_id="e",
            asset="a",
            bundle="0" * 64,
        ),
        scope,
    )
    for method, path, scope, _ in ENDPOINTS
]


# -- who may ask


@pytest.mark.parametrize(("method", "path", "scope"), EVERY_PATH)
async def test_every_endpoint_wants_a_token_and_its_scope(connect: Connect, method: str, path: str, scope: str) -> None:
    nobody = await connect(None).request(method, BASE + path)
    is_error(nobody, 401, "unauthorized")
    assert nobody.headers["www-authenticate"] == "Bearer"
    is_error(await connect("worker").request(method, BASE + path), 403, "forbidden")
    as_client = await connect("client").request(method, BASE + path)
    assert (as_client.status_code == 403) is (scope == "admin")
    assert (await connect("admin").request(method, BASE + path)).status_code not in (401, 403)


async def test_a_backfill_needs_admin_but_its_dry_run_does_not(connect: Connect, admin: httpx.AsyncClient) -> None:
    await define(admin)
    client = connect("client")
    refused = is_error(await client.post(f"{BASE}/runs", json=BACKFILL), 403, "forbidden")
    assert refused["message"] == "scope admin required"
    assert (await client.post(f"{BASE}/runs", json={**BACKFILL, "dry_run": True})).status_code == 200
    assert (await client.post(f"{BASE}/runs", json={"dag_id": "sales_gdp"})).status_code == 200


async def test_scope_is_checked_before_the_body_and_the_body_before_existence(connect: Connect) -> None:
    client = connect("client")
    is_error(await client.post(f"{BASE}/dags", content=b"{"), 403, "forbidden")
    is_error(await client.post(f"{BASE}/runs", json={"run_type": "backfill", "from": 1}), 403, "forbidden")
    is_error(await client.post(f"{BASE}/runs", json={"dag_id": "none", "dry_run": 1}), 400, "invalid_request")
    is_error(await client.post(f"{BASE}/runs", json={"dag_id": "none"}), 404, "not_found")


async def test_another_tenants_objects_do_not_exist(connect: Connect, admin: httpx.AsyncClient) -> None:
    run_id = await start(admin)
    other = connect("other")
    for path in ("/dags/sales_gdp", f"/runs/{run_id}", f"/runs/{run_id}/events", f"/runs/{run_id}/tasks/extract/logs"):
        is_error(await other.get(BASE + path), 404, "not_found")
    for path in ("/dags/sales_gdp/pause", f"/runs/{run_id}/cancel", f"/runs/{run_id}/tasks/extract/retry"):
        is_error(await other.post(BASE + path), 404, "not_found")
    for path in ("/dags", "/runs"):
        assert (await other.get(BASE + path)).json() == {"items": [], "next_cursor": None}


# -- what does not exist


async def test_an_unknown_path_under_the_base_is_404_in_our_form(connect: Connect) -> None:
    for path in ("/nope", "/runs/", "/dags/a/b/c", ""):
        is_error(await connect("client").get(BASE + path), 404, "not_found")
    is_error(await connect(None).get(f"{BASE}/nope"), 401, "unauthorized")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("PUT", "/dags", "GET, POST"), ("DELETE", "/dags/x", "GET"), ("GET", "/dags/x/pause", "POST"),
    ("DELETE", "/runs/batch", "POST"), ("PATCH", "/runs/run_9/events", "GET"), ("HEAD", "/runs", "GET, POST"),
])  # fmt: skip
async def test_a_wrong_method_is_told_the_right_ones(connect: Connect, method: str, path: str, allowed: str) -> None:
    response = await connect("client").request(method, BASE + path)
    assert response.headers["allow"] == allowed
    if method != "HEAD":
        is_error(response, 405, "invalid_request")


async def test_an_id_that_cannot_exist_is_404_without_asking(connect: Connect, gateway: FakeGateway) -> None:
    gateway.broken = errors.JournalUnavailable("not to be asked")
    for path in ("/dags/a%20b", "/runs/%00", "/runs/run_9/tasks/-x/logs", f"/runs/{'r' * 200}"):
        is_error(await connect("client").get(BASE + path), 404, "not_found")


# -- request ids


async def test_the_callers_id_is_echoed_and_a_bad_one_replaced(connect: Connect) -> None:
    client = connect("client")
    echoed = await client.get(f"{BASE}/dags", headers={"X-Request-Id": "r-1"})
    assert echoed.headers["x-request-id"] == "r-1"
    replaced = await client.get(f"{BASE}/dags", headers={"X-Request-Id": "a b"})
    assert replaced.headers["x-request-id"].startswith("fresh-")
    first, second = [(await client.get(f"{BASE}/dags")).headers["x-request-id"] for _ in range(2)]
    assert first != second


async def test_the_same_id_and_body_give_the_stored_answer_again(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    await define(admin)
    headers = {"X-Request-Id": "q1"}
    first = await admin.post("/runs", content=b'{"dag_id":"sales_gdp","params":{"a":1}}', headers=headers | JSON)
    again = await admin.post("/runs", content=b'{"params": {"a": 1}, "dag_id": "sales_gdp"}', headers=headers | JSON)
    assert again.json() == first.json()
    assert again.headers["idempotent-replay"] == "true"
    assert "idempotent-replay" not in first.headers
    assert len(gateway.runs_of("default")) == 1


async def test_the_same_id_with_another_body_is_a_conflict_and_on_another_path_another_key(
    admin: httpx.AsyncClient,
) -> None:
    await define(admin)
    headers = {"X-Request-Id": "q1"}
    await admin.post("/runs", json={"dag_id": "sales_gdp"}, headers=headers)
    other = await admin.post("/runs", json={"dag_id": "sales_gdp", "params": {"a": 1}}, headers=headers)
    is_error(other, 409, "version_conflict")
    paused = await admin.post("/dags/sales_gdp/pause", headers=headers)
    assert (paused.status_code, "idempotent-replay" in paused.headers) == (200, False)


async def test_without_a_valid_id_nothing_is_merged(admin: httpx.AsyncClient) -> None:
    await define(admin)
    for headers in ({}, {"X-Request-Id": "not valid"}):
        ids = {
            (await admin.post("/runs", json={"dag_id": "sales_gdp"}, headers=headers)).json()["run_id"] for _ in "ab"
        }
        assert len(ids) == 2


async def test_an_id_covers_a_whole_batch(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    await define(admin)
    body = {"runs": [{"dag_id": "sales_gdp"}, {}, {"dag_id": "sales_gdp"}]}
    first, again = [await admin.post("/runs/batch", json=body, headers={"X-Request-Id": "b"}) for _ in "ab"]
    assert first.json() == again.json()
    assert again.headers["idempotent-replay"] == "true"
    assert len(gateway.runs_of("default")) == 2


# -- rate limit


async def test_the_bucket_is_per_tenant_and_shown_on_every_answer(connect: Connect, clock: FakeClock) -> None:
    client = connect("client", rate_limit_rps=10, rate_limit_burst=20)
    answers = [await client.get(f"{BASE}/dags") for _ in range(30)]
    assert [each.status_code for each in answers] == [200] * 20 + [429] * 10
    assert {each.headers["x-ratelimit-limit"] for each in answers} == {"20"}
    assert [int(each.headers["x-ratelimit-remaining"]) for each in answers[:20]] == list(range(19, -1, -1))
    limited = is_error(answers[-1], 429, "rate_limited")
    assert limited["message"] == "10 requests per second per tenant"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await connect("other").get(f"{BASE}/dags")).status_code == 200
    is_error(await connect("worker").get(f"{BASE}/dags"), 429, "rate_limited")
    clock.seconds += 1
    assert (await client.get(f"{BASE}/dags")).status_code == 200


async def test_unknown_callers_are_refused_before_they_are_counted(connect: Connect) -> None:
    connect("client", rate_limit_rps=1, rate_limit_burst=1)
    for _ in range(3):
        is_error(await connect(None).get(f"{BASE}/dags"), 401, "unauthorized")
    assert (await connect("client").get(f"{BASE}/dags")).status_code == 200


# -- bodies


@pytest.mark.parametrize(("content", "content_type"), [
    (b"{", "application/json"), (b"", "application/json"), (b"[]", "application/json"), (b"1", "application/json"),
    (b"{}", "text/plain"), (b"{}", "application/x-www-form-urlencoded"), (b"NaN", "application/json"),
])  # fmt: skip
@pytest.mark.parametrize("path", ["/dags", "/runs", "/runs/batch", "/workers/scale"])
async def test_a_body_that_is_no_json_object_is_400(
    admin: httpx.AsyncClient, path: str, content: bytes, content_type: str
) -> None:
    response = await admin.post(path, content=content, headers={"Content-Type": content_type})
    is_error(response, 400, "invalid_request")


async def test_a_body_above_the_limit_is_400_here(connect: Connect) -> None:
    client = connect("admin", max_body_bytes=100)
    response = await client.post(f"{BASE}/dags", json={**DAG, "description": "x" * 100})
    assert is_error(response, 400, "invalid_request")["message"] == "body is larger than 100 bytes"


async def test_a_get_ignores_its_body_and_content_type(connect: Connect) -> None:
    response = await connect("client").request(
        "GET", f"{BASE}/runs", content=b"{", headers={"Content-Type": "text/plain"}
    )
    assert response.status_code == 200


async def test_json_with_parameters_in_its_content_type_is_json(admin: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert (await admin.post("/dags", content=json.dumps(DAG).encode(), headers=headers)).status_code == 200


@pytest.mark.parametrize(("change", "field"), [
    ({"schedule": "61 * * * *"}, "schedule"),
    ({"owner": None}, "owner"),
    ({"tasks": [{"id": "a", "depends_on": ["b"]}, {"id": "b", "depends_on": ["a"]}]}, "tasks"),
    ({"tasks": [{"id": "a", "depends_on": ["zz"]}]}, "tasks/0/depends_on/0"),
    ({"version": 0}, "version"), ({"version": "1"}, "version"), ({"version": True}, "version"),
    ({"tasks": [{"id": "a", "type": "bash", "params": {"command": "ls"}}]}, "tasks/0/type"),
    ({"tasks": [{"id": "a", "entrypoint": "os:system"}]}, "tasks/0/entrypoint"),
])  # fmt: skip
async def test_a_wrong_definition_is_400_and_names_the_field(
    admin: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    body = is_error(await define(admin, **change), 400, "invalid_request")
    assert field in [detail["field"] for detail in body["details"]]


@pytest.mark.parametrize(("change", "fields"), [
    ({"dag_id": None}, ["dag_id"]), ({"dag_id": "a b"}, ["dag_id"]), ({"dag_id": 1}, ["dag_id"]),
    ({"run_type": "scheduled"}, ["run_type"]), ({"run_type": "x"}, ["run_type"]), ({"run_type": 1}, ["run_type"]),
    ({"to": None}, ["to"]), ({"from": None}, ["from"]), ({"from": None, "to": None}, ["from", "to"]),
    ({"from": "2025-10-05"}, ["to"]), ({"from": "2025-13-01"}, ["from"]), ({"from": "2025-1-1"}, ["from"]),
    ({"from": "2025-10-01T00:00:00Z", "to": "2025-10-02T00:00:00Z"}, ["from"]),
    ({"run_type": "manual", "from": None}, ["from"]), ({"run_type": "manual", "to": None}, ["to"]),
    ({"run_type": "manual", "to": "2025-10-02T00:00:00Z"}, ["to"]),
    ({"run_type": "manual", "from": "2025-10-02T00:00:00Z", "to": "2025-10-02T00:00:00Z"}, ["to"]),
    ({"params": []}, ["params"]), ({"dry_run": 1}, ["dry_run"]), ({"run_backwards": "no"}, ["run_backwards"]),
    ({"max_active_runs": 0}, ["max_active_runs"]), ({"max_active_runs": 1001}, ["max_active_runs"]),
    ({"max_active_runs": True}, ["max_active_runs"]), ({"reprocess": "all"}, ["reprocess"]),
    ({"plan_hash": 1}, ["plan_hash"]), ({"on_version": "old"}, ["on_version"]),
])  # fmt: skip
async def test_a_wrong_trigger_is_400_and_names_the_fields(
    admin: httpx.AsyncClient, change: dict[str, Any], fields: list[str]
) -> None:
    await define(admin)
    body = is_error(await admin.post("/runs", json={**BACKFILL, **change}), 400, "invalid_request")
    assert [detail["field"] for detail in body["details"]] == fields


async def test_the_contracts_example_of_an_error(admin: httpx.AsyncClient) -> None:
    body = is_error(await admin.post("/runs", json={**BACKFILL, "to": "2025-09-01"}), 400, "invalid_request")
    assert body["message"] == "to is before from"
    assert body["details"] == [{"field": "to", "message": "before from"}]


# -- what goes wrong behind us


@pytest.mark.parametrize(("error", "status", "code", "message"), [
    (errors.JournalUnavailable("at /var/x"), 503, "dependency_down", "journal unavailable"),
    (errors.ActorUnreachable("scheduler", "x"), 503, "dependency_down", "scheduler unavailable"),
    (errors.Broken("x"), 500, "internal_error", "internal error"),
    (ZeroDivisionError("x"), 500, "internal_error", "internal error"),
])  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [each for each in EVERY_PATH if "deploy" not in each[1] and each[1] != "/schedule/preview"],
)
async def test_a_failing_gateway_is_told_without_its_reasons(
    connect: Connect, gateway: FakeGateway, method: str, path: str, scope: str,
    error: Exception, status: int, code: str, message: str,
) -> None:  # fmt: skip
    bodies = {
        "/dags": DAG,
        "/runs": {"dag_id": "x"},
        "/runs/batch": {"runs": [{"dag_id": "x"}]},
        "/workers/scale": {"n": 1},
        "/shares": {"tenant": "t", "weight": 2},
        "/runs/run_9/tasks/extract/decision": {"choice": "approve"},
        "/runs/run_9/widen": {"to": "2025-10-09", "dry_run": True},
        "/runs/run_9/cap": {"max_active_runs": 1},
        "/events": {"name": "order.paid", "id": "order-7"},
        "/archive": {"older_than_s": 0},
        "/artifacts": {"older_than_s": 0},
        "/pools/go": {"max": 1},
    }
    gateway.broken = error
    sent: dict[str, Any] = {"json": bodies.get(path, {})}
    if method == "PUT" and path.startswith("/bundles/"):
        sent = {"content": b"PK"}
    response = await connect("admin").request(method, BASE + path, **sent)
    assert is_error(response, status, code)["message"] == message
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_a_mutation_goes_on_when_the_caller_hangs_up(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    await define(admin)
    gateway.gate = asyncio.Event()
    call = asyncio.create_task(admin.post("/runs", json={"dag_id": "sales_gdp"}))
    for _ in range(50):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gateway.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(gateway.runs_of("default")) == 1
