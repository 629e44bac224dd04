"""actors.runner_actor: in-cluster runners by messages, with the gateway that holds their jobs, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actors.process_backend import backend
from actors.runner_actor import POLL_S, GatewayPort, capabilities, runner_id
from actors.runner_loop import Execute, RunnerLoop
from orchestrator.errors import Invalid, NotFound
from orchestrator.pipeline_views import Claimed, JobResult
from tests.pipelines_stage import TENANT, Stage, on_stage, script

Write = Callable[[str, str], None]


async def ends_well(claimed: Claimed, write: Write) -> JobResult:
    write("Info", f"hi {claimed.parameters['n']}")
    await asyncio.sleep(10)
    return JobResult(success=True, exit_code=0, output={"n": claimed.parameters["n"]})


async def never_ends(_claimed: Claimed, _write: Write) -> JobResult:
    await asyncio.Event().wait()
    raise AssertionError


def port(stage: Stage, number: int = 1) -> GatewayPort:
    async def ask(blob: bytes) -> bytes:
        return await stage.gate.gateway("pipelines", blob)

    return GatewayPort(runner_id(number), capabilities(backend("none", str)), ask)


class Mortal(RunnerLoop):
    """A runner whose process dies: not even a last word."""

    async def _leave(self) -> None: ...


def start(stage: Stage, execute: Execute = ends_well, number: int = 1) -> asyncio.Task[None]:
    """A runner of the cluster works."""
    loop = Mortal(port(stage, number), execute, stage.clock, poll_s=POLL_S)
    return asyncio.create_task(loop.run())


async def cut_off(*working: asyncio.Task[None]) -> None:
    """Their processes die."""
    for task in working:
        task.cancel()
    await asyncio.wait(working)


def test_a_launched_job_is_done_within_seconds() -> None:
    async def story(stage: Stage) -> None:
        working = start(stage)
        await asyncio.sleep(5)
        job_id = await stage.launch(await stage.create(), n=1)
        await asyncio.sleep(1.5)
        assert (await stage.job(job_id)).status == "Running"
        await asyncio.sleep(10)
        job = await stage.job(job_id)
        assert (job.status, job.runner_id) == ("Succeeded", "ray-1")
        assert job.result == JobResult(success=True, exit_code=0, output={"n": 1})
        assert await stage.messages(job_id) == ["hi 1"]
        (known,) = await stage.port.runners(TENANT)
        assert (known.id, known.capabilities, known.status) == ("ray-1", ("log", "env", "input", "output"), "Online")
        await cut_off(working)

    on_stage(story)


def test_runners_of_the_cluster_share_jobs_and_each_is_done_once() -> None:
    async def story(stage: Stage) -> None:
        done: list[int] = []

        async def counts(claimed: Claimed, _write: Write) -> JobResult:
            done.append(claimed.parameters["n"])
            await asyncio.sleep(1)
            return JobResult(success=True, exit_code=0)

        pipeline = await stage.create()
        jobs = [await stage.launch(pipeline, n=n) for n in range(30)]
        working = [start(stage, counts, number) for number in (1, 2, 3)]
        await asyncio.sleep(25)
        assert sorted(done) == list(range(30))
        assert {(await stage.job(job)).status for job in jobs} == {"Succeeded"}
        assert {(await stage.job(job)).runner_id for job in jobs} == {"ray-1", "ray-2", "ray-3"}
        await cut_off(*working)

    on_stage(story)


def test_jobs_end_right_while_the_gateway_is_killed_and_answers_get_lost() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        jobs = [await stage.launch(pipeline, n=n) for n in range(6)]
        working = start(stage)
        stage.gate.loses = lambda: stage.rng.random() < 0.2
        for _ in range(60):
            await asyncio.sleep(2)
            if stage.rng.random() < 0.3:
                stage.restart()
        stage.gate.loses = lambda: False
        await asyncio.sleep(30)
        ended = [await stage.job(job) for job in jobs]
        assert {job.status for job in ended} == {"Succeeded"}
        assert [job.retry_count for job in ended] == [0] * 6
        for n, job_id in enumerate(jobs):
            assert set(await stage.messages(job_id)) == {f"hi {n}"}
        await cut_off(working)

    for seed in range(5):
        on_stage(story, seed)


def test_what_a_runner_held_when_its_process_died_is_queued_again_when_it_is_back() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.launch(await stage.create(), n=1)
        first = start(stage, never_ends)
        await asyncio.sleep(3)
        await cut_off(first)
        assert (await stage.job(job_id)).status == "Running"
        working = start(stage)
        await asyncio.sleep(15)
        job = await stage.job(job_id)
        assert (job.status, job.retry_count) == ("Succeeded", 1)
        await cut_off(working)

    on_stage(story)


@pytest.mark.parametrize("how", ["cancel", "delete", "timeout"])
def test_a_job_that_is_not_wanted_any_more_is_ended_at_its_runner(how: str) -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(config={"timeout_seconds": 20})
        job_id = await stage.launch(pipeline, n=1)
        ended: list[float] = []

        async def watched(claimed: Claimed, write: Write) -> JobResult:
            try:
                return await never_ends(claimed, write)
            finally:
                ended.append(asyncio.get_running_loop().time())

        working = start(stage, watched)
        await asyncio.sleep(3)
        if how == "cancel":
            await stage.port.cancel(TENANT, job_id)
        elif how == "delete":
            await stage.port.delete(TENANT, pipeline.id)
        await asyncio.sleep(6 if how != "timeout" else 20)
        assert len(ended) == 1
        if how != "delete":
            assert (await stage.job(job_id)).status == {"cancel": "Cancelled", "timeout": "TimedOut"}[how]
        await cut_off(working)

    on_stage(story)


def test_a_job_that_needs_more_than_a_runner_has_is_left_to_others() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.launch(await stage.create(script(requires=["log", "docker"])), n=1)
        working = start(stage)
        await asyncio.sleep(10)
        assert (await stage.job(job_id)).status == "Queued"
        await cut_off(working)

    on_stage(story)


def test_a_runner_that_is_not_known_is_forgotten_without_a_word_and_beats_in_vain() -> None:
    async def story(stage: Stage) -> None:
        await port(stage).forget()
        with pytest.raises(NotFound):
            await port(stage).heartbeat()

    on_stage(story)


def test_a_backend_gives_modules_and_an_unknown_one_is_refused() -> None:
    assert capabilities(backend("podman", str)) == ("log", "env", "input", "output", "process", "container")
    assert capabilities(backend("local", str)) == ("log", "env", "input", "output", "process")
    with pytest.raises(Invalid):
        backend("docker", str)
