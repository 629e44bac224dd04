"""The pipelines contract against real servers: the acceptance examples of its section 8, by their numbers, and races.

Black box: HTTP and event streams; the test is the runner. What needs settings of its own (a runner that is lost after
2 s, a runner inside the cluster) shares a second server: jobs that its runner must not take require a module of ours.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.dags_api import at_once
from tests.live import Server
from tests.pipeline_scripts import BUILDER, SECRETIVE, STAGE, STAGES, TABLE, found_in
from tests.pipelines_api import DONE, FAILED, RUNNER_KEYS, SCRIPT, Ci, Json, answered, empty, fresh, instant, line, told

pytestmark = pytest.mark.ray

UNKNOWN = "00000000-0000-4000-8000-000000000000"
CONFIG = {"timeout_seconds": 60, "max_retries": 0, "env_vars": {}}
#: of the hasty server
RUNNER_TIMEOUT_S = 2
RACERS = 200


@pytest.fixture(scope="module")
def ci(live: Server) -> Ci:
    return Ci(live.url)


@pytest.fixture
def job_id(ci: Ci) -> str:
    """A queued job."""
    return ci.fresh_job()


@pytest.fixture
def running(ci: Ci, job_id: str) -> str:
    """A job that r1 has claimed."""
    ci.claimed(job_id, "r1")
    return job_id


# ---------------------------------------------------------------- 1-3: health, pipelines, bad scripts


def test_health_is_text(ci: Ci) -> None:
    response = ci.http.get("/health")
    assert (response.status_code, response.text) == (200, "OK")
    assert response.headers["content-type"].startswith("text/plain")


def test_a_pipeline_is_what_body_and_script_say(ci: Ci) -> None:
    body = {"name": "Example", "description": None, "required_modules": [], "tags": ["ci"], "config": CONFIG}
    made = ci.create(**body)
    assert {**made, **body, "description": "d"} == made
    assert (made["script"], made["version"]) == (SCRIPT, 1)
    assert instant(made["created_at"]) == instant(made["updated_at"])
    assert answered(ci.http.get(f"/pipeline/{made['id']}")) == made
    by_script = ci.create()
    assert (by_script["name"], by_script["description"]) == ("Example", "d")
    assert by_script["config"] == {"timeout_seconds": 3600, "max_retries": 0, "env_vars": {}}
    listed = [each["id"] for each in answered(ci.http.get("/pipeline/list"))]
    assert listed.index(by_script["id"]) < listed.index(made["id"])


@pytest.mark.parametrize(("script", "modules", "tags"), [
    (f"return {TABLE}", [], []), (f"return pipeline.define({TABLE})", [], []),
    (f"return {BUILDER}:build()", ["docker"], [{"key": "os", "value": "linux"}]),
    (f"return {BUILDER}", ["docker"], [{"key": "os", "value": "linux"}]),
])  # fmt: skip
def test_the_three_forms_of_a_script_are_equivalent(ci: Ci, script: str, modules: list[str], tags: list[Any]) -> None:
    made = ci.create(script.replace("STAGE", STAGE))
    assert (made["name"], made["description"]) == ("Example", "d")
    assert (made["required_modules"], made["tags"]) == (modules, tags)


@pytest.mark.parametrize(("script", "error"), [
    ("", "Pipeline script cannot be empty"),
    ("return {", "Invalid Lua script: "),
    ('return {name="x",stages={}}', "Pipeline must have at least one stage"),
    ('return {name="x"}', "Pipeline must have at least one stage"),
    (f'return {{name="",stages={{{STAGE}}}}}', "Pipeline name cannot be empty"),
    ('return os.execute("id")', "Invalid Lua script: "),
    ("return 7", "Invalid pipeline definition: "),
    ("return nil", "Invalid pipeline definition: "),
    ("local s = 'x' while true do s = s .. s end", "Invalid Lua script: "),
    ("return require('io')", "Invalid Lua script: "),
    ("return load('return 1')()", "Invalid Lua script: "),
    ("\x1bLuaT", "Invalid "),
])  # fmt: skip
def test_a_bad_script_is_refused_in_the_contracts_words(ci: Ci, script: str, error: str) -> None:
    refused = answered(ci.http.post("/pipeline/create", json={"script": script}), 400)
    assert refused["error"].startswith(error)


def test_an_endless_script_is_refused_while_others_are_served(ci: Ci) -> None:
    answers: list[tuple[httpx.Response, float]] = []

    def create() -> None:
        began = time.monotonic()
        response = ci.http.post("/pipeline/create", json={"script": "while true do end"})
        answers.append((response, time.monotonic() - began))

    creating = threading.Thread(target=create)
    creating.start()
    slowest = 0.0
    while creating.is_alive():
        began = time.monotonic()
        assert ci.http.get("/health").text == "OK"
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.05)
    creating.join()
    ((response, took_s),) = answers
    assert answered(response, 400)["error"].startswith("Invalid Lua script: ")
    assert took_s < 6
    assert slowest < 1.5


# ---------------------------------------------------------------- 4: runners


def test_runners_register_and_beat(ci: Ci) -> None:
    r1, g2, r9 = (fresh(name) for name in ("r1", "g2", "r9"))
    registered = ci.register(r1, "log", "env")
    assert (registered["status"], registered["capability_count"], registered["id"]) == ("Online", 2, r1)
    assert ci.register(g2)["capabilities"] == []
    told(ci.http.post("/runners/register", json={"runner_id": ""}), 400, "Runner id cannot be empty")
    beaten = answered(ci.http.post(f"/runners/{r1}/heartbeat"))
    assert (beaten["id"], beaten.keys() >= RUNNER_KEYS) == (r1, True)
    assert instant(beaten["last_heartbeat_at"]) >= instant(registered["last_heartbeat_at"])
    assert beaten["registered_at"] == registered["registered_at"]
    told(ci.http.post(f"/runners/{r9}/heartbeat"), 404, f"Runner {r9} not found")
    assert {r1, g2} <= {each["id"] for each in answered(ci.http.get("/runners"))}
    empty(ci.http.delete(f"/runners/{r1}"))
    told(ci.http.get(f"/runners/{r1}"), 404, f"Runner {r1} not found")


def test_a_runner_is_busy_while_it_holds_a_job(ci: Ci, job_id: str) -> None:
    runner_id = fresh("r")
    ci.claimed(job_id, runner_id)
    assert ci.runner(runner_id)["status"] == "Busy"
    empty(ci.complete(job_id, DONE))
    assert ci.runner(runner_id)["status"] == "Online"


# ---------------------------------------------------------------- 5: launching


def test_a_launched_job_is_queued_and_offered(ci: Ci) -> None:
    pipeline = ci.create(config=CONFIG)
    ci.register("r1", "log", "env")
    job = ci.launch(pipeline["id"], message="hi")
    assert {**job, "requested_at": ...} == {
        "id": job["id"], "pipeline_id": pipeline["id"], "status": "Queued", "requested_at": ..., "started_at": None,
        "completed_at": None, "runner_id": None, "parameters": {"message": "hi"}, "result": None, "retry_count": 0,
        "timeout_seconds": 60,
    }  # fmt: skip
    instant(job["requested_at"])
    offered = answered(ci.http.get("/jobs/scheduled", params={"runner_id": "r1"}))
    assert [each["parameters"] for each in offered if each["id"] == job["id"]] == [{"message": "hi"}]
    assert ci.scheduled(fresh("unknown")) == []
    assert job["id"] in ci.scheduled()
    assert [each["id"] for each in answered(ci.http.get(f"/jobs/pipeline/{pipeline['id']}"))] == [job["id"]]


def test_a_launch_without_parameters_takes_the_defaults(ci: Ci) -> None:
    assert ci.launch(ci.create()["id"])["parameters"] == {"message": "hi"}
    told(ci.http.post("/pipeline/launch", json={"pipeline_id": UNKNOWN}), 404, f"Pipeline {UNKNOWN} not found")


# ---------------------------------------------------------------- 6: claiming, and races for it


def test_of_fifty_claims_at_once_one_wins(ci: Ci, job_id: str) -> None:
    answers = at_once(50, lambda n: ci.claim(job_id, f"racer-{n}"))
    (won,) = [each for each in answers if each.status_code == 200]
    assert answered(won)["pipeline_source"] == SCRIPT
    for each in answers:
        if each is not won:
            told(each, 400, f"Job {job_id} is not in Queued state (current: Running)")
    told(ci.claim(job_id, ci.job(job_id)["runner_id"]), 400, f"Job {job_id} is not in Queued state (current: Running)")


def test_both_generations_claim(ci: Ci, job_id: str) -> None:
    info = answered(ci.http.post(f"/jobs/execute/{job_id}", json={"runner_id": "g2"}))
    assert {**info, "pipeline_source": SCRIPT, "parameters": {"message": "hi"}, "job_id": job_id} == info
    assert ci.job(job_id)["runner_id"] == "g2"
    told(ci.http.post(f"/jobs/{job_id}/claim", json={}), 400, "runner_id is required")


def test_two_hundred_runners_racing_for_two_hundred_jobs_claim_each_once(ci: Ci) -> None:
    pipeline_id = ci.create(required_modules=["racing"])["id"]
    jobs = {ci.launch(pipeline_id)["id"] for _ in range(RACERS)}
    won = asyncio.run(race(ci.url, sorted(jobs)))
    assert sorted(won.values()) == sorted(jobs), "each runner has one job, and each job one runner"
    held = {each["id"]: each for each in answered(ci.http.get(f"/jobs/pipeline/{pipeline_id}"))}
    assert {(each["status"], each["retry_count"]) for each in held.values()} == {("Running", 0)}
    assert {each["runner_id"]: job_id for job_id, each in held.items()} == won
    empty(ci.http.delete(f"/pipeline/{pipeline_id}"))


async def race(url: str, jobs: list[str]) -> dict[str, str]:
    """Runner -> the job it got. All begin at once, and each tries the jobs in an order of its own until it has one."""
    limits = httpx.Limits(max_connections=RACERS, max_keepalive_connections=RACERS)
    async with httpx.AsyncClient(base_url=f"{url}/api", limits=limits, timeout=60) as http:
        ready = asyncio.Barrier(RACERS)

        async def run(runner_id: str) -> tuple[str, list[str]]:
            body = {"runner_id": runner_id, "capabilities": ["racing"]}
            (await http.post("/runners/register", json=body)).raise_for_status()
            await ready.wait()
            got = []
            for job_id in random.sample(jobs, len(jobs)):
                response = await http.post(f"/jobs/{job_id}/claim", json={"runner_id": runner_id})
                assert response.status_code in (200, 400), response.text
                if response.status_code == 200:
                    got.append(job_id)
                    break
            return runner_id, got

        found = dict(await asyncio.gather(*(run(fresh("racer")) for _ in range(RACERS))))
    assert all(len(got) == 1 for got in found.values())
    return {runner_id: got[0] for runner_id, got in found.items()}


def test_a_key_replays_a_claim_whose_answer_was_lost(ci: Ci, job_id: str) -> None:
    key = fresh("key")
    first = answered(ci.claim(job_id, "r1", Idempotency_Key=key))
    assert answered(ci.claim(job_id, "r1", Idempotency_Key=key)) == first
    told(ci.claim(job_id, "r2", Idempotency_Key=key), 409, "Idempotency key reused")
    told(ci.claim(job_id, "r1"), 400, f"Job {job_id} is not in Queued state (current: Running)")


def test_a_key_replays_creating_and_launching(ci: Ci) -> None:
    headers = {"Idempotency-Key": fresh("key")}
    first, again = (ci.http.post("/pipeline/create", json={"script": SCRIPT}, headers=headers) for _ in "ab")
    assert answered(first) == answered(again)
    other = ci.http.post("/pipeline/create", json={"script": SCRIPT, "name": "Other"}, headers=headers)
    told(other, 409, "Idempotency key reused")
    body = {"pipeline_id": first.json()["id"], "parameters": {}}
    launched = at_once(10, lambda _: answered(ci.http.post("/pipeline/launch", json=body, headers=headers))["id"])
    assert len(set(launched)) == 1
    changed = ci.http.post("/pipeline/launch", json={**body, "parameters": {"a": 1}}, headers=headers)
    told(changed, 409, "Idempotency key reused")


# ---------------------------------------------------------------- 7: status and logs


def test_logs_are_taken_wrapped_and_bare_and_keep_their_digits(ci: Ci, running: str) -> None:
    empty(ci.put_status(running, "Running"))
    late = line("late", "2026-01-02T03:04:05.123456789Z")
    early = line("early", "2026-01-02T03:04:05.123456788Z", "Warning")
    empty(ci.http.post(f"/jobs/{running}/logs", json={"entries": [late]}), 201)
    empty(ci.http.post(f"/jobs/{running}/logs", json=[early]), 201)
    assert ci.logs(running) == [early, late]
    many = ci.http.post(f"/jobs/{running}/logs", json=[late] * 1001)
    told(many, 400, "Too many log entries in batch (max: 1000)")
    long = ci.http.post(f"/jobs/{running}/logs", json=[late, line("x" * 10_001)])
    told(long, 400, "Log entry 1 message too long (max: 10000 chars)")
    assert ci.logs(running) == [early, late]
    empty(ci.http.post(f"/jobs/{running}/logs", json=[line("x" * 10_000)] * 2), 201)


def test_a_log_is_followed_live_and_resumed(ci: Ci, running: str) -> None:
    ci.write(running, "a", "b")
    seen = []
    for mark, name, data in ci.follow(running):
        seen.append((mark, name, data.get("message", data.get("status"))))
        if mark == "2":
            ci.write(running, "c", bare=True)
        if mark == "3":
            empty(ci.complete(running, DONE))
    expected = [("1", "log", "a"), ("2", "log", "b"), ("3", "log", "c"), (None, "end", "Succeeded")]
    assert seen == expected
    assert [mark for mark, _, _ in ci.follow(running, "1")] == ["2", "3", None]
    past = ci.http.get(f"/jobs/{running}/logs/stream", headers={"Last-Event-ID": "3"})
    empty(past, 204)
    told(ci.http.get(f"/jobs/{UNKNOWN}/logs/stream"), 404, f"Job {UNKNOWN} not found")


def test_late_lines_of_a_cancelled_job_are_taken_with_a_hint(ci: Ci, running: str) -> None:
    assert answered(ci.cancel(running))["status"] == "Cancelled"
    late = ci.http.post(f"/jobs/{running}/logs", json=[line("late")])
    empty(late, 201)
    assert late.headers["x-job-status"] == "Cancelled"
    assert ci.messages(running) == ["late"]
    told(ci.cancel(running), 400, f"Job {running} is already completed (current: Cancelled)")
    told(ci.complete(running, DONE), 400, f"Job {running} is already completed (current: Cancelled)")


# ---------------------------------------------------------------- 8, 9: completion


def test_a_completion_counts_once_and_ends_the_job_for_good(ci: Ci, running: str) -> None:
    empty(ci.complete(running, DONE))
    job = ci.job(running)
    assert (job["status"], job["result"], job["runner_id"]) == ("Succeeded", DONE["result"], "r1")
    assert instant(job["completed_at"]) >= instant(job["started_at"]) >= instant(job["requested_at"])
    empty(ci.complete(running, DONE))
    told(ci.complete(running, FAILED), 400, f"Job {running} is already completed (current: Succeeded)")
    told(ci.put_status(running, "Running"), 400, "Invalid status transition: Succeeded -> Running")
    assert ci.job(running) == job


def test_a_failure_of_the_second_generation_names_its_status(ci: Ci, running: str) -> None:
    given = {"status": "Running", "result": {"success": True}}
    told(ci.complete(running, given), 400, "Invalid completion status: Running")
    empty(ci.complete(running, {"status": "Failed", "result": {"success": False, "exit_code": 2}}))
    job = ci.job(running)
    expected = {"success": False, "exit_code": 2, "output": None, "error_message": None}
    assert (job["status"], job["result"]) == ("Failed", expected)


def test_a_job_that_nobody_claimed_is_not_completed(ci: Ci, job_id: str) -> None:
    told(ci.complete(job_id, DONE), 400, f"Job {job_id} is not running (current: Queued)")
    told(ci.complete(UNKNOWN, DONE), 404, f"Job {UNKNOWN} not found")


# ---------------------------------------------------------------- 10: capabilities


def test_a_pipeline_goes_to_runners_that_have_its_modules(ci: Ci) -> None:
    r1, d1, g2 = (fresh(name) for name in ("r1", "d1", "g2"))
    ci.register(r1, "log", "env")
    ci.register(d1, "docker")
    ci.register(g2)
    job_id = ci.fresh_job(required_modules=["docker"])
    assert [job_id in ci.scheduled(each) for each in (r1, d1, g2)] == [False, True, True]
    told(ci.claim(job_id, r1), 400, f"Runner {r1} lacks required modules: docker")
    ci.claimed(job_id, d1)


# ---------------------------------------------------------------- 11: lost runners


def test_a_job_of_a_silent_runner_is_queued_once_more_and_then_fails(hasty: Server) -> None:
    ci = Ci(hasty.url)
    module, r1, r2 = fresh("module"), fresh("r1"), fresh("r2")
    job_id = ci.fresh_job(required_modules=[module])
    ci.register(r1, module)
    ci.claimed(job_id, r1)
    job = ci.until(job_id, lambda job: job["status"] == "Queued", RUNNER_TIMEOUT_S + 2)
    assert (job["retry_count"], job["runner_id"], job["started_at"]) == (1, None, None)
    assert ci.runner(r1)["status"] == "Offline"
    assert f"runner {r1} lost" in [each["message"] for each in ci.logs(job_id) if each["level"] == "Warning"]
    ci.register(r2, module)
    beating(ci, r2, lambda: job_id in ci.scheduled(r2))
    ci.claimed(job_id, r2)
    failed = ci.ended(job_id, RUNNER_TIMEOUT_S + 2)
    assert (failed["status"], failed["result"]["exit_code"]) == ("Failed", -1)
    assert failed["result"]["error_message"] == f"Runner {r2} lost"


def test_a_lost_runner_may_still_complete_what_nobody_has_claimed_since(hasty: Server) -> None:
    ci = Ci(hasty.url)
    module = fresh("module")
    job_id = ci.fresh_job(required_modules=[module])
    ci.claimed(job_id, fresh("r"))
    ci.until(job_id, lambda job: job["status"] == "Queued", RUNNER_TIMEOUT_S + 2)
    empty(ci.complete(job_id, DONE))
    assert ci.job(job_id)["status"] == "Succeeded"


def beating(ci: Ci, runner_id: str, holds: Callable[[], bool], timeout_s: float = 10) -> None:
    """Returns once it holds; the runner gives signs of life meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        answered(ci.http.post(f"/runners/{runner_id}/heartbeat"))
        time.sleep(0.1)


