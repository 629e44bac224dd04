"""One request about the windows of a backfill has one effect on each and one answer, however often it is made."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from orchestrator import events as e
from orchestrator.errors import Conflict
from orchestrator.idempotency import Idempotency
from orchestrator.views import RunChanged
from tests.invariants import check_versions
from tests.unit.actors.test_small_worlds import a_task, backfilled, defined, ends
from tests.world import World
from tests.world_cast import Mischief
from tests.world_clients import TENANT

KEY = Idempotency("key", "f")


def all_fail() -> Mischief:
    return Mischief(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.1,))


async def failed_backfill(world: World) -> str:
    run_id = await backfilled(await defined(world, a_task("a")), 3)
    assert await ends(world, run_id) == "failed"
    return run_id


def retries(world: World) -> list[int]:
    """Of each window: how often it was revived."""
    windows = [run for run in world.journal.runs.values() if run.parent]
    return [sum(isinstance(event, e.RunRevived) for event in check_versions(run.events)) for run in windows]


async def retried(world: World, replica: int, run_id: str, key: Idempotency = KEY) -> RunChanged:
    return await world.clients.gateways[replica].retry_task(TENANT, run_id, "a", key)


def test_two_replicas_with_the_same_request_at_once_retry_each_window_once_and_answer_alike() -> None:
    async def course(world: World) -> None:
        run_id = await failed_backfill(world)
        answers = await asyncio.gather(*(retried(world, n, run_id) for n in (0, 1)))
        first, second = (msgspec.structs.replace(answer, replayed=False) for answer in answers)
        assert first == second
        assert retries(world) == [1, 1, 1]

    World(0).play_with(course, all_fail())


def test_a_request_that_comes_again_after_a_crash_does_not_retry_what_has_failed_again() -> None:
    async def course(world: World) -> None:
        run_id = await failed_backfill(world)
        await retried(world, 0, run_id)
        assert await ends(world, run_id) == "failed"
        world.journal.replies.pop(KEY.key)  # it died before it had an answer for the whole
        await retried(world, 1, run_id)
        assert retries(world) == [1, 1, 1]
        await retried(world, 1, run_id, Idempotency("another", "f"))
        assert retries(world) == [2, 2, 2]

    World(0).play_with(course, all_fail())


def test_a_request_that_finds_its_work_done_is_answered_and_another_one_is_refused() -> None:
    async def course(world: World) -> None:
        run_id = await failed_backfill(world)
        world.character.mischief.permanent = 0.0
        first = await retried(world, 0, run_id)
        assert await ends(world, run_id) == "succeeded"
        world.journal.replies.pop(KEY.key)
        again = await retried(world, 1, run_id)
        assert again.task_state == first.task_state
        assert retries(world) == [1, 1, 1]
        with pytest.raises(Conflict):
            await retried(world, 1, run_id, Idempotency("another", "f"))

    World(0).play_with(course, all_fail())
