"""The shells together, in small worlds on virtual time: one worker, fair weather, and one thing that happens.

Each of these once went wrong in a world of chance (`tests/world.py`); here it is told on its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.mail import Observed
from orchestrator import actor_codec, codec
from orchestrator.command import Command
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import ActorUnreachable
from orchestrator.idempotency import Idempotency
from orchestrator.starts import Trigger
from orchestrator.steps import Commit, Mail
from orchestrator.streams import WindowNews
from serve_app.gateway import Gateway
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT


def a_task(name: str, *needs: str, **changes: Any) -> TaskSpec:
    return TaskSpec(id=name, type="core.sleep", depends_on=needs, **changes)


async def defined(world: World, *tasks: TaskSpec, **changes: Any) -> Gateway:
    """A gateway of a world in which DAG `d` has these tasks."""
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=tasks, **changes))
    return world.clients.gateways[0]


async def triggered(gateway: Gateway, **changes: Any) -> str:
    made = await gateway.trigger(TENANT, Trigger(dag_id="d", **changes), None)
    return made.run_id


async def backfilled(gateway: Gateway, windows: int, **changes: Any) -> str:
    return await triggered(gateway, run_type="backfill", start="2026-02-01", end=f"2026-02-{windows:02d}", **changes)


async def ends(world: World, run_id: str, within_s: float = 20.0) -> str:
    """The state in which the run ends."""
    async with asyncio.timeout(within_s):
        while run_id in world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.05)
    return world.journal.runs[run_id].state


def test_a_command_on_a_queued_run_does_not_take_it_from_the_scheduler() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"), a_task("b", "a"))
        await gateway.pause_dag(TENANT, "d", None, None)
        runs = [await triggered(gateway) for _ in range(4)]
        for run_id in runs:
            await gateway.skip_task(TENANT, run_id, "a", None)
            assert world.journal.runs[run_id].owner == ""
        await gateway.resume_dag(TENANT, "d", None, None)
        assert {await ends(world, run_id) for run_id in runs} == {"succeeded"}

    World(0).play_with(course)


def test_a_command_that_comes_twice_does_not_cost_the_run_its_place_in_memory() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, *(a_task(f"t{n}") for n in range(9)))
        run_id = await triggered(gateway)
        await asyncio.sleep(0.15)
        owner = world.journal.runs[run_id].owner
        command = Command(kind="skip_task", run_id=run_id, task="t8", idem=Idempotency("key", "f"))
        for _ in range(2):
            blob = await world.wire.ask(owner, "command", actor_codec.encode_command(command))
        assert actor_codec.decode_command_reply(blob).replayed
        assert await ends(world, run_id) == "succeeded"

    World(0).play_with(course)


@pytest.mark.parametrize("dies", ["", "scheduler", "run-actor-0", "run-actor-1"])
def test_a_window_that_is_retried_makes_its_ended_backfill_go_on(dies: str) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"))
        world.character.mischief.permanent = 1.0
        backfill = await backfilled(gateway, 2)
        assert await ends(world, backfill) == "failed"
        world.character.mischief.permanent = 0.0
        if dies:
            world.kill(dies)
        for child in list(world.journal.runs[backfill].children):
            await world.clients.insist(lambda child=child: gateway.retry_task(TENANT, child, "a", None))  # type: ignore[misc]  # a default binds the loop's variable
            await ends(world, child)
        await asyncio.sleep(20.0)
        assert world.journal.runs[backfill].state == "succeeded"
        assert world.journal.runs[backfill].attempts > 1

    World(0).play_with(course)


def test_a_backfill_keeps_its_cap_over_a_restart_of_the_scheduler() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"), max_active_runs=16)
        backfill = await backfilled(gateway, 8, max_active_runs=1, run_backwards=True)
        await asyncio.sleep(0.2)
        world.kill("scheduler")
        assert await ends(world, backfill, 60.0) == "succeeded"
        assert not world.watcher.failures
        world.watcher.check_windows(backfill)

    World(0).play_with(course)


def test_the_windows_of_a_cancelled_backfill_are_cancelled_although_their_owner_is_away_for_long() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, *(a_task(f"t{n}") for n in range(300)))
        backfill = await backfilled(gateway, 6)
        await asyncio.sleep(0.3)
        children = [world.journal.runs[child] for child in world.journal.runs[backfill].children]
        other = next(name for name in RUN_ACTORS if name != world.journal.runs[backfill].owner)
        assert other in {child.owner for child in children}
        world.wire.processes.pop(other).end()
        await gateway.cancel_run(TENANT, backfill, None)
        await asyncio.sleep(40.0)
        world.start(other)
        assert await ends(world, backfill) == "cancelled"
        assert {child.state for child in children} == {"cancelled"}

    World(0).play_with(course)


def test_a_window_that_ends_well_while_no_scheduler_lives_makes_its_ended_backfill_go_on() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"))
        world.character.mischief.permanent = 1.0
        backfill = await backfilled(gateway, 1)
        assert await ends(world, backfill) == "failed"
        await asyncio.sleep(1.0)
        world.wire.processes.pop("scheduler").end()
        [child] = world.journal.runs[backfill].children
        await gateway.skip_task(TENANT, child, "a", None)
        assert await ends(world, child) == "succeeded"
        world.start("scheduler")
        await asyncio.sleep(5.0)
        assert world.journal.runs[backfill].state == "succeeded"

    World(0).play_with(course)


def test_old_news_of_a_window_do_not_bring_an_ended_backfill_back() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"))
        backfill = await backfilled(gateway, 2)
        await asyncio.sleep(0.05)
        owner = world.journal.runs[backfill].owner
        assert await ends(world, backfill) == "succeeded"
        child = world.journal.runs[backfill].children[0]
        old = WindowNews(backfill, child, world.journal.runs[child].window_key, "queued", "running", 2)
        somebody = await world.journal.take_epoch("somebody")
        mail = Mail(owner, codec.encode_items([old]))
        await world.journal.commit(Commit(owner="somebody", epoch=somebody, turn=1, mail=(mail,)))
        await asyncio.sleep(5.0)
        world.wire.processes[owner].object._post(Observed(backfill, ((child, "running", 2),)))
        await asyncio.sleep(5.0)
        assert (world.journal.runs[backfill].state, world.journal.runs[backfill].attempts) == ("succeeded", 1)

    World(0).play_with(course)


def test_what_a_worker_finished_while_its_run_actor_was_dead_counts() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"))
        run_id = await triggered(gateway)
        await asyncio.sleep(0.05)
        owner = world.journal.runs[run_id].owner
        world.wire.processes.pop(owner).end()
        await asyncio.sleep(2.0)
        world.start(owner)
        assert await ends(world, run_id) == "succeeded"
        assert world.watcher.histories[run_id].started == {"a": 1}

    World(0).play_with(course)


def test_a_slot_that_is_asked_back_in_a_lost_message_is_asked_back_again() -> None:
    async def course(world: World) -> None:
        lost: list[bytes] = []
        tell = world.wire.tell

        async def lose_the_first(actor: str, method: str, blob: bytes) -> None:
            if method == "host" and actor_codec.decode_hosting(blob).yields and not lost:
                lost.append(blob)
                raise ActorUnreachable(actor, "the message got lost")
            await tell(actor, method, blob)

        world.wire.tell = lose_the_first  # type: ignore[method-assign]  # a stand-in, in this one object
        gateway = await defined(world, *(a_task(f"t{n}") for n in range(300)))
        await triggered(gateway)
        await world.clients.define(Definition(dag_id="one", owner="team", tasks=(a_task("only"),)))
        await asyncio.sleep(1.0)
        made = await gateway.trigger(TENANT, Trigger(dag_id="one"), None)
        assert await ends(world, made.run_id, 5.0) == "succeeded"
        assert lost

    World(0).play_with(course)


def test_a_worker_does_not_keep_what_was_told_long_ago() -> None:
    async def course(world: World) -> int:
        gateway = await defined(world, a_task("a"))
        for _ in range(30):
            assert await ends(world, await triggered(gateway)) == "succeeded"
            await asyncio.sleep(0.5)
        [name] = world.workers
        return len(world.wire.processes[name].object.holds())

    assert World(0).play_with(course) <= 4


def test_a_scheduler_that_started_without_the_supervisor_asks_it_again() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, a_task("a"))
        world.wire.processes.pop("supervisor").end()
        world.kill("scheduler")
        await asyncio.sleep(20.0)
        run_id = await triggered(gateway)
        world.start("supervisor")
        assert await ends(world, run_id) == "succeeded"

    World(0).play_with(course)


def test_an_actor_with_endless_work_lets_another_one_have_the_only_slot() -> None:
    async def course(world: World) -> float:
        gateway = await defined(world, *(a_task(f"t{n}") for n in range(300)))
        await triggered(gateway)
        await world.clients.define(Definition(dag_id="one", owner="team", tasks=(a_task("only"),)))
        await asyncio.sleep(1.0)
        asked_s = world.loop.time()
        made = await gateway.trigger(TENANT, Trigger(dag_id="one"), None)
        assert await ends(world, made.run_id) == "succeeded"
        assert len({run.owner for run in world.journal.runs.values()} - {""}) == 1
        return world.watcher.began_s[made.run_id] - asked_s

    assert World(0).play_with(course) < 2.0
