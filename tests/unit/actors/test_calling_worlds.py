"""Runs that call runs outlive everything: the shells together on virtual time, with deaths in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Invalid, JournalUnavailable
from orchestrator.views import CalledView
from serve_app.gateway import Gateway
from tests.unit.actors.test_waiting_worlds import a_task, ends, kill_everything, started, told, world
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT


def a_call(name: str = "call", *needs: str, dag_id: str = "child", **params: Any) -> TaskSpec:
    return a_task(name, "core.dag", *needs, dag_id=dag_id, **params)


async def parent_of(world: World, *children: TaskSpec, **params: Any) -> tuple[Gateway, str, str]:
    """A run that has called one of these tasks, and the id of that."""
    await world.clients.define(Definition("child", "team", tasks=children))
    gateway, run_id = await started(world, a_call(**params), a_task("after", "core.noop", "call"))
    return gateway, run_id, (await gateway.run(TENANT, run_id)).children["call"].run_id


@pytest.mark.parametrize("dies", [False, True])
def test_a_call_takes_no_memory_no_worker_and_ends_with_the_run(dies: bool) -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await parent_of(world, a_task("s", "core.wait", seconds=60))
        await asyncio.sleep(20.0)
        assert {world.journal.runs[each].owner for each in (run_id, child)} == {""}, "both left memory"
        if dies:
            kill_everything(world)
        assert await ends(world, run_id, 120.0) == "succeeded"
        [value, _] = [event.value for event in told(world, run_id, e.TaskSucceeded)]
        assert b"until" in bytes(value.inline), "what the wait of the child came to"
        assert len(world.journal.runs) == 2
        assert (await gateway.run(TENANT, run_id)).children == {"call": CalledView(child, "child", "succeeded")}

    world().play_with(course)


def test_both_runs_tell_of_each_other() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await parent_of(world, a_task("s", "core.wait", seconds=60), params={"n": 1})
        view = await gateway.run(TENANT, run_id)
        wait = view.waiting_for["call"]
        assert (wait.kind, wait.run_id, wait.dag_id) == ("run", child, "child")
        assert (view.parent_run_id, view.parent_task) == (None, None)
        below = await gateway.run(TENANT, child)
        assert (below.parent_run_id, below.parent_task, below.run_type) == (run_id, "call", "manual")
        [created] = told(world, child, e.RunCreated)
        assert (created.params, created.called_by) == ({"n": 1}, e.CalledBy(run_id, "call", 1, ("d",)))

    world().play_with(course)


@pytest.mark.parametrize("dies", [False, True])
def test_who_cancels_a_run_cancels_what_it_called(dies: bool) -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await parent_of(world, a_call("below", dag_id="lowest"))
        await world.clients.define(Definition("lowest", "team", tasks=(a_task("s", "core.wait", seconds=1e6),)))
        await gateway.retry_run(TENANT, child, None)  # there was no such DAG
        kept = await gateway.run(TENANT, run_id)
        assert kept.state == "failed", "and the call had failed by then"
        await gateway.retry_run(TENANT, run_id, None)
        await asyncio.sleep(0.5)
        again = (await gateway.run(TENANT, run_id)).children["call"].run_id
        lowest = (await gateway.run(TENANT, again)).children["below"].run_id
        await gateway.cancel_run(TENANT, run_id, None)
        if dies:
            kill_everything(world)
        for each in (run_id, again, lowest):
            assert await ends(world, each) == "cancelled"
        assert child in world.open(), "who goes on by hand is nobody's child any more"

    world().play_with(course)


def test_a_run_of_a_dag_that_does_not_exist_cannot_be_called() -> None:
    async def course(world: World) -> None:
        _, run_id = await started(world, a_call(dag_id="nobody"))
        assert await ends(world, run_id) == "failed"
        assert world.journal.runs[run_id].error == "call: NotFound: there is no DAG nobody"

    world().play_with(course)


def test_the_call_fails_as_the_run_does() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await parent_of(world, a_task("s", "core.signal", name="go", timeout_s=5))
        assert await ends(world, run_id) == "failed"
        error = world.journal.runs[run_id].error
        assert error.startswith(f"call: RunFailed: run {child} is failed: s: WaitTimedOut")
        assert (await gateway.run(TENANT, run_id)).tasks["after"] == "upstream_failed"

    world().play_with(course)


def test_a_definition_that_calls_itself_is_refused() -> None:
    async def course(world: World) -> None:
        with pytest.raises(Invalid, match="tasks/0/params/dag_id: calls itself: a -> a"):
            await world.clients.define(Definition("a", "team", tasks=(a_call(dag_id="a"),)))
        await world.clients.define(Definition("a", "team", tasks=(a_call(dag_id="b"),)))
        await world.clients.define(Definition("b", "team", tasks=(a_call(dag_id="c"),)))
        tasks = (a_call("x", dag_id="d"), a_call("y", dag_id="a"))
        with pytest.raises(Invalid, match="tasks/1/params/dag_id: calls itself: c -> a -> b -> c"):
            await world.clients.define(Definition("c", "team", tasks=tasks))

    world().play_with(course)


def test_a_run_is_created_although_everything_dies_before_it_is() -> None:
    async def course(world: World) -> None:
        await world.clients.define(Definition("child", "team", tasks=(a_task("s", "core.noop"),)))
        refused = 0

        async def later(creations: Any) -> Any:
            nonlocal refused
            if creations[0].runs[0].caller is not None and refused < 1:
                refused += 1
                kill_everything(world)
                await asyncio.sleep(60.0)
            return await type(world.journal).create_runs(world.journal, creations)

        world.journal.create_runs = later  # type: ignore[method-assign]  # it takes its time
        _, run_id = await started(world, a_call())
        assert await ends(world, run_id, 120.0) == "succeeded"
        assert (refused, len(world.journal.runs)) == (1, 2)

    world().play_with(course)


def test_events_of_a_call_have_the_run() -> None:
    async def course(world: World) -> None:
        _, run_id, child = await parent_of(world, a_task("s", "core.noop"))
        [waiting] = told(world, run_id, e.TaskWaiting)
        assert waiting.wait.call == e.Call(child, "child", {}, None, ("d",))
        assert codec.decode_events(codec.encode_events([waiting])) == [waiting]

    world().play_with(course)


def test_a_run_whose_child_may_not_exist_yet_stays_with_its_owner() -> None:
    async def course(world: World) -> None:
        await world.clients.define(Definition("child", "team", tasks=(a_task("s", "core.noop"),)))
        away = True

        async def sometimes(creations: Any) -> Any:
            if away and creations[0].runs[0].caller is not None:
                raise JournalUnavailable("away")
            return await type(world.journal).create_runs(world.journal, creations)

        world.journal.create_runs = sometimes  # type: ignore[method-assign]  # as long as the test says so
        _, run_id = await started(world, a_call())
        await asyncio.sleep(20.0)
        assert world.journal.runs[run_id].owner in RUN_ACTORS
        for name in RUN_ACTORS:
            world.kill(name)
        away = False
        assert await ends(world, run_id, 60.0) == "succeeded"

    world().play_with(course)
