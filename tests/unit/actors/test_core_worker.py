"""actors.core_worker: the task types that exist everywhere, done for jobs too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.core_worker import CAPACITY, POLLS, CoreWorker
from orchestrator.blueprint import Blueprint
from tests.jobs_stage import Stage, blueprints_of, play

TASK = """
name: core
states:
  start:
    start: true
    dispatch_task: {type: "%s", params: {seconds: "${initial_data.seconds}", times: "${initial_data.times}",
                    permanent: "${initial_data.permanent}"}, transitions: {success: finished}}
"""


def of(kind: str) -> list[Blueprint]:
    return blueprints_of(TASK % kind)


async def ended(stage: Stage, *jobs: str) -> list[Any]:
    """The jobs, once all have ended."""
    async with asyncio.timeout(600):
        while any(stage.view(job).finished_at is None for job in jobs):  # noqa: ASYNC110 # virtual time
            await asyncio.sleep(0.05)
    return [stage.view(job) for job in jobs]


def with_worker(story: Callable[[Stage], Awaitable[None]], blueprints: list[Blueprint]) -> None:
    """Plays the story beside a core worker."""

    async def told(stage: Stage) -> None:
        working = asyncio.create_task(CoreWorker(stage.ask, stage.clock).run())
        try:
            await story(stage)
        finally:
            working.cancel()

    play(told, blueprints=blueprints, job_retry_backoff_s=0.0)


@pytest.mark.parametrize(
    ("kind", "data", "status", "history"),
    [
        ("core.noop", {}, "finished", {}),
        ("core.echo", {"seconds": 5}, "finished", {"seconds": 5, "times": None, "permanent": None}),
        ("core.sleep", {"seconds": 7}, "finished", {"slept": 7}),
        ("core.sleep", {"seconds": "x"}, "failed", {}),
        ("core.sleep", {"seconds": 3601}, "failed", {}),
        ("core.fail", {"times": 2}, "finished", {}),
        ("core.fail", {}, "quarantined", {}),
        ("core.fail", {"permanent": True}, "quarantined", {}),
        ("core.fail", {"times": "x"}, "failed", {}),
    ],
)
def test_tasks_of_the_core_types_are_done(kind: str, data: dict[str, Any], status: str, history: Any) -> None:
    async def story(stage: Stage) -> None:
        [job] = await ended(stage, await stage.create("core", data))
        assert (job.status, job.state_history) == (status, history)

    with_worker(story, of(kind))


def test_a_failure_is_tried_again_until_its_times_are_over() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create("core", {"times": 2})
        await ended(stage, job)
        assert [event.event_type for event in stage.history(job)].count("task_dispatched") == 3

    with_worker(story, of("core.fail"))


def test_a_sleeping_task_ends_when_its_job_is_cancelled() -> None:
    async def story(stage: Stage) -> None:
        job = await stage.create("core", {"seconds": 3000})
        await asyncio.sleep(1)
        began = stage.loop.time()
        answer = await stage.cancel(job)
        assert answer.body == {"status": "cancellation_request_sent"}
        [view] = await ended(stage, job)
        assert view.status == "cancelled"
        assert stage.loop.time() - began < 1

    with_worker(story, of("core.sleep"))


def test_many_at_once_all_end_and_no_more_than_the_capacity_run() -> None:
    async def story(stage: Stage) -> None:
        jobs = [await stage.create("core", {"seconds": 10}) for _ in range(CAPACITY + 2 * POLLS)]
        began = stage.loop.time()
        assert {view.status for view in await ended(stage, *jobs)} == {"finished"}
        assert 19 < stage.loop.time() - began < 40

    with_worker(story, of("core.sleep"))


def test_what_a_former_life_was_at_is_done_again_after_a_restart_of_both() -> None:
    async def story(stage: Stage) -> None:
        former = asyncio.create_task(CoreWorker(stage.ask, stage.clock).run())
        job = await stage.create("core", {"seconds": 60})
        await asyncio.sleep(1)
        former.cancel()
        await stage.restart()
        later = asyncio.create_task(CoreWorker(stage.ask, stage.clock).run())
        try:
            [view] = await ended(stage, job)
        finally:
            later.cancel()
        assert view.status == "finished"
        assert "task_redelivered" in [event.event_type for event in stage.history(job)]

    play(story, blueprints=of("core.sleep"))


def test_tasks_of_other_tenants_are_done_too() -> None:
    async def story(stage: Stage) -> None:
        [view] = await ended(stage, await stage.create("core", {}, tenant="other"))
        assert view.status == "finished"

    with_worker(story, of("core.noop"))
