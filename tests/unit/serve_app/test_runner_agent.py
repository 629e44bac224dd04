"""serve_app.runner_agent: the remote runner over the surface (pipelines in memory), and answers of other servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from actors.clock import Clock
from actors.process_backend import backend
from actors.runner_loop import RunnerLoop, executor
from orchestrator.errors import Invalid, NotFound, Unavailable
from orchestrator.pipeline_views import Claimed, CompletionWanted, JobResult, LogEntry
from serve_app.runner_agent import HttpRunnerPort, open_client
from tests.fakes_pipelines import FakePipelines

SCRIPT = """return { name = "Example", stages = {
  { name = "build", script = function() log.info(input.get("message", "none")) output.set("n", 1) end },
  { name = "check", script = function() if input.has("fails") then error("boom", 0) end end } } }"""


@pytest.fixture
def port(anybody: httpx.AsyncClient) -> HttpRunnerPort:
    return HttpRunnerPort(anybody, "a runner/1", ["log", "env"])


async def launch(client: httpx.AsyncClient, **parameters: Any) -> str:
    """Id of a job of SCRIPT."""
    made = (await client.post("/api/pipeline/create", json={"script": SCRIPT})).json()
    body = {"pipeline_id": made["id"], "parameters": parameters}
    return str((await client.post("/api/pipeline/launch", json=body)).json()["id"])


async def until_ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """The job, once it has ended."""
    async with asyncio.timeout(10):
        while True:
            job: dict[str, Any] = (await client.get(f"/api/jobs/{job_id}")).json()
            if job["completed_at"] is not None:
                return job
            await asyncio.sleep(0.02)


async def test_a_runner_does_what_is_launched_until_it_is_stopped(
    anybody: httpx.AsyncClient, port: HttpRunnerPort
) -> None:
    loop = RunnerLoop(port, executor(backend("none", str)), Clock(), poll_s=0.05)
    working = asyncio.create_task(loop.run())
    good, bad = await launch(anybody, message="hi"), await launch(anybody, message="hi", fails=True)
    job = await until_ended(anybody, good)
    assert (job["status"], job["runner_id"]) == ("Succeeded", "a runner/1")
    assert job["result"] == {"success": True, "exit_code": 0, "output": {"n": 1}, "error_message": None}
    lines = (await anybody.get(f"/api/jobs/{good}/logs")).json()
    assert [(line["level"], line["message"]) for line in lines] == [
        ("Info", "Starting stage: build"),
        ("Info", "hi"),
        ("Info", "Starting stage: check"),
    ]
    job = await until_ended(anybody, bad)
    assert (job["status"], job["result"]["error_message"]) == ("Failed", "Stage 'check' failed: boom")
    assert [each["id"] for each in (await anybody.get("/api/runners")).json()] == ["a runner/1"]
    loop.stop()
    await working
    assert (await anybody.get("/api/runners")).json() == []


async def test_a_cancelled_job_is_told_with_its_next_lines(
    anybody: httpx.AsyncClient, port: HttpRunnerPort, pipelines: FakePipelines
) -> None:
    job_id = await launch(anybody)
    await port.register()
    await port.claim(job_id, "k")
    line = LogEntry("2026-01-02T03:04:05.678901Z", "Info", "x")
    assert await port.add_logs(job_id, [line]) is None
    assert await port.add_logs(job_id, []) is None
    await anybody.post(f"/api/jobs/{job_id}/cancel")
    assert await port.add_logs(job_id, []) == "Cancelled"
    with pytest.raises(Invalid, match=r"is already completed \(current: Cancelled\) \(400\)"):
        await port.complete(job_id, CompletionWanted(JobResult(True, 0)))


async def test_a_claim_is_repeated_by_its_key_and_refused_to_others(
    anybody: httpx.AsyncClient, port: HttpRunnerPort
) -> None:
    job_id = await launch(anybody, message="hi")
    claimed = await port.claim(job_id, "k1")
    assert claimed.parameters == {"message": "hi"}
    assert await port.claim(job_id, "k1") == claimed
    with pytest.raises(Invalid, match=r"is not in Queued state \(current: Running\)"):
        await port.claim(job_id, "k2")


async def test_an_unknown_runner_is_forgotten_without_a_word_and_beats_in_vain(port: HttpRunnerPort) -> None:
    await port.forget()
    with pytest.raises(NotFound):
        await port.heartbeat()


# ── other servers ─────────────────────────────────────────────────────────────────────────────────


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> HttpRunnerPort:
    return HttpRunnerPort(open_client("http://x", "secret", httpx.MockTransport(answer)), "r1", ["log"])


async def test_the_token_is_presented_as_a_runners() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    port = answering(answer)
    await port.heartbeat()
    await port.complete("j", CompletionWanted(JobResult(True, 0, {"a": 1})))
    assert [request.headers["X-Runner-Token"] for request in seen] == ["secret", "secret"]
    assert seen[1].read() == b'{"result":{"success":true,"exit_code":0,"output":{"a":1},"error_message":null}}'


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_what_may_go_away_is_unavailable(status: int) -> None:
    with pytest.raises(Unavailable, match=str(status)):
        await answering(lambda _: httpx.Response(status)).register()


async def test_a_broken_connection_is_unavailable() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unavailable, match="http://x: ConnectError refused"):
        await answering(answer).register()


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b'{"job_id": 1}'])
async def test_an_answer_that_is_not_understood_is_unavailable(body: bytes) -> None:
    with pytest.raises(Unavailable, match="the answer is not understood"):
        await answering(lambda _: httpx.Response(200, content=body)).claim("j", "k")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(401, json={"error": "Unauthorized"}), "Unauthorized (401)"),
        (httpx.Response(400, json={"error": "Runner id cannot be empty"}), "Runner id cannot be empty (400)"),
        (httpx.Response(403, text="no"), "Forbidden (403)"),
    ],
)
async def test_a_refusal_has_the_servers_words(answer: httpx.Response, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        await answering(lambda _: answer).register()
    assert str(refused.value) == told


async def test_a_runner_that_may_not_delete_itself_goes_on() -> None:
    await answering(lambda _: httpx.Response(403)).forget()
    with pytest.raises(Unavailable):
        await answering(lambda _: httpx.Response(503)).forget()


async def test_an_older_server_gives_no_variables() -> None:
    answer = {"job_id": "j", "pipeline_id": "p", "pipeline_source": "s", "parameters": {}, "more": 1}
    claimed = await answering(lambda _: httpx.Response(200, json=answer)).claim("j", "k")
    assert claimed == Claimed("j", "p", "s", {}, {})