# ---------------------------------------------------------------- 12, 13: limits and retries


def test_a_job_that_takes_too_long_has_timed_out(ci: Ci) -> None:
    runner_id = fresh("r")
    job_id = ci.fresh_job(config={"timeout_seconds": 1, "max_retries": 3})
    ci.claimed(job_id, runner_id)
    began = time.monotonic()
    beating(ci, runner_id, lambda: ci.job(job_id)["status"] != "Running", 3)
    assert 0.9 < time.monotonic() - began < 3
    job = ci.job(job_id)
    expected = {"success": False, "exit_code": 124, "output": None, "error_message": "Timed out after 1 s"}
    assert (job["status"], job["result"], job["retry_count"]) == ("TimedOut", expected, 0)
    told(ci.complete(job_id, DONE), 400, f"Job {job_id} is already completed (current: TimedOut)")
    hinted = ci.http.post(f"/jobs/{job_id}/logs", json=[line("late")])
    assert hinted.headers["x-job-status"] == "TimedOut"


def test_a_failed_job_is_tried_again_as_often_as_the_pipeline_says(ci: Ci) -> None:
    job_id = ci.fresh_job(config={"max_retries": 1})
    ci.claimed(job_id, "r1")
    empty(ci.complete(job_id, FAILED))
    job = ci.job(job_id)
    assert (job["status"], job["retry_count"], job["runner_id"], job["started_at"]) == ("Queued", 1, None, None)
    assert "attempt 2 queued" in [each["message"] for each in ci.logs(job_id) if each["level"] == "Info"]
    empty(ci.complete(job_id, FAILED))
    assert ci.job(job_id)["status"] == "Queued"
    told(ci.complete(job_id, DONE), 400, f"Job {job_id} is not running (current: Queued)")
    beating(ci, "r1", lambda: job_id in ci.scheduled("r1"))
    ci.claimed(job_id, "r1")
    empty(ci.complete(job_id, FAILED))
    ended = ci.job(job_id)
    assert (ended["status"], ended["retry_count"], ended["result"]) == ("Failed", 1, FAILED["result"])


