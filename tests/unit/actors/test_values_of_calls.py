"""Values in memory of runs that were called, in small worlds: a result stays until nobody can take it any more."""

from __future__ import annotations

import asyncio

from actors.memory_values import Results, needed_of
from orchestrator.calls import CALL
from orchestrator.definition import Definition, TaskSpec
from orchestrator.starts import Trigger
from tests.unit.actors.test_artifact_sweeper import ended, play, until
from tests.world import World
from tests.world_clients import TENANT


def a_call(dag_id: str) -> TaskSpec:
    return TaskSpec(id="call", type=CALL, params={"dag_id": dag_id})


async def defined(world: World) -> None:
    """`top` calls `middle`, whose only task calls `low`, whose last task is `b`."""
    work = (TaskSpec(id="a", type="core.sleep"), TaskSpec(id="b", type="core.sleep", depends_on=("a",)))
    takes = TaskSpec(id="take", type="core.sleep", depends_on=("call",), inputs={"x": "call"})
    for dag_id, tasks in (("low", work), ("middle", (a_call("low"),)), ("top", (a_call("middle"), takes))):
        await world.clients.define(Definition(dag_id=dag_id, owner="team", tasks=tasks))


def test_what_a_called_run_came_to_is_there_until_its_callers_have_ended() -> None:
    async def course(world: World) -> None:
        await defined(world)
        top = str((await world.clients.gateways[0].trigger(TENANT, Trigger(dag_id="top"), None)).run_id)
        runs = world.journal.runs
        results: Results = {}
        assert await needed_of(world.journal, top, results) is None
        await until(lambda: len(runs) == 3)
        low, middle = (next(name for name, run in runs.items() if run.dag_id == dag) for dag in ("low", "middle"))
        assert await needed_of(world.journal, low, results) is None, "it goes on"
        await until(lambda: low not in world.open())
        world.character.mischief.takes_s = (1000.0,)  # whoever takes it takes its time
        await until(lambda: middle not in world.open())
        assert top in world.open()
        assert await needed_of(world.journal, low, results) == "b.1"
        assert results == {low: (runs[low].version, "b.1")}
        assert await needed_of(world.journal, middle, results) == "", "what it came to is in another folder"
        await world.clients.gateways[0].cancel_run(TENANT, top, None)
        await ended(world, top)
        assert [await needed_of(world.journal, each, results) for each in (low, middle, top)] == [""] * 3
        assert await needed_of(world.journal, "run_unknown", results) == ""
        await asyncio.sleep(0)

    play(course)
