"""The instances surface over HTTP, rule by rule, over a port in memory (contracts/instances.md 1, 2, 5)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from orchestrator import errors
from orchestrator.instance_views import InstanceStatus, PlanTaskView
from serve_app.surfaces.instances import models as m
from serve_app.surfaces.instances import words
from tests.fakes_gateway import EPOCH
from tests.fakes_instances import DEMO, FakeInstances
from tests.unit.serve_app.conftest import Connect, X, told

NOW = "2026-01-02T03:04:05.678000Z"
ONE = f"/api/orchestrators/{X}"
JSON = {"Content-Type": "application/json"}


# -- what does not exist


async def test_an_unknown_path_or_method_is_told_in_our_form(anybody: httpx.AsyncClient) -> None:
    for path in ("/api/orchestrators/", f"{ONE}/nope", f"{ONE}/events", "/api/plans/demo", "/api/plans/a/b/c/d"):
        told(await anybody.get(path), 404, "Not Found")
    refused = await anybody.delete(ONE)
    told(refused, 405, "Method Not Allowed")
    assert refused.headers["allow"] == "GET"
    assert (await anybody.put("/api/orchestrators")).headers["allow"] == "GET, POST"


@pytest.mark.parametrize("name", ["ORCH-1", "orch-A", "orch", "%20", "nope"])
async def test_an_id_that_no_instance_can_have_is_like_an_unknown_one(
    anybody: httpx.AsyncClient, instances: FakeInstances, name: str
) -> None:
    instances.broken = errors.JournalUnavailable("not to be asked")
    given = name.replace("%20", " ")
    for path in (f"/api/orchestrators/{name}", f"/api/orchestrators/{name}/status"):
        told(await anybody.get(path), 404, f"Orchestrator '{given}' not found")
    for command in ("pause", "resume", "shutdown"):
        told(await anybody.post(f"/api/orchestrators/{name}/{command}"), 404, f"Orchestrator '{given}' not found")


@pytest.mark.parametrize("name", ["%2e%2e", "a..b", ".hidden", "-x", "a%20b", "%C3%BC"])
async def test_a_name_that_no_plan_can_have_is_like_an_unknown_one(
    running: httpx.AsyncClient, instances: FakeInstances, name: str
) -> None:
    given = httpx.URL(f"http://h/{name}").path[1:]
    told(await running.get(f"/api/plans/demo/findings/{name}"), 404,
         f"Finding for task '{given}' not found in plan 'demo'")  # fmt: skip
    told(await running.get(f"/api/plans/nope/findings/{name}"), 404, "Plan 'nope' not found")
    instances.broken = errors.JournalUnavailable("not to be asked")
    for path in ("status", "tasks", "findings", "findings/1.1"):
        told(await running.get(f"/api/plans/{name}/{path}"), 404, f"Plan '{given}' not found")
    told(await running.post("/api/orchestrators", json={"plan": given}), 404, f"Plan '{given}' not found")


# -- instances


async def test_an_instance_is_shown_with_every_field_and_nulls(running: httpx.AsyncClient) -> None:
    info = {
        "id": X,
        "pid": 4711,
        "plan_path": "/srv/app/docs/plans/demo.md",
        "plan_name": "demo",
        "worktree_path": None,
        "started_at": NOW,
        "last_heartbeat": NOW,
        "status": "running",
        "socket_path": None,
        "is_alive": True,
        "is_stale": False,
        "exit_reason": None,
        "executor": "echo",
    }
    assert (await running.get(ONE)).json() == info
    assert (await running.get("/api/orchestrators")).json() == [info]


@pytest.mark.parametrize(("age_s", "stale"), [(60, False), (60.1, True)])
async def test_an_instance_is_stale_after_60_s_without_a_heartbeat(
    running: httpx.AsyncClient, instances: FakeInstances, age_s: float, stale: bool
) -> None:
    instances.settle(X, last_heartbeat=EPOCH - timedelta(seconds=age_s))
    assert (await running.get(ONE)).json()["is_stale"] is stale


async def test_a_status_has_counts_phases_and_progress_of_its_tasks(
    running: httpx.AsyncClient, instances: FakeInstances
) -> None:
    await instances.move(X, "1.1", "completed", started_at=EPOCH, completed_at=EPOCH + timedelta(seconds=1))
    status = (await running.get(f"{ONE}/status")).json()
    assert status["summary"] == {
        "total_tasks": 4,
        "completed": 2,
        "pending": 2,
        "in_progress": 0,
        "failed": 0,
        "skipped": 0,
        "current_phase": "Phase 1: Setup",
        "progress_percent": 50.0,
    }
    assert status["phases"] == [
        {"phase_number": 1, "name": "Setup", "total_tasks": 3, "completed_tasks": 2, "pending_tasks": 1,
         "failed_tasks": 0, "is_current": True},
        {"phase_number": 2, "name": "Check", "total_tasks": 1, "completed_tasks": 0, "pending_tasks": 1,
         "failed_tasks": 0, "is_current": False},
    ]  # fmt: skip
    assert status["tasks"][0] == {
        "id": "1.1",
        "description": "Create the folder",
        "status": "completed",
        "phase": "Phase 1: Setup",
        "retry_count": 0,
        "last_error": None,
        "started_at": NOW,
        "completed_at": "2026-01-02T03:04:06.678000Z",
    }
    assert status["tasks"][2]["description"] == "Write the file (depends: 1.1, 1.2)"
    assert (status["instance_id"], status["status"], status["max_iterations"], status["exit_reason"]) == (
        X,
        "running",
        50,
        None,
    )
    assert (status["started_at"], status["iteration"]) == (NOW, 0)


def tasks(*states: tuple[str | None, str]) -> tuple[PlanTaskView, ...]:
    return tuple(
        PlanTaskView(task_id=f"1.{n}", description="x", status=status, phase=phase)
        for n, (phase, status) in enumerate(states)
    )


@pytest.mark.parametrize(("given", "phase"), [
    (tasks(), None),
    (tasks(("Phase 2: B", "in_progress"), ("Phase 1: A", "pending")), "Phase 2: B"),
    (tasks(("Phase 10: B", "pending"), ("Phase 9: A", "pending")), "Phase 9: A"),
    (tasks(("Phase 0: Z", "pending"), ("Phase 1: A", "pending")), "Phase 0: Z"),
    (tasks(("Phase 1: A", "failed"), ("Phase 2: B", "pending")), "Phase 2: B"),
    (tasks(("Phase 1: A", "completed"), ("Phase 2: B", "skipped"), ("Phase 3: C", "failed")), None),
    (tasks((None, "in_progress"), ("Phase 2: B", "pending")), "Phase 2: B"),
])  # fmt: skip
def test_the_current_phase_is_the_earliest_in_progress_else_pending(
    given: tuple[PlanTaskView, ...], phase: str | None
) -> None:
    status = shown(given)
    assert status["summary"]["current_phase"] == phase
    assert [each["is_current"] for each in status["phases"]].count(True) == (phase is not None)


def test_progress_is_unrounded_and_skipped_tasks_are_no_progress() -> None:
    assert shown(())["summary"]["progress_percent"] == 0.0
    of_three = shown(tasks(("P", "completed"), ("P", "skipped"), ("P", "failed")))
    assert of_three["summary"]["progress_percent"] == 1 / 3 * 100


def test_the_name_of_a_phase_is_what_follows_its_number() -> None:
    (phase,) = shown(tasks(("Phase 7: Build: all of it", "completed"), (None, "failed")))["phases"]
    assert (phase["phase_number"], phase["name"], phase["total_tasks"]) == (7, "Build: all of it", 1)


def shown(given: tuple[PlanTaskView, ...]) -> Any:
    """The status of an instance with these tasks, as the surface shows it."""
    return words.status(InstanceStatus(instance_id="", plan_path="/p", plan_name="p", status="running", tasks=given))


# -- start


async def test_starting_a_plan_takes_defaults_and_limits(anybody: httpx.AsyncClient) -> None:
    response = await anybody.post("/api/orchestrators", json={"plan": "demo"})
    assert (response.status_code, response.json()["status"], response.json()["executor"]) == (201, "running", "echo")
    assert (await anybody.get(f"{ONE}/status")).json()["max_iterations"] == 50


async def test_a_start_that_cannot_be_is_refused_in_the_contracts_words(
    running: httpx.AsyncClient, instances: FakeInstances
) -> None:
    async def start(**body: Any) -> httpx.Response:
        return await running.post("/api/orchestrators", json=body)

    told(await start(plan="nope"), 404, "Plan 'nope' not found")
    told(await start(plan="demo"), 409, f"Plan 'demo' is already being run by '{X}'")
    told(await start(plan="demo", executor="y"), 400, "Unknown executor 'y'")
    instances.plan_tasks["default", "loop"] = DEMO
    instances.cycles["default", "loop"] = "1.1 -> 1.2 -> 1.1"
    told(await start(plan="loop"), 400, "Dependency cycle detected: 1.1 -> 1.2 -> 1.1")


@pytest.mark.parametrize(("change", "kind"), [
    ({"batch_size": 0}, "greater_than_equal"), ({"batch_size": 51}, "less_than_equal"),
    ({"max_iterations": -1}, "greater_than_equal"), ({"max_retries": 11}, "less_than_equal"),
    ({"batch_size": "5"}, "int_type"), ({"batch_size": True}, "int_type"), ({"batch_size": 1.5}, "int_from_float"),
    ({"executor": 7}, "string_type"), ({"plan": None}, "string_type"),
])  # fmt: skip
async def test_a_wrong_field_is_named_by_422(anybody: httpx.AsyncClient, change: dict[str, Any], kind: str) -> None:
    response = await anybody.post("/api/orchestrators", json={"plan": "demo", **change})
    (fault,) = response.json()["detail"]
    ((name, value),) = change.items()
    assert (response.status_code, fault["loc"], fault["type"]) == (422, ["body", name], kind)
    assert fault["input"] == value
    assert fault["msg"]


async def test_limits_are_within_reach_and_unknown_fields_ignored(anybody: httpx.AsyncClient) -> None:
    body = {"plan": "demo", "batch_size": 50, "max_iterations": 0, "max_retries": 0, "executor": None, "more": 1}
    assert (await anybody.post("/api/orchestrators", json=body)).status_code == 201


# -- bodies


@pytest.mark.parametrize(("content", "headers", "fault"), [
    (b"{}", JSON, {"type": "missing", "loc": ["body", "task_id"], "msg": "Field required", "input": {}}),
    (b"", JSON, {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}),
    (b'{"task_id":1}', JSON,
     {"type": "string_type", "loc": ["body", "task_id"], "msg": "Input should be a valid string", "input": 1}),
    (b"[]", JSON, {"type": "model_attributes_type", "loc": ["body"],
                   "msg": "Input should be a valid dictionary or object to extract fields from", "input": []}),
    (b'{"task_id":"1.1"}', {"Content-Type": "text/plain"},
     {"type": "model_attributes_type", "loc": ["body"],
      "msg": "Input should be a valid dictionary or object to extract fields from", "input": '{"task_id":"1.1"}'}),
])  # fmt: skip
async def test_a_wrong_body_is_told_as_fastapi_tells_it(
    running: httpx.AsyncClient, content: bytes, headers: dict[str, str], fault: dict[str, Any]
) -> None:
    for command in ("skip-task", "retry-task"):
        told(await running.post(f"{ONE}/{command}", content=content, headers=headers), 422, [fault])


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"task_id": NaN}', b'{"a":' + b"[" * 101 + b"]" * 101 + b"}"])
async def test_a_body_that_is_no_json_is_422_too(running: httpx.AsyncClient, content: bytes) -> None:
    response = await running.post(f"{ONE}/skip-task", content=content, headers=JSON)
    (fault,) = response.json()["detail"]
    assert (response.status_code, fault["type"], fault["loc"][0]) == (422, "json_invalid", "body")
    assert fault["ctx"]["error"]


async def test_a_body_is_checked_before_existence_and_after_the_caller(connect: Connect) -> None:
    client = connect("client")
    response = await client.post("/api/orchestrators/orch-9/skip-task", json={})
    assert response.status_code == 422
    told(await client.post("/api/orchestrators", content=b"{", headers=JSON), 403, "Not enough permissions")


async def test_a_body_above_the_limit_is_413(connect: Connect) -> None:
    client = connect("admin", max_body_bytes=100)
    told(await client.post("/api/orchestrators", json={"plan": "x" * 100}), 413, "body is larger than 100 bytes")


# -- commands


async def test_pause_resume_and_shutdown_are_acknowledged_however_often(running: httpx.AsyncClient) -> None:
    for command, status in (("pause", "paused"), ("resume", "running"), ("shutdown", "stopping")):
        for _ in "ab":
            response = await running.post(f"{ONE}/{command}")
            assert (response.status_code, response.json()) == (
                200,
                {"success": True, "message": f"Orchestrator '{X}' {command} requested", "error": None},
            )
        assert (await running.get(f"{ONE}/status")).json()["status"] == status
    assert (await running.get(ONE)).json()["status"] == "stopping"


async def test_a_forced_shutdown_does_not_wait(running: httpx.AsyncClient) -> None:
    assert (await running.post(f"{ONE}/shutdown?force=false")).json()["success"]
    assert (await running.get(ONE)).json()["status"] == "stopping"
    assert (await running.post(f"{ONE}/shutdown?force=true")).json()["success"]
    stopped = (await running.get(ONE)).json()
    assert (stopped["status"], stopped["exit_reason"]) == ("stopped", "shutdown")


async def test_force_is_a_boolean(running: httpx.AsyncClient) -> None:
    response = await running.post(f"{ONE}/shutdown?force=maybe")
    (fault,) = response.json()["detail"]
    assert (response.status_code, fault["loc"], fault["type"]) == (422, ["query", "force"], "bool_parsing")


@pytest.mark.parametrize("command", ["pause", "resume", "shutdown"])
async def test_what_is_not_acknowledged_is_told_with_200(
    running: httpx.AsyncClient, instances: FakeInstances, command: str
) -> None:
    instances.deaf.add(X)
    response = await running.post(f"{ONE}/{command}")
    message = f"{command.capitalize()} not acknowledged"
    assert (response.status_code, response.json()) == (200, {"success": False, "message": message, "error": None})


@pytest.mark.parametrize("command", ["pause", "resume", "shutdown"])
async def test_a_dead_instance_is_503_and_can_still_be_skipped_and_retried(
    running: httpx.AsyncClient, instances: FakeInstances, command: str
) -> None:
    await instances.stop(X)
    dead = await running.post(f"{ONE}/{command}")
    told(dead, 503, f"Orchestrator '{X}' is not running (process dead)")
    assert "retry-after" not in dead.headers
    assert (await running.post(f"{ONE}/skip-task", json={"task_id": "2.1"})).json()["success"]
    assert (await running.post(f"{ONE}/retry-task", json={"task_id": "2.1"})).json()["success"]


async def test_a_skip_says_what_came_of_it(running: httpx.AsyncClient) -> None:
    async def skip(task_id: str) -> Any:
        response = await running.post(f"{ONE}/skip-task", json={"task_id": task_id, "reason": "later"})
        assert response.status_code == 200
        return response.json()

    done = {"success": True, "message": "Task '2.1' skipped", "error": None}
    assert [await skip("2.1"), await skip("2.1")] == [done, done]
    assert await skip("9.9") == {
        "success": False,
        "message": "Skip failed",
        "error": "Failed to mark task 9.9 as skipped. Task may not exist.",
    }
    assert await skip("1.2") == {"success": False, "message": "Skip failed", "error": "Task status is 'completed'"}


async def test_a_retry_says_what_came_of_it(running: httpx.AsyncClient) -> None:
    async def retry(task_id: str) -> httpx.Response:
        return await running.post(f"{ONE}/retry-task", json={"task_id": task_id})

    await running.post(f"{ONE}/skip-task", json={"task_id": "2.1"})
    assert (await retry("2.1")).json() == {"success": True, "message": "Task '2.1' reset for retry", "error": None}
    assert (await retry("2.1")).json() == {
        "success": False,
        "message": "Task is not in a retriable state",
        "error": "Task status is 'pending', must be 'failed' or 'skipped'",
    }
    told(await retry("9.9"), 404, "Task '9.9' not found in plan")
    again = (await running.get(f"{ONE}/status")).json()["tasks"][3]
    assert (again["status"], again["retry_count"]) == ("pending", 1)


async def test_braces_in_names_are_letters_like_others(running: httpx.AsyncClient) -> None:
    told(await running.post(f"{ONE}/retry-task", json={"task_id": "{0}"}), 404, "Task '{0}' not found in plan")


async def test_a_command_goes_on_when_the_caller_hangs_up(running: httpx.AsyncClient, instances: FakeInstances) -> None:
    instances.gate = asyncio.Event()
    before = instances.mutations
    asking = asyncio.create_task(running.post(f"{ONE}/pause"))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    instances.gate.set()
    await asyncio.sleep(0.01)
    assert instances.mutations == before + 1


# -- plans


async def test_plans_without_a_status_say_so(anybody: httpx.AsyncClient) -> None:
    assert (await anybody.get("/api/plans")).json() == [
        {
            "name": "demo",
            "path": "/srv/app/docs/plans/demo.md",
            "has_status": False,
            "last_modified": NOW,
            "output_dir": None,
        }
    ]
    for path in ("status", "tasks"):
        detail = "No status found for plan 'demo'. Run /plan:implement first."
        told(await anybody.get(f"/api/plans/demo/{path}"), 404, detail)
        told(await anybody.get(f"/api/plans/nope/{path}"), 404, "Plan 'nope' not found")
    assert (await anybody.get("/api/plans/demo/findings")).json() == []
    told(await anybody.get("/api/plans/nope/findings"), 404, "Plan 'nope' not found")


async def test_a_plans_status_names_its_instance_while_there_is_one(
    running: httpx.AsyncClient, instances: FakeInstances
) -> None:
    status = (await running.get("/api/plans/demo/status")).json()
    assert (status["instance_id"], status["status"]) == (X, "running")
    assert (await running.get("/api/plans/demo/tasks")).json() == status["tasks"]
    await instances.stop(X)
    status = (await running.get("/api/plans/demo/status")).json()
    assert (status["instance_id"], status["status"]) == ("", "stopped")
    assert (await running.get("/api/plans")).json()[0]["output_dir"] == "/srv/app/docs/plan-outputs/demo"


async def test_findings_are_listed_and_read(anybody: httpx.AsyncClient, instances: FakeInstances) -> None:
    instances.texts["default", "demo", "1.1"] = "Create the folder\n"
    assert (await anybody.get("/api/plans/demo/findings")).json() == [
        {
            "task_id": "1.1",
            "file_path": "/srv/app/docs/plan-outputs/demo/findings/1-1.md",
            "size_bytes": 18,
            "last_modified": NOW,
        }
    ]
    found = await anybody.get("/api/plans/demo/findings/1.1")
    assert (found.status_code, found.json()) == (200, {"task_id": "1.1", "content": "Create the folder\n"})
    told(await anybody.get("/api/plans/demo/findings/9.9"), 404, "Finding for task '9.9' not found in plan 'demo'")
    told(await anybody.get("/api/plans/nope/findings/1.1"), 404, "Plan 'nope' not found")


# -- what breaks


async def test_an_outage_is_503_and_to_be_tried_again(anybody: httpx.AsyncClient, instances: FakeInstances) -> None:
    for error in (errors.JournalUnavailable("secret"), errors.ActorUnreachable("orchestrator:x", "secret")):
        instances.broken = error
        response = await anybody.get("/api/orchestrators")
        told(response, 503, "Service Unavailable")
        assert response.headers["retry-after"] == "1"


async def test_our_own_bug_is_500_without_its_text(anybody: httpx.AsyncClient, instances: FakeInstances) -> None:
    instances.broken = ZeroDivisionError("secret")
    told(await anybody.get("/api/orchestrators"), 500, "Internal Server Error")


# -- the truth of models


async def test_answers_are_what_their_models_say(running: httpx.AsyncClient, instances: FakeInstances) -> None:
    instances.texts["default", "demo", "1.1"] = "x"
    await instances.move(X, "1.1", "failed", last_error="boom")
    answers = {
        "/api/orchestrators": list[m.OrchestratorInfo],
        f"{ONE}/status": m.StatusResponse,
        "/api/plans": list[m.PlanInfo],
        "/api/plans/demo/tasks": list[m.TaskInfo],
        "/api/plans/demo/findings": list[m.FindingInfo],
    }
    for path, kind in answers.items():
        body = (await running.get(path)).json()
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        shown = adapter.dump_python(adapter.validate_python(body), mode="json")
        assert _keys(shown) == _keys(body), path


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _keys(each) for name, each in value.items()}
    return [_keys(each) for each in value] if isinstance(value, list) else None


def test_a_status_without_tasks_is_all_zeros() -> None:
    shown = words.status(InstanceStatus(instance_id="", plan_path="/p", plan_name="p", status="stopped"))
    assert (shown["tasks"], shown["phases"], shown["started_at"]) == ([], [], None)
    assert shown["summary"] == m.StatusSummary().model_dump()


def test_fractions_of_seconds_have_six_digits() -> None:
    assert words.instant(EPOCH.replace(microsecond=0)) == "2026-01-02T03:04:05.000000Z"
