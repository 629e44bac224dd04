"""A scheduler to whom everybody talks, although a later one has taken the epoch: it notices, and is started anew.

That comes about when a scheduler that was replaced came to the journal only after its successor. World 10011 of calls
(`tests/calls_world.py`) went round in circles by it: the journal refused every admission, each was given anew at once.
"""

from __future__ import annotations

import asyncio

import pytest

from actors.names import SCHEDULER
from actors.refusals import PAUSE_MAX_S
from orchestrator import actor_codec
from orchestrator.definition import LimitUse
from orchestrator.limits import Limit
from orchestrator.needs import limit_key
from tests.unit.actors.test_small_worlds import a_task, defined, ends, triggered
from tests.world import RUN_ACTORS, World
from tests.world_cast import Mischief
from tests.world_clients import TENANT


async def superseded(world: World) -> None:
    """Another one, of whom nobody knows, takes the epoch."""
    await world.journal.take_epoch(SCHEDULER)


def test_a_run_starts_although_a_scheduler_that_was_replaced_took_the_epoch_last() -> None:
    async def course(world: World) -> None:
        world.away_s = (3.0,)  # of the scheduler that ends
        gateway = await defined(world, a_task("a"), a_task("b", "a"))
        assert await ends(world, await triggered(gateway)) == "succeeded"
        await superseded(world)
        before = world.wire.messages
        assert await ends(world, await triggered(gateway), 8.0) == "succeeded"
        assert world.wire.messages - before < 200

    World(0).play_with(course)


def test_a_task_with_a_limit_starts_although_its_actor_has_heard_of_a_later_scheduler() -> None:
    async def course(world: World) -> None:
        change = actor_codec.encode_limit_change(limit_key(TENANT, "one"), Limit(1))
        await world.wire.ask(SCHEDULER, "set_limit", change)
        gateway = await defined(world, a_task("a"), a_task("b", "a", limits=(LimitUse("one"),)))
        run_id = await triggered(gateway)
        await asyncio.sleep(1.0)
        await superseded(world)
        later = actor_codec.encode_epoch(world.journal.owners[SCHEDULER].epoch)
        for name in RUN_ACTORS:
            await world.wire.ask(name, "stock", later)
        assert await ends(world, run_id, 30.0) == "succeeded"

    World(0).play_with(course, Mischief(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, takes_s=(3.0,)))


def test_a_scheduler_that_has_nothing_to_do_notices_within_a_minute() -> None:
    async def course(world: World) -> None:
        await asyncio.sleep(90.0)  # by now it has noted how far it read
        await superseded(world)
        await asyncio.sleep(60.0)
        now = world.wire.processes[SCHEDULER].object
        assert now._epoch == world.journal.owners[SCHEDULER].epoch

    World(0).play_with(course)


def test_what_the_journal_never_takes_is_offered_seldom_and_starts_once_it_does() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"))
        await ends(world, await triggered(gateway))
        world.journal.dag_rows[TENANT, "d"].paused = True  # nobody is told
        run_id = await triggered(gateway)
        await asyncio.sleep(2.0)
        before, span_s = world.wire.messages, 20.0
        await asyncio.sleep(span_s)
        assert world.wire.messages - before < 5 * span_s / PAUSE_MAX_S
        world.journal.dag_rows[TENANT, "d"].paused = False
        assert await ends(world, run_id, 2 * PAUSE_MAX_S) == "succeeded"

    World(0).play_with(course)


@pytest.mark.parametrize("then", ["cancelled", "started anew"])
def test_a_refused_run_of_which_something_else_has_become_keeps_no_place(then: str) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"), max_active_runs=1)
        await ends(world, await triggered(gateway))
        world.journal.dag_rows[TENANT, "d"].paused = True  # nobody is told
        run_id = await triggered(gateway)
        await asyncio.sleep(5.0)
        await gateway.cancel_run(TENANT, run_id, None)
        world.journal.dag_rows[TENANT, "d"].paused = False
        if then == "started anew":
            await gateway.retry_run(TENANT, run_id, None)
            assert await ends(world, run_id) == "succeeded"
        await asyncio.sleep(2 * PAUSE_MAX_S)
        assert await ends(world, await triggered(gateway), 1.0) == "succeeded"

    World(0).play_with(course)


def test_a_refused_run_that_is_changed_while_it_waits_starts_once_it_may() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"), a_task("b", "a"))
        await ends(world, await triggered(gateway))
        world.journal.dag_rows[TENANT, "d"].paused = True  # nobody is told
        run_id = await triggered(gateway)
        await asyncio.sleep(5.0)
        await gateway.skip_task(TENANT, run_id, "a", None)
        await asyncio.sleep(2 * PAUSE_MAX_S)
        world.journal.dag_rows[TENANT, "d"].paused = False
        assert await ends(world, run_id, 2 * PAUSE_MAX_S) == "succeeded"

    World(0).play_with(course)
