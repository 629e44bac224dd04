"""Remote workers at the gateway, message by message: the contract's table of leases, replicas, tenants, and results
that do not belong."""

from __future__ import annotations

import asyncio

from orchestrator import remote as r
from tests.jobs_stage import Replica, Stage, a_task, events_of, play

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
