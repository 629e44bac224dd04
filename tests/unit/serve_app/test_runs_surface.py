"""The runs surface, rule by rule, over runs in memory (contracts/runs.md, contracts/README.md 1, 4, 5).

Plans are in `test_runs_plans.py`, streams in `test_runs_events.py`.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from orchestrator.definition import TaskSpec
from serve_app.surfaces.runs import published
from tests.fakes_gateway import EPOCH, FakeGateway
from tests.fakes_live_runs import FakeLiveRuns
from tests.runs_requests import SCHEMAS, UNKNOWN, create, define, is_error, is_invalid, listed, shown
from tests.unit.serve_app.conftest import BASE as DAGS
from tests.unit.serve_app.conftest import TOKENS, Connect


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Somebody on this machine without a token."""
    return connect(None)


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
