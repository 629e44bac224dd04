"""Jobs at the gateway whose blueprints do more than one task: parallel ones, sub-jobs, handlers in Python."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from orchestrator import remote as r
from orchestrator.blueprint import Outcome, Transition, Visit
from tests.jobs_stage import SIMPLE, Stage, blueprints_of, play

PERMANENT = {"code": "PERMANENT_ERROR", "message": "nope", "details": None}


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

        stage.journal.owned = child_first  # type: ignore[method-assign]  # the step is held up here
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

        stage.journal.create_runs = slowly  # type: ignore[method-assign]  # the step is held up here
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
        stage.holder._children._make = lambda parent, effect: asyncio.sleep(0)  # type: ignore[method-assign]  # cut off
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
        stage.holder._children._make = lambda parent, effect: asyncio.sleep(0)  # type: ignore[method-assign]  # cut off
        job = await stage.create("parent")
        await asyncio.sleep(0.1)
        stage.kill()
        stage.start()
        holder = stage.holder
        holder._children._make = lambda parent, effect: asyncio.sleep(0)  # type: ignore[method-assign]  # cut off
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