# ---------------------------------------------------------------- 14: inputs


def test_inputs_are_checked_and_converted(ci: Ci) -> None:
    inputs = 'count = {type = "number", required = true}, on = {type = "bool", default = true}'
    choice = 'size = {options = {"a", "b"}}'
    script = f'return {{name = "x", inputs = {{{inputs}, {choice}}}, stages = {{{STAGE}}}}}'
    pipeline_id = ci.create(script)["id"]

    def launch(**parameters: Any) -> httpx.Response:
        return ci.http.post("/pipeline/launch", json={"pipeline_id": pipeline_id, "parameters": parameters})

    told(launch(), 400, "Missing required input 'count' (type: number)")
    assert answered(launch(count="3"))["parameters"] == {"count": 3, "on": True}
    assert answered(launch(count=3.5, on="false", more=[1]))["parameters"] == {"count": 3.5, "on": False, "more": [1]}
    told(launch(count="x"), 400, "Input 'count' expected type 'number', but got: \"x\"")
    told(launch(count=1, size="c"), 400, "Invalid value for input 'size'. Must be one of: a, b")
    too_much = answered(launch(count=1, more="x" * 500 * 1024), 400)
    assert "arameters" in too_much["error"]


# ---------------------------------------------------------------- 15: deleting, ids


