"""The runs surface, rule by rule, over runs in memory (contracts/runs.md, contracts/README.md 1, 4, 5).

Plans are in `test_runs_plans.py`, streams in `test_runs_events.py`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from orchestrator import errors
from orchestrator.definition import Definition, TaskSpec
from serve_app.auth import Grant, grant
from serve_app.surfaces.runs import published
from serve_app.surfaces.runs.routes import ENDPOINTS
from tests.fakes_gateway import EPOCH, FakeClock, FakeGateway
from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_schemas import Schemas
from tests.unit.serve_app.conftest import BASE as DAGS
from tests.unit.serve_app.conftest import GRANTS, TOKENS, Connect

KEY = "k3y-for-tests-0001"
KEYED: tuple[Grant, ...] = (*GRANTS, grant(KEY, "client", name="ORCHESTRATOR_API_KEY"))
UNKNOWN = "Run999999999"
EVERY_PATH = [(method, f"/runs{path.format(run_id=UNKNOWN)}") for method, path, _, _ in ENDPOINTS]
SCHEMAS = Schemas(published.documents())


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token."""
    return connect(None)


async def create(client: httpx.AsyncClient, body: Any = None, **given: Any) -> str:
    response = await client.post("/runs", json={} if body is None else body, **given)
    assert response.status_code == 201, response.text
    run_id: str = response.json()["runId"]
    return run_id


