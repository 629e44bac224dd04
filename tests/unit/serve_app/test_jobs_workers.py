"""The jobs surface for remote workers, rule by rule, over jobs in memory (contracts/jobs.md, section 4)."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator import errors, remote
from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from serve_app.surfaces.jobs.endpoints import WORKER_ENDPOINTS
from tests.asgi_stream import OpenResponse, opened
from tests.fakes_gateway import FakeClock, FakeGateway
from tests.fakes_jobs import FakeJobs
from tests.jobs_surface import UNKNOWN, WORKER, is_error
from tests.unit.serve_app.conftest import GRANTS, TOKENS, Connect

OWN = "own-token-of-worker-a"
TASK = {"job_id": UNKNOWN, "task_id": "t1", "type": "x", "params": {}, "tracing_context": {}, "priority": 0.0}
RESULT = {"job_id": UNKNOWN, "task_id": "t1", "worker_id": "w1"}
EVERY = [(method, path.format(worker_id="w1")) for method, path, _ in WORKER_ENDPOINTS]
NO_TOKEN_FITS = "Unauthorized: No valid token found"
NEXT = "/_worker/workers/w1/tasks/next"


@pytest.fixture
def nobody(connect: Connect) -> httpx.AsyncClient:
    """A worker without a token."""
    return connect(None)


@pytest.fixture
def worker(nobody: httpx.AsyncClient) -> httpx.AsyncClient:
    """A worker with the token of all workers."""
    nobody.headers.update(WORKER)
    return nobody


@pytest.fixture
def own(jobs: FakeJobs) -> dict[str, str]:
    """Headers of worker `a`, which has a token of its own."""
    jobs.tokens["a"] = hashlib.sha256(OWN.encode()).hexdigest()
    return {"X-Worker-Token": OWN}


async def ask(client: httpx.AsyncClient, method: str, path: str, **given: Any) -> httpx.Response:
    """The answer; one that would take long is given up, which is an answer too."""
    try:
        return await asyncio.wait_for(client.request(method, path, **given), 0.3)
    except TimeoutError:
        return httpx.Response(204)


# -- who may speak


@pytest.mark.parametrize(("method", "path"), [*EVERY, ("GET", "/_worker/nope"), ("DELETE", "/_worker/workers/w1")])
async def test_workers_need_a_token_also_on_loopback(nobody: httpx.AsyncClient, method: str, path: str) -> None:
    is_error(await nobody.request(method, path), 401, "Missing X-Worker-Token header")
    for headers in ({"X-Worker-Token": "zzz"}, {"Authorization": "Bearer zzz"}):
        is_error(await nobody.request(method, path, headers=headers), 401, NO_TOKEN_FITS)


@pytest.mark.parametrize(("method", "path"), EVERY)
async def test_workers_need_the_scope_and_have_two_ways_to_show_their_token(
    nobody: httpx.AsyncClient, method: str, path: str
) -> None:
    is_error(await nobody.request(method, path, headers={"X-Worker-Token": TOKENS["client"]}), 403, "Forbidden")
    for headers in (WORKER, {"Authorization": f"Bearer {TOKENS['worker']}"}, {"X-Worker-Token": TOKENS["admin"]}):
        assert (await ask(nobody, method, path, headers=headers)).status_code not in (401, 403)


async def test_a_worker_serves_its_tenant(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    for headers in ({}, {"X-Worker-Token": TOKENS["other"]}):
        await worker.patch("/_worker/workers/w1", headers=headers)
    assert jobs.asked == [remote.Heartbeat("default", "w1"), remote.Heartbeat("other", "w1")]


async def test_a_worker_with_a_token_of_its_own_needs_that_token(
    nobody: httpx.AsyncClient, jobs: FakeJobs, own: dict[str, str]
) -> None:
    wrong = "Unauthorized: Invalid individual worker token"
    for headers in (WORKER, {"X-Worker-Token": TOKENS["admin"]}, {"X-Worker-Token": "zzz"}):
        is_error(await nobody.patch("/_worker/workers/a", headers=headers), 401, wrong)
        body = {"worker_id": "a", "supported_tasks": []}
        is_error(await nobody.post("/_worker/workers/register", json=body, headers=headers), 401, wrong)
        is_error(
            await nobody.post("/_worker/tasks/result", json={**RESULT, "worker_id": "a"}, headers=headers), 401, wrong
        )
        named = headers | {"X-Worker-ID": "a"}
        is_error(await nobody.post("/_worker/events", json={"event_type": "x"}, headers=named), 401, wrong)
    assert (await nobody.patch("/_worker/workers/a", headers=own)).status_code == 200
    assert jobs.asked == [remote.Heartbeat("default", "a")]


async def test_a_worker_with_a_token_of_its_own_speaks_for_nobody_else(
    nobody: httpx.AsyncClient, jobs: FakeJobs, own: dict[str, str]
) -> None:
    other = "Forbidden: Authenticated worker 'a' cannot submit results for another worker 'b'."
    for headers in (own, own | {"X-Worker-ID": "a"}):
        result = await nobody.post("/_worker/tasks/result", json={**RESULT, "worker_id": "b"}, headers=headers)
        is_error(result, 403, other)
    is_error(await nobody.patch("/_worker/workers/a", json={"worker_id": "b"}, headers=own), 403, other)
    for method, path, body in (
        ("PATCH", "/_worker/workers/b", None),
        ("GET", "/_worker/workers/b/tasks/next", None),
        ("POST", "/_worker/workers/register", {"worker_id": "b"}),
    ):
        is_error(await nobody.request(method, path, json=body, headers=own), 401, NO_TOKEN_FITS)
    assert jobs.asked == []


async def test_a_worker_that_does_not_say_who_it_is_is_known_by_its_own_token(
    nobody: httpx.AsyncClient, jobs: FakeJobs, own: dict[str, str]
) -> None:
    body = {"job_id": UNKNOWN, "task_id": "t1"}
    for headers in (own, WORKER | {"X-Worker-ID": "w9"}, WORKER):
        assert (await nobody.post("/_worker/tasks/result", json=body, headers=headers)).status_code == 200
    assert [each.worker_id for each in jobs.asked if isinstance(each, remote.Result)] == ["a", "w9", ""]


async def test_there_are_no_tokens_to_be_had(nobody: httpx.AsyncClient) -> None:
    for headers in ({}, WORKER, {"X-Worker-Token": "zzz"}):
        for path in ("/_worker/auth/token", "/_worker/auth/token/refresh"):
            is_error(await nobody.post(path, headers=headers), 404, "Not found")


@pytest.mark.parametrize("worker_id", ["a.b", "a%20b", "x" * 129, "%C3%A9", "a%0A"])
async def test_a_worker_cannot_have_just_any_id(worker: httpx.AsyncClient, jobs: FakeJobs, worker_id: str) -> None:
    is_error(await worker.patch(f"/_worker/workers/{worker_id}"), 400, "Invalid worker_id")
    is_error(await worker.get(f"/_worker/workers/{worker_id}/tasks/next"), 400, "Invalid worker_id")
    assert (jobs.asked, jobs.polls) == ([], [])


@pytest.mark.parametrize("worker_id", ["a.b", 5, ["a"], {"a": 1}, True, "x" * 129])
async def test_nor_register_with_one(worker: httpx.AsyncClient, worker_id: Any) -> None:
    for path in ("/_worker/workers/register", "/_worker/tasks/result"):
        is_error(await worker.post(path, json={**RESULT, "worker_id": worker_id}), 400, "Invalid worker_id")


async def test_with_limits_a_worker_may_ask_so_often_per_path(connect: Connect) -> None:
    client = connect(None, rate_limiting=True)

    async def ask_as(worker_id: str, path: str = "") -> int:
        return (await client.patch(f"/_worker/workers/{worker_id}{path}", headers=WORKER)).status_code

    assert [await ask_as("w1") for _ in range(51)] == [200] * 50 + [429]
    refused = await client.patch("/_worker/workers/w1", headers=WORKER)
    is_error(refused, 429, "Too Many Requests")
    assert refused.headers["retry-after"] == "1"
    assert await ask_as("w2") == 200
    results = [await client.post("/_worker/tasks/result", json=RESULT, headers=WORKER) for _ in range(50)]
    assert {each.status_code for each in results} == {200}


async def test_without_limits_a_worker_may_ask_as_often_as_it_likes(worker: httpx.AsyncClient) -> None:
    assert {(await worker.patch("/_worker/workers/w1")).status_code for _ in range(60)} == {200}


# -- registering, heartbeats


async def test_a_worker_registers_with_all_that_it_says(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    body = {"worker_id": "w1", "supported_tasks": ["x"], "resources": {"max_concurrent_tasks": 3}, "more": None}
    response = await worker.post("/_worker/workers/register", json=body)
    assert (response.status_code, response.json()) == (200, {"status": "registered"})
    assert jobs.asked == [remote.Register("default", "w1", body)]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        *((text, "Invalid JSON body") for text in (b"", b"{", b"[]", b"null", b'"w1"')),
        *(
            (text, "Missing required field: worker_id")
            for text in (b"{}", b'{"worker_id": null}', b'{"worker_id": ""}')
        ),
    ],
)
async def test_a_registration_without_an_id_is_refused(
    worker: httpx.AsyncClient, jobs: FakeJobs, body: bytes, text: str
) -> None:
    for headers in ({}, {"X-Worker-ID": "w1"}):
        is_error(await worker.post("/_worker/workers/register", content=body, headers=headers), 400, text)
    assert jobs.asked == []


@pytest.mark.parametrize("body", [b"", b" ", b"ping", b"{", b"[]", b"null", b"5"])
async def test_a_heartbeat_without_an_object_says_only_that_the_worker_is_alive(
    worker: httpx.AsyncClient, jobs: FakeJobs, body: bytes
) -> None:
    response = await worker.patch("/_worker/workers/w1", content=body)
    assert (response.status_code, response.json()) == (200, {"status": "ttl_refreshed"})
    assert jobs.asked == [remote.Heartbeat("default", "w1", None)]


async def test_a_heartbeat_is_answered_with_what_the_gateway_says(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    merged = {"worker_id": "w1", "status": "idle", "cancel_task_ids": ["t1"]}
    jobs.answers[remote.Heartbeat] = lambda _: remote.Answer(merged)
    response = await worker.patch("/_worker/workers/w1", json={"status": "idle"})
    assert (response.status_code, response.json()) == (200, merged)
    assert jobs.asked == [remote.Heartbeat("default", "w1", {"status": "idle"})]


# -- results, events


@pytest.mark.parametrize(
    ("more", "status", "data", "error"),
    [
        ({"result": {"status": "success", "data": {"output": "x"}, "error": None}}, "success", {"output": "x"}, None),
        ({"result": {"data": {"output": "x"}}, "status": "failure"}, "success", {"output": "x"}, None),
        ({"result": {"status": "failure", "error": "boom"}}, "failure", None, "boom"),
        ({"status": "failure", "data": None, "error": {"code": "E", "message": "m"}}, "failure", None,
         {"code": "E", "message": "m"}),
        ({"data": {"output": "x"}}, "success", {"output": "x"}, None),
        ({"result": None, "status": "cancelled"}, "cancelled", None, None),
        ({"result": "text", "status": "needs_review", "data": 5}, "needs_review", 5, None),
        ({"status": None, "timestamp": 5, "security": {}, "costs": {}, "data_metadata": None}, "success", None, None),
    ],
)  # fmt: skip
async def test_a_result_has_one_meaning_in_either_shape(
    worker: httpx.AsyncClient, jobs: FakeJobs, more: dict[str, Any], status: str, data: Any, error: Any
) -> None:
    jobs.answers[remote.Result] = lambda _: remote.Answer({"status": "ignored", "reason": "stale_task"})
    response = await worker.post("/_worker/tasks/result", json=RESULT | more)
    assert (response.status_code, response.json()) == (200, {"status": "ignored", "reason": "stale_task"})
    assert jobs.asked == [remote.Result("default", "w1", UNKNOWN, "t1", status, data, error)]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        *((body, "Invalid JSON body") for body in (b"", b"{", b"[]", b"5")),
        *(
            (body, "job_id and task_id are required")
            for body in (b"{}", b'{"job_id": "x"}', b'{"task_id": "x"}', b'{"job_id": "x", "task_id": 5}',
                         b'{"job_id": "", "task_id": "x"}', b'{"result": {"job_id": "x", "task_id": "x"}}')
        ),
    ],
)  # fmt: skip
async def test_a_result_of_nothing_is_refused(
    worker: httpx.AsyncClient, jobs: FakeJobs, body: bytes, text: str
) -> None:
    is_error(await worker.post("/_worker/tasks/result", content=body), 400, text)
    assert jobs.asked == []


async def test_a_result_of_an_unknown_job_is_not_found(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.broken = errors.NotFound("job", "x")
    is_error(await worker.post("/_worker/tasks/result", json=RESULT), 404, "Job not found")


async def test_a_result_that_cannot_be_taken_now_may_be_sent_again(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    jobs.broken = errors.ActorUnreachable("gateway-0", "restarting")
    response = await worker.post("/_worker/tasks/result", json=RESULT)
    is_error(response, 503, "Service unavailable")
    assert response.headers["retry-after"] == "1"


async def test_a_progress_event_is_told_and_others_are_dropped(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    event = {"event_type": "progress", "payload": {"progress": 1.5, "message": "half"}, "worker_id": "w1"}
    told = event | {"target_job_id": UNKNOWN, "target_task_id": "t1"}
    for body in (
        told,
        {"event_type": "log"},
        event,
        {},
        told | {"payload": None},
        told | {"payload": {"progress": "x"}},
    ):
        response = await worker.post("/_worker/events", json=body)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert jobs.asked == [remote.Progress("default", "w1", UNKNOWN, "t1", 1.0, "half")]
    is_error(await worker.post("/_worker/events", content=b"{"), 400, "Invalid JSON body")


# -- waiting for a task


@pytest.fixture
async def app(jobs: FakeJobs, tmp_path: Path) -> Any:
    """The application itself, for clients that wait, and leave."""
    options = ServerOptions(home=str(tmp_path), worker_poll_timeout_s=30.0)
    return build_app(FakeGateway(), Tokens(GRANTS), options, FakeClock(), jobs=jobs)


async def polled(jobs: FakeJobs) -> None:
    """The poll is open."""
    await jobs.polled.wait()


async def ended(response: OpenResponse) -> None:
    for _ in range(100):
        await asyncio.sleep(0)
    assert response.ended


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", 30), ("?timeout=1", 1), ("?timeout=0.25", 0.25), ("?timeout=90", 30), ("?timeout=-1", 0), ("?timeout=x", 30),
     ("?timeout=nan", 30), ("?timeout=inf", 30), ("?timeout=", 30)],
)  # fmt: skip
async def test_a_poll_waits_as_long_as_it_asks_for_but_not_longer_than_the_server_likes(
    app: Any, jobs: FakeJobs, query: str, seconds: float
) -> None:
    async with opened(app, f"{NEXT}{query}", WORKER):
        await polled(jobs)
        assert jobs.polls[0].timeout_s == seconds


async def test_no_poll_waits_longer_than_an_sdk_bears(connect: Connect, jobs: FakeJobs) -> None:
    client = connect(None, worker_poll_timeout_s=300.0)
    assert (await ask(client, "GET", NEXT, headers=WORKER)).status_code == 204
    assert jobs.polls[0].timeout_s == 33


async def test_a_poll_names_skills(app: Any, jobs: FakeJobs) -> None:
    async with opened(app, f"{NEXT}?available_skills=a,%20b,,c&hot_skills=a", WORKER):
        await polled(jobs)
        assert jobs.polls[0].available_skills == ("a", "b", "c")
        assert (jobs.polls[0].hot_skills, jobs.polls[0].worker_id, jobs.polls[0].tenant) == (("a",), "w1", "default")


async def test_a_poll_is_answered_with_the_task(app: Any, jobs: FakeJobs) -> None:
    async with opened(app, NEXT, WORKER) as response:
        await polled(jobs)
        assert response.status == 0
        jobs.polls[0].outcome.set_result(TASK)
        await ended(response)
        assert (response.status, response.headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert response.headers["x-request-id"]
    assert jobs.polls[0].withdrawn == 0


async def test_a_poll_whose_time_is_over_is_answered_with_nothing(worker: httpx.AsyncClient, jobs: FakeJobs) -> None:
    asking = asyncio.create_task(worker.get(NEXT))
    await polled(jobs)
    jobs.polls[0].outcome.set_result(None)
    response = await asking
    assert (response.status_code, response.content) == (204, b"")


async def test_a_worker_that_hangs_up_withdraws_its_poll(app: Any, jobs: FakeJobs) -> None:
    async with opened(app, NEXT, WORKER) as response:
        await polled(jobs)
        response.hang_up()
        await ended(response)
    assert jobs.polls[0].withdrawn == 1


async def test_a_task_that_comes_as_the_worker_hangs_up_is_given_back(app: Any, jobs: FakeJobs) -> None:
    async with opened(app, NEXT, WORKER) as response:
        await polled(jobs)
        response.hang_up()
        jobs.polls[0].outcome.set_result(TASK)
        await ended(response)
        assert response.status == 204
    assert jobs.polls[0].withdrawn == 1


async def test_a_task_that_cannot_be_written_is_given_back(app: Any, jobs: FakeJobs) -> None:
    async with opened(app, NEXT, WORKER) as response:
        await polled(jobs)
        response.fail_sending()
        jobs.polls[0].outcome.set_result(TASK)
        for _ in range(100):
            await asyncio.sleep(0)
    assert jobs.polls[0].withdrawn == 1


async def test_a_poll_that_the_server_cancels_is_withdrawn(app: Any, jobs: FakeJobs) -> None:
    """As Ray Serve does when the client is gone."""
    response = OpenResponse()
    scope = {"type": "http", "method": "GET", "path": NEXT, "raw_path": NEXT.encode(), "query_string": b"",
             "headers": [(b"x-worker-token", TOKENS["worker"].encode())], "root_path": ""}  # fmt: skip
    serving = asyncio.create_task(app(scope, response.receive, response.send))
    await polled(jobs)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert jobs.polls[0].withdrawn == 1
