"""Schedules in worlds in which schedulers and RunActors die, answers get lost and the DAG is paused now and then.

Whatever happens: each fire is decided on once, runs of a schedule that must not overlap do not, at most one waits for
another, what was replaced is cancelled, and in the end nothing is owed.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Catchup, Definition, Overlap, TaskSpec
from orchestrator.fires import GRACE
from tests.history_rules import RUN_TERMINAL
from tests.virtual_time import START
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT

SEEDS = 96
POLICIES = [(catchup, overlap) for catchup in get_args(Catchup) for overlap in get_args(Overlap)]
MINUTES = 8


def _definition(catchup: Catchup, overlap: Overlap, limit: int) -> Definition:
    tasks = (TaskSpec(id="a", type="core.sleep"), TaskSpec(id="b", type="core.sleep", depends_on=("a",)))
    return Definition(
        dag_id="s",
        owner="team",
        tasks=tasks,
        schedule="* * * * *",
        catchup=catchup,
        overlap=overlap,
        max_active_runs=limit,
    )


def _events(world: World) -> dict[str, list[Any]]:
    """Of every scheduled run, oldest first."""
    return {
        run_id: [event for batch in run.events for event in codec.decode_events(batch.events, batch.schema)]
        for run_id, run in world.journal.runs.items()
        if run.run_type == "scheduled"
    }


async def _course(world: World, catchup: Catchup, overlap: Overlap) -> None:
    rng, clients, gateway = world.rng, world.clients, world.clients.gateways[0]
    world.character.mischief.takes_s = (0.1, 10.0, 40.0, 90.0)
    definition = _definition(catchup, overlap, rng.choice((1, 2, 16)))
    await clients.insist(partial(clients.define, definition))
    deadline_s = world.loop.time() + 60.0 * MINUTES
    while world.loop.time() < deadline_s:
        await asyncio.sleep(rng.uniform(5.0, 50.0))
        trouble = rng.choice(("none", "none", "scheduler", *RUN_ACTORS, "away", "pause"))
        if trouble in ("scheduler", *RUN_ACTORS):
            world.kill(trouble)
        elif trouble == "away":
            process = world.wire.processes.pop("scheduler", None)
            if process is not None:
                process.end()
                await asyncio.sleep(rng.choice((20.0, 70.0, 200.0)))
                world.start("scheduler")
        elif trouble == "pause":
            await clients.insist(partial(gateway.pause_dag, TENANT, "s", None, None))
            await asyncio.sleep(rng.choice((10.0, 70.0, 130.0)))
            await clients.insist(partial(gateway.resume_dag, TENANT, "s", None, None))
        _check_waiting(world, catchup, overlap)
    world.character.weather.clear_up()
    await asyncio.sleep(20.0)
    world.decided = world.journal.dag_rows[TENANT, "s"].next_fire_ms  # type: ignore[attr-defined] # a note of this test
    await clients.insist(partial(clients.define, msgspec.structs.replace(definition, schedule=None)))
    async with asyncio.timeout(4000.0):
        while world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(5.0)
    await asyncio.sleep(5.0)


def _check_waiting(world: World, catchup: Catchup, overlap: Overlap) -> None:
    waiting = [run for run in world.journal.runs.values() if run.state == "queued"]
    if overlap == "skip" and catchup != "all":
        live = [run for run in world.journal.runs.values() if run.state not in RUN_TERMINAL]
        assert len(live) <= 1
    if overlap == "buffer_one" and catchup != "all":
        assert len(waiting) <= 2, "one that is about to start, and one that waits for it"


def _spans(events: dict[str, list[Any]]) -> list[tuple[datetime, datetime]]:
    """From the first start to the end of each run that started."""
    out = []
    for told in events.values():
        starts = [event.at for event in told if isinstance(event, e.RunStarted)]
        ends = [event.at for event in told if isinstance(event, (e.RunSucceeded, e.RunFailed, e.RunCancelled))]
        if starts:
            out.append((starts[0], ends[-1]))
    return sorted(out)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_schedule_keeps_its_promises_whatever_dies(seed: int) -> None:
    catchup, overlap = POLICIES[seed % len(POLICIES)]
    world = World(seed)
    world.play_with(partial(_course, catchup=catchup, overlap=overlap))
    events = _events(world)
    fires = [datetime.fromisoformat(told[0].window.start) for told in events.values()]
    assert fires == sorted(set(fires)), "each once, in order"
    dag = world.journal.dag_rows[TENANT, "s"]
    first_ms = round(START.replace(minute=0, hour=12, second=0).timestamp() * 1000)
    decided = (world.decided - first_ms) // 60_000  # type: ignore[attr-defined] # as above
    assert len(fires) + sum(dag.dropped.values()) == decided, f"{len(fires)} runs, dropped {dag.dropped}"
    assert world.journal.live == set()
    assert world.journal.replaced_runs == set()
    spans = _spans(events)
    if overlap != "allow":
        assert all(one[1] <= other[0] for one, other in pairwise(spans)), "I7 runs overlap"
    if overlap == "allow":
        assert "overlap" not in dag.dropped
    if catchup == "all" and overlap != "cancel_previous":
        assert "missed" not in dag.dropped
    if catchup == "none":
        late = [told[0].at - fire for told, fire in zip(events.values(), fires, strict=True)]
        assert all(each < GRACE for each in late)
    if overlap != "cancel_previous":
        assert not any(world.journal.runs[run_id].state == "cancelled" for run_id in events)