async def shown(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run, which keeps to the published schema."""
    body = (await client.get(f"/runs/{run_id}")).json()
    assert set(body) == {"run"}
    run: dict[str, Any] = SCHEMAS.check("run", body["run"])
    return run


async def listed(client: httpx.AsyncClient, run_id: str, query: str = "") -> list[dict[str, Any]]:
    """Its checkpoints, each of which keeps to the published schema."""
    body = (await client.get(f"/runs/{run_id}/checkpoints{query}")).json()
    assert (set(body), body["runId"]) == ({"runId", "checkpoints"}, run_id)
    return [SCHEMAS.check("checkpoint", each) for each in body["checkpoints"]]


def is_error(response: httpx.Response, status: int, error: str, **more: Any) -> None:
    """The response is that error, in the contract's form, and says nothing else."""
    assert (response.status_code, response.json()) == (status, {"error": error, **more})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["x-request-id"]


def is_invalid(response: httpx.Response, *details: str) -> None:
    is_error(response, 400, "validation failed", details=list(details))


# -- who may ask


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
async def test_on_loopback_nobody_needs_a_token(client: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code not in (401, 403)


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
@pytest.mark.parametrize("options", [{"host": "10.0.0.1"}, {"allow_anonymous": False}, {"grants": KEYED}], ids=str)
async def test_elsewhere_and_where_the_operator_says_so_everybody_does(
    connect: Connect, method: str, path: str, options: dict[str, Any]
) -> None:
    nobody = await connect(None, **options).request(method, path)
    is_error(nobody, 401, "unauthorized")
    assert nobody.headers["www-authenticate"] == "Bearer"
    is_error(await connect("worker").request(method, path), 403, "forbidden")
    for who in ("client", "admin"):
        assert (await connect(who).request(method, path)).status_code not in (401, 403)


@pytest.mark.parametrize("header", [{"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=1.2.3.4"}, {"Host": "evil.com"}])
async def test_who_comes_through_something_in_between_needs_a_token(
    client: httpx.AsyncClient, header: dict[str, str]
) -> None:
    is_error(await client.post("/runs", headers=header), 401, "unauthorized")


@pytest.mark.parametrize(("headers", "status"), [
    ({"Authorization": f"Bearer {KEY}"}, 201), ({"Authorization": f"bearer {KEY}"}, 201), ({"x-api-key": KEY}, 201),
    ({"Authorization": f"Basic {KEY}"}, 401), ({"Authorization": KEY}, 401), ({"x-api-key": ""}, 401),
    ({"Authorization": "Bearer wrong", "x-api-key": KEY}, 401), ({"Authorization": "Basic x", "x-api-key": KEY}, 201),
    ({"Cookie": f"orchestrator_api_key={KEY}"}, 401),
])  # fmt: skip
async def test_the_first_header_with_a_token_decides(connect: Connect, headers: dict[str, str], status: int) -> None:
    response = await connect(None, grants=KEYED).post("/runs", headers=headers)
    assert response.status_code == status


async def test_a_key_in_the_query_opens_streams_only(connect: Connect) -> None:
    client = connect(None, grants=KEYED)
    for method, path in EVERY_PATH:
        response = await client.request(method, f"{path}?api_key={KEY}")
        assert (response.status_code == 401) is not path.endswith("/events")


async def test_with_a_key_set_probes_and_preflights_need_none(connect: Connect) -> None:
    client = connect(None, grants=KEYED)
    for path in ("/health", "/ready", "/metrics"):
        assert (await client.get(path)).status_code == 200
    preflight = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
    assert (await client.options("/runs", headers=preflight)).status_code == 200
    is_error(await client.options("/runs"), 405, "method not allowed")
    is_error(await client.get("/runs"), 401, "unauthorized")


async def test_where_nobody_needs_a_token_a_valid_one_still_counts_and_a_wrong_one_does_not(
    connect: Connect, live_runs: FakeLiveRuns
) -> None:
    run_id = await create(connect("other"))
    assert (live_runs.count("other"), live_runs.count("default")) == (1, 0)
    assert (await connect("other").get(f"/runs/{run_id}")).status_code == 200
    is_error(await connect("worker").get(f"/runs/{run_id}"), 403, "forbidden")
    wrong = await connect(None).post("/runs", headers={"x-api-key": "wrong"})
    assert (wrong.status_code, live_runs.count("default")) == (201, 1)


async def test_another_tenants_runs_do_not_exist(connect: Connect) -> None:
    run_id = await create(connect("other"))
    client = connect(None)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/checkpoints"), ("POST", "/checkpoints")):
        is_error(await client.request(method, f"/runs/{run_id}{path}"), 404, "run not found")
    assert (await client.get(f"/runs/{run_id}/events")).status_code == 404


# -- how often


async def test_the_fourth_request_within_the_window_is_too_many(connect: Connect, clock: FakeClock) -> None:
    client = connect(None, runs_rate_max=3, runs_rate_window_s=60.0)
    statuses = []
    for at_s in (0.0, 10.0, 20.0, 30.5, 60.0, 61.0):
        clock.seconds = at_s
        response = await client.get(f"/runs/{UNKNOWN}")
        statuses.append(response.status_code)
        if at_s == 30.5:
            is_error(response, 429, "rate_limited")
            assert response.headers["retry-after"] == "30"
    assert statuses == [404, 404, 404, 429, 404, 429]
    for path in ("/health", "/ready", "/metrics"):
        assert (await client.get(path)).status_code == 200
    assert (await client.options("/runs")).status_code == 405


async def test_requests_are_counted_by_token_else_by_address(connect: Connect) -> None:
    client = connect(None, runs_rate_max=1)
    callers = [{}, {"x-api-key": "a"}, {"x-api-key": "b"}, {"Authorization": "Bearer c"}]
    for headers in callers:
        assert (await client.post("/runs", headers=headers)).status_code == 201
    for headers in [*callers, {"Authorization": "Bearer c", "x-api-key": "d"}, {"Authorization": "Bearer a"}]:
        is_error(await client.post("/runs", headers=headers), 429, "rate_limited")
    assert (await client.post("/runs", headers={"x-api-key": "d"})).status_code == 201


async def test_a_request_is_checked_for_token_rate_scope_body_existence_in_this_order(connect: Connect) -> None:
    nobody = connect(None, grants=KEYED, runs_rate_max=2)
    for _ in range(3):
        is_error(await nobody.post("/runs", content=b"{"), 401, "unauthorized")
    worker = connect("worker")
    statuses = [(await worker.post("/runs", content=b"{")).status_code for _ in range(3)]
    assert statuses == [403, 403, 429]
    client = connect("client")
    is_error(await client.post("/runs", content=b"{"), 400, "invalid json")
    is_error(await client.post("/runs", json={"dag_id": "none"}), 404, "dag not found")


# -- what does not exist, and what breaks


async def test_there_is_no_list_of_runs(client: httpx.AsyncClient) -> None:
    is_error(await client.get("/runs"), 404, "not found")
    assert (await client.head("/runs")).status_code == 404


@pytest.mark.parametrize("path", ["/runs/", f"/runs/{UNKNOWN}/", f"/runs/{UNKNOWN}/x", "/runs/a/b/c", "/runs//events"])
async def test_an_unknown_path_is_404_in_our_form(client: httpx.AsyncClient, path: str) -> None:
    is_error(await client.get(path), 404, "not found")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("PUT", "/runs", "POST"), ("DELETE", "/runs", "POST"), ("POST", f"/runs/{UNKNOWN}", "DELETE, GET"),
    ("HEAD", f"/runs/{UNKNOWN}", "DELETE, GET"), ("DELETE", f"/runs/{UNKNOWN}/checkpoints", "GET, POST"),
    ("POST", f"/runs/{UNKNOWN}/events", "GET"), ("OPTIONS", f"/runs/{UNKNOWN}/events", "GET"),
])  # fmt: skip
async def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        is_error(response, 405, "method not allowed")