def test_a_deleted_pipeline_takes_its_jobs_and_logs_along(ci: Ci) -> None:
    pipeline_id = ci.create()["id"]
    queued, running, done = (ci.launch(pipeline_id)["id"] for _ in range(3))
    ci.claimed(running, "r1")
    ci.claimed(done, "r1")
    ci.write(done, "a line")
    empty(ci.complete(done, DONE))
    empty(ci.http.delete(f"/pipeline/{pipeline_id}"))
    told(ci.http.get(f"/pipeline/{pipeline_id}"), 404, f"Pipeline {pipeline_id} not found")
    for job_id in (queued, running, done):
        for path in ("", "/logs"):
            told(ci.http.get(f"/jobs/{job_id}{path}"), 404, f"Job {job_id} not found")
    told(ci.http.delete(f"/pipeline/{pipeline_id}"), 404, f"Pipeline {pipeline_id} not found")
    assert answered(ci.http.get(f"/jobs/pipeline/{pipeline_id}")) == []
    assert queued not in ci.scheduled()
    told(ci.http.get("/jobs/not-a-uuid"), 400, "Invalid job id")
    told(ci.http.get("/pipeline/not-a-uuid"), 400, "Invalid pipeline id")


def test_another_tenants_pipelines_and_jobs_do_not_exist(live: Server, ci: Ci) -> None:
    pipeline = ci.create()
    job_id = ci.launch(pipeline["id"])["id"]
    other = Ci(live.url, live.tokens["other"])
    told(other.http.get(f"/pipeline/{pipeline['id']}"), 404, f"Pipeline {pipeline['id']} not found")
    told(other.http.delete(f"/pipeline/{pipeline['id']}"), 404, f"Pipeline {pipeline['id']} not found")
    for path in ("", "/logs", "/logs/stream"):
        told(other.http.get(f"/jobs/{job_id}{path}"), 404, f"Job {job_id} not found")
    told(other.claim(job_id, fresh("r")), 404, f"Job {job_id} not found")
    assert job_id not in other.scheduled()
    theirs = other.fresh_job()
    assert theirs not in {each["id"] for each in answered(ci.http.get("/jobs", params={"limit": 1000}))}
    told(ci.http.get(f"/jobs/{theirs}"), 404, f"Job {theirs} not found")


