"""The shells together, on virtual time: tasks of pools and under limits run where their large inputs are."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from orchestrator import actor_codec
from orchestrator import events as e
from orchestrator.control import Claims
from orchestrator.definition import LimitUse, TaskSpec
from orchestrator.limits import Limit
from orchestrator.needs import limit_key
from tests.invariants import check_versions
from tests.unit.actors.test_small_worlds import a_task, defined, ends, triggered
from tests.world import World
from tests.world_cast import Mischief, Shelf
from tests.world_clients import TENANT

#: more on A than on B, so that chance does not lead there
GPU = {"worker-gpu-0": "A", "worker-gpu-1": "A", "worker-gpu-2": "A", "worker-gpu-3": "B"}
MAKER = "worker-default-0"


def takes(name: str, *producers: str, **changes: Any) -> TaskSpec:
    return a_task(name, *producers, inputs={p: p for p in producers}, **changes)


def a_world(seed: int = 0, *, large: bool = True) -> tuple[World, Mischief]:
    """A world in which tasks take 0.1 s, and return something large."""
    shelf = Shelf(0.0, 0) if large else None
    return World(seed), Mischief(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.1,), shelf)


async def with_workers(world: World, workers: dict[str, str], maker: str) -> None:
    """These workers are ready, too; and what the one that there was returns is on that node."""
    world.nodes |= workers | {MAKER: maker}
    world.wire.processes[MAKER].object.node = maker
    world.supervisor.workers += workers
    for name in workers:
        world.start(name)
    await asyncio.sleep(5.0)


async def allow(world: World, name: str, most: int) -> None:
    """So many permits of the limit."""
    change = actor_codec.encode_limit_change(limit_key(TENANT, name), Limit(most))
    await world.wire.ask("scheduler", "set_limit", change)


async def ran(world: World, run_id: str) -> dict[str, str]:
    """task -> worker, once the run has succeeded."""
    assert await ends(world, run_id) == "succeeded"
    events = check_versions(world.journal.runs[run_id].events)
    return {event.task: event.worker for event in events if isinstance(event, e.TaskStarted)}


def claimed(world: World) -> list[Claims]:
    """What the scheduler hears from now on of tasks with needs."""
    heard: list[Claims] = []
    tell = world.wire.tell

    async def listened(actor: str, method: str, blob: bytes) -> None:
        if method == "claims":
            heard.append(actor_codec.decode_claims(blob))
        await tell(actor, method, blob)

    world.wire.tell = listened  # type: ignore[method-assign]  # overheard
    return heard


@pytest.mark.parametrize("limits", [(), (LimitUse("one"),)], ids=["pool", "pool and limit"])
@pytest.mark.parametrize("seed", range(3))
def test_a_task_of_a_pool_runs_on_the_node_that_has_what_it_takes(seed: int, limits: tuple[LimitUse, ...]) -> None:
    world, mischief = a_world(seed)

    async def course(world: World) -> None:
        await with_workers(world, GPU, maker="B")
        gateway = await defined(world, a_task("make"), takes("use", "make", pool="gpu", limits=limits))
        assert (await ran(world, await triggered(gateway)))["use"] == "worker-gpu-3"

    world.play_with(course, mischief)


def test_so_does_a_task_of_the_default_pool_that_needs_a_permit() -> None:
    world, mischief = a_world()

    async def course(world: World) -> None:
        await with_workers(world, {f"worker-default-{n}": node for n, node in enumerate("AAB", 1)}, maker="A")
        tasks = [a_task(f"m{n}", params={"n": n}) for n in range(4)]
        uses = [takes(f"u{n}", f"m{n}", limits=(LimitUse("one"),)) for n in range(4)]
        gateway = await defined(world, *tasks, *uses)
        at = await ran(world, await triggered(gateway))
        homes = [(world.nodes[at[f"m{n}"]], world.nodes[at[f"u{n}"]]) for n in range(4)]
        assert ("B", "B") in homes
        assert all(made == used for made, used in homes)

    world.play_with(course, mischief)


def test_tasks_with_one_need_are_split_by_where_their_data_is() -> None:
    world, mischief = a_world()

    async def course(world: World) -> None:
        workers = {f"worker-gpu-{n}": "ABAB"[n] for n in range(4)}
        await with_workers(world, workers | {"worker-b-0": "B"}, maker="A")
        uses = [takes(f"{of[0]}{n}", of, pool="gpu") for n in range(2) for of in ("right", "left")]
        gateway = await defined(world, a_task("left"), a_task("right", pool="b"), *uses)
        at = await ran(world, await triggered(gateway))
        assert Counter((use.id[0], workers[at[use.id]]) for use in uses) == {("l", "A"): 2, ("r", "B"): 2}

    world.play_with(course, mischief)


def test_a_task_does_not_wait_for_a_slot_on_that_node() -> None:
    world, mischief = a_world()

    async def course(world: World) -> None:
        await with_workers(world, {"worker-gpu-0": "B", "worker-gpu-1": "A"}, maker="B")
        uses = [takes(f"u{n}", "make", pool="gpu") for n in range(2)]
        gateway = await defined(world, a_task("make"), *uses)
        at = await ran(world, await triggered(gateway))
        assert {at["u0"], at["u1"]} == {"worker-gpu-0", "worker-gpu-1"}

    world.play_with(course, mischief)


@pytest.mark.parametrize("large", [False, True])
def test_nothing_is_told_about_nodes_when_inputs_are_small(large: bool) -> None:
    world, mischief = a_world(large=large)

    async def course(world: World) -> None:
        heard = claimed(world)
        await with_workers(world, GPU, maker="B")
        gateway = await defined(world, a_task("make"), takes("use", "make", pool="gpu"))
        await ran(world, await triggered(gateway))
        assert heard
        assert any(claims.near for claims in heard) == large

    world.play_with(course, mischief)


def test_the_place_is_told_again_to_a_new_scheduler() -> None:
    world, mischief = a_world()

    async def course(world: World) -> None:
        await with_workers(world, GPU, maker="B")
        await allow(world, "one", 0)
        use = takes("use", "make", pool="gpu", limits=(LimitUse("one"),))
        run_id = await triggered(await defined(world, a_task("make"), use))
        await asyncio.sleep(2.0)
        world.kill("scheduler")
        await asyncio.sleep(20.0)
        await allow(world, "one", 1)
        assert (await ran(world, run_id))["use"] == "worker-gpu-3"

    world.play_with(course, mischief)


@pytest.mark.parametrize("seed", range(3))
def test_a_plain_task_whose_value_a_pool_made_is_given_a_slot_on_the_node_of_that(seed: int) -> None:
    world, mischief = a_world(seed)

    async def course(world: World) -> None:
        workers = {f"worker-default-{n}": node for n, node in enumerate("AAB", 1)}
        await with_workers(world, workers | {"worker-b-0": "B"}, maker="A")
        gateway = await defined(world, a_task("make", pool="b"), takes("use", "make"))
        assert (await ran(world, await triggered(gateway)))["use"] == "worker-default-3"

    world.play_with(course, mischief)


def test_a_new_actor_places_its_first_tasks_as_well() -> None:
    world, mischief = a_world()

    async def course(world: World) -> None:
        workers = {f"worker-default-{n}": "ABAB"[n] for n in range(1, 4)}
        await with_workers(world, workers | {"worker-b-0": "B", "worker-a-0": "A"}, maker="A")
        whose = [(n, of) for n in range(2) for of in ("left", "right")]
        uses = [a_task(f"{of[0]}{n}", of, "all", inputs={of: of}) for n, of in whose]
        makes = [a_task("left", pool="a"), a_task("right", pool="b"), a_task("all", "left", "right")]
        gateway = await defined(world, *makes, *uses)
        at = await ran(world, await triggered(gateway))
        assert Counter((use.id[0], world.nodes[at[use.id]]) for use in uses) == {("l", "A"): 2, ("r", "B"): 2}

    world.play_with(course, mischief)
