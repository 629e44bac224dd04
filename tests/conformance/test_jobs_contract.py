"""The jobs contract against a real server: the acceptance examples of its section 10, by their numbers.

Black box: only HTTP and WebSockets. Workers are simulated, except in 15, where they are the public SDKs
(`test_jobs_sdks.py`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.jobs_api import CREATE, ENDED, Jobs, answered, refused
from tests.live import Server, serving
from tests.webhook_receiver import SECRET, listening, signature, told, until_told

pytestmark = pytest.mark.ray

UNKNOWN = "00000000-0000-4000-8000-000000000000"
TASK_KEYS = {"job_id", "task_id", "type", "params", "tracing_context", "params_metadata", "priority"}
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def server(flows: Path) -> Iterator[Server]:
    """A server that loads them."""
    environ = {
        "BLUEPRINTS_DIR": str(flows),
        "JOB_RETRY_BACKOFF_SECONDS": "0",
        "CANCEL_GRACE_SECONDS": "1",
        "WEBHOOK_SECRET": SECRET,
    }
    with serving(environ=environ) as running:
        yield running


@pytest.fixture
def jobs(server: Server) -> Iterator[Jobs]:
    """The server, without a job of an earlier test."""
    found = Jobs(server)
    yield found
    found.end_all()
    found.close()


@pytest.fixture
def hasty_jobs(hasty: Server) -> Iterator[Jobs]:
    """The same of the hasty one."""
    found = Jobs(hasty)
    yield found
    found.end_all()
    found.close()


# ---------------------------------------------------------------- 1: tokens


def test_1_clients_need_a_token(jobs: Jobs) -> None:
    refused(jobs.anybody.get("/api/v1/dashboard"), 401, "Missing X-Client-Token header")
    wrong = jobs.anybody.get("/api/v1/dashboard", headers={"X-Client-Token": "zzz"})
    refused(wrong, 401, "Unauthorized: Invalid token")
    assert "queued" in answered(jobs.client.get("/api/v1/dashboard"))["jobs"]


# ---------------------------------------------------------------- 2: registering


def test_2_a_registered_worker_is_listed(jobs: Jobs) -> None:
    jobs.register("worker-123", "video_processing", "audio_transcription")
    listed = {each["worker_id"]: each for each in answered(jobs.client.get("/api/v1/workers"))}
    worker = listed["worker-123"]
    assert worker["reputation"] == 1.0
    assert worker["supported_tasks"] == ["video_processing", "audio_transcription"]
    assert "ray" in {each.get("worker_type") for each in listed.values()}
    refused(jobs.worker.post("/_worker/workers/register", json={}), 400, "Missing required field: worker_id")


# ---------------------------------------------------------------- 3, 4, 5, 6: results


def test_3_a_job_is_done_by_a_worker_that_answers_nested(jobs: Jobs) -> None:
    jobs.register("w3")
    job_id = jobs.create({"clip": "a"})
    assert UUID4.fullmatch(job_id)
    task = jobs.take("w3")
    assert task.keys() >= TASK_KEYS
    assert isinstance(task["deadline"], int)
    assert (task["job_id"], task["type"], task["params"]) == (job_id, "video_processing", {"clip": "a"})
    assert (task["tracing_context"], task["params_metadata"], task["priority"]) == ({}, None, 0.0)
    leased = jobs.job(job_id)
    assert (leased["status"], leased["current_task_id"], leased["task_worker_id"]) == (
        *("waiting_for_worker", task["task_id"], "w3"),
    )
    answer = jobs.result(task, "w3", result={"status": "success", "data": {"output": "x"}, "error": None})
    assert answer == {"status": "result_accepted_success"}
    job = jobs.until(job_id, "finished")
    assert (job["current_state"], job["state_history"]["output"]) == ("finished", "x")
    assert job["finished_at"] is not None
    kinds = [each["event_type"] for each in jobs.history(job_id)]
    assert (kinds[0], kinds[-1]) == ("job_created", "job_finished")
    assert {"state_started", "task_dispatched", "task_finished"} <= set(kinds)


def test_4_a_flat_result_without_a_status_is_a_success_and_counts_once(jobs: Jobs) -> None:
    jobs.register("w4")
    job_id = jobs.create()
    task = jobs.take("w4")
    answer = jobs.result(task, "w4", data={"output": "x"})
    job = jobs.until(job_id, "finished")
    assert (answer, job["state_history"]["output"]) == ({"status": "result_accepted_success"}, "x")
    history = jobs.history(job_id)
    assert jobs.result(task, "w4", data={"output": "y"}) == answer
    assert (jobs.history(job_id), jobs.job(job_id)) == (history, job)
    stale = jobs.result(task, "another", data={"output": "y"})
    assert stale == {"status": "ignored", "reason": "stale_task"}


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("PERMANENT_ERROR", "quarantined", "Task failed with permanent error: nope"),
        ("INVALID_INPUT_ERROR", "failed", "Task failed: nope"),
    ],
)
def test_5_a_final_failure_ends_the_job(jobs: Jobs, code: str, status: str, message: str) -> None:
    jobs.register("w5")
    job_id = jobs.create()
    error = {"code": code, "message": "nope", "details": None}
    answer = jobs.result(jobs.take("w5"), "w5", status="failure", data=None, error=error)
    assert answer == {"status": "result_accepted_failure"}
    assert jobs.until(job_id, *ENDED)["error_message"] == message
    assert jobs.job(job_id)["status"] == status


def test_6_a_transient_failure_is_tried_again_three_times(jobs: Jobs) -> None:
    jobs.register("w6")
    job_id = jobs.create()
    tasks = []
    for _ in range(4):
        tasks.append(jobs.take("w6"))
        assert jobs.result(tasks[-1], "w6", status="failure", error="boom") == {"status": "result_accepted_failure"}
    assert len({each["task_id"] for each in tasks}) == 4
    job = jobs.until(job_id, *ENDED)
    assert (job["status"], job["error_message"]) == ("quarantined", "Task failed after 4 attempts: boom")
    assert jobs.result(tasks[0], "w6", status="failure", error="boom") == {"status": "result_accepted_failure"}


# ---------------------------------------------------------------- 7: approval


def test_7_a_human_decides_once(jobs: Jobs) -> None:
    jobs.register("w7")
    job_id = jobs.create()
    jobs.result(jobs.take("w7"), "w7", status="needs_review")
    jobs.until(job_id, "waiting_for_human")
    refused(jobs.approve(job_id, "zzz"), 400, "Invalid decision 'zzz' for this job")
    assert answered(jobs.approve(job_id, "approved")) == {"status": "approval_received", "job_id": job_id}
    assert jobs.until(job_id, *ENDED)["status"] == "finished"
    refused(jobs.approve(job_id, "approved"), 409, "Job is not in a state that can be approved")


def test_7_of_racing_decisions_one_counts(jobs: Jobs) -> None:
    jobs.register("w7")
    job_id = jobs.create()
    jobs.result(jobs.take("w7"), "w7", status="needs_review")
    jobs.until(job_id, "waiting_for_human")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: jobs.approve(job_id, ("approved", "rejected")[n % 2]), range(8)))
    assert sorted(each.status_code for each in answers) == [200] + [409] * 7


# ---------------------------------------------------------------- 8: heartbeats


def test_8_a_heartbeat_of_an_unknown_worker_registers_it(jobs: Jobs) -> None:
    assert jobs.beat("w8") == {"status": "ttl_refreshed", "require_full_sync": True}
    jobs.register("w8")
    assert answered(jobs.worker.patch("/_worker/workers/w8")) == {"status": "ttl_refreshed"}
    merged = jobs.beat("new-1", {"worker_id": "new-1", "supported_tasks": ["audio_transcription"]})
    assert (merged["worker_id"], merged["supported_tasks"]) == ("new-1", ["audio_transcription"])
    assert jobs.poll("new-1", 0.2).status_code == 204


# ---------------------------------------------------------------- 9: waiting


def test_9_a_poll_ends_in_time_or_with_a_job(jobs: Jobs) -> None:
    jobs.register("w9")
    began = time.monotonic()
    response = jobs.poll("w9", 1)
    assert (response.status_code, response.content) == (204, b"")
    assert 0.9 < time.monotonic() - began < 2.5
    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(lambda: (jobs.take("w9", 20), time.monotonic()))
        time.sleep(0.5)
        asked = time.monotonic()
        job_id = jobs.create()
        task, got = polling.result()
    assert task["job_id"] == job_id
    assert got - asked < 0.5


def test_9_a_worker_that_hangs_up_while_it_waits_gets_nothing(jobs: Jobs) -> None:
    jobs.register("w9a")
    jobs.register("w9b")
    with pytest.raises(Exception, match="timed out"):
        jobs.worker.get("/_worker/workers/w9a/tasks/next", timeout=0.5)
    time.sleep(0.3)
    job_id = jobs.create()
    assert jobs.take("w9b")["job_id"] == job_id
    assert jobs.job(job_id)["task_worker_id"] == "w9b"


# ---------------------------------------------------------------- 10: cancelling


def socket(jobs: Jobs, path: str = "/_worker/ws", **headers: str) -> ClientConnection:
    """A worker's socket."""
    given = {"X-Worker-Token": jobs.tokens["worker"]} | {name.replace("_", "-"): each for name, each in headers.items()}
    return connect(jobs.url.replace("http", "ws", 1) + path, additional_headers=given)