def test_jobs_are_listed_newest_first_by_status(ci: Ci) -> None:
    first, second = ci.fresh_job(), ci.fresh_job()
    answered(ci.cancel(first))
    listed = [each["id"] for each in answered(ci.http.get("/jobs"))]
    assert listed.index(second) < listed.index(first)
    cancelled = answered(ci.http.get("/jobs", params={"status": "Cancelled", "limit": 5}))
    assert first in {each["id"] for each in cancelled}
    assert {each["status"] for each in cancelled} == {"Cancelled"}
    assert len(answered(ci.http.get("/jobs", params={"limit": 1}))) == 1


# ---------------------------------------------------------------- 16: the runner in the cluster


def test_the_clusters_own_runner_executes_stages(hasty: Server) -> None:
    ci = Ci(hasty.url)
    began = time.monotonic()
    job = ci.launch(ci.create()["id"])
    ended = ci.ended(job["id"], 10)
    assert (ended["status"], ended["runner_id"]) == ("Succeeded", "ray-1")
    assert time.monotonic() - began < 10
    assert [each for each in ci.messages(job["id"]) if each in ("Starting stage: build", "hi")] == [
        "Starting stage: build",
        "hi",
    ]


def test_stages_share_output_and_an_error_in_one_fails_the_job(hasty: Server) -> None:
    ci = Ci(hasty.url)
    pipeline_id = ci.create(STAGES, config={"env_vars": {"GREETING": "hello"}})["id"]
    done = ci.ended(ci.launch(pipeline_id)["id"])
    assert (done["status"], done["result"]["output"]) == ("Succeeded", {"n": "2", "twice": 4})
    log = [(each["level"], each["message"]) for each in ci.logs(done["id"])]
    for entry in (("Warning", "env hello"), ("Debug", "true"), ("Info", "Starting stage: second")):
        assert entry in log
    assert ("Info", "Starting stage: skipped") not in log
    failed = ci.ended(ci.launch(pipeline_id, n=7)["id"])
    assert (failed["status"], failed["result"]["exit_code"]) == ("Failed", 1)
    assert failed["result"]["error_message"].startswith("Stage 'second' failed: ")
    assert "seven" in failed["result"]["error_message"]


