"""What starts runs in the scheduler's process, in a world where a step is small."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.definition import Definition, TaskSpec
from orchestrator.starts import Trigger
from tests.world import World
from tests.world_clients import TENANT

DAYS = [f"2025-01-0{n}" for n in range(1, 8)]


async def _course(world: World) -> None:
    gateway = world.clients.gateways[0]
    work = (TaskSpec(id="a", type="core.sleep"),)
    await world.clients.define(Definition("u", "team", tasks=work))
    await world.clients.define(Definition("d", "team", tasks=work, after=("u",)))
    await gateway.pause_dag(TENANT, "d", None, None)
    for day in DAYS:
        await gateway.trigger(TENANT, Trigger(dag_id="u", start=day, end=day), None)
    await asyncio.sleep(10.0)
    world.kill("scheduler")
    await asyncio.sleep(20.0)
    [awaited] = (await gateway.dag(TENANT, "d")).awaits
    assert len(awaited.pending) == len(DAYS)
    assert not any(run.dag_id == "d" for run in world.journal.runs.values())
    await gateway.resume_dag(TENANT, "d", None, None)
    await asyncio.sleep(10.0)
    windows = sorted(run.window_key for run in world.journal.runs.values() if run.dag_id == "d")
    assert windows == [f"{day}/{day}" for day in DAYS]


def test_what_came_in_a_pause_starts_step_by_step_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.gatherer.RUNS_MAX", 2)
    World(0).play_with(_course)