def test_10_a_worker_is_told_by_its_socket_to_stop(jobs: Jobs) -> None:
    jobs.register("w10")
    job_id = jobs.create()
    task = jobs.take("w10")
    with socket(jobs) as open_socket:
        assert answered(jobs.cancel(job_id)) == {"status": "cancellation_request_sent"}
        told = json.loads(open_socket.recv(timeout=5))
    assert (told["command"], told["type"]) == ("cancel_task", "cancel_task")
    assert (told["task_id"], told["job_id"]) == (task["task_id"], job_id)
    asked = jobs.job(job_id)
    assert (asked["status"], asked["cancel_requested"]) == ("waiting_for_worker", True)
    assert jobs.result(task, "w10", status="cancelled") == {"status": "result_accepted_cancelled"}
    assert jobs.until(job_id, *ENDED)["status"] == "cancelled"


def test_10_without_a_socket_the_next_heartbeat_tells(jobs: Jobs) -> None:
    jobs.register("w10b")
    job_id = jobs.create()
    task = jobs.take("w10b")
    assert answered(jobs.cancel(job_id)) == {"status": "cancellation_request_accepted"}
    assert answered(jobs.cancel(job_id)) == {"status": "cancellation_request_accepted"}
    assert jobs.beat("w10b")["cancel_task_ids"] == [task["task_id"]]
    assert jobs.beat("w10b", {"status": "busy"})["cancel_task_ids"] == [task["task_id"]]
    assert jobs.until(job_id, *ENDED)["status"] == "cancelled"
    assert jobs.result(task, "w10b", data={}) == {"status": "ignored", "reason": "job_cancelled"}
    assert "cancel_task_ids" not in jobs.beat("w10b", {"status": "idle"})