def test_the_command_line_creates_launches_and_waits(hasty: Server) -> None:
    (hasty.home / "ci.lua").write_text(SCRIPT)
    created = hasty.cli("pipelines", "create", "ci.lua", "--json")
    assert created.returncode == 0, created.stderr
    pipeline_id = json.loads(created.stdout)["id"]
    waited = hasty.cli("pipelines", "launch", pipeline_id, "--param", "message=hello", "--wait")
    assert (waited.returncode, "Succeeded" in waited.stdout) == (0, True), waited.stdout + waited.stderr
    assert [each.rpartition("  ")[2] for each in waited.stderr.splitlines()[1:]] == ["Starting stage: build", "hello"]
    unknown = hasty.cli("pipelines", "launch", UNKNOWN)
    assert (unknown.returncode, "orchestrator pipelines list" in unknown.stderr) == (1, True)


def test_no_secret_of_a_pipeline_is_stored_or_shown(hasty: Server) -> None:
    ci = Ci(hasty.url)
    password, token, mark = fresh("password-3f9a"), fresh("token-77e1"), fresh("mark-5d20")
    config = {"secret_env_vars": {"TOKEN": token}}
    made = ci.create(SECRETIVE, name=mark, config=config)
    assert made["config"]["secret_env_vars"] == {"TOKEN": "***"}
    jobs = [ci.launch(made["id"], password=password), ci.launch(made["id"], password=password, fail=True)]
    assert [each["parameters"]["password"] for each in jobs] == ["***", "***"]
    ended = [ci.ended(each["id"]) for each in jobs]
    assert [each["status"] for each in ended] == ["Succeeded", "Failed"]
    # another runner is given the values, and tells them in every way that it has
    outside = claimed_outside(ci, config, password)
    said = [ci.job(each["id"]) for each in ended] + [ci.job(outside)]
    for job in said:
        shown = httpx.get(f"{hasty.url}/api/jobs/{job['id']}/logs").text + str(job)
        assert password not in shown
        assert token not in shown
        assert "***" in shown
    stored = found_in(hasty, [password, token, mark])
    assert any("valkey" in each for each in stored[mark]), "what is no secret is in the journal, where this finds it"
    assert (stored[password], stored[token]) == ([], [])


def claimed_outside(ci: Ci, config: Json, password: str) -> str:
    """A job whose runner is the test: it gets the secrets, and writes and returns them."""
    module = fresh("module")
    pipeline_id = ci.create(SECRETIVE, config=config, required_modules=[module])["id"]
    job_id: str = ci.launch(pipeline_id, password=password)["id"]
    runner_id = fresh("r")
    ci.register(runner_id, module)
    info = ci.claimed(job_id, runner_id)
    assert info["parameters"]["password"] == password
    assert info["env_vars"] == config["secret_env_vars"]
    token = info["env_vars"]["TOKEN"]
    ci.write(job_id, f"password={password}", f"{token}{token}")
    result = {"success": False, "exit_code": 1, "output": {token: [password]}, "error_message": f"x{token}x"}
    empty(ci.complete(job_id, {"result": result}))
    return job_id
