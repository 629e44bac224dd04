"""The dags surface, rule by rule, over a gateway in memory (contracts/dags.md, contracts/README.md 1, 4, 5)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from orchestrator import errors
from orchestrator.definition import Definition, TaskSpec
from orchestrator.events import Counts
from orchestrator.views import Frame, LogChunk
from serve_app.surfaces.dags.routes import ENDPOINTS
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.unit.serve_app.conftest import BASE, TOKENS, Connect

JSON = {"Content-Type": "application/json"}
DAG = {"dag_id": "sales_gdp", "schedule": "0 2 * * *", "owner": "team-data"}
TASKS = [{"id": "extract"}, {"id": "transform", "depends_on": ["extract"]}]
BACKFILL = {"dag_id": "sales_gdp", "run_type": "backfill", "from": "2025-10-01", "to": "2025-10-04"}
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


async def define(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post("/dags", json={**DAG, **changes})


async def start(client: httpx.AsyncClient, **changes: Any) -> str:
    await define(client, tasks=TASKS)
    response = await client.post("/runs", json={"dag_id": "sales_gdp", **changes})
    run_id: str = response.json()["run_id"]
    return run_id


def is_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error that has the contract's form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body: dict[str, Any] = response.json()
    assert set(body) <= {"error", "message", "request_id", "details"}
    assert body["error"] == code
    assert body["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert {"x-ratelimit-limit", "x-ratelimit-remaining"} <= set(response.headers)
    return body


# -- schedules


async def test_a_preview_tells_the_next_ticks_and_what_is_skipped(admin: httpx.AsyncClient) -> None:
    calendar = {"exclude": ["2026-03-30"], "weekdays": ["sun", "mon", "tue"]}
    await define(admin, schedule="30 2 * * *", timezone="Europe/Berlin", calendar=calendar, jitter_s=60)
    told = await admin.get("/dags/sales_gdp/schedule/preview?n=4&from=2026-03-28T00:00:00Z")
    assert told.status_code == 200
    body = told.json()
    assert (body["timezone"], body["paused"]) == ("Europe/Berlin", False)
    assert [(tick["local"], tick["skipped"], tick["moved"]) for tick in body["items"]] == [
        ("2026-03-28T02:30:00+01:00", "weekday", False),
        ("2026-03-29T03:00:00+02:00", None, True),
        ("2026-03-30T02:30:00+02:00", "excluded", False),
        ("2026-03-31T02:30:00+02:00", None, False),
    ]
    skipped, fires, *_ = body["items"]
    assert (skipped["window"], skipped["runs_at"]) == (None, None)
    assert fires["window"] == {"from": "2026-03-29", "to": "2026-03-29"}
    assert fires["at"] == "2026-03-29T01:00:00.000Z" < fires["runs_at"] < "2026-03-29T01:01"


async def test_a_schedule_can_be_looked_at_before_it_is_deployed(admin: httpx.AsyncClient) -> None:
    wanted = {"schedule": "0 * * * *", "end_at": "2026-01-01T01:30:00Z", "from": "2026-01-01T00:30:00Z", "n": 5}
    told = await admin.post("/schedule/preview", json=wanted)
    assert [tick["at"] for tick in told.json()["items"]] == ["2026-01-01T01:00:00.000Z"]
    for field, wrong in (("n", 0), ("from", "now"), ("schedule", "61 * * * *"), ("calendar", {"exclude": ["x"]})):
        refused = await admin.post("/schedule/preview", json={**wanted, field: wrong})
        assert is_error(refused, 400, "invalid_request")["details"][0]["field"].startswith(field)
    is_error(await admin.post("/schedule/preview", json={"timezone": "UTC"}), 400, "invalid_request")


async def test_a_dag_without_a_schedule_has_no_ticks(admin: httpx.AsyncClient) -> None:
    await define(admin, schedule=None)
    told = await admin.get("/dags/sales_gdp/schedule/preview")
    assert told.json() == {"timezone": None, "paused": False, "items": []}
    is_error(await admin.get("/dags/zz/schedule/preview"), 404, "not_found")
    for query in ("n=0", "n=201", "n=x", "from=2026-01-01"):
        is_error(await admin.get(f"/dags/sales_gdp/schedule/preview?{query}"), 400, "invalid_request")


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


async def test_an_uncache_is_of_a_dag_or_of_a_task_of_it(connect: Connect, admin: httpx.AsyncClient) -> None:
    await define(admin, tasks=[{"id": "extract", "cache_ttl_s": 60}])
    told = (await admin.delete("/dags/sales_gdp/cache")).json()
    assert told == {"dag_id": "sales_gdp", "task": None, "uncached_at": told["uncached_at"]}
    assert (await admin.delete("/dags/sales_gdp/cache?task=extract")).json()["task"] == "extract"
    is_error(await admin.delete("/dags/sales_gdp/cache?task=load"), 404, "not_found")
    is_error(await admin.delete("/dags/sales_gdp/cache?task=a/b"), 400, "invalid_request")
    is_error(await admin.delete("/dags/none/cache"), 404, "not_found")
    is_error(await connect("other").delete(f"{BASE}/dags/sales_gdp/cache"), 404, "not_found")


async def test_a_run_tells_whose_results_its_tasks_have(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    assert "cached" not in (await admin.get(f"/runs/{run_id}")).json()
    gateway.settle("default", run_id, cached={"extract": "run_0"})
    assert (await admin.get(f"/runs/{run_id}")).json()["cached"] == {"extract": {"run_id": "run_0"}}


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


# -- DAGs


async def test_a_definition_is_answered_as_the_seed_does_plus_its_version(admin: httpx.AsyncClient) -> None:
    assert (await define(admin)).json() == {"dag_id": "sales_gdp", "status": "active", "version": 1}
    assert (await define(admin)).json()["version"] == 1
    assert (await define(admin, sla_s=60)).json()["version"] == 2
    is_error(await define(admin, version=1), 409, "version_conflict")
    assert (await define(admin, version=2)).status_code == 200


async def test_rules_branches_and_teardowns_are_read_back_and_bad_ones_named(admin: httpx.AsyncClient) -> None:
    tasks = [
        {"id": "up", "branch": False},
        {"id": "way", "depends_on": ["up"], "branch": True, "trigger_rule": "none_failed"},
        {"id": "down", "depends_on": ["way"], "teardown_of": ["up"], "on_failure_fail_run": True},
    ]
    assert (await define(admin, tasks=tasks)).status_code == 200
    up, way, down = (await admin.get("/dags/sales_gdp")).json()["tasks"]
    assert not {"branch", "trigger_rule", "teardown_of", "on_failure_fail_run"} & set(up)
    assert (way["branch"], way["trigger_rule"]) == (True, "none_failed")
    assert (down["teardown_of"], down["on_failure_fail_run"]) == (["up"], True)
    bad = [{"id": "up", "trigger_rule": "some"}, {"id": "down", "teardown_of": [1]}]
    body = is_error(await define(admin, tasks=bad), 400, "invalid_request")
    assert {detail["field"] for detail in body["details"]} == {"tasks/0/trigger_rule", "tasks/1/teardown_of/0"}


async def test_a_compensation_is_read_back_and_a_bad_one_named(admin: httpx.AsyncClient) -> None:
    tasks = [{"id": "pay"}, {"id": "refund", "compensates": "pay"}]
    assert (await define(admin, tasks=tasks)).status_code == 200
    pay, refund = (await admin.get("/dags/sales_gdp")).json()["tasks"]
    assert "compensates" not in pay
    assert (refund["compensates"], refund["depends_on"]) == ("pay", ["pay"])
    body = is_error(await define(admin, tasks=[*tasks, {"id": "again", "compensates": "pay"}]), 400, "invalid_request")
    assert [detail["field"] for detail in body["details"]] == ["tasks/2/compensates"]


async def test_absent_tasks_are_kept_and_empty_ones_clear(admin: httpx.AsyncClient) -> None:
    await define(admin, tasks=TASKS)
    await define(admin, owner="else")
    kept = (await admin.get("/dags/sales_gdp")).json()
    assert ([task["id"] for task in kept["tasks"]], kept["owner"]) == (["extract", "transform"], "else")
    await define(admin, tasks=[])
    assert (await admin.get("/dags/sales_gdp")).json()["tasks"] == []


@pytest.mark.parametrize(("header", "status"), [
    ('"1"', 200), ("1", 200), ('W/"1"', 200), ("*", 200), ('"2"', 409), ("7", 409), ("0", 409),
    ("x", 400), ('"1', 400), ('"1","2"', 400), ("", 400), ("-1", 400),
])  # fmt: skip
async def test_if_match_is_a_precondition(admin: httpx.AsyncClient, header: str, status: int) -> None:
    await define(admin)
    assert (await admin.post("/dags", json=DAG, headers={"If-Match": header})).status_code == status


async def test_if_match_and_body_must_not_contradict(admin: httpx.AsyncClient) -> None:
    await define(admin)
    both = await admin.post("/dags", json={**DAG, "version": 1}, headers={"If-Match": '"2"'})
    is_error(both, 409, "version_conflict")
    is_error(
        await admin.post("/dags", json={**DAG, "dag_id": "new"}, headers={"If-Match": "*"}), 409, "version_conflict"
    )


async def test_a_dag_is_shown_with_what_the_server_knows(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    for state in ("succeeded", "timed_out", "failed", "paused"):
        gateway.settle("default", await start(admin), state=state)
    shown = (await admin.get("/dags/sales_gdp")).json()
    assert {**shown, **DAG} == shown
    assert (shown["status"], shown["version"], shown["next_run_at"]) == ("active", 1, None)
    assert shown["created_at"] == shown["updated_at"] == "2026-01-02T03:04:05.678Z"
    assert shown["run_counts"] == {"success": 1, "failed": 2, "running": 1}
    is_error(await admin.get("/dags/none"), 404, "not_found")


async def test_pause_and_resume_are_idempotent(admin: httpx.AsyncClient) -> None:
    await define(admin)
    for _ in "ab":
        paused = await admin.post("/dags/sales_gdp/pause", json={"reason": "quiet"})
        assert paused.json() == {"dag_id": "sales_gdp", "status": "paused", "version": 1}
    assert (await define(admin)).json()["status"] == "paused"
    for _ in "ab":
        assert (await admin.post("/dags/sales_gdp/resume")).json()["status"] == "active"
    is_error(await admin.post("/dags/none/pause"), 404, "not_found")
    is_error(await admin.post("/dags/sales_gdp/pause", json={"reason": 1}), 400, "invalid_request")


async def test_dags_are_listed_page_by_page_and_filtered(admin: httpx.AsyncClient) -> None:
    for name in "abcde":
        await define(admin, dag_id=name, owner="x" if name in "ab" else "y")
    await admin.post("/dags/a/pause")

    async def listed(**query: Any) -> tuple[list[str], str | None]:
        page = (await admin.get("/dags", params=query)).json()
        return [each["dag_id"] for each in page["items"]], page["next_cursor"]

    first, cursor = await listed(limit=2)
    second, following = await listed(limit=2, cursor=cursor)
    third, last = await listed(limit=2, cursor=following)
    assert (first, second, third, last) == (["a", "b"], ["c", "d"], ["e"], None)
    assert await listed(status="paused") == (["a"], None)
    assert await listed(status="active", owner="x") == (["b"], None)


@pytest.mark.parametrize("query", [
    "limit=0", "limit=201", "limit=x", "limit=", "limit=1.0", "limit=%2B5", "limit=-1", "cursor=", "cursor=%00",
    "cursor=bad", "cursor=" + "x" * 600,
])  # fmt: skip
@pytest.mark.parametrize("path", ["/dags", "/runs"])
async def test_a_bad_cursor_or_limit_is_400(admin: httpx.AsyncClient, path: str, query: str) -> None:
    is_error(await admin.get(f"{path}?{query}"), 400, "invalid_request")


@pytest.mark.parametrize("path", ["/dags?status=x", "/runs?state=succeeded", "/runs?state=", "/runs?run_type=cron"])
async def test_an_unknown_word_in_a_filter_is_400(admin: httpx.AsyncClient, path: str) -> None:
    is_error(await admin.get(path), 400, "invalid_request")


# -- deploy


def leave(home: Path, definition: Definition, name: str | None = None) -> None:
    folder = home / "deployed"
    folder.mkdir(exist_ok=True)
    (folder / f"{name or definition.dag_id}.json").write_bytes(msgspec.json.encode(definition))


async def test_a_deploy_defines_what_the_operator_left(
    admin: httpx.AsyncClient, connect: Connect, tmp_path: Path
) -> None:
    shell = TaskSpec("sh", type="bash", params={"command": "true"})
    leave(tmp_path, Definition("ops", "me", tasks=(shell,)))
    assert (await admin.post("/dags/ops/deploy")).json() == {"dag_id": "ops", "status": "active", "version": 1}
    assert (await admin.get("/dags/ops")).json()["tasks"][0]["type"] == "bash"
    is_error(await connect("other").post(f"{BASE}/dags/ops/deploy"), 404, "not_found")
    is_error(await admin.post("/dags/none/deploy", json={}), 404, "not_found")


async def test_a_deploy_stays_in_its_folder_and_wants_a_matching_definition(
    admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    leave(tmp_path, Definition("ops", "me"), name="other")
    is_error(await admin.post("/dags/other/deploy"), 400, "invalid_request")
    (tmp_path / "deployed" / "bad.json").write_text("{")
    is_error(await admin.post("/dags/bad/deploy"), 400, "invalid_request")
    (tmp_path / "secret.json").write_bytes(msgspec.json.encode(Definition("..", "me")))
    for name in ("..%2Fsecret", "..", "%2e%2e"):
        assert (await admin.post(f"/dags/{name}/deploy")).status_code in (400, 404)


# -- runs


async def test_a_trigger_is_answered_as_the_seed_does(admin: httpx.AsyncClient) -> None:
    await define(admin)
    run = (await admin.post("/runs", json={"dag_id": "sales_gdp"})).json()
    assert run == {"run_id": run["run_id"], "state": "queued", "dag_id": "sales_gdp", "run_type": "manual"}
    is_error(await admin.post("/runs", json={"dag_id": "none"}), 404, "not_found")


async def test_null_counts_as_absent_in_a_trigger(admin: httpx.AsyncClient) -> None:
    await define(admin)
    nulls = dict.fromkeys(("from", "to", "params", "dry_run", "plan_hash", "max_active_runs", "reprocess", "run_type"))
    assert (await admin.post("/runs", json={"dag_id": "sales_gdp", **nulls})).status_code == 200


async def test_a_backfill_has_windows_and_counts_and_is_found_again(admin: httpx.AsyncClient) -> None:
    await define(admin)
    answers = await asyncio.gather(*(admin.post("/runs", json=BACKFILL) for _ in range(20)))
    assert len({each.json()["run_id"] for each in answers}) == 1
    assert answers[0].json()["counts"]["total"] == 4
    run = (await admin.get(f"/runs/{answers[0].json()['run_id']}")).json()
    assert run["windows"][0]["window"] == {"from": "2025-10-01", "to": "2025-10-01"}
    assert [each["state"] for each in run["windows"]] == ["queued"] * 4
    assert set(run["counts"]) == {"total", "queued", "running", "success", "failed", "cancelled", "skipped"}
    assert "windows_truncated" not in run
    assert run["window"] == {"from": "2025-10-01", "to": "2025-10-04"}


async def test_an_event_starts_one_run_however_often_it_is_told(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    await define(admin)
    asked = [admin.post("/dags/sales_gdp/trigger/order-7", json={"n": n}) for n in range(5)]
    answers = [each.json() for each in await asyncio.gather(*asked)]
    assert len({each["run_id"] for each in answers}) == 1
    assert [each["duplicate"] for each in answers].count(False) == 1
    other = (await admin.post("/dags/sales_gdp/trigger/order-8")).json()
    assert (other["duplicate"], other["run_id"] == answers[0]["run_id"]) == (False, False)
    for wrong in ("a b", "x" * 201):
        is_error(await admin.post(f"/dags/sales_gdp/trigger/{wrong}", json={}), 400, "invalid_request")
    is_error(await admin.post("/dags/sales_gdp/trigger/order-9", json=[]), 400, "invalid_request")
    is_error(await admin.post("/dags/none/trigger/order-9", json={}), 404, "not_found")


async def test_a_backfill_over_partitions_shows_them_as_they_were_asked_for(admin: httpx.AsyncClient) -> None:
    await define(admin, partitions={"region": ["eu", "us"], "day": ["mon"]})
    assert (await admin.get("/dags/sales_gdp")).json()["partitions"] == {"region": ["eu", "us"], "day": ["mon"]}
    declared = {"dag_id": "sales_gdp", "run_type": "backfill"}
    answer = (await admin.post("/runs", json=declared)).json()
    run = (await admin.get(f"/runs/{answer['run_id']}")).json()
    parts = [{"region": "eu", "day": "mon"}, {"region": "us", "day": "mon"}]
    assert [each["window"] for each in run["windows"]] == [{"partition": each} for each in parts]
    assert run["window"] is None
    one = (await admin.post("/runs", json={"dag_id": "sales_gdp", "partition": parts[0]})).json()
    assert one["run_id"] == run["windows"][0]["run_id"], "a partition has one run, whoever asks for it"
    given = (await admin.post("/runs", json={**declared, "partitions": ["a/b"], "dry_run": True})).json()
    assert [each["window"] for each in given["windows"]] == [{"partition": "a/b"}]


@pytest.mark.parametrize(("change", "field"), [
    ({"partitions": []}, "partitions"), ({"partitions": "eu"}, "partitions"),
    ({"partitions": ["eu", "eu"]}, "partitions"),
    ({"partitions": ["eu"], "from": "2025-10-01", "to": "2025-10-02"}, "from"),
    ({"partitions": ["eu", ""]}, "partitions/1"), ({"partitions": {"a-b": ["x"]}}, "partitions/a-b"),
    ({"partitions": {"a": []}}, "partitions/a"),
    ({"run_type": "manual", "partition": 1}, "partition/0"), ({"run_type": "manual", "partition": {}}, "partition"),
])  # fmt: skip
async def test_wrong_partitions_are_400_and_named(admin: httpx.AsyncClient, change: dict[str, Any], field: str) -> None:
    await define(admin)
    body = is_error(await admin.post("/runs", json={"dag_id": "sales_gdp", "run_type": "backfill", **change}), 400,
                    "invalid_request")  # fmt: skip
    assert field in [detail["field"] for detail in body["details"]]


async def test_a_backfill_is_made_wider_by_admin_and_planned_by_anyone(
    connect: Connect, admin: httpx.AsyncClient
) -> None:
    await define(admin)
    run_id = (await admin.post("/runs", json=BACKFILL)).json()["run_id"]
    client = connect("client")
    more = {"to": "2025-10-06"}
    plan = (await client.post(f"{BASE}/runs/{run_id}/widen", json={**more, "dry_run": True})).json()
    assert (plan["dry_run"], plan["counts"]["total"], len(plan["windows"])) == (True, 2, 2)
    is_error(await client.post(f"{BASE}/runs/{run_id}/widen", json=more), 403, "forbidden")
    done = (await admin.post(f"/runs/{run_id}/widen", json=more)).json()
    assert (done["run_id"], done["added"], done["counts"]["total"]) == (run_id, 2, 6)
    for wrong in ({}, {"from": "x"}, {"from": "2025-10-02", "to": "2025-10-01"}, {**more, "partitions": ["eu"]}):
        is_error(await admin.post(f"/runs/{run_id}/widen", json=wrong), 400, "invalid_request")


async def test_a_backfill_is_capped_anew(connect: Connect, admin: httpx.AsyncClient) -> None:
    await define(admin)
    run_id = (await admin.post("/runs", json=BACKFILL)).json()["run_id"]
    for limit in (2, None):
        answer = (await admin.post(f"/runs/{run_id}/cap", json={"max_active_runs": limit})).json()
        assert answer["max_active_runs"] == limit
        assert (await admin.get(f"/runs/{run_id}")).json()["max_active_runs"] == limit
    for wrong in ({}, {"max_active_runs": 0}, {"max_active_runs": "2"}):
        is_error(await admin.post(f"/runs/{run_id}/cap", json=wrong), 400, "invalid_request")
    is_error(await connect("client").post(f"{BASE}/runs/{run_id}/cap", json={"max_active_runs": 1}), 403, "forbidden")


async def test_a_backfill_tells_how_far_it_is_and_a_run_does_not(admin: httpx.AsyncClient) -> None:
    await define(admin)
    run_id = (await admin.post("/runs", json=BACKFILL)).json()["run_id"]
    run = (await admin.get(f"/runs/{run_id}")).json()
    assert (run["progress"], run["eta"], run["windows_per_s"]) == (0.0, None, None)
    assert "progress" not in (await admin.get(f"/runs/{run['windows'][0]['run_id']}")).json()


async def test_a_dry_run_plans_and_stores_nothing(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    await define(admin, tasks=TASKS)
    before = len(gateway.runs_of("default"))
    plan = (await admin.post("/runs", json={**BACKFILL, "dry_run": True})).json()
    assert "run_id" not in plan
    assert (plan["dry_run"], plan["counts"]) == (True, {"total": 4, "create": 4, "restart": 0, "skip": 0})
    assert plan["windows"][0] == {"window": {"from": "2025-10-01", "to": "2025-10-01"}, "action": "create"}
    assert plan["task_groups"] == [["extract"], ["transform"]]
    assert plan["plan_hash"].startswith("sha256:")
    assert len(gateway.runs_of("default")) == before
    is_error(await admin.post("/runs", json={**BACKFILL, "plan_hash": "sha256:0"}), 409, "version_conflict")
    assert (await admin.post("/runs", json={**BACKFILL, "plan_hash": plan["plan_hash"]})).status_code == 200


async def test_a_bad_entry_of_a_batch_fails_alone_and_answers_keep_their_order(admin: httpx.AsyncClient) -> None:
    await define(admin)
    entries = [
        {"dag_id": "sales_gdp"},
        {"dag_id": "none"},
        BACKFILL,
        7,
        {"dag_id": "sales_gdp", "dry_run": True},
        {"dag_id": "sales_gdp", "params": {"n": 1}},
    ]
    response = await admin.post("/runs/batch", json={"runs": entries})
    outcomes = response.json()["runs"]
    assert [set(each) for each in outcomes] == [
        {"run_id", "state"}, {"error", "message"}, {"error", "message"}, {"error", "message"}, {"error", "message"},
        {"run_id", "state"},
    ]  # fmt: skip
    assert [each.get("error") for each in outcomes[1:5]] == ["not_found"] + ["invalid_request"] * 3


@pytest.mark.parametrize("runs", [None, [], {}, "x", [{}] * 10_001])
async def test_a_batch_has_one_to_ten_thousand_runs(admin: httpx.AsyncClient, runs: object) -> None:
    body = is_error(await admin.post("/runs/batch", json={"runs": runs}), 400, "invalid_request")
    assert body["details"][0]["field"] == "runs"


RUN_WORDS = [
    ("queued", "queued"), ("running", "running"), ("paused", "running"), ("cancelling", "cancelled"),
    ("succeeded", "success"), ("failed", "failed"), ("timed_out", "failed"), ("quarantined", "failed"),
    ("cancelled", "cancelled"),
]  # fmt: skip


@pytest.mark.parametrize(("core", "word"), RUN_WORDS)
async def test_a_run_is_shown_in_our_words(
    admin: httpx.AsyncClient, gateway: FakeGateway, core: str, word: str
) -> None:
    run_id = await start(admin)
    tasks = {"extract": "succeeded", "transform": "timed_out"}
    gateway.settle("default", run_id, state=core, tasks=tasks, counts=Counts(succeeded=2) if core == "failed" else None)
    run = (await admin.get(f"/runs/{run_id}")).json()
    assert set(run) >= {
        "run_id", "dag_id", "dag_version", "run_type", "state", "window", "attempts", "sla_deadline", "tasks",
        "created_at", "started_at", "finished_at", "parent_run_id", "error",
    }  # fmt: skip
    assert (run["state"], run["tasks"]) == (word, {"extract": "done", "transform": "failed"})
    assert run.get("paused", False) is (core == "paused")
    assert (run["window"], run["started_at"], run["created_at"]) == (None, None, "2026-01-02T03:04:05.678Z")


async def test_runs_are_listed_newest_first_without_windows_and_filtered(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    await define(admin)
    parent = (await admin.post("/runs", json=BACKFILL)).json()["run_id"]
    manual = await start(admin)
    gateway.settle("default", manual, state="succeeded")

    async def listed(**query: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await admin.get("/runs", params=query)).json()["items"]
        return items

    everything = await listed()
    ids = [each["run_id"] for each in everything]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 6
    assert all("windows" not in each for each in everything)
    assert [each["run_id"] for each in await listed(state="success")] == [manual]
    assert len(await listed(parent_run_id=parent)) == 4
    assert [each["run_id"] for each in await listed(run_type="backfill")] == [parent]
    assert await listed(dag_id="none") == await listed(dag_id="a:s:b") == await listed(parent_run_id="\0") == []


async def test_a_state_finds_every_core_state_it_stands_for_page_by_page(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    cores = ["failed", "timed_out", "succeeded", "quarantined", "failed", "running", "timed_out", "failed"]
    for core in cores:
        gateway.settle("default", await start(admin), state=core)
    expected = [run.run_id for run in gateway.runs_of("default") if run.state in ("failed", "timed_out", "quarantined")]
    for limit in (1, 2, 3, 6, 200):
        seen: list[str] = []
        cursor = None
        while True:
            query = {"state": "failed", "limit": limit} | ({"cursor": cursor} if cursor else {})
            page = (await admin.get("/runs", params=query)).json()
            assert len(page["items"]) <= limit
            seen += [each["run_id"] for each in page["items"]]
            if (cursor := page["next_cursor"]) is None:
                break
        assert seen == expected[::-1]


async def test_a_cursor_stays_valid_while_new_runs_arrive_and_belongs_to_its_list(admin: httpx.AsyncClient) -> None:
    ids = [await start(admin) for _ in range(3)]
    first = (await admin.get("/runs", params={"limit": 2})).json()
    await start(admin)
    second = (await admin.get("/runs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [each["run_id"] for page in (first, second) for each in page["items"]] == ids[::-1]
    is_error(await admin.get("/dags", params={"cursor": first["next_cursor"]}), 400, "invalid_request")


async def test_cancel_pause_and_resume_of_a_run(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    paused = (await admin.post(f"/runs/{run_id}/pause")).json()
    assert paused == {"run_id": run_id, "state": "running", "attempts": 0, "paused": True}
    assert (await admin.post(f"/runs/{run_id}/resume")).json()["state"] == "running"
    for _ in "ab":
        assert (await admin.post(f"/runs/{run_id}/cancel", json={})).json()["state"] == "cancelled"
    assert (await admin.post(f"/runs/{run_id}/retry")).json()["state"] == "running"
    gateway.settle("default", run_id, state="succeeded")
    for command in ("cancel", "pause", "resume", "retry"):
        is_error(await admin.post(f"/runs/{run_id}/{command}"), 409, "version_conflict")
        is_error(await admin.post(f"/runs/run_none/{command}"), 404, "not_found")


async def test_retry_and_skip_of_a_task(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    gateway.settle("default", run_id, attempts=2, tasks={"extract": "failed", "transform": "succeeded"})
    retried = (await admin.post(f"/runs/{run_id}/tasks/extract/retry")).json()
    assert retried == {"run_id": run_id, "task": "extract", "state": "pending", "attempts": 2}
    assert (await admin.post(f"/runs/{run_id}/tasks/extract/skip")).json()["state"] == "skipped"
    is_error(await admin.post(f"/runs/{run_id}/tasks/transform/retry"), 409, "version_conflict")
    is_error(await admin.post(f"/runs/{run_id}/tasks/zz/retry"), 404, "not_found")


async def test_logs_of_a_task_by_attempt(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    gateway.output["default", run_id, "extract"] = [LogChunk("extract", 1, "a\n"), LogChunk("extract", 2, "b\n", True)]
    path = f"/runs/{run_id}/tasks/extract/logs"
    second = {"task": "extract", "attempt": 2, "text": "b\n", "truncated": True}
    assert [each["attempt"] for each in (await admin.get(path)).json()["items"]] == [1, 2]
    assert (await admin.get(path, params={"attempt": 2})).json() == {"items": [second]}
    for bad in ("0", "x", "-1", "1.5"):
        is_error(await admin.get(path, params={"attempt": bad}), 400, "invalid_request")


async def test_instances_of_a_mapped_task_by_page_and_state(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    letters = {
        "extract": "r",
        "extract[]": "4",
        "extract[0]": "d",
        "extract[2]": "f",
        "extract[3]": "t",
        "extract[9]": "d",
    }
    gateway.letters["default", run_id] = letters
    path = f"/runs/{run_id}/tasks/extract/instances"
    first = (await admin.get(path, params={"limit": 2})).json()
    assert (first["state"], first["total"], first["counts"]) == ("running", 4, {"done": 1, "pending": 1, "failed": 2})
    assert first["items"][1] == {"map_index": 1, "task": "extract[1]", "state": "pending"}
    second = (await admin.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([each["map_index"] for each in second["items"]], second["next_cursor"]) == ([2, 3], None)
    failed = (await admin.get(path, params={"state": "failed"})).json()
    assert [each["task"] for each in failed["items"]] == ["extract[2]", "extract[3]"]
    for bad in ({"state": "odd"}, {"limit": 0}, {"cursor": "zzz"}):
        is_error(await admin.get(path, params=bad), 400, "invalid_request")


# -- events


async def events(client: httpx.AsyncClient, run_id: str, **given: Any) -> httpx.Response:
    return await client.get(f"/runs/{run_id}/events", **given)


async def test_a_stream_has_the_contracts_form_and_words(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    counts = {"total": 1, "queued": 0, "running": 0, "succeeded": 1, "failed": 0, "cancelled": 0, "skipped": 0}
    gateway.frames["default", run_id] = [
        Frame(1, "run_state", {"seq": 1, "run_id": run_id, "from": None, "to": "queued", "attempts": 0}),
        Frame(2, "task_state", {"seq": 2, "task": "extract", "from": "running", "to": "succeeded", "attempt": 1}),
        Frame(None, "keep_alive"),
        Frame(
            3,
            "window_state",
            {"seq": 3, "run_id": run_id, "child": "run_2", "from": "running", "to": "succeeded", "counts": counts},
        ),
        Frame(4, "run_state", {"seq": 4, "from": "running", "to": "timed_out", "attempts": 1}),
        Frame(5, "task_note", {"seq": 5, "from": "kept", "to": "as it is"}),
        Frame(None, "end", {"run_id": run_id, "state": "timed_out"}),
    ]
    response = await events(admin, run_id)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-length" not in response.headers
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    assert blocks[0] == "retry: 1000"
    assert blocks[3] == ": keep-alive 1767323045678"
    assert [block.splitlines()[0] for block in blocks[1:]] == [
        "id: 1", "id: 2", ": keep-alive 1767323045678", "id: 3", "id: 4", "id: 5", "event: end"
    ]  # fmt: skip
    data = [json.loads(block.rpartition("data: ")[2]) for block in blocks[1:] if not block.startswith(":")]
    assert [(each.get("from"), each.get("to")) for each in data[:5]] == [
        (None, "queued"), ("running", "done"), ("running", "success"), ("running", "failed"), ("kept", "as it is")
    ]  # fmt: skip
    assert data[2]["counts"] == {"success" if key == "succeeded" else key: each for key, each in counts.items()}
    assert (data[2]["run_id"], data[2]["backfill_run_id"]) == ("run_2", run_id)
    assert data[5] == {"run_id": run_id, "state": "failed"}


@pytest.mark.parametrize(("header", "query", "ids"), [
    (None, None, [1, 2, 3]), ("1", None, [2, 3]), (None, "2", [3]), ("1", "2", [2, 3]), ("x", "2", [1, 2, 3]),
    (None, "x", [1, 2, 3]), ("0", None, [1, 2, 3]),
])  # fmt: skip
async def test_a_stream_resumes_after_the_id(
    admin: httpx.AsyncClient, gateway: FakeGateway, header: str | None, query: str | None, ids: list[int]
) -> None:
    run_id = await start(admin)
    gateway.frames["default", run_id] = [
        Frame(seq, "run_state", {"from": "queued", "to": "running"}) for seq in (1, 2, 3)
    ]
    headers = {} if header is None else {"Last-Event-ID": header}
    response = await events(admin, run_id, headers=headers, params={} if query is None else {"after": query})
    assert [int(line[4:]) for line in response.text.splitlines() if line.startswith("id: ")] == ids


async def test_the_last_id_of_a_terminal_run_is_204(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    gateway.frames["default", run_id] = [Frame(1, "run_state", {"from": None, "to": "queued"})]
    gateway.settle("default", run_id, state="succeeded")
    for after in ("1", "2", "9" * 30):
        response = await events(admin, run_id, headers={"Last-Event-ID": after})
        assert (response.status_code, response.content) == (204, b"")
        assert "x-ratelimit-limit" in response.headers
    assert (await events(admin, run_id, headers={"Last-Event-ID": "0"})).status_code == 200


async def test_a_stream_that_is_no_longer_kept_points_to_the_run(
    admin: httpx.AsyncClient, gateway: FakeGateway
) -> None:
    run_id = await start(admin)
    gateway.broken = errors.HistoryGone(run_id, 41)
    response = await events(admin, run_id, headers={"Last-Event-ID": "7"})
    is_error(response, 410, "gone")
    path = f"{BASE}/runs/{run_id}"
    assert response.headers["link"] == f'<{path}>; rel="current"'
    body = response.json()
    assert body["message"] == f"events of run {run_id} up to 41 are no longer kept"
    assert body["details"] == [{"field": "after", "message": f"the run as it is now: GET {path}"}]


async def test_a_stream_of_nothing_or_nobody_is_json(admin: httpx.AsyncClient, connect: Connect) -> None:
    is_error(await events(admin, "run_none"), 404, "not_found")
    is_error(await connect(None).get(f"{BASE}/runs/run_1/events?api_key={TOKENS['admin']}"), 401, "unauthorized")


# -- workers


async def test_workers_are_listed_scaled_and_drained(admin: httpx.AsyncClient) -> None:
    first = (await admin.get("/workers")).json()["items"][0]
    where = {"node": "n1", "node_id": "a1b2", "pid": 42}
    assert first == {"worker_id": "worker-default-0", "pool": "default", "state": "idle", **where}
    scaled = (await admin.post("/workers/scale", json={"n": 3})).json()["items"]
    assert [each["worker_id"] for each in scaled] == [f"worker-default-{number}" for number in range(3)]
    assert (await admin.post("/workers/worker-default-2/drain")).json()["state"] == "draining"
    is_error(await admin.post("/workers/none/drain"), 404, "not_found")
    for bad in ({}, {"n": -1}, {"n": "1"}, {"n": 1001}, {"n": 1, "pool": ""}, {"n": 1, "pool": 1}):
        is_error(await admin.post("/workers/scale", json=bad), 400, "invalid_request")


async def test_pools_are_defined_read_and_forgotten(admin: httpx.AsyncClient, connect: Connect) -> None:
    assert [each["name"] for each in (await admin.get("/pools")).json()["items"]] == ["default"]
    body = {"max": 4, "num_gpus": 1, "resources": {"tpu": 2}, "labels": {"tier": "a"}, "memory_bytes": 1024}
    defined = (await admin.put("/pools/gpu", json=body)).json()
    assert {key: defined[key] for key in body} == body
    assert (defined["name"], defined["min"], defined["idle_timeout_s"], defined["wanted"]) == ("gpu", 0, 60.0, 0)
    assert "generation" not in defined
    assert (await connect("client").get(f"{BASE}/pools/gpu")).json() == defined
    is_error(await connect("client").put(f"{BASE}/pools/gpu", json=body), 403, "forbidden")
    assert (await admin.delete("/pools/gpu")).json() == {"name": "gpu", "deleted": True}
    for response in (await admin.get("/pools/gpu"), await admin.delete("/pools/gpu"), await admin.get("/pools/a b")):
        is_error(response, 404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "max"),
        ({"max": 513}, "max"),
        ({"max": 1, "min": 2}, "min"),
        ({"max": 1, "num_gpus": "1"}, "num_gpus"),
        ({"max": 1, "num_gpus": 1.5}, "num_gpus"),
        ({"max": 1, "resources": {"x": None}}, "resources/x"),
        ({"max": 1, "resources": {"CPU": 1}}, "resources/CPU"),
        ({"max": 1, "labels": {"a": 1}}, "labels/a"),
        ({"max": 1, "labels": {"a": "b c"}}, "labels/a"),
        ({"max": 1, "memory_bytes": -1}, "memory_bytes"),
        ({"max": 1, "idle_timeout_s": 1e9}, "idle_timeout_s"),
    ],
)
async def test_a_pool_that_cannot_be_so_is_refused(admin: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    wrong = is_error(await admin.put("/pools/gpu", json=body), 400, "invalid_request")
    assert field in [each["field"] for each in wrong["details"]]
