"""The dags surface: DAGs, their schedules, and deploying what the operator left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from orchestrator.definition import Definition, TaskSpec
from tests.dags_requests import DAG, TASKS, define, is_error, start
from tests.fakes_gateway import FakeGateway
from tests.unit.serve_app.conftest import BASE, Connect

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


async def test_an_uncache_is_of_a_dag_or_of_a_task_of_it(connect: Connect, admin: httpx.AsyncClient) -> None:
    await define(admin, tasks=[{"id": "extract", "cache_ttl_s": 60}])
    told = (await admin.delete("/dags/sales_gdp/cache")).json()
    assert told == {"dag_id": "sales_gdp", "task": None, "uncached_at": told["uncached_at"]}
    assert (await admin.delete("/dags/sales_gdp/cache?task=extract")).json()["task"] == "extract"
    is_error(await admin.delete("/dags/sales_gdp/cache?task=load"), 404, "not_found")
    is_error(await admin.delete("/dags/sales_gdp/cache?task=a/b"), 400, "invalid_request")
    is_error(await admin.delete("/dags/none/cache"), 404, "not_found")
    is_error(await connect("other").delete(f"{BASE}/dags/sales_gdp/cache"), 404, "not_found")


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
