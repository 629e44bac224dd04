"""The dags surface: runs and backfills, what becomes of them, and their tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from orchestrator.events import Counts
from orchestrator.views import LogChunk
from tests.dags_requests import BACKFILL, TASKS, define, is_error, start
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import BASE, Connect


async def test_a_run_tells_whose_results_its_tasks_have(admin: httpx.AsyncClient, gateway: FakeGateway) -> None:
    run_id = await start(admin)
    assert "cached" not in (await admin.get(f"/runs/{run_id}")).json()
    gateway.settle("default", run_id, cached={"extract": "run_0"})
    assert (await admin.get(f"/runs/{run_id}")).json()["cached"] == {"extract": {"run_id": "run_0"}}


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