@pytest.mark.parametrize("run_id", ["nope", "a" * 33, "run_123456789", "Run%00000000", "R%C3%BCn123456789"])
async def test_an_id_that_no_run_can_have_is_404_without_asking(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, run_id: str
) -> None:
    live_runs.broken = errors.JournalUnavailable("not to be asked")
    is_error(await client.get(f"/runs/{run_id}"), 404, "run not found")
    is_error(await client.delete(f"/runs/{run_id}"), 404, "run not found")


@pytest.mark.parametrize(("error", "status", "text"), [
    (errors.JournalUnavailable("at /var/x"), 503, "dependency down"),
    (errors.ActorUnreachable("scheduler", "x"), 503, "dependency down"),
    (errors.Fenced("x", 1, 2), 503, "dependency down"),
    (errors.Broken("x"), 500, "internal error"), (ZeroDivisionError("x"), 500, "internal error"),
])  # fmt: skip
@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
async def test_what_fails_behind_us_is_told_without_its_reasons(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, method: str, path: str, error: Exception, status: int, text: str
) -> None:
    live_runs.broken = error
    response = await client.request(method, path, json={"type": "x"})
    is_error(response, status, text)
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_a_mutation_goes_on_when_the_caller_hangs_up(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    live_runs.gate = asyncio.Event()
    call = asyncio.create_task(client.post("/runs"))
    for _ in range(50):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    live_runs.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert live_runs.count() == 1


# -- POST /runs (examples 1, 2, 4, 5)


async def test_a_bare_post_creates_a_run_that_starts(client: httpx.AsyncClient) -> None:
    response = await client.post("/runs")
    assert (response.status_code, set(response.json())) == (201, {"runId"})
    run_id = response.json()["runId"]
    run = await shown(client, run_id)
    assert run == {"id": run_id, "mode": "redis", "createdAt": "2026-01-02T03:04:05.678Z", "status": "running"}
    (started,) = await listed(client, run_id)
    assert started == {"id": started["id"], "runId": run_id, "ts": run["createdAt"], "type": "started"}


@pytest.mark.parametrize(("query", "mode"), [
    ("?mode=redis", "redis"), ("?mode=k8s", "k8s"), ("", "redis"), ("?other=1", "redis"),
])  # fmt: skip
async def test_a_run_has_the_mode_it_was_asked_for(client: httpx.AsyncClient, query: str, mode: str) -> None:
    run_id = (await client.post(f"/runs{query}")).json()["runId"]
    assert (await shown(client, run_id))["mode"] == mode


@pytest.mark.parametrize("mode", ["bogus", "", "Redis", "redis ", "kubernetes"])
async def test_another_mode_is_invalid_whatever_the_body(client: httpx.AsyncClient, mode: str) -> None:
    is_error(await client.post("/runs", params={"mode": mode}, content=b"{"), 400, "invalid mode")


async def test_mode_plan_answers_the_steps_of_any_run_and_stores_nothing(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns
) -> None:
    response = await client.post("/runs?mode=plan", headers={"Idempotency-Key": "k"})
    steps = ["validate", "schedule", "execute"]
    assert (response.status_code, response.json()) == (200, {"mode": "plan", "plan": {"steps": steps}})
    assert live_runs.count() == 0
    assert (await client.post("/runs", headers={"Idempotency-Key": "k"})).status_code == 201


async def test_the_operator_says_what_a_post_without_mode_is(connect: Connect, live_runs: FakeLiveRuns) -> None:
    client = connect(None, runs_default_mode="plan")
    assert (await client.post("/runs")).json()["mode"] == "plan"
    assert live_runs.count() == 0
    assert (await client.post("/runs?mode=redis")).status_code == 201


@pytest.mark.parametrize(("header", "query", "owner"), [
    ("u1", None, "u1"), (None, "u2", "u2"), ("u1", "u2", "u1"), (" ", "u2", "u2"), ("", "  ", None), (None, None, None),
])  # fmt: skip
async def test_the_owner_is_who_the_caller_says(
    client: httpx.AsyncClient, header: str | None, query: str | None, owner: str | None
) -> None:
    headers = {} if header is None else {"x-actor-id": header}
    run_id = await create(client, params={} if query is None else {"owner": query}, headers=headers)
    assert (await shown(client, run_id)).get("owner") == owner


async def test_an_owner_without_end_is_refused(client: httpx.AsyncClient) -> None:
    message = "must NOT have more than 200 characters"
    is_invalid(await client.post("/runs", params={"owner": "x" * 201}), f"/owner {message}")
    is_invalid(await client.post("/runs", headers={"x-actor-id": "x" * 201}), f"/x-actor-id {message}")
    is_invalid(await client.post("/runs?owner=%00"), "/owner holds a NUL character")
    assert (await client.post("/runs", params={"owner": "x" * 200})).status_code == 201


async def test_owner_and_metadata_are_shown_as_they_were_given(client: httpx.AsyncClient) -> None:
    run_id = await create(client, {"metadata": {"k": [1]}}, headers={"x-actor-id": "u1"})
    run = await shown(client, run_id)
    assert (run["owner"], run["metadata"]) == ("u1", {"k": [1]})


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_is_json_whatever_its_content_type(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await client.post("/runs", content=b'{"metadata":{"a":1}}', headers=headers)
    assert (await shown(client, response.json()["runId"]))["metadata"] == {"a": 1}


@pytest.mark.parametrize("text", [
    b'{"a":1.0,"b":1e2,"c":-0.0,"d":0.1000000000000000055511151231257827}', b'{"n":123456789012345678901234567890}',
    b'{"n":-9223372036854775809}', b"{}",
    b'{"s":"\\u00e9\\u0000\\ud83d\\ude00 \xc3\xa9"}', b'{"":{"":[]},"z":1,"a":null}',
])  # fmt: skip
async def test_metadata_comes_back_character_by_character(client: httpx.AsyncClient, text: bytes) -> None:
    response = await client.post("/runs", content=b'{"other": 1, "metadata": ' + text + b"}")
    answer = await client.get(f"/runs/{response.json()['runId']}")
    assert answer.content.endswith(b'"metadata":' + text + b"}}")


async def test_metadata_is_told_on_one_line(client: httpx.AsyncClient) -> None:
    response = await client.post("/runs", content=b'{"metadata" : {\n "a b" :\t[ 1 , 2 ]\r\n}}')
    answer = await client.get(f"/runs/{response.json()['runId']}")
    assert answer.content.endswith(b'"metadata":{"a b":[1,2]}}}')


async def test_metadata_null_counts_as_absent(client: httpx.AsyncClient) -> None:
    assert "metadata" not in await shown(client, await create(client, {"metadata": None}))


async def test_metadata_may_have_64_kib_and_no_more(client: httpx.AsyncClient) -> None:
    fits = {"x": "a" * (64 * 1024 - 8)}
    assert len(json.dumps(fits, separators=(",", ":"))) == 64 * 1024
    assert (await shown(client, await create(client, {"metadata": fits})))["metadata"] == fits
    too_large = {"x": fits["x"] + "a"}
    is_error(await client.post("/runs", json={"metadata": too_large}), 413, "payload too large")
    is_error(await client.post("/runs?mode=plan", json={"metadata": too_large}), 413, "payload too large")


async def test_a_body_above_the_limit_is_413(connect: Connect) -> None:
    client = connect(None, max_body_bytes=100)
    is_error(await client.post("/runs", json={"other": "x" * 100}), 413, "payload too large")


@pytest.mark.parametrize("body", [
    b"{", b" ", b"nope", b'{"a":1}}', b"\xff", b'{"a":"\xff"}', b"\xef\xbb\xbf{}", b"NaN", b'{"a":1e999}',
    b'{"a":"\\ud800"}', b"{'a':1}", b'{"metadata":{"a":1e999}}',
])  # fmt: skip
async def test_what_is_no_json_that_we_can_keep_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    is_error(await client.post("/runs", content=body), 400, "invalid json")


@pytest.mark.parametrize(("body", "details"), [
    ([], ["/ must be object"]), (None, ["/ must be object"]), ("x", ["/ must be object"]), (1, ["/ must be object"]),
    ({"metadata": []}, ["/metadata must be object"]), ({"metadata": "x"}, ["/metadata must be object"]),
    ({"metadata": 0}, ["/metadata must be object"]), ({"metadata": False}, ["/metadata must be object"]),
    ({"dag_id": 1}, ["/dag_id must be string"]), ({"dag_id": None}, ["/dag_id must be string"]),
    ({"plan": []}, ["/plan must be object"]), ({"plan": None}, ["/plan must be object"]),
    ({"flow": "x"}, ["/flow must be object"]),
    ({"metadata": 1, "dag_id": 1}, ["/metadata must be object", "/dag_id must be string"]),
    ({"dag_id": "x", "plan": {"nodes": []}}, ["/ dag_id, plan and flow are exclusive"]),
    ({"plan": {"nodes": []}, "flow": {"kind": "Flow", "graph": {"nodes": []}}},
     ["/ dag_id, plan and flow are exclusive"]),
])  # fmt: skip
@pytest.mark.parametrize("query", ["", "?mode=plan"])
async def test_a_wrong_body_is_400_and_names_what_is_wrong(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, query: str, body: Any, details: list[str]
) -> None:
    is_invalid(await client.post(f"/runs{query}", content=json.dumps(body).encode()), *details)
    assert live_runs.count() == 0


@pytest.mark.parametrize("body", [b'{"metadata":' + b'{"a":' * n + b"1" + b"}" * n + b"}" for n in (100, 5000)])
async def test_a_body_without_bottom_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    is_invalid(await client.post("/runs", content=body), "/ must NOT be nested deeper than 100 levels")


async def test_unknown_keys_are_ignored(client: httpx.AsyncClient) -> None:
    assert (await client.post("/runs", json={"other": [1], "nodes": None})).status_code == 201


# -- runs of a DAG


async def define(gateway: FakeGateway, live_runs: FakeLiveRuns, *tasks: TaskSpec, tenant: str = "default") -> None:
    definition = Definition("sales", "me", tasks=tasks)
    await gateway.define_dag(tenant, definition, keep_tasks=False, expect=None, idem=None)
    live_runs.dags.add((tenant, "sales"))


async def test_a_run_of_a_dag_is_of_its_current_version(
    client: httpx.AsyncClient, gateway: FakeGateway, live_runs: FakeLiveRuns
) -> None:
    await define(gateway, live_runs, TaskSpec("b", depends_on=("a",)), TaskSpec("a"), TaskSpec("c"))
    run_id = await create(client, {"dag_id": "sales"})
    assert (live_runs.wanted(run_id).dag_id, live_runs.wanted(run_id).tasks) == ("sales", None)
    planned = await client.post("/runs?mode=plan", json={"dag_id": "sales"})
    assert planned.json()["plan"]["steps"] == [["a", "c"], ["b"]]


@pytest.mark.parametrize("dag_id", ["none", "", "a b", "x" * 300])
@pytest.mark.parametrize("mode", ["redis", "plan", "k8s"])
async def test_an_unknown_or_foreign_dag_is_404(
    client: httpx.AsyncClient, gateway: FakeGateway, live_runs: FakeLiveRuns, dag_id: str, mode: str
) -> None:
    await define(gateway, live_runs, TaskSpec("a"), tenant="other")
    for each in (dag_id, "sales"):
        is_error(await client.post(f"/runs?mode={mode}", json={"dag_id": each}), 404, "dag not found")


# -- idempotency


async def test_the_same_request_under_a_key_gets_the_first_answer_again(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns
) -> None:
    async def post(body: bytes, query: str = "?mode=redis&owner=u") -> httpx.Response:
        return await client.post(f"/runs{query}", content=body, headers={"Idempotency-Key": "order-7"})

    first = await post(b'{"metadata":{"a":1,"b":2}}')
    again = await post(b'{ "metadata": {"b": 2, "a": 1} }', "?owner=u&mode=redis")
    assert (again.status_code, again.json()) == (201, first.json())
    assert (first.headers.get("idempotent-replay"), again.headers["idempotent-replay"]) == (None, "true")
    assert live_runs.count() == 1
    for body, query in ((b"{}", "?mode=redis&owner=u"), (b'{"metadata":{"a":1,"b":2}}', "?mode=redis")):
        is_error(await post(body, query), 409, "idempotency key reused")
    assert live_runs.count() == 1


async def test_an_empty_body_is_the_same_request_as_an_empty_object(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await client.post("/runs", headers=headers)
    assert (await client.post("/runs", content=b"{}", headers=headers)).json() == first.json()


async def test_a_key_belongs_to_its_tenant_and_a_request_id_is_none(connect: Connect, live_runs: FakeLiveRuns) -> None:
    headers = {"Idempotency-Key": "k", "X-Request-Id": "r"}
    ids = {await create(connect(who), headers=headers) for who in ("client", "other")}
    ids |= {await create(connect("client"), headers={"X-Request-Id": "r"}) for _ in "ab"}
    ids |= {await create(connect("client"), headers={"Idempotency-Key": " "}) for _ in "ab"}
    assert len(ids) == 6


async def test_a_key_without_end_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/runs", headers={"Idempotency-Key": "k" * 256})
    is_invalid(response, "/Idempotency-Key must NOT have more than 255 characters")
    assert (await client.post("/runs", headers={"Idempotency-Key": "k" * 255})).status_code == 201


# -- GET /runs/{runId}


@pytest.mark.parametrize(("core", "word"), [
    ("queued", "pending"), ("running", "running"), ("waiting", "running"), ("paused", "running"),
    ("cancelling", "canceled"), ("succeeded", "completed"), ("failed", "failed"), ("timed_out", "failed"),
    ("quarantined", "failed"), ("cancelled", "canceled"),
])  # fmt: skip
async def test_a_run_is_shown_in_our_words(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, core: str, word: str
) -> None:
    run_id = await create(client)
    live_runs.change(run_id, state=core)
    assert (await shown(client, run_id))["status"] == word


async def test_times_have_three_digits_whatever_they_were(client: httpx.AsyncClient, live_runs: FakeLiveRuns) -> None:
    for moment, text in (
        (EPOCH.replace(microsecond=0), "2026-01-02T03:04:05.000Z"),
        (EPOCH.replace(microsecond=999_999), "2026-01-02T03:04:05.999Z"),
    ):
        live_runs.now = moment
        assert (await shown(client, await create(client)))["createdAt"] == text


async def test_an_unknown_run_is_404(client: httpx.AsyncClient) -> None:
    is_error(await client.get(f"/runs/{UNKNOWN}"), 404, "run not found")


# -- checkpoints (examples 6, 7)


async def post(client: httpx.AsyncClient, run_id: str, body: Any) -> httpx.Response:
    return await client.post(f"/runs/{run_id}/checkpoints", json=body)


async def test_a_checkpoint_is_listed_with_its_type_trimmed(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    response = await post(client, run_id, {"type": " step ", "data": {"n": 1}, "other": 1})
    assert (response.status_code, set(response.json())) == (201, {"checkpointId"})
    last = (await listed(client, run_id))[-1]
    assert (last["id"], last["type"], last["data"]) == (response.json()["checkpointId"], "step", {"n": 1})


@pytest.mark.parametrize(
    "data", ["null", "1", '"x"', "[]", "{}", "1.50", "12345678901234567890123", '"\\u0000"', "false"]
)
async def test_data_is_any_json_and_comes_back_as_it_was(client: httpx.AsyncClient, data: str) -> None:
    run_id = await create(client)
    await client.post(f"/runs/{run_id}/checkpoints", content=f'{{"type":"x","data":{data}}}'.encode())
    answer = await client.get(f"/runs/{run_id}/checkpoints")
    assert answer.content.endswith(f'"type":"x","data":{data}}}]}}'.encode())


async def test_data_that_is_not_given_is_not_told(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    await post(client, run_id, {"type": "x"})
    assert "data" not in (await listed(client, run_id))[-1]


@pytest.mark.parametrize("body", [[], {}, "x", None, 1, {"type": "  "}, {"type": ""}, {"type": 1}, {"type": None}])
async def test_a_checkpoint_needs_a_type(client: httpx.AsyncClient, body: Any) -> None:
    run_id = await create(client)
    response = await client.post(f"/runs/{run_id}/checkpoints", content=json.dumps(body).encode())
    is_error(response, 400, "invalid checkpoint type")
    assert len(await listed(client, run_id)) == 1


async def test_a_type_has_at_most_200_characters_after_trimming(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    assert (await post(client, run_id, {"type": f"  {'é' * 200}  "})).status_code == 201
    is_invalid(await post(client, run_id, {"type": "é" * 201}), "/type must NOT have more than 200 characters")


@pytest.mark.parametrize("body", [b"", b"{", b'{"type":"x","data":1e999}', b'{"type":"\\ud800"}'])
async def test_a_checkpoint_that_is_no_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    run_id = await create(client)
    is_error(await client.post(f"/runs/{run_id}/checkpoints", content=body), 400, "invalid json")


async def test_data_may_have_256_kib_and_no_more(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    fits = "a" * (256 * 1024 - 2)
    assert (await post(client, run_id, {"type": "x", "data": fits})).status_code == 201
    is_error(await post(client, run_id, {"type": "x", "data": fits + "a"}), 413, "payload too large")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"type":"x"}', b'{"type":"x","data":"' + b"a" * 300_000 + b'"}']
)
async def test_an_unknown_run_is_told_before_a_bad_checkpoint(client: httpx.AsyncClient, body: bytes) -> None:
    is_error(await client.post(f"/runs/{UNKNOWN}/checkpoints", content=body), 404, "run not found")
    is_error(await client.post("/runs/nope/checkpoints", content=body), 404, "run not found")


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "failed", "cancelled"])
async def test_a_checkpoint_is_taken_in_every_status(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, state: str
) -> None:
    run_id = await create(client)
    live_runs.change(run_id, state=state)
    assert (await post(client, run_id, {"type": "late"})).status_code == 201


async def test_checkpoints_posted_at_once_have_distinct_ascending_times(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    posted = await asyncio.gather(*(post(client, run_id, {"type": "t", "data": n}) for n in range(200)))
    assert len({each.json()["checkpointId"] for each in posted}) == 200
    times = [each["ts"] for each in await listed(client, run_id)]
    assert times == sorted(set(times))
    assert {len(each) for each in times} == {24}


async def test_checkpoints_can_be_listed_from_an_instant_and_so_many(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    for n in range(3):
        await post(client, run_id, {"type": f"t{n}"})
    every = await listed(client, run_id)
    for query, expected in (
        (f"?after={every[1]['ts']}", every[2:]), (f"?after={every[3]['ts']}", []), ("?limit=2", every[:2]),
        (f"?after={every[0]['ts']}&limit=1", every[1:2]), ("?limit=10000", every),
        ("?after=2026-01-02t04:04:05.6785%2B01:00", every[1:]), ("?after=2026-01-02T03:04:05Z", every),
    ):  # fmt: skip
        assert await listed(client, run_id, query) == expected


@pytest.mark.parametrize(("query", "detail"), [
    ("limit=0", "/limit 1..10000 expected"), ("limit=10001", "/limit 1..10000 expected"),
    ("limit=x", "/limit 1..10000 expected"), ("limit=", "/limit 1..10000 expected"),
    ("after=", "/after must be an RFC 3339 instant"), ("after=2026-01-02", "/after must be an RFC 3339 instant"),
    ("after=2026-13-02T03:04:05Z", "/after must be an RFC 3339 instant"),
    ("after=2026-01-02T03:04:05", "/after must be an RFC 3339 instant"),
    ("after=0001-01-01T00:00:00%2B01:00", "/after must be an RFC 3339 instant"),
])  # fmt: skip
async def test_a_bad_query_is_400_before_anything_is_looked_up(
    client: httpx.AsyncClient, query: str, detail: str
) -> None:
    is_invalid(await client.get(f"/runs/{UNKNOWN}/checkpoints?{query}"), detail)


async def test_checkpoints_of_an_unknown_run_are_404(client: httpx.AsyncClient) -> None:
    is_error(await client.get(f"/runs/{UNKNOWN}/checkpoints"), 404, "run not found")


# -- DELETE /runs/{runId} (example 8)


@pytest.mark.parametrize("held", [True, False], ids=["pending", "running"])
async def test_a_run_is_canceled_once(client: httpx.AsyncClient, live_runs: FakeLiveRuns, held: bool) -> None:
    live_runs.held = held
    run_id = await create(client)
    response = await client.delete(f"/runs/{run_id}")
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "canceled"})
    again = await client.delete(f"/runs/{run_id}")
    is_error(again, 409, "invalid status transition", **{"from": "canceled", "to": "canceled"})
    assert (await shown(client, run_id))["status"] == "canceled"
    assert (await listed(client, run_id))[-1]["type"] == "canceled"


@pytest.mark.parametrize(("core", "word"), [("succeeded", "completed"), ("failed", "failed"), ("timed_out", "failed")])
async def test_what_has_ended_cannot_be_canceled(
    client: httpx.AsyncClient, live_runs: FakeLiveRuns, core: str, word: str
) -> None:
    run_id = await create(client)
    live_runs.change(run_id, state=core)
    response = await client.delete(f"/runs/{run_id}")
    is_error(response, 409, "invalid status transition", **{"from": word, "to": "canceled"})


async def test_an_unknown_run_cannot_be_canceled(client: httpx.AsyncClient) -> None:
    for run_id in (UNKNOWN, "nope"):
        is_error(await client.delete(f"/runs/{run_id}"), 404, "run not found")


# -- taskless runs


@pytest.mark.parametrize(("kind", "status"), [("run.completed", "completed"), ("run.failed", "failed")])
async def test_its_owner_ends_a_taskless_run(client: httpx.AsyncClient, kind: str, status: str) -> None:
    run_id = await create(client)
    await post(client, run_id, {"type": kind})
    assert (await shown(client, run_id))["status"] == status
    assert [each["type"] for each in await listed(client, run_id)] == ["started", kind, status]


# -- the published schemas


async def test_the_schemas_are_served_as_they_are_and_as_components(client: httpx.AsyncClient) -> None:
    components = (await client.get("/openapi.json")).json()["components"]["schemas"]
    for name, file in published.NAMES.items():
        response = await client.get(f"/schemas/{file}")
        assert response.headers["content-type"] == "application/schema+json; charset=utf-8"
        document = response.json()
        assert document["$id"] == f"/schemas/{file}"
        assert components[name]["title"] == document["title"]


def test_the_objects_are_closed() -> None:
    run = {"id": "BCbPVCdF3kqz", "mode": "redis", "createdAt": "2026-01-02T03:04:05.678Z", "status": "running"}
    checkpoint = {"id": "EGKj8m", "runId": run["id"], "ts": run["createdAt"], "type": "started", "data": None}
    hello = {"type": "hello", "data": {"runId": run["id"]}}
    for name, value in (("run", run), ("checkpoint", checkpoint), ("event", hello)):
        assert SCHEMAS.valid(name, value)
        assert not SCHEMAS.valid(name, {**value, "updatedAt": run["createdAt"]})
    event = {"type": "checkpoint", "data": checkpoint}
    assert SCHEMAS.valid("event", event)
    assert not SCHEMAS.valid("event", {"type": "checkpoint", "data": {**checkpoint, "more": 1}})
    assert not SCHEMAS.valid("event", {"type": "hello", "data": {"runId": run["id"], "status": "running"}})
    assert not SCHEMAS.valid("run", {**run, "createdAt": "2026-01-02T03:04:05Z"})


# -- the dags surface beside it


async def test_surfaces_word_their_own_errors(connect: Connect) -> None:
    client = connect("client")
    assert set((await client.get(f"{DAGS}/runs/run_9")).json()) == {"error", "message", "request_id"}
    assert TOKENS["client"] not in str((await client.get(f"/runs/{UNKNOWN}")).json())
