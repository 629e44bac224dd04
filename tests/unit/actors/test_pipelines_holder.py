"""The gateway's part for pipelines: races, restarts, zombies, outages, deletions, logs that are full."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import pipeline_logs, pipelines_holder
from actors.names import JOBS
from actors.pipelines_desk import PipelinesDesk
from orchestrator import codec, outside_codec
from orchestrator import pipeline_messages as pm
from orchestrator.errors import Invalid, NotFound, Unavailable
from orchestrator.pipeline_views import Claimed, PipelineJobView
from orchestrator.steps import Creation, NewRun
from tests.pipelines_stage import BAD, GOOD, TENANT, Stage, entry, on_stage, stop


def desk(stage: Stage) -> PipelinesDesk:
    return PipelinesDesk(lambda request: stage.gate.gateway("pipelines", request))


def registered(stage: Stage) -> dict[str, pm.RunnerRecord]:
    records = stage.journal.documents[pm.RUNNERS]
    return {key: codec.decode_document(data, pm.RunnerRecord) for key, data in records.items()}


async def settled() -> None:
    """What is owed is done."""
    await asyncio.sleep(0.2)


# ── claims


def test_of_200_runners_that_race_for_200_jobs_each_job_is_claimed_once() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        ids = [await stage.launch(pipeline) for _ in range(200)]
        won: dict[str, list[str]] = {job_id: [] for job_id in ids}
        refused: set[tuple[str, str]] = set()

        async def runner(name: str) -> None:
            await desk(stage).register(TENANT, name, ["log"])
            while listed := await desk(stage).scheduled(TENANT, name):
                stage.rng.shuffle(listed)
                for job in listed[:10]:
                    try:
                        claimed = await desk(stage).claim(TENANT, job.id, name)
                    except Invalid as lost:
                        refused.add((job.id, str(lost)))
                    else:
                        won[claimed.job_id].append(name)

        await asyncio.gather(*(runner(f"r{n}") for n in range(200)))
        assert {len(names) for names in won.values()} == {1}
        assert refused
        assert refused <= {(job_id, f"Job {job_id} is not in Queued state (current: Running)") for job_id in ids}
        shown = {job.id: job.runner_id for job in await stage.port.jobs(TENANT, pipeline.id, None, None)}
        assert shown == {job_id: names[0] for job_id, names in won.items()}

    on_stage(story)


def test_a_job_can_be_claimed_before_the_gateway_has_heard_of_it() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        await settled()
        real = stage.journal.tail

        async def late(stream: str, cursor: str, block_ms: int, limit: int = 1000) -> Any:
            found = await real(stream, cursor, block_ms, limit)
            await asyncio.sleep(5)
            return found

        stage.journal.tail = late  # type: ignore[method-assign]  # a stand-in, in this one object
        job_ids = [await stage.launch(pipeline) for _ in range(3)]
        for job_id in job_ids:
            assert (await stage.port.claim(TENANT, job_id, "r1", None)).job_id == job_id
        await stage.port.complete(TENANT, job_ids[0], GOOD)
        await stage.port.heartbeat(TENANT, "r1")
        await asyncio.sleep(30)  # now it has
        assert [(await stage.job(job_id)).status for job_id in job_ids] == ["Succeeded", "Running", "Running"]
        await stage.port.complete(TENANT, job_ids[1], GOOD)
        assert (await stage.job(job_ids[1])).status == "Succeeded"

    on_stage(story)


def test_a_run_of_another_owner_is_no_job() -> None:
    async def story(stage: Stage) -> None:
        stranger = "0ccbc0eb-3a56-4f5d-8d86-c4a35c8eb451"
        new = NewRun(
            run_id=stranger, tenant=TENANT, dag_id="@job/x", dag_version=1, run_type="manual", created_ms=1,
            event=b"[{}]", owner=JOBS,
        )  # fmt: skip
        await stage.journal.create_runs([Creation((new,))])
        for asked in (stage.port.claim(TENANT, stranger, "r1", None), stage.job(stranger)):
            with pytest.raises(NotFound):
                await asked

    on_stage(story)


def test_the_list_of_scheduled_jobs_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        ids = []
        for _ in range(5):
            ids.append(await stage.launch(pipeline, text="x" * 1000))
            await asyncio.sleep(0.001)
        monkeypatch.setattr(pipelines_holder, "LISTED_MAX", 3)
        assert [job.id for job in await stage.port.scheduled(TENANT, None)] == ids[:3]
        monkeypatch.setattr(pipelines_holder, "LISTED_BYTES_MAX", 1500)
        assert [job.id for job in await stage.port.scheduled(TENANT, None)] == ids[:2]

    on_stage(story)


# ── restarts


def test_after_a_restart_everything_is_as_it_was() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(config={"max_retries": 1, "timeout_seconds": 60})
        await stage.port.register(TENANT, "r1", ["log"])
        queued, running = await stage.launch(pipeline), await stage.claimed(pipeline, "r1")
        retried, done = await stage.claimed(pipeline, "r1"), await stage.claimed(pipeline, "r1")
        await stage.port.complete(TENANT, retried, BAD)
        await stage.port.complete(TENANT, done, GOOD)
        await asyncio.sleep(2)
        listed = await stage.port.scheduled(TENANT, "r1")
        runners = await stage.port.runners(TENANT)
        await asyncio.sleep(pipelines_holder.WRITE_BEHIND_S + 0.1)
        stage.restart()
        assert await stage.port.scheduled(TENANT, None) == listed
        assert {job.id for job in listed} == {queued, retried}
        assert await stage.port.runners(TENANT) == runners
        assert runners[0].status == "Busy"
        await stage.port.complete(TENANT, retried, BAD)  # a late repetition
        await stage.port.complete(TENANT, done, GOOD)
        with pytest.raises(Invalid, match="already completed"):
            await stage.port.complete(TENANT, done, BAD)
        for _ in range(60):
            await asyncio.sleep(1)
            await stage.port.heartbeat(TENANT, "r1")
        assert (await stage.job(running)).status == "TimedOut"

    on_stage(story)


def test_a_limit_that_passed_while_nobody_was_there_ends_the_job_at_the_start() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(config={"timeout_seconds": 5}))
        stage.kill()
        await asyncio.sleep(60)
        assert (await stage.job(job_id)).status == "Running"
        stage.start()
        await settled()
        assert (await stage.job(job_id)).status == "TimedOut"

    on_stage(story)


def test_a_runner_has_its_whole_patience_again_after_a_restart() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(), "r1")
        await settled()
        stage.kill()
        await asyncio.sleep(500)  # it could reach nobody
        stage.start()
        await asyncio.sleep(89)
        assert (await stage.job(job_id)).status == "Running"
        await asyncio.sleep(2)
        assert (await stage.job(job_id)).status == "Queued"
        stage.restart()
        await settled()
        assert (await stage.port.runner(TENANT, "r1")).status == "Offline"

    on_stage(story)


def test_a_job_whose_runner_was_not_written_in_time_is_watched_all_the_same() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(), "r1")
        stage.journal.documents[pm.RUNNERS].clear()
        stage.restart()
        await asyncio.sleep(91)
        assert (await stage.job(job_id)).status == "Queued"
        assert registered(stage)["default|r1"].offline

    on_stage(story)


def test_a_job_of_an_offline_runner_is_lost_at_the_start() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(), "r1")
        stage.kill()
        record = registered(stage)["default|r1"]
        offline = pm.RunnerRecord(TENANT, "r1", record.registered_at, record.last_heartbeat_at, offline=True)
        stage.journal.documents[pm.RUNNERS]["default|r1"] = codec.encode_document(offline)
        stage.start()
        await settled()
        assert (await stage.job(job_id)).status == "Queued"

    on_stage(story)


def test_registrations_are_durable_at_once_and_signs_of_life_a_moment_later() -> None:
    async def story(stage: Stage) -> None:
        made = await stage.port.register(TENANT, "r1", ["log"])
        assert registered(stage)["default|r1"].capabilities == ("log",)
        await asyncio.sleep(5)
        beat = await stage.port.heartbeat(TENANT, "r1")
        assert registered(stage)["default|r1"].last_heartbeat_at == made.last_heartbeat_at
        await asyncio.sleep(1.1)
        assert registered(stage)["default|r1"].last_heartbeat_at == beat.last_heartbeat_at
        await asyncio.sleep(91)
        assert registered(stage)["default|r1"].offline
        await stage.port.heartbeat(TENANT, "r1")
        assert not registered(stage)["default|r1"].offline
        await stage.port.delete_runner(TENANT, "r1")
        assert registered(stage) == {}

    on_stage(story)


# ── zombies and outages


def test_a_gateway_that_was_replaced_is_fenced_before_it_answers() -> None:
    async def told(stage: Stage) -> None:
        job_id = await stage.launch(await stage.create())
        zombie = stage.gate.holder
        assert zombie is not None
        stage.start()
        await stage.port.claim(TENANT, job_id, "r2", None)
        asked = asyncio.ensure_future(zombie.ask(outside_codec.encode_pipeline_request(pm.Claim(TENANT, job_id, "r1"))))
        await settled()
        assert not asked.done()
        asked.cancel()
        assert stage.crashes == 1, "it ends"
        stage.crashes = 0
        assert (await stage.job(job_id)).runner_id == "r2"
        stop(zombie)

    on_stage(told)


@pytest.mark.parametrize("lost", [True, False])
def test_what_was_decided_while_the_journal_was_away_happens_once(lost: bool) -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        job_id = await stage.launch(pipeline)
        await settled()
        holder = stage.gate.holder
        assert holder is not None
        request = outside_codec.encode_pipeline_request(pm.Claim(TENANT, job_id, "r1"))
        await holder._record(holder._held[job_id])  # known, so that the commit is what fails
        stage.journal.failing = [lost] * 20
        first, second = await asyncio.gather(holder.ask(request), holder.ask(request))
        answers = [outside_codec.decode_pipeline_answer(first), outside_codec.decode_pipeline_answer(second)]
        assert [answer.refused for answer in answers] == [None, "invalid"]
        assert (await stage.job(job_id)).runner_id == "r1"
        assert stage.journal.runs[job_id].version == 2

    on_stage(story)


def test_a_request_that_reaches_nobody_is_sent_again_unless_that_would_do_it_twice() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        job_id = await stage.launch(pipeline)
        losses = iter([True, True, False])
        stage.gate.loses = lambda: next(losses, False)
        assert (await stage.port.claim(TENANT, job_id, "r1", None)).job_id == job_id
        losses = iter([True])
        with pytest.raises(Unavailable):
            await stage.port.add_logs(TENANT, job_id, [entry("once")])
        assert await stage.messages(job_id) == ["once"]
        losses = iter([True])
        await stage.port.complete(TENANT, job_id, GOOD)
        stage.kill()
        with pytest.raises(Unavailable, match="no answer within 5 s"):
            await stage.port.scheduled(TENANT, None)

    on_stage(story)


# ── logs


def test_a_full_log_says_so_once_and_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_logs, "TEXT_MAX", 10)

    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        await stage.port.add_logs(TENANT, job_id, [entry("1234"), entry("ü67")])
        await stage.port.add_logs(TENANT, job_id, [entry("8"), entry("9012")])
        await stage.port.add_logs(TENANT, job_id, [entry("x")])
        stage.restart()
        await stage.port.add_logs(TENANT, job_id, [entry("y")])
        lines = await stage.port.logs(TENANT, job_id)
        assert [line.message for line in lines] == ["1234", "ü67", pipeline_logs.FULL]
        assert lines[-1].level == "Warning"

    on_stage(story)


def test_how_full_a_log_is_is_known_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_logs, "TEXT_MAX", 10)
    monkeypatch.setattr(pipeline_logs, "READ_LINES", 2)

    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        await stage.port.add_logs(TENANT, job_id, [entry("12"), entry("34"), entry("56"), entry("78"), entry("9")])
        stage.restart()
        await stage.port.add_logs(TENANT, job_id, [entry("0")])
        await stage.port.add_logs(TENANT, job_id, [entry("x")])
        assert await stage.messages(job_id) == ["12", "34", "56", "78", "9", "0", pipeline_logs.FULL]

    on_stage(story)


def test_what_a_log_was_to_say_when_the_gateway_died_its_successor_says_once() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(config={"max_retries": 2}))
        real = stage.journal.add_lines

        async def never(run_id: str, lines: Any) -> int:
            await asyncio.sleep(1000)
            return 0

        stage.journal.add_lines = never  # type: ignore[method-assign]  # a stand-in, in this one object
        await stage.port.complete(TENANT, job_id, BAD)
        stage.journal.add_lines = real  # type: ignore[method-assign]  # a stand-in, in this one object
        stage.restart()
        await settled()
        assert await stage.messages(job_id) == ["attempt 2 queued"]
        stage.restart()
        await settled()
        assert await stage.messages(job_id) == ["attempt 2 queued"]

    on_stage(story)


@pytest.mark.parametrize("lost", [True, False])
def test_lines_of_our_own_are_written_once_through_an_outage(lost: bool) -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(config={"max_retries": 2}))
        real = stage.journal.add_lines

        async def failing(run_id: str, lines: Any) -> int:
            stage.journal.add_lines = real  # type: ignore[method-assign]  # a stand-in, in this one object
            stage.journal.failing = [lost, False]
            return await real(run_id, lines)

        stage.journal.add_lines = failing  # type: ignore[method-assign]  # a stand-in, in this one object
        await stage.port.complete(TENANT, job_id, BAD)
        await asyncio.sleep(2)
        assert await stage.messages(job_id) == ["attempt 2 queued"]

    on_stage(story)


# ── deletions


@pytest.mark.parametrize("step", range(1, 9))
def test_a_deletion_that_broke_off_is_carried_on(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        pipeline, other = await stage.create(), await stage.create()
        ids = [await stage.claimed(pipeline), await stage.launch(pipeline), await stage.claimed(pipeline)]
        await stage.port.complete(TENANT, ids[0], GOOD)
        kept = await stage.launch(other)
        await settled()
        steps, real = 0, stage.journal._step

        def dying(run: Any) -> Any:
            nonlocal steps
            answer = real(run)
            steps += 1
            if steps == step:
                stage.kill()
            return answer

        stage.journal._step = dying  # type: ignore[method-assign]  # a stand-in, in this one object
        asked = asyncio.ensure_future(stage.port.delete(TENANT, pipeline.id))
        await asyncio.sleep(1)
        stage.journal._step = real  # type: ignore[method-assign]  # a stand-in, in this one object
        stage.restart()
        await asyncio.wait([asked])
        if asked.exception() is not None:
            try:
                await stage.port.delete(TENANT, pipeline.id)
            except NotFound:
                await settled()
        await settled()
        assert set(stage.journal.runs) == {kept}
        assert list(stage.journal.documents[pm.PIPELINES]) == [f"default|{other.id}"]
        deletion = codec.decode_document(stage.journal.documents[pm.DELETIONS][f"default|{pipeline.id}"], pm.Deletion)
        assert deletion.done
        assert [job.id for job in await stage.port.scheduled(TENANT, None)] == [kept]

    on_stage(story)


def test_two_who_delete_at_once_are_both_answered_when_it_is_done() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        job_id = await stage.launch(pipeline)
        await asyncio.gather(*(stage.port.delete(TENANT, pipeline.id) for _ in range(2)))
        assert job_id not in stage.journal.runs

    on_stage(story)


@pytest.mark.parametrize("restart", [True, False])
def test_a_job_launched_while_its_pipeline_is_deleted_goes_with_it(restart: bool) -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        record = await stage.port._record(TENANT, pipeline.id)
        await stage.port.delete(TENANT, pipeline.id)
        if restart:
            stage.kill()
        stage.journal.documents[pm.PIPELINES][f"default|{pipeline.id}"] = codec.encode_document(record)
        job_id = await stage.launch(pipeline)  # by a replica that still saw it
        del stage.journal.documents[pm.PIPELINES][f"default|{pipeline.id}"]
        if restart:
            stage.start()
        await settled()
        assert job_id not in stage.journal.runs
        assert await stage.port.scheduled(TENANT, None) == []

    on_stage(story)


def test_deletions_are_forgotten_after_a_day() -> None:
    async def story(stage: Stage) -> None:
        one, two = await stage.create(), await stage.create()
        await stage.port.delete(TENANT, one.id)
        await asyncio.sleep(25.1 * 3600)
        await stage.port.delete(TENANT, two.id)
        assert list(stage.journal.documents[pm.DELETIONS]) == [f"default|{two.id}"]

    on_stage(story)


# ── the rest


def test_lost_and_retried_jobs_are_counted() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(config={"max_retries": 1})
        await stage.port.complete(TENANT, await stage.claimed(pipeline), BAD)
        await stage.claimed(pipeline, "r2")
        await stage.port.delete_runner(TENANT, "r2")
        counted = {name: n for name, n in stage.journal.counters.items() if name.startswith("pipeline_")}
        assert counted == {"pipeline_jobs_retried_total|@ci": 1, "pipeline_jobs_lost_total|@ci": 1}

    on_stage(story)


def test_every_request_and_answer_survives_its_bytes() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        asked = desk(stage)
        await asked.register(TENANT, "r1", None)
        job_id = await stage.launch(pipeline, deep={"a": [1, None, {"b": "ü\u2028"}]})
        [job] = await asked.scheduled(TENANT, "r1")
        assert isinstance(job, PipelineJobView)
        claimed = await asked.claim(TENANT, job_id, "r1")
        assert isinstance(claimed, Claimed)
        assert claimed.parameters == {"deep": {"a": [1, None, {"b": "ü\u2028"}]}}
        await asked.set_status(TENANT, job_id, "Running")
        assert await asked.add_logs(TENANT, job_id, [entry("x")]) is None
        assert (await asked.cancel(TENANT, job_id)).status == "Cancelled"
        assert [runner.id for runner in await asked.runners(TENANT)] == ["r1"]
        await asked.delete_runner(TENANT, "r1")
        await asked.delete_pipeline(TENANT, pipeline.id)

    on_stage(story)