def test_10_a_job_without_a_task_out_ends_at_once_and_an_ended_one_never(jobs: Jobs) -> None:
    jobs.register("w10c")
    job_id = jobs.create()
    jobs.result(jobs.take("w10c"), "w10c", status="needs_review")
    jobs.until(job_id, "waiting_for_human")
    assert answered(jobs.cancel(job_id)) == {"status": "cancellation_request_accepted"}
    assert jobs.job(job_id)["status"] == "cancelled"
    refused(jobs.cancel(job_id), 409, "Job is not in a state that can be cancelled (status: cancelled).")
    refused(jobs.cancel(UNKNOWN), 404, "Job not found")


def test_10_a_socket_needs_a_token_and_replaces_the_one_before(jobs: Jobs) -> None:
    with pytest.raises(InvalidStatus) as failed:
        socket(jobs, X_Worker_Token="zzz")
    assert failed.value.response.status_code == 401
    with socket(jobs, "/_worker/ws/w10d") as old, socket(jobs, "/_worker/ws/w10d"):
        with pytest.raises(ConnectionClosed) as closed:
            old.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("way", ["type", "event", "envelope", "post"])
def test_10_progress_is_shown(jobs: Jobs, way: str) -> None:
    jobs.register("w10e")
    job_id = jobs.create()
    task = jobs.take("w10e")
    ids = {"task_id": task["task_id"], "job_id": job_id}
    flat = {**ids, "progress": 0.5, "message": "half"}
    payload = {"progress": 0.5, "message": "half"}
    targets = {"target_job_id": job_id, "target_task_id": task["task_id"]}
    envelope = {"event_type": "progress", "payload": payload, "worker_id": "w10e", **targets}
    said = {"type": flat | {"type": "progress_update"}, "event": flat | {"event": "progress_update"}}.get(way, envelope)
    if way == "post":
        assert answered(jobs.worker.post("/_worker/events", json=said)) == {"status": "ok"}
    else:
        with socket(jobs, "/_worker/ws/w10e") as open_socket:
            open_socket.send("not json")
            open_socket.send(json.dumps(said))
            time.sleep(0.2)
    deadline = time.monotonic() + 5
    while jobs.job(job_id)["progress"] != 0.5 and time.monotonic() < deadline:
        time.sleep(0.02)
    job = jobs.job(job_id)
    assert (job["progress"], job["progress_message"]) == (0.5, "half")


