"""Once a pause is answered no task starts: a thousand instances, each paused at another moment of another plan.

Meanwhile its actor dies or is replaced by a twin, other callers skip, retry, pause again and shut down. What is looked
at is the log, in which every start is noted before a worker hears of it, and the workers, which never get an attempt
whose start is not in the log.
"""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.errors import Refused, Unavailable
from orchestrator.instance_views import InstanceWanted
from tests.world import World
from tests.world_cast import DURATIONS_S
from tests.world_clients import TENANT, random_plan

MANY = 1000


@pytest.mark.parametrize("first", range(0, MANY, 100))
def test_no_task_starts_after_a_pause_was_answered(first: int) -> None:
    paused = sum(World(seed).play_with(_course) for seed in range(first, first + 100))
    assert paused > 40, f"only {paused} of 100 were paused while there was something to do"


async def _course(world: World) -> bool:
    """Whether the instance was paused before it had ended."""
    rng, instances = world.rng, world.clients.gateways[0].instances
    world.character.mischief.takes_s = DURATIONS_S
    world.character.mischief.error = 0.2
    world.clients.write_plan("p", random_plan(rng))
    wanted = InstanceWanted(plan="p", batch_size=rng.choice((1, 2, 5)), max_retries=rng.choice((0, 2)))
    weather = world.character.weather
    foul = dataclasses.replace(weather)
    weather.clear_up()
    instance_id = (await instances.start(TENANT, wanted)).instance_id
    weather.__dict__.update(foul.__dict__)
    actor = f"orchestrator:{instance_id}"
    await asyncio.sleep(rng.choice((0.0, 0.0, 0.001, 0.003, 0.01, 0.1)))
    others = [asyncio.create_task(_interfere(world, instance_id)) for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.3:
        rng.choice((world.kill, world.replace))(actor)
    try:
        answer = await instances.pause(TENANT, instance_id)
    except Unavailable:
        answer = None
    version = world.journal.runs[instance_id].version
    live = world.journal.runs[instance_id].state == "paused"
    if rng.random() < 0.3:
        rng.choice((world.kill, world.replace))(actor)
    await asyncio.sleep(rng.uniform(0.0, 6.0))
    await asyncio.gather(*others)
    if answer is not None and answer.success:
        _check(world, instance_id, version)
    assert not world.watcher.failures, world.watcher.failures[0]
    return live


async def _interfere(world: World, instance_id: str) -> None:
    """Anybody else, who does not resume it."""
    rng, instances = world.rng, world.clients.gateways[1].instances
    await asyncio.sleep(rng.choice((0.0, 0.001, 0.01, 0.5)))
    task = f"{rng.randint(1, 2)}.{rng.randint(1, 4)}"
    with suppress(Refused, Unavailable):
        match rng.choice(("skip", "skip", "retry", "pause", "status")):
            case "skip":
                await instances.skip_task(TENANT, instance_id, task, None)
            case "retry":
                await instances.retry_task(TENANT, instance_id, task)
            case "pause":
                await instances.pause(TENANT, instance_id)
            case _:
                await instances.status(TENANT, instance_id)


def _check(world: World, instance_id: str, version: int) -> None:
    """From the pause on, also in what the log told after the answer."""
    paused = False
    events = [x for b in world.journal.runs[instance_id].events for x in codec.decode_events(b.events, b.schema)]
    assert any(isinstance(event, e.RunPaused) for event in events[:version]), f"I13 {instance_id} was paused"
    for event in events:
        paused = paused or isinstance(event, e.RunPaused)
        assert not (paused and isinstance(event, e.TaskStarted)), f"I3 {instance_id}: {event} while it is paused"
