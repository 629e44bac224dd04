"""CI jobs over a real journal: what a job's life is there, and that its file holds no secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from actors.journal import Journal
from orchestrator.errors import NotFound
from tests.conformance.servers import Server, valkey_binary
from tests.pipeline_leaks import SECRETS, leak, spellings
from tests.pipelines_stage import BAD, GOOD, TENANT, Stage, entry


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    server = Server(valkey_binary())
    yield server
    server.stop()


@pytest.fixture
async def stage(valkey: Server) -> AsyncIterator[Stage]:
    valkey.flush()
    journal = Journal(valkey.url)
    made = Stage(real=journal)
    made.start()
    yield made
    made.kill()
    made.hub.close()
    await journal.close()


async def test_the_file_of_the_journal_holds_no_secret(stage: Stage, valkey: Server) -> None:
    job_id = await leak(stage)
    job = await stage.job(job_id)
    assert (job.status, job.retry_count) == ("Failed", 2)
    stored = b"".join(file.read_bytes() for file in valkey.folder.rglob("*") if file.is_file())
    assert b"attempt 2 queued" in stored, "it is the whole file"
    for secret in SECRETS:
        for spelling in spellings(secret):
            assert spelling not in stored


async def test_a_job_lives_and_goes_in_a_real_journal_as_in_memory(stage: Stage) -> None:
    pipeline = await stage.create(config={"max_retries": 1})
    ids = [await stage.launch(pipeline, n=n) for n in range(3)]
    assert {job.id for job in await stage.port.scheduled(TENANT, None)} == set(ids)
    await stage.port.claim(TENANT, ids[0], "r1", None)
    await stage.port.add_logs(TENANT, ids[0], [entry("hi")])
    await stage.port.complete(TENANT, ids[0], BAD)
    stage.restart()
    await stage.port.claim(TENANT, ids[0], "r2", None)
    await stage.port.complete(TENANT, ids[0], GOOD)
    await stage.port.cancel(TENANT, ids[1])
    listed = await stage.port.jobs(TENANT, None, None, 10)
    jobs = {job.id: (job.status, job.runner_id, job.retry_count) for job in listed}
    assert jobs == {ids[0]: ("Succeeded", "r2", 1), ids[1]: ("Cancelled", None, 0), ids[2]: ("Queued", None, 0)}
    assert [job.id for job in await stage.port.jobs(TENANT, pipeline.id, "Cancelled", None)] == [ids[1]]
    opened = await stage.port.open_logs(TENANT, ids[0], 0)
    assert opened is not None
    frames = [frame async for chunk in opened for frame in chunk]
    assert [frame.data["message"] for frame in frames[:-1] if frame.data] == ["hi", "attempt 2 queued"]
    assert frames[-1].data == {"status": "Succeeded"}
    await stage.port.delete(TENANT, pipeline.id)
    for job_id in ids:
        with pytest.raises(NotFound):
            await stage.job(job_id)
    assert await stage.journal.lines(ids[0], 0, 10) == []
    assert await stage.port.jobs(TENANT, None, None, 10) == []


async def test_of_many_runners_each_job_goes_to_one(stage: Stage) -> None:
    pipeline = await stage.create()
    ids = [await stage.launch(pipeline) for _ in range(50)]
    wins = 0
    for result in await asyncio.gather(
        *(stage.port.claim(TENANT, job_id, f"r{n}", None) for n in range(4) for job_id in ids), return_exceptions=True
    ):
        wins += not isinstance(result, Exception)
    assert wins == 50
    assert {job.status for job in await stage.port.jobs(TENANT, None, None, 100)} == {"Running"}