# ---------------------------------------------------------------- 11: a lost worker


def test_11_a_lost_workers_task_goes_to_another_one(hasty_jobs: Jobs) -> None:
    jobs = hasty_jobs
    jobs.register("w11a")
    jobs.register("w11b")
    job_id = jobs.create()
    task = jobs.take("w11a")
    again = jobs.take("w11b", 15)
    assert (again["task_id"], again["job_id"]) == (task["task_id"], job_id)
    assert jobs.result(again, "w11b", data={"by": "b"}) == {"status": "result_accepted_success"}
    assert jobs.result(task, "w11a", data={"by": "a"}) == {"status": "ignored", "reason": "stale_task"}
    assert jobs.until(job_id, *ENDED)["state_history"] == {"by": "b"}
    assert "task_redelivered" in [each["event_type"] for each in jobs.history(job_id)]


def test_12_the_end_of_a_job_is_told_until_somebody_listens(jobs: Jobs) -> None:
    with listening(failures=1) as receiver:
        job_id = told(jobs, receiver, "w12")
        assert receiver.both.wait(20)
    (first, first_body), (second, second_body) = receiver.posts
    assert first["webhook-id"] == second["webhook-id"]
    for headers, body in receiver.posts:
        assert headers["webhook-signature"] == signature(headers, body)
        assert headers["content-type"].startswith("application/json")
    assert (
        json.loads(first_body)
        == json.loads(second_body)
        == {
            "event": "job_finished",
            "job_id": job_id,
            "status": "finished",
            "result": {},
            "error": None,
        }
    )
    delivered = until_told(jobs, "delivered")
    assert (delivered["id"], delivered["job_id"], delivered["event"]) == (first["webhook-id"], job_id, "job_finished")
    assert [each["status_code"] for each in delivered["attempts"]] == [500, 200]
    again = jobs.client.post(f"/api/v1/webhooks/{delivered['id']}/retry")
    refused(again, 409, "Webhook is not dead (status: delivered).")


def test_12_a_webhook_that_was_given_up_is_tried_again_by_command(hasty_jobs: Jobs, hasty: Server) -> None:
    jobs = hasty_jobs
    with listening(failures=1) as receiver:
        job_id = told(jobs, receiver, "w12b")
        dead = until_told(jobs, "dead")
        assert (dead["job_id"], [each["status_code"] for each in dead["attempts"]]) == (job_id, [500])
        assert dead in answered(jobs.client.get("/api/v1/webhooks?status=dead"))
        others = jobs.anybody.get("/api/v1/webhooks", headers={"X-Client-Token": hasty.tokens["other"]})
        assert answered(others) == []
        retried = answered(jobs.client.post(f"/api/v1/webhooks/{dead['id']}/retry"))
        assert (retried["status"], retried["attempt_count"]) == ("pending", 0)
        assert receiver.both.wait(10)
    assert [each["status_code"] for each in until_told(jobs, "delivered")["attempts"]] == [500, 200]
    refused(jobs.client.post("/api/v1/webhooks/msg_nope/retry"), 404, "Webhook not found")


# ---------------------------------------------------------------- 13: flushing


def test_13_nothing_is_flushed_where_that_is_not_asked_for(jobs: Jobs) -> None:
    refused(jobs.anybody.post("/_public/debug/flush_db"), 404, "Not found")


