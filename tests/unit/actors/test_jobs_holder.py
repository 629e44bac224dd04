"""Jobs at the gateway, message by message: the contract's acceptance examples 3 to 11, and what follows each end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator import remote as r
from orchestrator.errors import JournalUnavailable
from tests.jobs_stage import Poll, Stage, a_task, events_of, play

PERMANENT = {"code": "PERMANENT_ERROR", "message": "nope", "details": None}


# ── acceptance examples ───────────────────────────────────────────────────────────────────────────


def test_a_task_goes_to_a_worker_and_its_result_ends_the_job() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("worker-123", supported_tasks=["video", "audio"])
        job = await stage.create(data={"clip": "a"})
        task = await stage.poll("worker-123")
        deadline = task.pop("deadline")
        assert task == {
            "job_id": job,
            "task_id": stage.view(job).current_task_id,
            "type": "video",
            "params": {"clip": "a"},
            "tracing_context": {},
            "params_metadata": None,
            "priority": 0.0,
            "attempt": 1,
        }
        assert type(deadline) is int
        assert 0 <= deadline - (stage.clock.now().timestamp() + 300) < 1.1
        assert (stage.view(job).status, stage.view(job).task_worker_id) == ("waiting_for_worker", "worker-123")
        assert await stage.result(task, "worker-123", data={"output": "x"}) == {"status": "result_accepted_success"}
        view = stage.view(job)
        assert (view.status, view.current_state, view.state_history) == ("finished", "finished", {"output": "x"})

    play(story)


def test_the_same_result_again_is_answered_alike_and_changes_nothing() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        first = await stage.result(task, "w1", data={"output": "x"})
        history = stage.history(task["job_id"])
        assert await stage.result(task, "w1", data={"output": "y"}) == first
        await stage.restart()
        assert await stage.result(task, "w1", status="failure") == first
        assert stage.history(task["job_id"]) == history

    play(story)


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("PERMANENT_ERROR", "quarantined", "Task failed with permanent error: nope"),
        ("INVALID_INPUT_ERROR", "failed", "Task failed: nope"),
    ],
)
def test_an_error_that_no_retry_mends_ends_the_job(code: str, status: str, text: str) -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        error = {"code": code, "message": "nope", "details": None}
        assert await stage.result(task, "w1", "failure", error=error) == {"status": "result_accepted_failure"}
        view = stage.view(task["job_id"])
        assert (view.status, view.error_message) == (status, text)

    play(story)


def test_a_task_that_fails_four_times_has_four_ids_and_quarantines_its_job() -> None:
    async def story(stage: Stage) -> None:
        task, ids = await a_task(stage), set()
        for number in range(4):
            ids.add(task["task_id"])
            assert await stage.result(task, "w1", "failure", error="boom") == {"status": "result_accepted_failure"}
            if number < 3:
                task = await stage.poll("w1")
        view = stage.view(task["job_id"])
        assert len(ids) == 4
        assert (view.status, view.error_message) == ("quarantined", "Task failed after 4 attempts: boom")

    play(story)


def test_a_retry_waits_for_its_delay() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        began = stage.loop.time()
        await stage.result(task, "w1", "failure", error="boom")
        again = await stage.poll("w1")
        assert again["task_id"] != task["task_id"]
        assert 0.01 < stage.loop.time() - began <= 4.0

    play(story, job_retry_backoff_s=4.0, seed=3)


def test_a_human_decides_once() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        job = task["job_id"]
        assert await stage.result(task, "w1", "needs_review") == {"status": "result_accepted_success"}
        assert stage.view(job).status == "waiting_for_human"
        wrong = await stage.approve(job, "zzz")
        assert (wrong.refused, wrong.message) == ("invalid_decision", "Invalid decision 'zzz' for this job")
        answers = await asyncio.gather(stage.approve(job, "approved"), stage.approve(job, "rejected"))
        assert [answer.refused for answer in answers] == [None, "conflict"]
        assert stage.view(job).status == "finished"
        late = await stage.approve(job, "approved")
        assert (late.refused, late.message) == ("conflict", "Job is not in a state that can be approved")

    play(story)


def test_a_heartbeat_of_somebody_unknown_registers_him() -> None:
    async def story(stage: Stage) -> None:
        merged = await stage.heartbeat("new-1", {"worker_id": "new-1", "supported_tasks": ["video"]})
        assert merged["supported_tasks"] == ["video"]
        await stage.create()
        assert await stage.poll("new-1") is not None

    play(story)


def test_an_empty_heartbeat_keeps_a_worker_alive_and_asks_a_stranger_for_more() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        assert await stage.heartbeat("w1") == {"status": "ttl_refreshed"}
        stranger = {"status": "ttl_refreshed", "require_full_sync": True}
        assert await stage.heartbeat("w2") == stranger
        assert await stage.heartbeat("w2") == stranger
        assert (await stage.heartbeat("w2", {"load": 1}))["require_full_sync"] is True
        assert "require_full_sync" not in await stage.heartbeat("w2", {"supported_tasks": ["x"]})

    play(story)


def test_a_poll_with_nothing_to_do_ends_in_time_and_one_that_waits_gets_the_next_job_at_once() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        began = stage.loop.time()
        assert await stage.poll("w1", timeout_s=1.0) is None
        assert stage.loop.time() - began == pytest.approx(1.0, abs=0.01)
        waiting = asyncio.ensure_future(stage.poll("w1"))
        await asyncio.sleep(5)
        began = stage.loop.time()
        job = await stage.create()
        assert (await waiting)["job_id"] == job
        assert stage.loop.time() - began < 0.01

    play(story)


def test_no_poll_waits_longer_than_the_server_allows() -> None:
    async def story(stage: Stage) -> None:
        began = stage.loop.time()
        assert await stage.poll("w1", timeout_s=300.0) is None
        assert stage.loop.time() - began == pytest.approx(33.0, abs=0.01)

    play(story, worker_poll_timeout_s=60.0)


def test_a_cancel_reaches_the_worker_by_an_anonymous_socket() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        serial = await stage.replica.open_socket()
        assert (await stage.cancel(task["job_id"])).body == {"status": "cancellation_request_sent"}
        await asyncio.sleep(0.1)
        ids = {"task_id": task["task_id"], "job_id": task["job_id"]}
        assert stage.replica.said == [(serial, {"command": "cancel_task", "type": "cancel_task", **ids})]
        assert (stage.view(task["job_id"]).status, stage.view(task["job_id"]).cancel_requested) == (
            "waiting_for_worker",
            True,
        )
        assert await stage.result(task, "w1", "cancelled") == {"status": "result_accepted_cancelled"}
        assert stage.view(task["job_id"]).status == "cancelled"

    play(story)


def test_without_a_socket_the_heartbeats_say_what_to_cancel_until_the_task_ends() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        accepted = {"status": "cancellation_request_accepted"}
        assert (await stage.cancel(task["job_id"])).body == accepted
        assert (await stage.cancel(task["job_id"])).body == accepted
        for _ in range(2):
            assert (await stage.heartbeat("w1", {"load": 1}))["cancel_task_ids"] == [task["task_id"]]
        assert (await stage.heartbeat("w1"))["cancel_task_ids"] == [task["task_id"]]
        await stage.restart()
        assert (await stage.heartbeat("w1"))["cancel_task_ids"] == [task["task_id"]]
        await stage.result(task, "w1", "cancelled")
        assert "cancel_task_ids" not in await stage.heartbeat("w1")

    play(story)


def test_a_job_that_no_worker_has_is_cancelled_at_once_and_one_that_ended_is_not() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.result(task, "w1", "needs_review")
        assert (await stage.cancel(task["job_id"])).body == {"status": "cancellation_request_accepted"}
        assert stage.view(task["job_id"]).status == "cancelled"
        again = await stage.cancel(task["job_id"])
        assert (again.refused, again.message) == ("conflict", "cancelled")

    play(story)


def test_a_cancel_right_after_the_creation_finds_the_job() -> None:
    async def story(stage: Stage) -> None:
        jobs = [await stage.create() for _ in range(3)]
        answers = await asyncio.gather(*map(stage.cancel, jobs))
        assert all(answer.refused is None for answer in answers)
        await asyncio.sleep(1)
        assert [stage.view(job).status for job in jobs] == ["cancelled"] * 3

    play(story)


def test_after_the_grace_a_job_ends_without_its_worker() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.cancel(task["job_id"])
        await asyncio.sleep(31)
        assert stage.view(task["job_id"]).status == "cancelled"
        assert (await stage.heartbeat("w1"))["cancel_task_ids"] == [task["task_id"]]
        late = await stage.result(task, "w1", "success")
        assert late == {"status": "ignored", "reason": "job_cancelled"}
        assert "cancel_task_ids" not in await stage.heartbeat("w1")

    play(story)


def test_a_silent_workers_task_goes_to_another_one_and_its_late_result_is_stale() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.register("w2")
        await asyncio.sleep(0.5)
        again = await stage.poll("w2")
        assert (again["task_id"], again["job_id"]) == (task["task_id"], task["job_id"])
        assert await stage.result(again, "w2") == {"status": "result_accepted_success"}
        assert await stage.result(task, "w1") == {"status": "ignored", "reason": "stale_task"}
        assert stage.view(task["job_id"]).status == "finished"
        assert "task_redelivered" in events_of(stage, task["job_id"])

    play(story, worker_health_check_interval_s=1.0)


# ── over restarts ─────────────────────────────────────────────────────────────────────────────────


def test_workers_and_leases_survive_a_restart() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.heartbeat("w1", {"cost_per_second": 2})
        await stage.restart()
        [worker] = (await stage.ask(r.Workers("default"))).body
        assert (worker["worker_id"], worker["supported_tasks"], worker["cost_per_second"]) == ("w1", ["video"], 2)
        assert (await stage.ask(r.Figures())).body["leased_tasks"] == 1
        assert await stage.result(task, "w1") == {"status": "result_accepted_success"}

    play(story)


def test_a_poll_outlives_the_gateway() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        waiting = asyncio.ensure_future(stage.poll("w1"))
        await asyncio.sleep(1)
        await stage.restart()
        job = await stage.create()
        assert (await waiting)["job_id"] == job
        began = stage.loop.time()
        late = asyncio.ensure_future(stage.poll("w1", timeout_s=10.0))
        await asyncio.sleep(4)
        await stage.restart()
        assert await late is None
        assert stage.loop.time() - began == pytest.approx(10.0, abs=0.5)

    play(story)


def test_a_delivery_that_was_durable_but_not_pushed_is_pushed_by_the_next_gateway() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        waiting = asyncio.ensure_future(stage.poll("w1"))
        await asyncio.sleep(1)
        stage.holder._desk._push_task = lambda lease: stage.kill()  # type: ignore[method-assign]  # a stand-in, in this one object
        job = await stage.create()
        await asyncio.sleep(0.1)
        assert stage.view(job).task_worker_id == "w1"
        stage.start()
        task = await waiting
        assert task["task_id"] == stage.view(job).current_task_id
        assert events_of(stage, job).count("task_dispatched") == 1
        assert await stage.result(task, "w1") == {"status": "result_accepted_success"}

    play(story)


def test_it_is_pushed_once_although_the_poll_is_opened_again_twice() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        ask = r.Poll("default", "api-9", 1, "w1", 30.0)
        await stage.ask(ask)
        stage.holder._desk._push_task = lambda lease: None  # type: ignore[method-assign]  # a stand-in, in this one object
        await stage.create()
        await asyncio.sleep(0.1)
        await stage.restart()
        session = (await stage.ask(r.Listen("api-9", 0.0))).body["session"]
        await stage.ask(r.Polls((ask, ask)))
        pushes = (await stage.ask(r.Listen("api-9", 1.0, 0, session))).body["pushes"]
        assert [push["poll_id"] for push in pushes] == [1]

    play(story)


def test_a_task_at_a_worker_that_had_expired_before_the_restart_is_redelivered() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await asyncio.sleep(1)
        stage.kill()
        await stage.journal.put_records("worker", {"default/w1": None})
        stage.start()
        await stage.register("w2")
        assert (await stage.poll("w2", timeout_s=5.0))["task_id"] == task["task_id"]

    play(story)


def test_an_expired_worker_comes_back_with_its_skills_also_after_a_restart() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        await asyncio.sleep(5)
        assert (await stage.ask(r.Workers("default"))).body == []
        await stage.restart()
        assert (await stage.ask(r.Workers("default"))).body == []
        assert await stage.heartbeat("w1") == {"status": "ttl_refreshed"}
        assert len((await stage.ask(r.Workers("default"))).body) == 1
        await stage.create()
        assert await stage.poll("w1") is not None

    play(story, worker_health_check_interval_s=1.0)


def test_no_worker_hears_of_a_task_before_its_lease_is_durable() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        waiting = asyncio.ensure_future(stage.poll("w1"))
        job = await stage.create()
        commit = stage.journal.commit
        stage.journal.commit = _unavailable  # type: ignore[method-assign]  # a stand-in, in this one object
        await asyncio.sleep(3)
        assert not waiting.done()
        stage.journal.commit = commit  # type: ignore[method-assign]  # a stand-in, in this one object
        assert (await waiting)["job_id"] == job

    async def _unavailable(commit: Any) -> Any:
        raise JournalUnavailable("test")

    play(story)


def test_nothing_is_answered_before_it_is_durable() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        stage.journal.failing = [False] * 40
        answer = asyncio.ensure_future(stage.result(task, "w1"))
        registered = asyncio.ensure_future(stage.register("w2"))
        await asyncio.sleep(0.3)
        assert not answer.done()
        assert not registered.done()
        assert stage.view(task["job_id"]).status == "waiting_for_worker"
        stage.journal.failing = []
        assert await answer == {"status": "result_accepted_success"}
        await registered

    play(story)


# ── the rest ──────────────────────────────────────────────────────────────────────────────────────


def test_every_end_owes_one_webhook_in_the_same_commit() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create(webhook_url="http://127.0.0.1/hook")
        await stage.create()
        for _ in range(2):
            await stage.result(await stage.poll("w1"), "w1")
        assert stage.ended.count(job) == 1
        mails = stage.journal.streams["in:webhooks"]
        await stage.restart()
        await asyncio.sleep(5)
        assert len(mails) == len(stage.journal.streams["in:webhooks"]) == 1

    play(story)


def test_what_is_counted_is_counted_once() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.restart()
        await stage.result(task, "w1", "failure", error=PERMANENT)
        await stage.create()
        await asyncio.sleep(0.1)
        counts = await stage.journal.metrics()
        assert counts["orchestrator_jobs_total|simple"] == 2
        assert counts["orchestrator_jobs_failed_total|simple"] == 1
        assert counts["orchestrator_job_duration_seconds|count"] == 1

    play(story)


def test_figures_tell_of_queue_workers_polls_and_leases() -> None:
    async def story(stage: Stage) -> None:
        await a_task(stage)
        await stage.create(data={"clip": "b"})
        await stage.register("w2", supported_tasks=["audio"])
        poll = stage.replica.poll("w2", 30.0)
        await asyncio.sleep(0.1)
        assert (await stage.ask(r.Figures())).body == {
            "task_queue_length": 1,
            "active_workers": 2,
            "leased_tasks": 1,
            "open_polls": 1,
            "jobs": 2,
        }
        poll.withdraw()

    play(story)


def test_a_flush_erases_jobs_and_workers_and_nothing_else() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        ended = await stage.create(tenant="acme")
        await stage.cancel(ended, tenant="acme")
        poll: Poll = stage.replica.poll("w1", 30.0)
        await asyncio.sleep(2)
        assert (await stage.ask(r.Flush())).refused is None
        assert stage.journal.runs == {}
        assert await stage.journal.records("worker") == {}
        assert await poll.outcome is None
        assert (await stage.ask(r.Workers("default"))).body == []
        assert await stage.result(task, "w1") == "not_found"
        assert set((await stage.ask(r.Figures())).body.values()) == {0}
        await a_task(stage)

    play(story)


def test_thousands_of_workers_can_wait_and_thousands_of_jobs_find_them() -> None:
    async def story(stage: Stage) -> None:
        polls = []
        for number in range(2_000):
            await stage.register(f"w{number}", max_concurrent_tasks=1)
            polls.append(stage.replica.poll(f"w{number}", 30.0))
        jobs = {await stage.create() for _ in range(2_000)}
        tasks = await asyncio.gather(*(poll.outcome for poll in polls))
        assert {task["job_id"] for task in tasks if task} == jobs
        body = await asyncio.gather(*(stage.result(task, f"w{n}") for n, task in enumerate(tasks) if task))
        assert body == [{"status": "result_accepted_success"}] * 2_000

    play(story)
