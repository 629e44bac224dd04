"""Worlds from many seeds.

Whatever is killed, lost, late or twice, every accepted run ends and every invariant holds.
"""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

from orchestrator.definition import Definition, TaskSpec
from orchestrator.views import Trigger
from tests.world import World, digest, play
from tests.world_clients import TENANT

SEEDS, STEPS = 200, 10
#: longer worlds; more of them with WORLD_MANY=2000
MANY = int(os.environ.get("WORLD_MANY", "200"))
#: seeds that once showed a bug: they stay
REMEMBERED: tuple[int, ...] = ()


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_every_world_ends_well(first: int) -> None:
    for seed in range(first, first + 20):
        play(seed, STEPS)


def test_a_seed_makes_the_same_world_every_time() -> None:
    assert [digest(play(seed, STEPS)) for seed in (2, 3)] == [digest(play(seed, STEPS)) for seed in (2, 3)]


def test_an_actor_with_endless_work_lets_another_one_have_the_only_slot() -> None:
    world = World(0)
    started = world.play_with(_one_slot_and_two_actors)
    assert started is not None
    assert started < 2.0


async def _one_slot_and_two_actors(world: World) -> float | None:
    """Seconds until a run of the other RunActor starts its task while the first has work for half a minute."""
    many = tuple(TaskSpec(id=f"t{n}", type="core.sleep") for n in range(300))
    await world.clients.define(Definition(dag_id="many", owner="team", tasks=many))
    await world.clients.define(Definition(dag_id="one", owner="team", tasks=(TaskSpec(id="only", type="core.sleep"),)))
    await world.clients.gateways[0].trigger(TENANT, Trigger(dag_id="many"), None)
    await asyncio.sleep(1.0)
    began_s = world.loop.time()
    made = await world.clients.gateways[0].trigger(TENANT, Trigger(dag_id="one"), None)
    await asyncio.sleep(20.0)
    assert any(state == "pending" for h in world.watcher.histories.values() for state in h.tasks.values()), (
        "work has run out"
    )
    owners = {run.owner for run in world.journal.runs.values()}
    starts = [at_s for run_id, at_s in world.watcher.began_s.items() if run_id == made.run_id]
    assert owners - {""}, owners
    return starts[0] - began_s if starts else None


@pytest.mark.parametrize("seed", REMEMBERED)
def test_worlds_that_once_went_wrong_end_well(seed: int) -> None:
    play(seed, STEPS)


@pytest.mark.skipif("WORLD_SEED" not in os.environ, reason="plays the world of WORLD_SEED")
def test_one_seed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actors")
    play(int(os.environ["WORLD_SEED"]), int(os.environ.get("WORLD_STEPS", STEPS)))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY, 100))
def test_many_worlds_end_well(first: int) -> None:
    for seed in range(first, first + 100):
        play(seed, 20)