def test_13_with_debug_everything_is_gone(hasty_jobs: Jobs) -> None:
    jobs = hasty_jobs
    jobs.register("w13")
    job_id, taken = jobs.create(), jobs.create()
    jobs.take("w13")
    assert answered(jobs.anybody.post("/_public/debug/flush_db")) == {"status": "db_flushed"}
    for each in (job_id, taken):
        refused(jobs.client.get(f"/api/v1/jobs/{each}"), 404, "Job not found")
    assert answered(jobs.client.get("/api/v1/jobs")) == []
    assert "w13" not in {each["worker_id"] for each in answered(jobs.client.get("/api/v1/workers"))}
    jobs.register("w13")
    after = jobs.create()
    assert jobs.take("w13")["job_id"] == after


def test_13_with_debug_webhooks_are_gone_too(hasty_jobs: Jobs) -> None:
    jobs = hasty_jobs
    with listening(failures=1_000) as receiver:
        told(jobs, receiver, "w13b")
        until_told(jobs, "dead")
    assert answered(jobs.anybody.post("/_public/debug/flush_db")) == {"status": "db_flushed"}
    assert answered(jobs.client.get("/api/v1/webhooks")) == []


# ---------------------------------------------------------------- 14: the graph


def test_14_a_blueprint_is_drawn(jobs: Jobs) -> None:
    response = jobs.client.get("/api/v1/blueprints/simple_flow/graph")
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == "text/vnd.graphviz"
    assert "digraph" in response.text
    assert re.search(r"start\s*->\s*review", response.text)
    refused(jobs.client.get("/api/v1/blueprints/nope/graph"), 404, "Blueprint not found")
    listed = answered(jobs.client.get("/api/v1/blueprints"))
    assert {"name": "simple_flow", "api_version": "v1", "api_endpoint": "/jobs/simple_flow", "version": 1} in listed


# ---------------------------------------------------------------- what the text says besides


def test_what_is_no_job_is_refused(jobs: Jobs) -> None:
    refused(jobs.client.post(CREATE, content=b"{"), 400, "Invalid JSON body")
    refused(jobs.client.post(CREATE, json={"initial_data": []}), 400, "initial_data must be an object")
    refused(jobs.client.post(CREATE, json={"webhook_url": "ftp://x"}), 400, "Invalid webhook_url")
    refused(jobs.client.post("/api/v1/jobs/nope"), 404, "Not found")
    refused(jobs.client.get(f"/api/v1/jobs/{UNKNOWN}"), 404, "Job not found")


def test_a_key_creates_one_job_however_often_it_comes(jobs: Jobs) -> None:
    headers = {"Idempotency-Key": f"k-{time.time_ns()}"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: jobs.client.post(CREATE, json={"a": 1}, headers=headers), range(16)))
    assert {each.status_code for each in answers} == {202}
    assert len({each.json()["job_id"] for each in answers}) == 1
    refused(jobs.client.post(CREATE, json={"a": 2}, headers=headers), 409, "Idempotency key reused")


def test_several_polls_of_one_worker_get_different_tasks(jobs: Jobs) -> None:
    jobs.register("wp", max_concurrent_tasks=10)
    with ThreadPoolExecutor(8) as pool:
        polling = [pool.submit(jobs.take, "wp", 20) for _ in range(5)]
        time.sleep(0.3)
        made = {jobs.create({"n": n}) for n in range(5)}
        tasks = [each.result() for each in polling]
    assert {each["job_id"] for each in tasks} == made
    for task in tasks:
        jobs.result(task, "wp", data={})
    for job_id in made:
        jobs.until(job_id, "finished")


def test_a_job_of_another_tenant_is_unknown(jobs: Jobs, server: Server) -> None:
    job_id = jobs.create()
    headers = {"X-Client-Token": server.tokens["other"]}
    refused(jobs.anybody.get(f"/api/v1/jobs/{job_id}", headers=headers), 404, "Job not found")
    assert answered(jobs.anybody.get("/api/v1/jobs", headers=headers)) == []


def test_the_surfaces_pages_are_there(jobs: Jobs) -> None:
    assert answered(jobs.anybody.get("/_public/status")) == {"status": "ok"}
    assert "/api/v1/jobs/simple_flow" in jobs.anybody.get("/_public/docs").text
    metrics = jobs.anybody.get("/_public/metrics")
    assert metrics.status_code == 200
    assert "http_request_duration_seconds" in metrics.text
    counted = figures(jobs)
    for family in ("orchestrator_task_queue_length", "orchestrator_active_workers"):
        assert family in counted


# ---------------------------------------------------------------- beyond the contract


