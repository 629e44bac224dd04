"""`orchestrator runner` and `orchestrator worker` as processes, against the surfaces on a real port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from orchestrator import remote
from orchestrator.errors import Invalid
from orchestrator.pipeline_views import JobResult
from serve_app.agent_commands import find_tasks
from serve_app.app import build_app
from serve_app.auth import Tokens
from serve_app.options import ServerOptions
from tests.asgi_server import listening
from tests.fakes_gateway import EPOCH, FakeClock, FakeGateway
from tests.fakes_jobs import FakeJobs
from tests.fakes_pipelines import FakePipelines
from tests.unit.serve_app.conftest import GRANTS, TOKENS
from tests.waiting import is_gone, until

Json = dict[str, Any]

SCRIPT = """return { name = "Example", stages = { { name = "build", script = function()
  process.run{cmd = "sh", args = {"-c", "echo $$; sleep " .. input.get("seconds", "0")}} end } } }"""
TASKS = """
import asyncio
from orchestrator.remote_tasks import PermanentFailure, remote_task

@remote_task
async def wait(params, ctx):
    ctx.progress(0.5, "half")
    await asyncio.sleep(params["seconds"])

@remote_task(name="refuse")
def nope(params):
    raise PermanentFailure("nope")

some = [nope]
"""


@pytest.fixture
def app(pipelines: FakePipelines, jobs: FakeJobs, tmp_path: Path) -> ASGIApp:
    options = ServerOptions(home=str(tmp_path))
    return build_app(FakeGateway(), Tokens(GRANTS), options, FakeClock(), pipelines=pipelines, jobs=jobs)


@asynccontextmanager
async def agent(*arguments: str, folder: Path) -> AsyncIterator[Process]:
    """`orchestrator …` in that folder; killed at the end if it still runs."""
    command = (sys.executable, "-c", "from serve_app.cli import main; main()", *arguments, "--json")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=folder, env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def worker(address: str, *options: str, folder: Path) -> AbstractAsyncContextManager[Process]:
    """`orchestrator worker steps`."""
    where = ("--url", f"http://{address}", "--token", TOKENS["worker"])
    return agent("worker", *where, *options, "steps", folder=folder)


async def event(process: Process, name: str) -> Json:
    """The next event of that name which the process tells."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while line := await process.stdout.readline():
            told: Json = json.loads(line)
            if told["event"] == name:
                return told
    assert process.stderr is not None
    raise AssertionError((await process.stderr.read()).decode())


async def launch(client: httpx.AsyncClient, **parameters: Any) -> str:
    """Id of a job of SCRIPT."""
    made = (await client.post("/api/pipeline/create", json={"script": SCRIPT})).json()
    body = {"pipeline_id": made["id"], "parameters": parameters}
    return str((await client.post("/api/pipeline/launch", json=body)).json()["id"])


async def test_a_runner_ends_its_job_after_sigterm_and_leaves(app: ASGIApp, tmp_path: Path) -> None:
    async with listening(app) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        job_id = await launch(client, seconds="0.5")
        arguments = ("runner", "--url", f"http://{address}", "--id", "r1", "--process-backend", "local")
        async with agent(*arguments, "--capability", "docker", folder=tmp_path) as process:
            assert (await event(process, "claimed"))["job"] == job_id
            (runner,) = (await client.get("/api/runners")).json()
            assert runner["capabilities"] == ["log", "env", "input", "output", "process", "docker"]
            process.send_signal(signal.SIGTERM)
            ended = await event(process, "completed")
            assert (ended["job"], ended["success"], ended["id"]) == (job_id, True, "r1")
            assert await process.wait() == 0
        assert (await client.get(f"/api/jobs/{job_id}")).json()["status"] == "Succeeded"
        assert (await client.get("/api/runners")).json() == []


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
async def test_a_runner_that_is_ended_now_takes_its_commands_with_it(
    app: ASGIApp, tmp_path: Path, by: signal.Signals
) -> None:
    async with listening(app) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        job_id = await launch(client, seconds="60")
        arguments = ("runner", "--url", f"http://{address}", "--process-backend", "local")
        async with agent(*arguments, folder=tmp_path) as process:
            await event(process, "claimed")
            command = int(await first_line(client, job_id))
            process.send_signal(by)
            if by == signal.SIGTERM:
                await asyncio.sleep(0.2)
                process.send_signal(by)
            assert await process.wait() == (-by if by == signal.SIGKILL else 128 + by)
            await until(lambda: is_gone(command))
        assert (await client.get(f"/api/jobs/{job_id}")).json()["completed_at"] is None


async def test_a_runner_that_was_stopped_for_a_while_changes_nothing_and_goes_on(
    app: ASGIApp, pipelines: FakePipelines, tmp_path: Path
) -> None:
    async with listening(app) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        stale = await launch(client, seconds="0.3")
        arguments = ("runner", "--url", f"http://{address}", "--process-backend", "local")
        async with agent(*arguments, folder=tmp_path) as process:
            await event(process, "claimed")
            process.send_signal(signal.SIGSTOP)
            end = JobResult(success=True, exit_code=0, output="another's")
            await pipelines.settle(stale, status="Succeeded", runner_id="another", completed_at=EPOCH, result=end)
            await asyncio.sleep(0.5)
            fresh = await launch(client)
            process.send_signal(signal.SIGCONT)
            dropped = await event(process, "dropped")
            assert dropped["job"] == stale
            assert "is already completed (current: Succeeded)" in dropped["why"]
            assert (await event(process, "completed"))["job"] == fresh
        job = (await client.get(f"/api/jobs/{stale}")).json()
        assert (job["runner_id"], job["result"]["output"]) == ("another", "another's")


