"""Called runs and their callers in the archive, in small worlds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict
from orchestrator.starts import Trigger
from orchestrator.views import CalledView
from serve_app.gateway import Gateway
from tests.archive_world import DAY, as_here, defined, store, swept
from tests.world import World
from tests.world_clients import TENANT


async def caller(world: World, **below: Any) -> tuple[Gateway, str, str]:
    """A run that called one of DAG `child`, and the id of that."""
    work = TaskSpec(id="s", type="core.wait", params={"seconds": 60})
    await world.clients.define(Definition("child", "team", tasks=(work,)))
    call = TaskSpec(id="call", type="core.dag", params={"dag_id": "child"})
    rest = TaskSpec(id="rest", type="core.wait", params={"seconds": 600}, depends_on=("call",))
    gateway = await defined(world, tasks=(call, rest))
    run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d", **below), None)).run_id
    await asyncio.sleep(5.0)
    return gateway, run_id, (await gateway.run(TENANT, run_id)).children["call"].run_id


def test_a_called_run_leaves_after_its_caller_and_both_tell_of_each_other() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await caller(world, start=DAY, end=DAY)
        await asyncio.sleep(120.0)
        assert (await gateway.run(TENANT, child)).state == "succeeded"
        assert (await swept(world)).runs == 0, "its caller goes on"
        await asyncio.sleep(600.0)
        shown = await gateway.run(TENANT, run_id)
        assert shown.children == {"call": CalledView(child, "child", "succeeded")}
        below = await gateway.run(TENANT, child)
        sweep = await swept(world)
        assert (sweep.runs, sweep.left, world.journal.runs) == (2, 0, {})
        assert as_here(await gateway.run(TENANT, run_id)) == shown
        assert as_here(await gateway.run(TENANT, child)) == below
        assert (below.parent_run_id, below.parent_task) == (run_id, "call")

    World(0).play_with(course)


def test_the_window_of_a_called_run_is_nobody_elses_in_the_archive_too() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await caller(world, start=DAY, end=DAY)
        await asyncio.sleep(720.0)
        await swept(world)
        assert store(world).by_window(TENANT, "child", [f"{DAY}/{DAY}"]) == []
        own = await gateway.trigger(TENANT, Trigger(dag_id="child", start=DAY, end=DAY), None)
        assert own.run_id != child, "it stood for the window of its caller only"
        assert not own.existing
        with pytest.raises(Conflict):
            await gateway.retry_run(TENANT, child, None)  # nothing of it failed
        back = await gateway.run(TENANT, child)
        assert (back.archived, back.parent_run_id) == (False, run_id)
        shown = await gateway.run(TENANT, run_id)
        assert (shown.archived, shown.children) == (True, {"call": CalledView(child, "child", "succeeded")})

    World(0).play_with(course)


def test_a_run_that_came_back_tells_of_the_runs_it_called_that_are_still_away() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await caller(world)
        await asyncio.sleep(720.0)
        await swept(world)
        with pytest.raises(Conflict):
            await gateway.retry_run(TENANT, run_id, None)
        back = await gateway.run(TENANT, run_id)
        assert (back.archived, back.children) == (False, {"call": CalledView(child, "child", "succeeded")})
        assert (await gateway.run(TENANT, child)).archived

    World(0).play_with(course)
