"""Jobs at the gateway, message by message: the contract's acceptance examples 3 to 11 and its table of leases."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from orchestrator import remote as r
from orchestrator.blueprint import Outcome, Transition, Visit
from orchestrator.errors import JournalUnavailable
from tests.jobs_stage import SIMPLE, Poll, Replica, Stage, blueprints_of, play

PERMANENT = {"code": "PERMANENT_ERROR", "message": "nope", "details": None}


async def a_task(stage: Stage, worker_id: str = "w1") -> dict[str, Any]:
    """A job of `simple` whose task the worker holds."""
    await stage.register(worker_id)
    await stage.create(data={"clip": "a"})
    task: dict[str, Any] = await stage.poll(worker_id)
    return task


def events_of(stage: Stage, job_id: str) -> list[str]:
    return [line.event_type for line in stage.history(job_id)]


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


# ── leases ────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_goes_away_while_it_waits_gets_nothing() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        poll = stage.replica.poll("w1", 30.0)
        await asyncio.sleep(0.1)
        poll.withdraw()
        await asyncio.sleep(0.1)
        job = await stage.create()
        await asyncio.sleep(0.1)
        assert "task_dispatched" not in events_of(stage, job)

    play(story)


def test_a_task_whose_answer_could_not_be_written_is_back_in_the_queue_at_once() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        await stage.register("w2")
        poll = stage.replica.poll("w1", 30.0)
        await stage.create()
        task = await poll.outcome
        assert task is not None
        poll.withdraw()
        again = await stage.poll("w2", timeout_s=1.0)
        assert again["task_id"] == task["task_id"]
        assert "task_redelivered" not in events_of(stage, task["job_id"])
        poll.withdraw()  # again, and late: it is another delivery now
        await asyncio.sleep(0.1)
        assert stage.view(task["job_id"]).task_worker_id == "w2"

    play(story)


def test_a_withdrawal_that_overtakes_its_poll_counts() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        await stage.ask(r.Withdraw("api-1", (77,)))
        await stage.ask(r.Poll("default", "api-1", 77, "w1", 30.0))
        job = await stage.create()
        await asyncio.sleep(0.1)
        assert "task_dispatched" not in events_of(stage, job)

    play(story)


def test_a_worker_that_is_lost_too_often_costs_an_attempt() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        seen = [task["task_id"]]
        for number in range(4):
            await stage.register(f"x{number}")
            seen.append((await stage.poll(f"x{number}"))["task_id"])
        assert seen[:4] == seen[:1] * 4
        assert seen[4] != seen[0]
        assert stage.view(task["job_id"]).retry_count == 1

    play(story, worker_health_check_interval_s=1.0)


def test_two_heartbeats_without_the_task_tell_that_it_never_arrived() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.heartbeat("w1", {"current_tasks": []})  # too early: it may have crossed the delivery
        await asyncio.sleep(6)
        await stage.heartbeat("w1", {"current_tasks": []})
        await stage.heartbeat("w1", {"load": 1})  # says nothing about it
        assert stage.view(task["job_id"]).task_worker_id == "w1"
        await stage.heartbeat("w1", {"current_tasks": []})
        again = await stage.poll("w1", timeout_s=1.0)
        assert again["task_id"] == task["task_id"]
        assert "task_redelivered" in events_of(stage, task["job_id"])

    play(story)


def test_a_heartbeat_with_the_task_begins_the_count_anew() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await asyncio.sleep(6)
        for told in ([], [task["task_id"]], [], [{"task_id": task["task_id"]}], []):
            await stage.heartbeat("w1", {"current_tasks": told})
        await asyncio.sleep(0.1)
        assert stage.view(task["job_id"]).task_worker_id == "w1"

    play(story)


def test_the_first_result_counts_although_its_lease_had_lapsed() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await asyncio.sleep(3)  # nobody else polls
        assert stage.view(task["job_id"]).task_worker_id is None
        assert await stage.result(task, "w1") == {"status": "result_accepted_success"}
        assert stage.view(task["job_id"]).status == "finished"

    play(story, worker_health_check_interval_s=1.0)


def test_a_task_that_takes_too_long_fails_its_job_and_its_worker_is_told() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.replica.open_socket("w1")
        for _ in range(11):
            await asyncio.sleep(30)
            await stage.heartbeat("w1", {"current_tasks": [task["task_id"]]})
        view = stage.view(task["job_id"])
        assert (view.status, view.error_message) == ("failed", "Worker task timed out.")
        assert [body["task_id"] for _, body in stage.replica.said if body] == [task["task_id"]]
        assert (await stage.heartbeat("w1"))["cancel_task_ids"] == [task["task_id"]]
        await stage.heartbeat("w1", {"current_tasks": []})
        assert "cancel_task_ids" not in await stage.heartbeat("w1")

    play(story)


def test_a_task_that_nobody_can_take_quarantines_its_job_and_says_before_why_it_waits() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create()
        await stage.register("w1", supported_tasks=["audio"])
        await asyncio.sleep(299)
        assert stage.view(job).status == "waiting_for_worker"
        assert (await stage.ask(r.Why("default", job))).body == {"reason": "no live worker offers 'video'"}
        await asyncio.sleep(2)
        view = stage.view(job)
        assert (view.status, view.error_message) == ("quarantined", "No suitable workers for task type 'video'")
        assert (await stage.ask(r.Why("default", job))).body == {"reason": None}

    play(story)


def test_a_task_that_only_busy_workers_can_take_goes_on_waiting() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create()
        for _ in range(20):
            await stage.heartbeat("w1", {"supported_tasks": ["video"], "status": "busy"})
            await asyncio.sleep(30)
        assert stage.view(job).status == "waiting_for_worker"
        assert await stage.poll("w1") is not None

    play(story)


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
        stage.holder._desk._push_task = lambda lease: stage.kill()  # type: ignore[method-assign]
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
        stage.holder._desk._push_task = lambda lease: None  # type: ignore[method-assign]
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
        stage.journal.commit = _unavailable  # type: ignore[method-assign]
        await asyncio.sleep(3)
        assert not waiting.done()
        stage.journal.commit = commit  # type: ignore[method-assign]
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


# ── replicas ──────────────────────────────────────────────────────────────────────────────────────


def test_the_polls_of_a_replica_that_is_gone_get_nothing_and_unheard_tasks_go_back() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        await stage.register("w2")
        other = Replica(stage, "api-2")
        other.listen()
        poll = other.poll("w1", 30.0)
        await asyncio.sleep(6)
        other.die()
        await asyncio.sleep(1)
        job = await stage.create()
        await asyncio.sleep(1)
        assert (stage.view(job).task_worker_id, poll.outcome.cancelled()) == ("w1", True)
        task = await stage.poll("w2")
        assert task["task_id"] == stage.view(job).current_task_id
        assert "task_redelivered" not in events_of(stage, job)

    play(story)


def test_a_push_is_sent_again_until_it_is_acknowledged() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        session = (await stage.ask(r.Listen("api-9", 0.0))).body["session"]
        await stage.ask(r.Poll("default", "api-9", 1, "w1", 30.0))
        await stage.create()
        first = (await stage.ask(r.Listen("api-9", 1.0, 0, session))).body
        again = (await stage.ask(r.Listen("api-9", 1.0, 0, first["session"]))).body
        assert first == again
        assert first["pushes"][0]["push"] == "assigned"
        then = (await stage.ask(r.Listen("api-9", 1.0, first["last"], first["session"]))).body
        assert then == {"last": first["last"], "pushes": [], "session": first["session"]}

    play(story)


def test_of_two_listens_the_later_one_gets_the_pushes() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        session = (await stage.ask(r.Listen("api-9", 0.0))).body["session"]
        early = asyncio.ensure_future(stage.ask(r.Listen("api-9", 5.0, 0, session)))
        await asyncio.sleep(0.1)
        late = asyncio.ensure_future(stage.ask(r.Listen("api-9", 5.0, 0, session)))
        await asyncio.sleep(0.1)
        assert (await early).body["pushes"] == []
        await stage.ask(r.Poll("default", "api-9", 1, "w1", 0.5))
        assert [push["push"] for push in (await late).body["pushes"]] == ["expired"]

    play(story)


def test_a_poll_that_is_opened_twice_is_one() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        ask = r.Poll("default", "api-9", 1, "w1", 30.0)
        await stage.ask(r.Polls((ask, ask)))
        await stage.ask(ask)
        await stage.create()
        await stage.create()
        await asyncio.sleep(0.1)
        pushes = (await stage.ask(r.Listen("api-9", 1.0))).body["pushes"]
        assert [push["poll_id"] for push in pushes] == [1]
        assert (await stage.ask(r.Figures())).body["task_queue_length"] == 1

    play(story)


def test_a_new_socket_closes_the_old_one_of_the_same_worker() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        first = await stage.replica.open_socket("w1")
        other = Replica(stage, "api-2")
        other.listen()
        await other.open_socket("w1")
        await asyncio.sleep(0.1)
        assert stage.replica.said == [(first, None)]

    play(story)


def test_a_worker_with_a_socket_of_its_own_is_told_there_alone() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        anonymous = await stage.replica.open_socket()
        own = await stage.replica.open_socket("w1")
        await stage.cancel(task["job_id"])
        await asyncio.sleep(0.1)
        assert [serial for serial, _ in stage.replica.said] == [own]
        await stage.replica.close_socket(own)
        await stage.cancel(task["job_id"])
        await asyncio.sleep(0.1)
        assert [serial for serial, _ in stage.replica.said] == [own, anonymous]

    play(story)


# ── tenants, progress, results that do not belong ─────────────────────────────────────────────────


def test_workers_see_and_serve_their_tenant_and_those_of_default_all() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("own", tenant="acme")
        await stage.register("foreign", tenant="other")
        await stage.register("shared")
        job = await stage.create(tenant="acme")
        assert await stage.poll("foreign", 1.0, "other") is None
        task = await stage.poll("own", 1.0, "acme")
        assert task["job_id"] == job
        assert await stage.result(task, "foreign", tenant="other") == "not_found"
        assert await stage.result(task, "own", tenant="acme") == {"status": "result_accepted_success"}
        await stage.create(tenant="acme")
        assert await stage.poll("shared", 1.0) is not None
        assert [w["worker_id"] for w in (await stage.ask(r.Workers("acme"))).body] == ["own"]
        assert (await stage.cancel(job, tenant="other")).refused == "not_found"

    play(story)


def test_progress_of_the_current_task_is_kept_and_any_other_dropped() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        ids = (task["job_id"], task["task_id"])
        await stage.ask(r.Progress("default", "w1", *ids, 0.5, "half"))
        assert (stage.view(ids[0]).progress, stage.view(ids[0]).progress_message) == (0.5, "half")
        await stage.ask(r.Progress("default", "w1", ids[0], "other", 0.9, "x"))
        await stage.ask(r.Progress("default", "w2", *ids, 0.9, "x"))
        assert stage.view(ids[0]).progress == 0.5

    play(story)


def test_who_does_not_say_who_it_is_speaks_for_whoever_has_the_task() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        ids = (task["job_id"], task["task_id"])
        await stage.ask(r.Progress("default", "", *ids, 0.5, "half"))
        assert stage.view(ids[0]).progress == 0.5
        done = {"status": "result_accepted_success"}
        assert [await stage.result(task, who, data={"n": 1}) for who in ("", "", "w1")] == [done, done, done]
        assert await stage.result(task, "w2", data={"n": 2}) == {"status": "ignored", "reason": "stale_task"}
        assert stage.view(ids[0]).state_history == {"n": 1}
        ends = [each.worker_id for each in stage.history(ids[0]) if each.event_type == "task_finished"]
        assert ends == ["w1"]
        await stage.ask(r.Progress("default", "", *ids, 0.9, "late"))

    play(story)


def test_a_result_of_a_job_or_a_pair_that_does_not_exist_changes_nothing() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        other = await stage.create()
        mismatch = {"status": "ignored", "reason": "worker_mismatch"}
        assert await stage.result({"job_id": "nope", "task_id": task["task_id"]}, "w1") == "not_found"
        assert await stage.result({"job_id": other, "task_id": task["task_id"]}, "w1") == mismatch
        assert await stage.result({"job_id": task["job_id"], "task_id": "nope"}, "w1") == mismatch

    play(story)


def test_a_result_of_a_worker_that_never_had_the_task_changes_nothing() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        assert await stage.result(task, "w2", data={"x": 1}) == {"status": "ignored", "reason": "stale_task"}
        assert stage.view(task["job_id"]).status == "waiting_for_worker"
        assert await stage.result(task, "w1") == {"status": "result_accepted_success"}

    play(story)


def test_reputation_follows_what_a_worker_does() -> None:
    async def story(stage: Stage) -> None:
        task = await a_task(stage)
        await stage.result(task, "w1", "failure", error="boom")
        assert (await stage.ask(r.Workers("default"))).body[0]["reputation"] == 0.9
        await stage.result(task, "w1", "failure", error="boom")  # a repeat is no second failure
        assert (await stage.ask(r.Workers("default"))).body[0]["reputation"] == 0.9

    play(story)


# ── blueprints ────────────────────────────────────────────────────────────────────────────────────

FAN = """
name: fan
api_endpoint: /jobs/fan
api_version: v1
states:
  start:
    start: true
    dispatch_parallel:
      tasks: [{type: video, params: {n: 1}}, {type: video, params: {n: 2}}]
      aggregate_into: sum
  sum:
    set: {parts: "${aggregation_results}"}
    transition_to: finished