def stopped(jobs: Jobs, worker_id: str) -> str:
    """Id of a quarantined job."""
    jobs.register(worker_id)
    job_id = jobs.create({"clip": "a"})
    error = {"code": "PERMANENT_ERROR", "message": "nope", "details": None}
    jobs.result(jobs.take(worker_id), worker_id, status="failure", error=error)
    jobs.until(job_id, "quarantined")
    return job_id


def test_a_quarantined_job_is_released_and_goes_on_where_it_stopped(jobs: Jobs) -> None:
    job_id = stopped(jobs, "wr")
    released = jobs.client.post(f"/api/v1/jobs/{job_id}/release")
    assert answered(released) == {"status": "released", "job_id": job_id}
    task = jobs.take("wr")
    assert (task["job_id"], task["params"]) == (job_id, {"clip": "a"})
    jobs.result(task, "wr", data={"output": "x"})
    job = jobs.until(job_id, *ENDED)
    assert (job["status"], job["error_message"], job["state_history"]) == ("finished", None, {"output": "x"})
    again = jobs.client.post(f"/api/v1/jobs/{job_id}/release")
    refused(again, 409, "Job is not quarantined (status: finished).")
    refused(jobs.client.post(f"/api/v1/jobs/{UNKNOWN}/release"), 404, "Job not found")


def test_of_racing_releases_one_counts(jobs: Jobs) -> None:
    job_id = stopped(jobs, "wr2")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: jobs.client.post(f"/api/v1/jobs/{job_id}/release"), range(8)))
    assert sorted(each.status_code for each in answers) == [200] + [409] * 7
    assert jobs.take("wr2")["job_id"] == job_id


def test_a_job_that_waits_for_a_worker_says_why(jobs: Jobs) -> None:
    job_id = jobs.create({"type": "knitting"}, path="/api/v1/any_task")
    waiting = jobs.until(job_id, "waiting_for_worker")
    assert waiting["waiting_reason"] == "no live worker offers 'knitting'"
    jobs.register("wk", "knitting")
    assert jobs.job(job_id)["waiting_reason"] == "1 live worker offers 'knitting', none asks for a task now"
    jobs.take("wk")
    assert jobs.job(job_id)["waiting_reason"] is None


def figures(jobs: Jobs) -> dict[str, float]:
    """Samples of the whole system by name and labels."""
    lines = jobs.anybody.get("/metrics").text.splitlines()
    return {name: float(value) for line in lines if line[:1] != "#" for name, _, value in [line.rpartition(" ")]}


def until_active_workers_are_those_that_are_listed(jobs: Jobs) -> None:
    """Workers of earlier tests expire meanwhile, so it may take two looks."""
    deadline = time.monotonic() + 5
    while True:
        listed = {each["worker_id"] for each in answered(jobs.client.get("/api/v1/workers"))}
        assert "wm" in listed
        if figures(jobs)["orchestrator_active_workers"] == len(listed):
            return
        assert time.monotonic() < deadline, listed


def test_jobs_and_workers_are_measured(jobs: Jobs) -> None:
    def more(name: str) -> float:
        return figures(jobs).get(name, 0.0) - before.get(name, 0.0)

    before = figures(jobs)
    jobs.register("wm", "measuring")
    waiting = jobs.create({"type": "measuring"}, path="/api/v1/any_task")
    jobs.until(waiting, "waiting_for_worker")
    assert more("orchestrator_task_queue_length") == 1
    until_active_workers_are_those_that_are_listed(jobs)
    assert more('orchestrator_jobs_total{blueprint="any_task"}') == 1
    jobs.result(jobs.take("wm"), "wm", data={})
    error = {"code": "PERMANENT_ERROR", "message": "nope", "details": None}
    bad = jobs.create({"type": "measuring"}, path="/api/v1/any_task")
    jobs.result(jobs.take("wm"), "wm", status="failure", error=error)
    jobs.until(bad, *ENDED)
    assert more('orchestrator_jobs_total{blueprint="any_task"}') == 2
    assert more('orchestrator_jobs_failed_total{blueprint="any_task"}') == 1
    assert more("orchestrator_job_duration_seconds_count") == 2
    assert more('orchestrator_job_duration_seconds_bucket{le="+Inf"}') == 2
    assert more("orchestrator_job_duration_seconds_sum") > 0
    assert more("orchestrator_task_queue_length") == 0
