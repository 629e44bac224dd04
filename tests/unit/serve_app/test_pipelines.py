"""CI pipelines behind their port: the contract's acceptance examples 5 to 15, idempotency keys, tenants, streams."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from orchestrator.errors import Conflict, Invalid, JournalUnavailable, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.pipeline import MASK
from orchestrator.pipeline_views import Claimed, CompletionWanted, JobResult, LogEntry, PipelineConfig, PipelineWanted
from tests.pipelines_stage import BAD, GOOD, TENANT, Stage, entry, on_stage, script

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def refusal(asked: Any) -> str:
    with pytest.raises(Invalid) as refused:
        await asked
    return str(refused.value)


# ── pipelines


def test_a_created_pipeline_is_what_its_script_and_its_body_say() -> None:
    async def story(stage: Stage) -> None:
        made = await stage.create()
        assert (made.name, made.description, made.required_modules, made.version) == ("Example", "d", (), 1)
        assert made.config == PipelineConfig(3600, 0, {})
        named = await stage.create(name="Mine", description="other", tags=("ci",), required_modules=("docker",))
        shown = (named.name, named.description, named.tags, named.required_modules)
        assert shown == ("Mine", "other", ("ci",), ("docker",))
        assert await stage.port.pipeline(TENANT, made.id) == made
        assert await stage.port.pipelines(TENANT) == [named, made]

    on_stage(story)


def test_what_is_wrong_with_a_pipeline_is_told_in_the_contracts_words() -> None:
    async def story(stage: Stage) -> None:
        assert await refusal(stage.create("")) == "Pipeline script cannot be empty"
        assert (await refusal(stage.create("return {"))).startswith("Invalid Lua script: ")
        assert await refusal(stage.create(name="")) == "Pipeline name cannot be empty"
        assert await refusal(stage.create(name="a" * 256)) == "Pipeline name is too long (max 255 characters)"
        assert "timeout_seconds" in await refusal(stage.create(config={"timeout_seconds": 0}))
        assert "max_retries" in await refusal(stage.create(config={"max_retries": -1}))
        assert await stage.port.pipelines(TENANT) == []

    on_stage(story)


# ── examples 5 to 15


def test_example_5_a_launched_job_is_listed_for_whoever_may_have_it() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        await stage.port.register(TENANT, "r1", ["log", "env"])
        job = await stage.port.launch(TENANT, pipeline.id, {"message": "hi"}, None)
        assert (job.status, job.parameters, job.timeout_seconds) == ("Queued", {"message": "hi"}, 3600)
        assert await stage.port.scheduled(TENANT, "r1") == [job]
        assert await stage.port.scheduled(TENANT, "unknown") == []
        assert await stage.port.scheduled(TENANT, None) == [job]

    on_stage(story)


def test_example_6_of_fifty_claims_one_wins() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        job_id = await stage.launch(pipeline)
        claims = [stage.port.claim(TENANT, job_id, f"r{n}", None) for n in range(50)]
        answers = await asyncio.gather(*claims, return_exceptions=True)
        won = [answer for answer in answers if isinstance(answer, Claimed)]
        assert [each.pipeline_source for each in won] == [pipeline.script]
        lost = {str(answer) for answer in answers if isinstance(answer, Invalid)}
        assert lost == {f"Job {job_id} is not in Queued state (current: Running)"}
        assert len(answers) == 50
        assert (await stage.job(job_id)).runner_id is not None

    on_stage(story)


def test_example_7_logs_are_kept_digit_by_digit_and_sorted_by_time() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        await stage.port.set_status(TENANT, job_id, "Running")
        late = entry("late", "2026-01-02T03:04:05.123456790Z")
        early = entry("early", "2026-01-02T03:04:05.123456789Z")
        same = entry("same", "2026-01-02T05:04:05.123456790+02:00")
        assert await stage.port.add_logs(TENANT, job_id, [late]) is None
        assert await stage.port.add_logs(TENANT, job_id, [early, same]) is None
        assert await stage.port.logs(TENANT, job_id) == [early, late, same]

    on_stage(story)


def test_example_8_a_completed_job_accepts_the_same_completion_and_no_other() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        await stage.port.complete(TENANT, job_id, GOOD)
        job = await stage.job(job_id)
        assert (job.status, job.result) == ("Succeeded", GOOD.result)
        assert job.completed_at is not None
        await stage.port.complete(TENANT, job_id, GOOD)
        message = f"Job {job_id} is already completed (current: Succeeded)"
        assert await refusal(stage.port.complete(TENANT, job_id, BAD)) == message
        message = "Invalid status transition: Succeeded -> Running"
        assert await refusal(stage.port.set_status(TENANT, job_id, "Running")) == message
        assert await stage.job(job_id) == job

    on_stage(story)


def test_example_9_a_given_status_must_be_terminal() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        running = CompletionWanted(JobResult(True, 0), "Running")
        assert await refusal(stage.port.complete(TENANT, job_id, running)) == "Invalid completion status: Running"
        await stage.port.complete(TENANT, job_id, CompletionWanted(JobResult(False, 2), "Failed"))
        assert (await stage.job(job_id)).status == "Failed"

    on_stage(story)


def test_example_10_modules_decide_who_sees_a_job_and_who_may_have_it() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(script(requires=["docker"]))
        job_id = await stage.launch(pipeline)
        await stage.port.register(TENANT, "r1", ["log", "env"])
        await stage.port.register(TENANT, "d1", ["docker"])
        await stage.port.register(TENANT, "g2", None)
        listed = {name: [job.id for job in await stage.port.scheduled(TENANT, name)] for name in ("r1", "d1", "g2")}
        assert listed == {"r1": [], "d1": [job_id], "g2": [job_id]}
        message = "Runner r1 lacks required modules: docker"
        assert await refusal(stage.port.claim(TENANT, job_id, "r1", None)) == message
        await stage.port.claim(TENANT, job_id, "g2", None)

    on_stage(story)


def test_example_11_a_silent_runner_is_offline_and_its_job_goes_to_another_one_once() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(), "r1")
        await asyncio.sleep(1.9)
        assert (await stage.job(job_id)).status == "Running"
        await asyncio.sleep(0.2)
        job = await stage.job(job_id)
        assert (job.status, job.retry_count, job.runner_id, job.started_at) == ("Queued", 1, None, None)
        assert (await stage.port.runner(TENANT, "r1")).status == "Offline"
        assert await stage.port.scheduled(TENANT, None) == [], "its delay is not over"
        await asyncio.sleep(1.1)
        assert [each.id for each in await stage.port.scheduled(TENANT, None)] == [job_id]
        await stage.port.claim(TENANT, job_id, "r2", None)
        await asyncio.sleep(2.1)
        job = await stage.job(job_id)
        assert (job.status, job.result) == ("Failed", JobResult(False, -1, None, "Runner r2 lost"))
        assert await stage.messages(job_id) == ["runner r1 lost", "attempt 2 queued", "runner r2 lost"]

    on_stage(story, pipelines_runner_timeout_s=2.0)


def test_example_12_a_job_beyond_its_limit_times_out_whatever_its_runner_says() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(config={"timeout_seconds": 1}))
        for _ in range(4):
            await asyncio.sleep(0.3)
            await stage.port.heartbeat(TENANT, "r1")
        job = await stage.job(job_id)
        assert (job.status, job.result) == ("TimedOut", JobResult(False, 124, None, "Timed out after 1 s"))
        message = f"Job {job_id} is already completed (current: TimedOut)"
        assert await refusal(stage.port.complete(TENANT, job_id, GOOD)) == message
        assert await stage.port.add_logs(TENANT, job_id, [entry("too late")]) == "TimedOut"

    on_stage(story)


def test_example_13_a_failure_is_tried_again_as_often_as_the_pipeline_says() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(config={"max_retries": 1}))
        await stage.port.complete(TENANT, job_id, BAD)
        job = await stage.job(job_id)
        assert (job.status, job.retry_count, job.result) == ("Queued", 1, None)
        await stage.port.complete(TENANT, job_id, BAD)  # its answer got lost
        await stage.port.claim(TENANT, job_id, "r2", None)
        await stage.port.complete(TENANT, job_id, BAD)
        job = await stage.job(job_id)
        assert (job.status, job.retry_count, job.result) == ("Failed", 1, BAD.result)

    on_stage(story)


def test_example_14_inputs_are_checked_and_converted_at_launch() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(script(inputs={"count": {"type": "number", "required": True}}))
        missing = "Missing required input 'count' (type: number)"
        assert await refusal(stage.port.launch(TENANT, pipeline.id, {}, None)) == missing
        job = await stage.port.launch(TENANT, pipeline.id, {"count": "3"}, None)
        assert job.parameters == {"count": 3}
        assert "expected type 'number'" in await refusal(stage.port.launch(TENANT, pipeline.id, {"count": "x"}, None))
        assert len(await stage.port.jobs(TENANT, pipeline.id, None, None)) == 1

    on_stage(story)


def test_example_15_a_deleted_pipeline_takes_its_jobs_and_their_logs_along() -> None:
    async def story(stage: Stage) -> None:
        pipeline, other = await stage.create(), await stage.create()
        done, running, queued = [
            await stage.claimed(pipeline),
            await stage.claimed(pipeline),
            await stage.launch(pipeline),
        ]
        await stage.port.complete(TENANT, done, GOOD)
        await stage.port.add_logs(TENANT, running, [entry("hi")])
        kept = await stage.launch(other)
        await stage.port.delete(TENANT, pipeline.id)
        for asked in (
            stage.port.pipeline(TENANT, pipeline.id),
            stage.port.delete(TENANT, pipeline.id),
            stage.port.launch(TENANT, pipeline.id, {}, None),
            *(stage.job(job_id) for job_id in (done, running, queued)),
            stage.port.logs(TENANT, running),
            stage.port.add_logs(TENANT, running, [entry("late")]),
            stage.port.complete(TENANT, running, GOOD),
            stage.port.claim(TENANT, queued, "r1", None),
            stage.port.open_logs(TENANT, done, 0),
        ):
            with pytest.raises(NotFound):
                await asked
        assert await stage.port.jobs(TENANT, pipeline.id, None, None) == []
        assert [job.id for job in await stage.port.scheduled(TENANT, None)] == [kept]
        assert pipeline.id.encode() not in b"".join(stage.journal.documents["pipeline"].values())

    on_stage(story)


# ── jobs


def test_jobs_are_listed_newest_first_by_pipeline_status_and_number() -> None:
    async def story(stage: Stage) -> None:
        one, two = await stage.create(), await stage.create()
        ids = []
        for pipeline in (one, two, one):
            ids.append(await stage.launch(pipeline))
            await asyncio.sleep(0.01)
        await stage.port.claim(TENANT, ids[0], "r1", None)

        async def listed(*wanted: Any) -> list[str]:
            return [job.id for job in await stage.port.jobs(TENANT, *wanted)]

        assert await listed(None, None, 100) == ids[::-1]
        assert await listed(None, None, 2) == [ids[2], ids[1]]
        assert await listed(one.id, None, None) == [ids[2], ids[0]]
        assert await listed(None, "Queued", 100) == [ids[2], ids[1]]
        assert await listed(one.id, "Running", 100) == [ids[0]]
        assert await listed(UNKNOWN, None, None) == []

    on_stage(story)


def test_scheduled_jobs_are_listed_oldest_first_also_when_they_were_queued_again() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(config={"max_retries": 1})
        ids = []
        for _ in range(3):
            ids.append(await stage.launch(pipeline))
            await asyncio.sleep(0.01)
        await stage.port.claim(TENANT, ids[0], "r1", None)
        await stage.port.complete(TENANT, ids[0], BAD)
        await asyncio.sleep(1.1)
        assert [job.id for job in await stage.port.scheduled(TENANT, None)] == ids

    on_stage(story)


def test_a_cancelled_job_is_shown_so_and_its_late_runner_is_told() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        job = await stage.port.cancel(TENANT, job_id)
        assert (job.status, job) == ("Cancelled", await stage.job(job_id))
        message = f"Job {job_id} is already completed (current: Cancelled)"
        assert await refusal(stage.port.cancel(TENANT, job_id)) == message
        assert await stage.port.add_logs(TENANT, job_id, [entry("late")]) == "Cancelled"
        assert await stage.messages(job_id) == ["late"]
        assert await refusal(stage.port.complete(TENANT, job_id, GOOD)) == message

    on_stage(story)


def test_ids_that_are_nobodys_job_are_not_found() -> None:
    async def story(stage: Stage) -> None:
        for asked in (
            stage.job(UNKNOWN),
            stage.port.claim(TENANT, UNKNOWN, "r1", None),
            stage.port.complete(TENANT, UNKNOWN, GOOD),
            stage.port.set_status(TENANT, UNKNOWN, "Running"),
            stage.port.cancel(TENANT, UNKNOWN),
            stage.port.add_logs(TENANT, UNKNOWN, []),
            stage.port.logs(TENANT, UNKNOWN),
        ):
            with pytest.raises(NotFound, match=UNKNOWN):
                await asked

    on_stage(story)


def test_another_tenant_sees_nothing_and_runners_of_the_default_tenant_serve_all() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create(tenant="acme")
        job_id = await stage.launch(pipeline, tenant="acme")
        for tenant in ("other", TENANT):
            for asked in (
                stage.port.pipeline(tenant, pipeline.id),
                stage.job(job_id, tenant),
                stage.port.logs(tenant, job_id),
                stage.port.cancel(tenant, job_id),
                stage.port.delete(tenant, pipeline.id),
                stage.port.launch(tenant, pipeline.id, {}, None),
            ):
                with pytest.raises(NotFound):
                    await asked
            assert await stage.port.jobs(tenant, None, None, 100) == []
            assert await stage.port.pipelines(tenant) == []
        with pytest.raises(NotFound):
            await stage.port.claim("other", job_id, "r1", None)
        assert await stage.port.scheduled("other", None) == []
        assert [job.id for job in await stage.port.scheduled(TENANT, None)] == [job_id]
        await stage.port.claim(TENANT, job_id, "r1", None)
        await stage.port.complete(TENANT, job_id, GOOD)
        assert (await stage.job(job_id, "acme")).runner_id == "r1"
        assert [each.id for each in await stage.port.runners("acme")] == []

    on_stage(story)


# ── runners


def test_runners_are_registered_replaced_listed_and_deleted() -> None:
    async def story(stage: Stage) -> None:
        first = await stage.port.register(TENANT, "r1", ["log", "env"])
        assert (first.status, first.capabilities) == ("Online", ("log", "env"))
        assert (await stage.port.register(TENANT, "g2", None)).capabilities == ()
        await asyncio.sleep(1)
        again = await stage.port.register(TENANT, "r1", ["docker"])
        assert (again.capabilities, again.registered_at) == (("docker",), first.registered_at)
        assert again.last_heartbeat_at > first.last_heartbeat_at
        assert [each.id for each in await stage.port.runners(TENANT)] == ["g2", "r1"]
        with pytest.raises(NotFound, match="r9"):
            await stage.port.heartbeat(TENANT, "r9")
        await stage.port.delete_runner(TENANT, "g2")
        for asked in (stage.port.runner(TENANT, "g2"), stage.port.delete_runner(TENANT, "g2")):
            with pytest.raises(NotFound, match="g2"):
                await asked

    on_stage(story)


def test_a_runner_with_a_job_is_busy_until_the_job_ends() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        assert (await stage.port.runner(TENANT, "r1")).status == "Busy"
        await stage.port.complete(TENANT, job_id, GOOD)
        assert (await stage.port.runner(TENANT, "r1")).status == "Online"

    on_stage(story)


def test_the_jobs_of_a_deleted_runner_are_lost() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        await stage.port.delete_runner(TENANT, "r1")
        job = await stage.job(job_id)
        assert (job.status, job.retry_count) == ("Queued", 1)
        await asyncio.sleep(0.1)
        assert await stage.messages(job_id) == ["runner r1 lost", "attempt 2 queued"]

    on_stage(story)


@pytest.mark.parametrize("sign", ["register", "heartbeat", "scheduled", "claim", "status", "logs"])
def test_any_sign_of_life_keeps_a_runner_and_its_job(sign: str) -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        job_id = await stage.claimed(pipeline, "r1")
        signs = {
            "register": lambda: stage.port.register(TENANT, "r1", ["log"]),
            "heartbeat": lambda: stage.port.heartbeat(TENANT, "r1"),
            "scheduled": lambda: stage.port.scheduled(TENANT, "r1"),
            "claim": lambda: stage.claimed(pipeline, "r1"),
            "status": lambda: stage.port.set_status(TENANT, job_id, "Running"),
            "logs": lambda: stage.port.add_logs(TENANT, job_id, [entry("hi")]),
        }
        for _ in range(4):
            await asyncio.sleep(1.5)
            await signs[sign]()
        assert (await stage.job(job_id)).status == "Running"
        await asyncio.sleep(2.1)
        assert (await stage.job(job_id)).status == "Queued"

    on_stage(story, pipelines_runner_timeout_s=2.0)


def test_a_runner_that_comes_back_is_online_and_does_not_get_its_job_back() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create(), "r1")
        await asyncio.sleep(3)
        assert (await stage.port.runner(TENANT, "r1")).status == "Offline"
        assert (await stage.port.heartbeat(TENANT, "r1")).status == "Online"
        assert (await stage.job(job_id)).status == "Queued"
        await stage.port.complete(TENANT, job_id, GOOD)  # it was only silent
        job = await stage.job(job_id)
        assert (job.status, job.runner_id) == ("Succeeded", "r1")

    on_stage(story, pipelines_runner_timeout_s=2.0)


# ── idempotency keys


def test_an_equal_key_and_body_create_one_pipeline_and_another_body_is_a_conflict() -> None:
    async def story(stage: Stage) -> None:
        wanted, key = PipelineWanted(script()), Idempotency("default:create:k", "f")
        made = await stage.port.create(TENANT, wanted, key)
        assert await stage.replica().create(TENANT, wanted, key) == made
        with pytest.raises(Conflict):
            await stage.port.create(TENANT, wanted, Idempotency("default:create:k", "g"))
        assert await stage.port.pipelines(TENANT) == [made]
        await stage.port.delete(TENANT, made.id)
        assert await stage.port.create(TENANT, wanted, key) == made, "the same answer"
        assert await stage.port.pipelines(TENANT) == [], "and no effect"

    on_stage(story)


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("lost", [True, False])
def test_a_create_that_broke_off_anywhere_is_completed_by_its_repetition(step: int, lost: bool) -> None:
    async def story(stage: Stage) -> None:
        wanted, key = PipelineWanted(script()), Idempotency("default:create:k", "f")
        steps = 0
        real = stage.journal._step

        def failing(run: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                stage.journal.failing = [lost]
            return real(run)

        stage.journal._step = failing  # type: ignore[method-assign]  # a stand-in, in this one object
        stage.kill()
        with pytest.raises(JournalUnavailable) if step else nullcontext():
            await stage.port.create(TENANT, wanted, key)
        stage.journal._step = real  # type: ignore[method-assign]  # a stand-in, in this one object
        made = await stage.port.create(TENANT, wanted, key)
        assert await stage.port.pipelines(TENANT) == [made]

    on_stage(story)


def test_an_equal_key_and_body_launch_one_job_and_claim_it_once() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        key = Idempotency("default:launch:k", "f")
        job = await stage.port.launch(TENANT, pipeline.id, {"a": 1}, key)
        assert await stage.replica().launch(TENANT, pipeline.id, {"a": 1}, key) == job
        with pytest.raises(Conflict):
            await stage.port.launch(TENANT, pipeline.id, {"a": 2}, Idempotency("default:launch:k", "g"))
        assert len(await stage.port.jobs(TENANT, None, None, 10)) == 1
        claim = Idempotency("default:claim:k", "r1")
        claimed = await stage.port.claim(TENANT, job.id, "r1", claim)
        stage.restart()
        assert await stage.port.claim(TENANT, job.id, "r1", claim) == claimed
        with pytest.raises(Conflict):
            await stage.port.claim(TENANT, job.id, "r2", Idempotency("default:claim:k", "r2"))
        message = f"Job {job.id} is not in Queued state (current: Running)"
        assert await refusal(stage.port.claim(TENANT, job.id, "r1", None)) == message

    on_stage(story)


# ── streams


async def frames(stage: Stage, job_id: str, after: int = 0) -> list[tuple[int | None, str, Any]]:
    opened = await stage.port.open_logs(TENANT, job_id, after)
    assert opened is not None
    found = [frame async for chunk in opened for frame in chunk if frame.kind != "keep_alive"]
    return [(frame.seq, frame.kind, frame.data and frame.data.get("message", frame.data)) for frame in found]


def test_a_log_stream_tells_every_line_once_in_order_and_then_the_end() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.claimed(await stage.create())
        await stage.port.add_logs(TENANT, job_id, [entry("one")])
        readers = [asyncio.ensure_future(frames(stage, job_id, after)) for after in (0, 0, 2)]
        for n in range(2, 5):
            await asyncio.sleep(20)
            await stage.port.add_logs(TENANT, job_id, [entry(f"line {n}")])
        await stage.port.complete(TENANT, job_id, GOOD)
        whole: list[Any] = [(1, "log", "one"), *((n, "log", f"line {n}") for n in range(2, 5))]
        end = (None, "end", {"status": "Succeeded"})
        assert await asyncio.gather(*readers) == [[*whole, end], [*whole, end], [*whole[2:], end]]
        assert await frames(stage, job_id, 3) == [whole[3], end]
        assert await stage.port.open_logs(TENANT, job_id, 4) is None
        assert stage.hub._reader is None

    on_stage(story)


def test_the_stream_of_a_job_without_lines_ends_with_it_also_when_its_pipeline_is_deleted() -> None:
    async def story(stage: Stage) -> None:
        pipeline = await stage.create()
        job_id = await stage.launch(pipeline)
        reader = asyncio.ensure_future(frames(stage, job_id))
        await asyncio.sleep(1)
        await stage.port.delete(TENANT, pipeline.id)
        assert await asyncio.wait_for(reader, 5) == [(None, "end", {"status": "Cancelled"})]

    on_stage(story)


def test_silence_is_filled() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.launch(await stage.create())
        opened = await stage.port.open_logs(TENANT, job_id, 0)
        assert opened is not None
        chunk = await asyncio.wait_for(anext(opened), 15)
        assert [frame.kind for frame in chunk] == ["keep_alive"]
        await opened.aclose()  # type: ignore[attr-defined]  # it is a generator

    on_stage(story)


# ── secrets: more in test_pipeline_secrets


def test_a_secret_is_shown_to_nobody_but_the_runner_that_claims() -> None:
    async def story(stage: Stage) -> None:
        text = script(inputs={"token": {"secret": True}, "url": {}})
        pipeline = await stage.create(text, config={"env_vars": {"A": "b"}, "secret_env_vars": {"KEY": "hunter2000"}})
        assert pipeline.config.secret_env_vars == {"KEY": MASK}
        given = {"token": "s3cret-token", "url": "https://s3cret-token@host"}
        job = await stage.port.launch(TENANT, pipeline.id, given, None)
        assert job.parameters == {"token": MASK, "url": f"https://{MASK}@host"}
        [listed] = await stage.port.scheduled(TENANT, None)
        assert listed == job == await stage.job(job.id)
        claimed = await stage.port.claim(TENANT, job.id, "r1", None)
        assert claimed.parameters == given
        assert claimed.env_vars == {"A": "b", "KEY": "hunter2000"}
        await stage.port.add_logs(TENANT, job.id, [entry("using s3cret-token and hunter2000")])
        result = JobResult(False, 1, {"s3cret-token": ["hunter2000"]}, "bad s3cret-token")
        await stage.port.complete(TENANT, job.id, CompletionWanted(result))
        assert await stage.messages(job.id) == [f"using {MASK} and {MASK}"]
        assert (await stage.job(job.id)).result == JobResult(False, 1, {MASK: [MASK]}, f"bad {MASK}")

    on_stage(story)


def test_a_secret_that_stands_elsewhere_in_the_request_is_refused() -> None:
    async def story(stage: Stage) -> None:
        hidden = {"secret_env_vars": {"KEY": "hunter2000"}}
        for wanted in (
            {"text": script(name="hunter2000")},
            {"config": hidden | {"env_vars": {"A": "aGh1bnRlcjIwMDA="}}},
            {"description": "hunter2000"},
        ):
            text = wanted.pop("text", None)
            assert "'KEY'" in await refusal(stage.create(text, **({"config": hidden} | wanted)))
        assert await stage.port.pipelines(TENANT) == []

    on_stage(story)


def test_lines_are_entries() -> None:
    async def story(stage: Stage) -> None:
        job_id = await stage.launch(await stage.create())
        lines = [
            LogEntry("2026-01-02T03:04:05Z", level, "m\n\u2028\0") for level in ("Debug", "Info", "Warning", "Error")
        ]
        await stage.port.add_logs(TENANT, job_id, lines)
        assert await stage.port.logs(TENANT, job_id) == lines

    on_stage(story)