"""
PARENT = """
name: parent
api_endpoint: /jobs/parent
api_version: v1
states:
  start:
    start: true
    run_blueprint:
      name: child
      initial_data: {clip: "${initial_data.clip}"}
      transitions: {success: good, failure: bad}
  good: {end: true}
  bad: {end: true}
"""
CHILD = """
name: child
states:
  start:
    start: true
    dispatch_task: {type: video, params: {clip: "${initial_data.clip}"}, transitions: {success: finished}}
"""


def test_two_results_at_the_same_instant_aggregate_once() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create("fan")
        tasks = [await stage.poll("w1"), await stage.poll("w1")]
        answers = await asyncio.gather(*(stage.result(task, "w1", data=task["params"]) for task in tasks))
        assert answers == [{"status": "parallel_branch_result_accepted"}] * 2
        view = stage.view(job)
        assert view.status == "finished"
        assert {part["data"]["n"] for part in view.state_history["parts"].values()} == {1, 2}
        assert sum(line.event_type == "state_started" and line.state == "sum" for line in stage.history(job)) == 1

    play(story, FAN)


@pytest.mark.parametrize(("status", "end"), [("success", "good"), ("failure", "bad")])
def test_a_parent_goes_on_with_what_its_sub_job_came_to(status: str, end: str) -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create("parent", {"clip": "a"})
        task = await stage.poll("w1")
        assert (task["job_id"], task["params"]) == (stage.view(job).child_job_id, {"clip": "a"})
        await stage.result(task, "w1", status, error=PERMANENT)
        view, child = stage.view(job), stage.view(task["job_id"])
        assert (view.status, view.current_state, child.parent_job_id) == ("finished", end, job)
        assert view.state_history[f"sub_job_{child.id}_result"]["outcome"] == child.status

    play(story, PARENT, CHILD)


def test_a_sub_job_is_found_again_by_a_gateway_that_comes_after() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create("parent", {"clip": "a"})
        task = await stage.poll("w1")
        await stage.restart()
        await stage.result(task, "w1")
        assert stage.view(job).current_state == "good"
        assert len(stage.journal.runs) == 2

    play(story, PARENT, CHILD)


def test_a_parent_that_is_read_after_its_sub_job_has_ended_is_told_all_the_same() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create("parent", {"clip": "a"})
        await asyncio.sleep(0.1)
        stage.kill()
        await stage.journal.put_records("blueprint_version", {"child@1": None})  # so that it ends when it is read

        async def child_first(owner: str) -> list[str]:
            return [stage.view(job).child_job_id or "", job]

        stage.journal.owned = child_first  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("actors.holder.LOAD_CHUNK", 1)
            stage.start()
            await asyncio.sleep(1)
        child = stage.view(stage.view(job).child_job_id or "")
        assert (child.status, stage.view(job).current_state) == ("error", "bad")

    play(story, PARENT, CHILD)


def test_a_sub_job_that_comes_after_its_parent_has_ended_ends_too() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create("parent")
        create = stage.journal.create_runs

        async def slowly(creations: Any) -> Any:
            await asyncio.sleep(40)
            return await create(creations)

        stage.journal.create_runs = slowly  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        await stage.cancel(job)
        await asyncio.sleep(35)
        view = stage.view(job)
        assert (view.status, view.child_job_id in stage.journal.runs) == ("cancelled", False)
        await asyncio.sleep(10)
        assert stage.view(view.child_job_id or "").status == "cancelled"

    play(story, PARENT, CHILD)


def test_a_sub_job_whose_making_was_cut_off_is_made_by_the_next_gateway() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        stage.holder._children._make = lambda parent, effect: asyncio.sleep(0)  # type: ignore[method-assign]
        job = await stage.create("parent", {"clip": "a"})
        await asyncio.sleep(0.1)
        assert len(stage.journal.runs) == 1
        await stage.restart()
        task = await stage.poll("w1")
        assert task["job_id"] == stage.view(job).child_job_id

    play(story, PARENT, CHILD)


def test_a_cancel_ends_the_sub_job_too() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create("parent")
        await asyncio.sleep(0.1)
        child = stage.view(job).child_job_id
        await stage.cancel(job)
        await asyncio.sleep(0.1)
        assert (stage.view(job).status, stage.view(child or "").status) == ("cancelled", "cancelled")

    play(story, PARENT, CHILD)


def test_a_sub_job_at_a_worker_is_asked_to_cancel_and_both_end_with_its_answer() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create("parent")
        task = await stage.poll("w1")
        await stage.replica.open_socket("w1")
        assert (await stage.cancel(job)).body == {"status": "cancellation_request_sent"}
        await asyncio.sleep(0.1)
        assert stage.replica.said[0][1]["task_id"] == task["task_id"]
        assert not stage.view(job).finished_at
        assert await stage.result(task, "w1", "cancelled") == {"status": "result_accepted_cancelled"}
        assert (stage.view(job).status, stage.view(task["job_id"]).status) == ("cancelled", "cancelled")

    play(story, PARENT, CHILD)


def test_a_sub_job_that_is_not_there_yet_is_cancelled_when_it_comes_and_one_never_made_counts_as_cancelled() -> None:
    async def story(stage: Stage) -> None:
        stage.holder._children._make = lambda parent, effect: asyncio.sleep(0)  # type: ignore[method-assign]
        job = await stage.create("parent")
        await asyncio.sleep(0.1)
        stage.kill()
        stage.start()
        holder = stage.holder
        holder._children._make = lambda parent, effect: asyncio.sleep(0)  # type: ignore[method-assign]
        await stage.cancel(job)
        await asyncio.sleep(31)
        assert stage.view(job).status == "cancelled"

    play(story, PARENT, CHILD)


def test_a_blueprint_that_is_not_there_fails_the_job_that_wants_it() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create("parent")
        await asyncio.sleep(0.1)
        assert (stage.view(job).status, stage.view(job).error_message) == ("failed", "Blueprint 'child' not found")

    play(story, PARENT)


CODE = """
name: code
api_endpoint: /jobs/code
api_version: v1
states:
  start: {start: true, transition_to: work}
  work: {transition_to: finished}