async def first_line(client: httpx.AsyncClient, job_id: str) -> str:
    """What the command of the job printed first."""
    for _ in range(200):
        lines = (await client.get(f"/api/jobs/{job_id}/logs")).json()
        if len(lines) > 1:
            return str(lines[1]["message"])
        await asyncio.sleep(0.05)
    raise AssertionError("it printed nothing")


async def test_a_runner_that_is_not_let_in_says_so(tmp_path: Path) -> None:
    options = ServerOptions(home=str(tmp_path), allow_anonymous=False)
    strict = build_app(FakeGateway(), Tokens(GRANTS), options, FakeClock(), pipelines=FakePipelines())
    async with (
        listening(strict) as address,
        agent("runner", "--url", f"http://{address}", "--token", "wrong-token-00000", folder=tmp_path) as process,
    ):
        out, error = await process.communicate()
        assert (process.returncode, out) == (1, b"")
        assert b"Unauthorized (401)" in error


async def test_an_unknown_backend_is_wrong_at_once(tmp_path: Path) -> None:
    async with agent("runner", "--url", "http://x", "--process-backend", "docker", folder=tmp_path) as process:
        _, error = await process.communicate()
        assert process.returncode == 1
        assert b"choose of none, podman, local" in error


async def test_a_worker_does_tasks_of_its_module_and_ends_them_after_sigterm(
    app: ASGIApp, jobs: FakeJobs, tmp_path: Path
) -> None:
    (tmp_path / "steps.py").write_text(TASKS)
    jobs.answers[remote.Result] = lambda _: remote.Answer({"status": "result_accepted_success"})
    async with (
        listening(app) as address,
        worker(address, "--id", "w1", "--max-tasks", "2", folder=tmp_path) as process,
    ):
        await event(process, "registered")
        await until(lambda: len(jobs.polls) == 2 and jobs.sockets)
        give(jobs, 0, "t1", "wait", seconds=0.5)
        give(jobs, 1, "t2", "refuse")
        await event(process, "acknowledged")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    registered = next(each for each in jobs.asked if isinstance(each, remote.Register))
    assert registered.body["supported_tasks"] == ["refuse", "wait"]
    results = {each.task_id: each for each in jobs.asked if isinstance(each, remote.Result)}
    assert results["t1"].status == "success"
    assert (results["t2"].status, results["t2"].error["code"]) == ("failure", "PERMANENT_ERROR")
    progress = [each for each in jobs.asked if isinstance(each, remote.Progress)]
    assert [(each.task_id, each.progress, each.message) for each in progress] == [("t1", 0.5, "half")]


async def test_a_worker_is_told_over_its_socket_to_cancel(app: ASGIApp, jobs: FakeJobs, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(TASKS)
    jobs.answers[remote.Result] = lambda _: remote.Answer({"status": "result_accepted_cancelled"})
    async with (
        listening(app) as address,
        worker(address, folder=tmp_path) as process,
    ):
        await event(process, "registered")
        await until(lambda: jobs.polls and jobs.sockets)
        give(jobs, 0, "t1", "wait", seconds=60)
        await event(process, "started")
        command = {"command": "cancel_task", "type": "cancel_task", "task_id": "t1", "job_id": "j"}
        jobs.sockets[0].bodies.put_nowait(command)
        assert (await event(process, "ended"))["status"] == "cancelled"
        assert (await event(process, "acknowledged"))["answer"] == "result_accepted_cancelled"


def give(jobs: FakeJobs, number: int, task_id: str, kind: str, **params: Any) -> None:
    """The poll of that number gets a task."""
    task = {
        "job_id": "j", "task_id": task_id, "type": kind, "params": params,
        "tracing_context": {}, "params_metadata": None, "priority": 0.0,
    }  # fmt: skip
    jobs.polls[number].outcome.set_result(task)


# ── what a worker's module has ────────────────────────────────────────────────────────────────────


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where modules are looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_tasks_are_those_of_the_module_or_of_what_it_names(modules: Path) -> None:
    (modules / "steps_of_a_test.py").write_text(TASKS)
    assert [task.name for task in find_tasks("steps_of_a_test")] == ["refuse", "wait"]
    assert [task.name for task in find_tasks("steps_of_a_test:some")] == ["refuse"]
    assert [task.name for task in find_tasks("steps_of_a_test:wait")] == ["wait"]
    del sys.modules["steps_of_a_test"]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("no_such_module", "no_such_module cannot be imported from"),
        ("json", "json has no remote tasks"),
        ("json:nothing", "json:nothing has no remote tasks"),
    ],
)
def test_a_module_without_tasks_is_refused(modules: Path, named: str, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        find_tasks(named)
