"""Quarantined jobs that are released at the gateway: who holds them then, also after a restart, and what races.

What a release means for the job itself is in `test_job.py`.
"""

from __future__ import annotations

import asyncio

import pytest

from actors import holder
from actors.names import JOBS
from orchestrator import remote as r
from tests.jobs_stage import SIMPLE, Stage, play

PERMANENT = {"code": "PERMANENT_ERROR", "message": "nope", "details": None}
RELEASED = r.Answer()
PARENT = """
name: parent
api_endpoint: /jobs/parent
api_version: v1
states:
  start:
    start: true
    run_blueprint: {name: simple, initial_data: {clip: a}, transitions: {success: finished, failure: bad}}
  bad:
    await_human_approval: {integration: mail, message: "ok?", transitions: {approved: finished}}
"""


async def quarantined(stage: Stage, webhook_url: str | None = None) -> str:
    """A job that stopped in its first state; worker `w1` has nothing to do."""
    await stage.register("w1")
    job = await stage.create(data={"clip": "a"}, webhook_url=webhook_url)
    await stage.result(await stage.poll("w1"), "w1", "failure", error=PERMANENT)
    assert stage.view(job).status == "quarantined"
    return job


async def release(stage: Stage, job: str, tenant: str = "default") -> r.Answer:
    return await stage.ask(r.Release(tenant, job))


async def keep_alive(stage: Stage, seconds: int) -> None:
    """So long passes, and worker `w1` stays known."""
    for _ in range(seconds // 30):
        await asyncio.sleep(30)
        await stage.heartbeat("w1")


def test_a_released_job_goes_on_where_it_stopped_and_can_finish() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        assert await release(stage, job) == RELEASED
        view = stage.view(job)
        assert (view.status, view.current_state, view.error_message, view.finished_at) == (
            *("waiting_for_worker", "start", None, None),
        )
        row = await stage.journal.summary(job)
        assert row is not None
        assert (row.state, row.owner, row.finished_ms, row.error) == ("waiting", JOBS, None, "")
        again = await stage.poll("w1")
        assert (again["job_id"], again["params"]) == (job, {"clip": "a"})
        assert await stage.result(again, "w1", data={"output": "x"}) == {"status": "result_accepted_success"}
        assert (stage.view(job).status, stage.view(job).state_history) == ("finished", {"output": "x"})
        assert "job_released" in [line.event_type for line in stage.history(job)]

    play(story)


def test_a_worker_that_waits_gets_the_task_of_a_released_job_at_once() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        poll = stage.replica.poll("w1", 30.0)
        await asyncio.sleep(1)
        began_s = stage.loop.time()
        await release(stage, job)
        task = await poll.outcome
        assert task is not None
        assert (task["job_id"], stage.loop.time() - began_s < 0.5) == (job, True)

    play(story)


def test_of_releases_at_the_same_instant_one_counts() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        answers = await asyncio.gather(*(release(stage, job) for _ in range(5)))
        assert sorted(each.refused or "" for each in answers) == ["", *["conflict"] * 4]
        assert {each.message for each in answers if each.refused} == {"running"}
        assert [line.event_type for line in stage.history(job)].count("job_released") == 1
        assert await release(stage, job) == r.Answer(refused="conflict", message="waiting_for_worker")

    play(story)


def test_of_releases_that_read_the_job_each_for_itself_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "PAST_MAX", 0)

    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        await stage.restart()
        answers = await asyncio.gather(*(release(stage, job) for _ in range(5)))
        assert sorted(each.refused or "" for each in answers) == ["", *["conflict"] * 4]
        assert (await stage.poll("w1"))["job_id"] == job

    play(story)


def test_a_job_that_ended_before_the_gateway_began_can_be_released() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        await stage.restart()
        assert await release(stage, job) == RELEASED
        await stage.result(await stage.poll("w1"), "w1")
        assert stage.view(job).status == "finished"

    play(story)


@pytest.mark.parametrize("leased", [False, True])
def test_a_released_job_is_held_by_the_next_gateway_too(leased: bool) -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        await release(stage, job)
        task = await stage.poll("w1") if leased else None
        await stage.restart()
        assert (await stage.ask(r.Figures())).body["jobs"] == 1
        await stage.result(task or await stage.poll("w1"), "w1", data={"n": 1})
        assert stage.view(job).status == "finished"

    play(story)


def test_the_timers_of_a_released_job_run() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        await release(stage, job)
        await stage.poll("w1")
        await keep_alive(stage, 330)
        assert (stage.view(job).status, stage.view(job).error_message) == ("failed", "Worker task timed out.")

    play(story)


def test_what_is_not_quarantined_or_not_the_callers_is_not_released() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        unknown = "00000000-0000-4000-8000-000000000000"
        for wanted, tenant in ((job, "other"), (unknown, "default")):
            assert (await release(stage, wanted, tenant)).refused == "not_found"
        waiting = await stage.create()
        assert await release(stage, waiting) == r.Answer(refused="conflict", message="waiting_for_worker")
        await stage.cancel(waiting)
        assert await release(stage, waiting) == r.Answer(refused="conflict", message="cancelled")
        events = len(stage.events(waiting))
        await stage.restart()
        assert (await release(stage, waiting)).refused == "conflict"
        assert len(stage.events(waiting)) == events

    play(story)


def test_a_release_and_a_cancel_at_the_same_instant_leave_a_job_that_is_over() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        released, cancelled = await asyncio.gather(release(stage, job), stage.cancel(job))
        assert (released.refused, cancelled.refused, stage.view(job).status) == (None, None, "cancelled")
        assert (await stage.ask(r.Figures())).body["task_queue_length"] == 0
        assert await stage.poll("w1", 1.0) is None

    play(story)


def test_each_end_of_a_released_job_is_told_and_the_job_is_counted_once() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage, webhook_url="http://127.0.0.1/hook")
        for _ in range(2):
            await release(stage, job)
            await stage.result(await stage.poll("w1"), "w1", "failure", error=PERMANENT)
        assert stage.view(job).status == "quarantined"
        assert stage.ended.count(job) == len(stage.journal.streams["in:webhooks"]) == 3
        counts = await stage.journal.metrics()
        assert counts["orchestrator_jobs_total|simple"] == counts["orchestrator_jobs_failed_total|simple"] == 1
        assert counts["orchestrator_job_duration_seconds|count"] == 1

    play(story)


def test_a_released_job_is_erased_with_the_others() -> None:
    async def story(stage: Stage) -> None:
        job = await quarantined(stage)
        await asyncio.sleep(2)
        flushed, _ = await asyncio.gather(stage.ask(r.Flush()), release(stage, job))
        await asyncio.sleep(1)
        assert (flushed.refused, stage.journal.runs) == (None, {})
        assert set((await stage.ask(r.Figures())).body.values()) == {0}
        assert (await release(stage, job)).refused == "not_found"

    play(story)


def test_a_released_sub_job_goes_on_for_itself_although_its_parent_has_ended() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        parent = await stage.create("parent")
        task = await stage.poll("w1")
        await stage.result(task, "w1", "failure", error=PERMANENT)
        child = task["job_id"]
        assert (stage.view(child).status, stage.view(parent).current_state) == ("quarantined", "bad")
        await stage.approve(parent, "approved")
        assert await release(stage, child) == RELEASED
        await stage.restart()
        await asyncio.sleep(1)
        await stage.result(await stage.poll("w1"), "w1")
        assert (stage.view(child).status, stage.view(parent).status) == ("finished", "finished")

    play(story, PARENT, SIMPLE)