"""


def in_code() -> list[Any]:
    """`CODE`, but its second state is a handler in Python."""
    [blueprint] = blueprints_of(CODE)
    work = msgspec.structs.replace(blueprint.states["work"], code=True, action=None)
    return [msgspec.structs.replace(blueprint, states=blueprint.states | {"work": work})]


def test_handlers_run_a_few_at_a_time_and_each_job_gets_its_turn() -> None:
    running, most = 0, 0

    async def handler(visit: Visit) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return Outcome(Transition("finished"), {"by": visit.serial})

    async def story(stage: Stage) -> None:
        jobs = [await stage.create("code") for _ in range(7)]
        await asyncio.sleep(3)
        assert [stage.view(job).status for job in jobs].count("finished") == 6
        await asyncio.sleep(1)
        assert {stage.view(job).status for job in jobs} == {"finished"}
        assert most == 3

    play(story, blueprints=in_code(), handlers=handler, executor_max_concurrent_jobs=3)


def test_a_handler_whose_process_dies_is_called_again_as_often_as_a_job_may_retry() -> None:
    calls = 0

    async def handler(visit: Visit) -> Outcome:
        nonlocal calls
        calls += 1
        raise ConnectionError("the actor died")

    async def story(stage: Stage) -> None:
        job = await stage.create("code")
        await asyncio.sleep(1)
        view = stage.view(job)
        assert (view.status, calls) == ("quarantined", 4)
        assert "the actor died" in (view.error_message or "")

    play(story, blueprints=in_code(), handlers=handler)


def test_a_handler_that_runs_is_not_called_again_when_the_job_is_touched() -> None:
    calls = 0

    async def handler(visit: Visit) -> Outcome:
        nonlocal calls
        calls += 1
        await asyncio.sleep(5)
        return Outcome(Transition("finished"))

    async def story(stage: Stage) -> None:
        job = await stage.create("code")
        await asyncio.sleep(1)
        for _ in range(3):
            await stage.ask(r.Progress("default", "w1", job, "t", 0.5, ""))
        await asyncio.sleep(10)
        assert (stage.view(job).status, calls) == ("finished", 1)

    play(story, blueprints=in_code(), handlers=handler)


def test_what_a_handler_wants_after_the_cancel_is_dropped() -> None:
    async def handler(visit: Visit) -> Outcome:
        await asyncio.sleep(5)
        return Outcome(Transition("finished"))

    async def story(stage: Stage) -> None:
        job = await stage.create("code")
        await asyncio.sleep(1)
        await stage.cancel(job)
        assert stage.view(job).status == "cancelled"
        await asyncio.sleep(10)
        assert stage.view(job).status == "cancelled"

    play(story, blueprints=in_code(), handlers=handler)


CIRCLE = """
name: circle
api_endpoint: /circle
api_version: v1
states:
  a: {start: true, transition_to: b}
  b: {transition_to: a}
"""


def test_a_circle_of_states_ends_and_holds_up_nobody() -> None:
    async def story(stage: Stage) -> None:
        await stage.register("w1")
        job = await stage.create("circle")
        task = await stage.create()
        assert (await stage.poll("w1", 1.0))["job_id"] == task
        await asyncio.sleep(5)
        assert stage.view(job).status == "error"

    play(story, CIRCLE, SIMPLE)


def test_a_job_whose_blueprint_is_lost_ends_in_error() -> None:
    async def story(stage: Stage) -> None:
        stage.kill()
        job = await stage.create()
        await stage.journal.put_records("blueprint_version", {"simple@1": None})
        stage.start()
        await asyncio.sleep(0.1)
        assert stage.view(job).status == "error"

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
