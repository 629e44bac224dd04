"""The pipelines surface over pipelines in memory: endpoints, both generations of callers (contracts/pipelines.md)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from orchestrator.pipeline_views import JobResult
from serve_app.surfaces.pipelines import editor
from tests.fakes_pipelines import FakePipelines
from tests.pipelines_requests import (
    DONE,
    LINE,
    SCRIPT,
    TIME,
    UNKNOWN,
    WORDS,
    Json,
    claim,
    client,
    empty,
    job_id,
    launch,
    ok,
    pipeline_id,
    refused,
)

__all__ = ["client", "job_id", "pipeline_id"]


async def test_health_is_text(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/health")
    assert (response.status_code, response.text) == (200, "OK")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


# -- runners


async def test_a_runner_registers_beats_and_is_seen(client: httpx.AsyncClient) -> None:
    body = {"runner_id": "r1", "capabilities": ["log", "env"]}
    expected = {
        "id": "r1", "capabilities": ["log", "env"], "capability_count": 2, "registered_at": TIME,
        "last_heartbeat_at": TIME, "status": "Online",
    }  # fmt: skip
    assert await ok(client.post("/api/runners/register", json=body)) == expected
    assert await ok(client.post("/api/runners/r1/heartbeat")) == expected
    assert await ok(client.get("/api/runners/r1")) == expected
    assert await ok(client.get("/api/runners")) == [expected]
    await empty(client.delete("/api/runners/r1"), 204)
    for method, path in (("POST", "/heartbeat"), ("GET", ""), ("DELETE", "")):
        await refused(client.request(method, f"/api/runners/r1{path}"), 404, "Runner r1 not found")


@pytest.mark.parametrize("body", [{"runner_id": "g2"}, {"runner_id": "g2", "capabilities": None}])
async def test_a_runner_may_say_nothing_of_what_it_can(client: httpx.AsyncClient, body: Json) -> None:
    found = await ok(client.post("/api/runners/register", json=body))
    assert (found["capabilities"], found["capability_count"]) == ([], 0)


@pytest.mark.parametrize(("body", "error"), [
    ({"runner_id": ""}, "Runner id cannot be empty"),
    ({"runner_id": " "}, "Runner id cannot be empty"),
    ({"runner_id": "r" * 256}, "Runner id is too long (max 255 characters)"),
    ({"runner_id": "r", "capabilities": []}, "Runner must have at least one capability"),
    ({"runner_id": "r", "capabilities": ["log", ""]}, "Capability cannot be empty"),
    ({}, "Invalid request body: runner_id: Field required"),
    ({"runner_id": 1}, "Invalid request body: runner_id: Input should be a valid string"),
    ({"runner_id": "r", "capabilities": "log"}, "Invalid request body: capabilities: Input should be a valid list"),
    ({"runner_id": "a\0b"}, "Invalid request body: runner_id: holds a NUL character"),
    ([], "Invalid request body: JSON object expected"),
])  # fmt: skip
async def test_a_registration_without_sense_is_refused(client: httpx.AsyncClient, body: Any, error: str) -> None:
    await refused(client.post("/api/runners/register", json=body), 400, error)


async def test_runner_ids_in_paths_are_percent_decoded(client: httpx.AsyncClient) -> None:
    await ok(client.post("/api/runners/register", json={"runner_id": "eu/böx 7%"}))
    assert (await ok(client.post("/api/runners/eu%2Fb%C3%B6x%207%25/heartbeat")))["id"] == "eu/böx 7%"
    assert (await ok(client.get("/api/runners/eu%2Fb%C3%B6x%207%25")))["id"] == "eu/böx 7%"
    await empty(client.delete("/api/runners/eu%2Fb%C3%B6x%207%25"), 204)


# -- pipelines


async def test_a_pipeline_has_every_key_and_what_it_was_given(client: httpx.AsyncClient) -> None:
    tags = ["ci", {"key": "os", "value": "linux", "note": "kept"}]
    config = {"timeout_seconds": None, "max_retries": 2, "env_vars": {"A": "b"}}
    body = {
        "name": "Mine", "description": None, "script": SCRIPT, "required_modules": ["docker"], "tags": tags,
        "config": config,
    }  # fmt: skip
    found = await ok(client.post("/api/pipeline/create", json=body))
    assert found == {
        **body, "id": found["id"], "description": "d", "created_at": TIME, "updated_at": TIME, "version": 1,
    }  # fmt: skip
    assert await ok(client.get(f"/api/pipeline/{found['id']}")) == found
    assert await ok(client.get(f"/api/pipeline/{found['id'].upper()}")) == found


async def test_a_pipeline_may_be_a_script_alone(client: httpx.AsyncClient) -> None:
    found = await ok(client.post("/api/pipeline/create", json={"script": SCRIPT}))
    assert found["config"] == {"timeout_seconds": 3600, "max_retries": 0, "env_vars": {}}
    assert (found["name"], found["required_modules"], found["tags"]) == ("Example", [], [])
    partly = await ok(client.post("/api/pipeline/create", json={"script": SCRIPT, "config": {"max_retries": 1.0}}))
    assert partly["config"] == {"timeout_seconds": 3600, "max_retries": 1, "env_vars": {}}
    nulls = {"name": None, "required_modules": None, "tags": None, "config": None}
    assert (await ok(client.post("/api/pipeline/create", json={"script": SCRIPT, **nulls})))["tags"] == []
    assert [each["id"] for each in await ok(client.get("/api/pipeline/list"))][-1] == found["id"]


async def test_secrets_are_shown_masked_and_given_to_who_claims(client: httpx.AsyncClient) -> None:
    config = {"env_vars": {"A": "b"}, "secret_env_vars": {"TOKEN": "hunter2"}}
    created = await ok(client.post("/api/pipeline/create", json={"script": SCRIPT, "config": config}))
    assert created["config"]["secret_env_vars"] == {"TOKEN": "***"}
    claimed = await claim(client, await launch(client, created["id"]))
    assert claimed["env_vars"] == {"A": "b", "TOKEN": "hunter2"}


@pytest.mark.parametrize(("body", "error"), [
    ({"script": ""}, "Pipeline script cannot be empty"),
    ({"script": SCRIPT, "name": ""}, "Pipeline name cannot be empty"),
    ({}, "Invalid request body: script: Field required"),
    ({"script": 1}, "Invalid request body: script: Input should be a valid string"),
    ({"script": SCRIPT, "config": {"max_retries": "1"}},
     "Invalid request body: config/max_retries: Input should be a valid integer"),
    ({"script": SCRIPT, "config": {"max_retries": True}},
     "Invalid request body: config/max_retries: Input should be a valid integer"),
    ({"script": SCRIPT, "config": {"timeout_seconds": 0}},
     "Invalid request body: config/timeout_seconds: Input should be greater than or equal to 1"),
    ({"script": SCRIPT, "config": {"env_vars": {"A": 1}}},
     "Invalid request body: config/env_vars/A: Input should be a valid string"),
    ({"script": SCRIPT, "tags": ["a\0"]}, "Invalid request body: tags: 0 holds a NUL character"),
])  # fmt: skip
async def test_a_pipeline_without_sense_is_refused(client: httpx.AsyncClient, body: Json, error: str) -> None:
    await refused(client.post("/api/pipeline/create", json=body), 400, error)


async def test_a_deleted_pipeline_is_gone_with_its_jobs(
    client: httpx.AsyncClient, pipeline_id: str, job_id: str
) -> None:
    await empty(client.delete(f"/api/pipeline/{pipeline_id}"), 204)
    for method in ("GET", "DELETE"):
        gone = client.request(method, f"/api/pipeline/{pipeline_id}")
        await refused(gone, 404, f"Pipeline {pipeline_id} not found")
    for path in ("", "/logs", "/logs/stream"):
        await refused(client.get(f"/api/jobs/{job_id}{path}"), 404, f"Job {job_id} not found")
    launch = client.post("/api/pipeline/launch", json={"pipeline_id": pipeline_id})
    await refused(launch, 404, f"Pipeline {pipeline_id} not found")
    assert await ok(client.get(f"/api/jobs/pipeline/{pipeline_id}")) == []


# -- launching and listing


async def test_a_launched_job_is_queued_with_every_key(client: httpx.AsyncClient, pipeline_id: str) -> None:
    parameters = {"message": "hi", "n": [1, {"x": None}]}
    body = {"pipeline_id": pipeline_id.upper(), "parameters": parameters}
    job = await ok(client.post("/api/pipeline/launch", json=body))
    assert job == {
        "id": job["id"], "pipeline_id": pipeline_id, "status": "Queued", "requested_at": TIME, "started_at": None,
        "completed_at": None, "runner_id": None, "parameters": parameters, "result": None, "retry_count": 0,
        "timeout_seconds": 3600,
    }  # fmt: skip
    for path in (f"/api/jobs/{job['id']}", f"/api/jobs/{job['id'].upper()}"):
        assert await ok(client.get(path)) == job
    for path in ("/api/jobs/scheduled", "/api/jobs", f"/api/jobs/pipeline/{pipeline_id}"):
        assert await ok(client.get(path)) == [job]


@pytest.mark.parametrize(("body", "error"), [
    ({}, "Invalid request body: pipeline_id: Field required"),
    ({"pipeline_id": "x"}, "Invalid request body: pipeline_id: UUID expected"),
    ({"pipeline_id": UNKNOWN, "parameters": []},
     "Invalid request body: parameters: Input should be a valid dictionary"),
    ({"pipeline_id": UNKNOWN, "parameters": {"a": {"b": 2**70}}},
     "Invalid request body: parameters: a/b does not fit in 64 bits"),
])  # fmt: skip
async def test_a_launch_without_sense_is_refused(client: httpx.AsyncClient, body: Json, error: str) -> None:
    await refused(client.post("/api/pipeline/launch", json=body), 400, error)


async def test_a_launch_is_told_what_the_port_refuses(
    client: httpx.AsyncClient, pipelines: FakePipelines, pipeline_id: str
) -> None:
    pipelines.required = ("x",)
    launch = client.post("/api/pipeline/launch", json={"pipeline_id": pipeline_id})
    await refused(launch, 400, "Missing required input 'x' (type: string)")


async def test_runners_see_queued_jobs_that_fit_them_oldest_first(client: httpx.AsyncClient) -> None:
    docker = await ok(client.post("/api/pipeline/create", json={"script": SCRIPT, "required_modules": ["docker"]}))
    plain = await ok(client.post("/api/pipeline/create", json={"script": SCRIPT, "required_modules": ["log"]}))
    jobs = [await launch(client, each) for each in (docker["id"], plain["id"], plain["id"])]
    for runner_id, capabilities in (("r1", ["log"]), ("d1", ["docker"]), ("g2", None)):
        body = {"runner_id": runner_id, "capabilities": capabilities}
        await ok(client.post("/api/runners/register", json=body))

    async def seen(query: str) -> list[str]:
        return [each["id"] for each in await ok(client.get(f"/api/jobs/scheduled{query}"))]

    assert [await seen(f"?runner_id={each}") for each in ("r1", "d1", "g2")] == [jobs[1:], jobs, jobs]
    assert [await seen(each) for each in ("", "?runner_id=", "?runner_id=nobody")] == [jobs, jobs, []]
    told = "Runner r1 lacks required modules: docker"
    await refused(client.post(f"/api/jobs/{jobs[0]}/claim", json={"runner_id": "r1"}), 400, told)


async def test_jobs_are_listed_newest_first_by_status_and_limit(client: httpx.AsyncClient, pipeline_id: str) -> None:
    jobs = [await launch(client, pipeline_id) for _ in range(3)]
    await claim(client, jobs[1])

    async def seen(query: str) -> list[str]:
        return [each["id"] for each in await ok(client.get(f"/api/jobs{query}"))]

    assert await seen("") == jobs[::-1]
    assert await seen("?status=Queued") == [jobs[2], jobs[0]]
    assert await seen("?limit=1") == [jobs[2]]
    assert await seen("?status=TimedOut") == []
    for query, error in (("limit=0", "limit: '0'"), ("limit=1001", "limit: '1001'"), ("limit=x", "limit: 'x'")):
        await refused(client.get(f"/api/jobs?{query}"), 400, f"Invalid {error} (1 to 1000)")
    await refused(client.get("/api/jobs?status="), 400, f"Invalid status: '' (one of {WORDS})")
    await refused(client.get("/api/jobs?status=queued"), 400, f"Invalid status: 'queued' (one of {WORDS})")


# -- claiming


@pytest.mark.parametrize("path", ["/api/jobs/{}/claim", "/api/jobs/execute/{}"])
async def test_both_generations_claim(client: httpx.AsyncClient, pipeline_id: str, path: str) -> None:
    job_id = await launch(client, pipeline_id, message="hi")
    assert await ok(client.post(path.format(job_id), json={"runner_id": "r1"})) == {
        "job_id": job_id, "pipeline_id": pipeline_id, "pipeline_source": SCRIPT, "parameters": {"message": "hi"},
        "env_vars": {},
    }  # fmt: skip
    job = await ok(client.get(f"/api/jobs/{job_id}"))
    assert (job["status"], job["runner_id"], job["started_at"]) == ("Running", "r1", TIME)
    again = client.post(path.format(job_id), json={"runner_id": "r1"})
    await refused(again, 400, f"Job {job_id} is not in Queued state (current: Running)")


async def test_of_many_claims_one_wins(client: httpx.AsyncClient, job_id: str) -> None:
    claims = [client.post(f"/api/jobs/{job_id}/claim", json={"runner_id": f"r{n}"}) for n in range(50)]
    statuses = [each.status_code for each in await asyncio.gather(*claims)]
    assert (statuses.count(200), statuses.count(400)) == (1, 49)


@pytest.mark.parametrize(("body", "error"), [
    ({}, "runner_id is required"), ({"runner_id": None}, "runner_id is required"),
    ({"runner_id": ""}, "runner_id is required"), ({"runner_id": " "}, "Runner id cannot be empty"),
    ({"runner_id": 7}, "Invalid request body: runner_id: Input should be a valid string"),
])  # fmt: skip
async def test_a_claim_says_whose_it_is(client: httpx.AsyncClient, job_id: str, body: Json, error: str) -> None:
    await refused(client.post(f"/api/jobs/execute/{job_id}", json=body), 400, error)


# -- status and completion


async def test_a_status_is_set_and_an_ended_job_not_reopened(client: httpx.AsyncClient, job_id: str) -> None:
    path = f"/api/jobs/{job_id}"
    await claim(client, job_id)
    await empty(client.put(f"{path}/status", json={"status": "Running"}), 204)
    back = client.put(f"{path}/status", json={"status": "Queued"})
    await refused(back, 400, "Invalid status transition: Running -> Queued")
    await empty(client.put(f"{path}/status", json={"status": "Succeeded"}), 204)
    job = await ok(client.get(path))
    assert (job["status"], job["completed_at"], job["result"]) == ("Succeeded", TIME, None)
    late = client.put(f"{path}/status", json={"status": "Running"})
    await refused(late, 400, "Invalid status transition: Succeeded -> Running")
    unknown = await client.put(f"{path}/status", json={"status": "running"})
    assert unknown.json()["error"].startswith("Invalid request body: status: Input should be 'Queued', 'Running'")


@pytest.mark.parametrize(("body", "status", "result"), [
    (DONE, "Succeeded", JobResult(True, 0)),
    ({"result": {"success": True}}, "Succeeded", JobResult(True, 0)),
    ({"result": {"success": False}}, "Failed", JobResult(False, 1)),
    ({"status": "Failed", "result": {"success": False, "exit_code": 2}}, "Failed", JobResult(False, 2)),
    ({"status": "Failed", "result": {"success": True}}, "Failed", JobResult(True, 0)),
    ({"status": None, "result": {"success": True, "exit_code": None, "output": {"a": [1]}, "error_message": "\0"}},
     "Succeeded", JobResult(True, 0, {"a": [1]}, "\0")),
])  # fmt: skip
async def test_a_completion_of_either_generation_ends_a_job(
    client: httpx.AsyncClient, job_id: str, body: Json, status: str, result: JobResult
) -> None:
    await claim(client, job_id)
    await empty(client.post(f"/api/jobs/{job_id}/complete", json=body), 204)
    job = await ok(client.get(f"/api/jobs/{job_id}"))
    assert (job["status"], job["completed_at"]) == (status, TIME)
    assert job["result"] == {
        "success": result.success, "exit_code": result.exit_code, "output": result.output,
        "error_message": result.error_message,
    }  # fmt: skip


async def test_a_completion_is_told_what_the_port_refuses(client: httpx.AsyncClient, job_id: str) -> None:
    path = f"/api/jobs/{job_id}/complete"
    await refused(client.post(path, json=DONE), 400, f"Job {job_id} is not running (current: Queued)")
    await claim(client, job_id)
    running = client.post(path, json=DONE | {"status": "Running"})
    await refused(running, 400, "Invalid completion status: Running")
    await empty(client.post(path, json=DONE), 204)
    await empty(client.post(path, json=DONE), 204)
    other = client.post(path, json={"result": {"success": False}})
    await refused(other, 400, f"Job {job_id} is already completed (current: Succeeded)")


@pytest.mark.parametrize(("body", "where"), [
    ({}, "result"), ({"result": {}}, "result/success"), ({"result": {"success": "true"}}, "result/success"),
    ({"result": {"success": True, "exit_code": 2**31}}, "result/exit_code"),
    ({"result": {"success": True, "exit_code": "0"}}, "result/exit_code"),
    ({"result": {"success": True, "error_message": 1}}, "result/error_message"),
    ({**DONE, "status": "Nope"}, "status"),
])  # fmt: skip
async def test_a_completion_without_sense_is_refused(
    client: httpx.AsyncClient, job_id: str, body: Json, where: str
) -> None:
    response = await client.post(f"/api/jobs/{job_id}/complete", json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"Invalid request body: {where}: ")


async def test_a_job_is_cancelled_once(client: httpx.AsyncClient, job_id: str) -> None:
    path = f"/api/jobs/{job_id}/cancel"
    assert (await ok(client.post(path)))["status"] == "Cancelled"
    await refused(client.post(path), 400, f"Job {job_id} is already completed (current: Cancelled)")


# -- logs


async def test_logs_come_wrapped_and_bare_and_keep_their_digits(client: httpx.AsyncClient, job_id: str) -> None:
    path = f"/api/jobs/{job_id}/logs"
    early = {**LINE, "timestamp": "2026-01-02T03:04:05.000000001Z", "level": "Debug", "message": ""}
    odd = {**LINE, "timestamp": "2026-01-03t03:04:05+02:00", "level": "Warning", "message": "\0 é"}
    await empty(client.post(path, json={"entries": [LINE]}), 201)
    await empty(client.post(path, json=[odd, {**early, "source": "ignored"}]), 201)
    await empty(client.post(path, json=[]), 201)
    assert await ok(client.get(path)) == [early, LINE, odd]


@pytest.mark.parametrize("status", ["Cancelled", "TimedOut"])
async def test_late_lines_are_taken_and_their_sender_is_told_that_nobody_waits(
    client: httpx.AsyncClient, pipelines: FakePipelines, job_id: str, status: str
) -> None:
    path = f"/api/jobs/{job_id}/logs"
    assert "x-job-status" not in (await client.post(path, json=[LINE])).headers
    await pipelines.settle(job_id, status=status)
    assert (await empty(client.post(path, json=[LINE]), 201)).headers["x-job-status"] == status
    assert len(await ok(client.get(path))) == 2


@pytest.mark.parametrize(("body", "error"), [
    ([LINE] * 1001, "Too many log entries in batch (max: 1000)"),
    ({"entries": [LINE] * 1001}, "Too many log entries in batch (max: 1000)"),
    ([LINE] * 3 + [{**LINE, "message": "x" * 10_001}], "Log entry 3 message too long (max: 10000 chars)"),
    ([{**LINE, "level": "info"}], "Invalid log entry 0: level: one of Debug, Info, Warning, Error expected"),
    ([LINE, {"timestamp": LINE["timestamp"], "level": "Info"}], "Invalid log entry 1: message: text expected"),
    ([LINE, "line"], "Invalid log entry 1: object expected"),
    ({}, "Invalid request body: an array of log entries expected"),
    ({"entries": {}}, "Invalid request body: an array of log entries expected"),
    ("text", "Invalid request body: an array of log entries expected"),
])  # fmt: skip
async def test_a_batch_is_taken_whole_or_not_at_all(
    client: httpx.AsyncClient, job_id: str, body: Any, error: str
) -> None:
    await refused(client.post(f"/api/jobs/{job_id}/logs", json=body), 400, error)
    assert await ok(client.get(f"/api/jobs/{job_id}/logs")) == []


@pytest.mark.parametrize("timestamp", [
    "2026-01-02T03:04:05", "2026-01-02", "2026-13-02T03:04:05Z", "2026-02-30T03:04:05Z", "2026-01-02T24:04:05Z",
    "2026-01-02T03:04:05.1234567890Z", "2026-01-02T03:04:05.Z", "1767323045", "", "2026-01-02T03:04:05Z\n",
    "2026-01-02T03:04:05+25:00", "٢026-01-02T03:04:05Z",
])  # fmt: skip
async def test_log_times_are_instants_with_up_to_nine_digits(
    client: httpx.AsyncClient, job_id: str, timestamp: str
) -> None:
    told = "Invalid log entry 0: timestamp: RFC 3339 with up to 9 digits of a second expected"
    batch = [{**LINE, "timestamp": timestamp}]
    await refused(client.post(f"/api/jobs/{job_id}/logs", json=batch), 400, told)


async def test_a_batch_at_its_limits_is_taken(client: httpx.AsyncClient, job_id: str) -> None:
    batch = [{**LINE, "message": "é" * 10_000}, *[{**LINE, "message": "x" * 10_000}] * 999]
    await empty(client.post(f"/api/jobs/{job_id}/logs", json=batch), 201)


# -- idempotency


async def test_a_key_makes_create_launch_and_claim_repeatable(client: httpx.AsyncClient) -> None:
    keyed = {"Idempotency-Key": "k1"}
    create = {"script": SCRIPT}
    first = await ok(client.post("/api/pipeline/create", json=create, headers=keyed))
    assert await ok(client.post("/api/pipeline/create", json={**create, "name": None}, headers=keyed)) == first
    launch = {"pipeline_id": first["id"], "parameters": {"a": 1, "b": 2}}
    job = await ok(client.post("/api/pipeline/launch", json=launch, headers=keyed))
    same = {"parameters": {"b": 2, "a": 1}, "pipeline_id": first["id"]}
    assert await ok(client.post("/api/pipeline/launch", json=same, headers=keyed)) == job
    body = {"runner_id": "r1"}
    claimed = await ok(client.post(f"/api/jobs/{job['id']}/claim", json=body, headers=keyed))
    assert await ok(client.post(f"/api/jobs/execute/{job['id']}", json=body, headers=keyed)) == claimed

    second = await ok(client.post("/api/pipeline/launch", json=launch))
    of_second = await ok(client.post(f"/api/jobs/{second['id']}/claim", json=body, headers=keyed))
    assert of_second["job_id"] == second["id"], "a key is one of a command on a job"

    reused = "Idempotency key reused"
    for path, other in (
        ("/api/pipeline/create", {"script": "other"}),
        ("/api/pipeline/launch", {**launch, "parameters": {}}),
        (f"/api/jobs/{job['id']}/claim", {"runner_id": "r2"}),
    ):
        await refused(client.post(path, json=other, headers=keyed), 409, reused)
    long = client.post("/api/pipeline/create", json=create, headers={"Idempotency-Key": "k" * 256})
    await refused(long, 400, "Idempotency-Key is too long (max 255 characters)")


# -- stubs


async def test_stubs_describe_the_modules_of_stages(client: httpx.AsyncClient) -> None:
    names = await ok(client.get("/api/stubs"))
    assert names == ["log", "input", "output", "process", "container"] == list(editor.NAMES)
    functions = {
        "log": "debug info warning error",
        "input": "get require has all keys",
        "output": "set get require has all keys clear clear_all",
        "process": "run",
        "container": "with",
    }
    for name in names:
        stub = await ok(client.get(f"/api/stubs/{name}"))
        assert stub["name"] == f"{name}.lua"
        assert stub["content"].startswith("---@meta\n")
        for function in functions[name].split():
            assert f"\nfunction {name}.{function}(" in stub["content"]
    for name in ("x", "env", "..%2Flog"):
        assert (await client.get(f"/api/stubs/{name}")).status_code == 404
    await refused(client.get("/api/stubs/x"), 404, "Stub 'x' not found")
