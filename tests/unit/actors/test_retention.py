"""Histories that are older than anybody needs, in small worlds: half a year passes for the sweeper alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

import actors.retention as retention_module
from actors.clock import Clock
from actors.retention import BREATH_S, SWEEP_S, Retention
from actors.settings import Settings
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict, HistoryGone, JournalUnavailable
from orchestrator.instance_views import InstanceWanted
from orchestrator.live_run_views import LiveRunWanted
from orchestrator.starts import Trigger
from orchestrator.views import Frame
from serve_app.gateway import Gateway
from tests.world import World
from tests.world_clients import TENANT

DAY = "2026-02-01"


class LaterClock(Clock):
    """A clock that is ahead by so many days."""

    def __init__(self, clock: Clock, days: float) -> None:
        super().__init__()
        self._clock = clock
        self.days = days

    def now(self) -> datetime:
        return self._clock.now() + timedelta(days=self.days)


def sweeper(world: World, days: float = 181.0, **settings: Any) -> Retention:
    return Retention(world.journal, LaterClock(world.clock, days), Settings(**settings))


async def defined(world: World) -> Gateway:
    """A gateway of a world in which DAG `d` is a → b."""
    tasks = (TaskSpec(id="a", type="core.sleep"), TaskSpec(id="b", type="core.sleep", depends_on=("a",)))
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=tasks))
    return world.clients.gateways[0]


async def ended(world: World, run_id: str) -> str:
    async with asyncio.timeout(20.0):
        while run_id in world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.05)
    return run_id


async def a_run(world: World, gateway: Gateway, **wanted: Any) -> str:
    """One that has ended."""
    return await ended(world, (await gateway.trigger(TENANT, Trigger(dag_id="d", **wanted), None)).run_id)


async def streamed(gateway: Gateway, run_id: str, after: int | None) -> list[Frame]:
    """Everything until the end of the stream."""
    found: list[Frame] = []
    opened: AsyncIterator[Sequence[Frame]] | None = await gateway.open_events(TENANT, run_id, after)
    if opened is not None:
        async for frames in opened:
            found += frames
    return found


def test_a_run_is_shown_as_before_without_its_history() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway, start=DAY, end=DAY)
        shown = await gateway.run(TENANT, run_id)
        assert await sweeper(world).look() == SWEEP_S
        assert len(world.journal.runs[run_id].events) == 2
        assert await gateway.run(TENANT, run_id) == shown
        assert await a_run(world, gateway, start=DAY, end=DAY) == run_id

    World(0).play_with(course)


def test_a_stream_of_what_is_no_longer_kept_is_refused() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        last = world.journal.runs[run_id].version
        await sweeper(world).look()
        for after in (None, 0, 1, last - 1):
            with pytest.raises(HistoryGone) as gone:
                await gateway.open_events(TENANT, run_id, after)
            assert (gone.value.run_id, gone.value.through) == (run_id, last)
        for after in (last, last + 1, last + 9):
            assert await gateway.open_events(TENANT, run_id, after) is None

    World(0).play_with(course)


def test_a_window_is_reprocessed_without_its_history() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway, start=DAY, end=DAY)
        last = world.journal.runs[run_id].version
        await sweeper(world).look()
        assert await a_run(world, gateway, start=DAY, end=DAY, reprocess="completed") == run_id
        shown = await gateway.run(TENANT, run_id)
        assert (shown.state, shown.attempts, set(shown.tasks.values())) == ("succeeded", 2, {"succeeded"})
        for after in (None, 0, last, last + 1):
            frames = await streamed(gateway, run_id, after)
            assert [frame.seq for frame in frames[:-1]] == list(range(last + 2, shown_version(world, run_id) + 1))
        started = [f.data for f in await streamed(gateway, run_id, None) if f.data and f.data.get("to") == "running"]
        assert [each["attempt"] for each in started if "task" in each] == [2, 2]
        with pytest.raises(HistoryGone):
            await gateway.open_events(TENANT, run_id, last - 1)

    World(0).play_with(course)


def shown_version(world: World, run_id: str) -> int:
    return world.journal.runs[run_id].version


def test_tasks_of_it_are_neither_retried_nor_skipped() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        world.character.mischief.permanent = 1.0
        run_id = await a_run(world, gateway)
        assert (await gateway.run(TENANT, run_id)).state == "failed"
        await sweeper(world).look()
        for command in (gateway.retry_run(TENANT, run_id, None), gateway.skip_task(TENANT, run_id, "a", None)):
            with pytest.raises(Conflict, match="no longer kept"):
                await command
        assert (await gateway.run(TENANT, run_id)).state == "failed"

    World(0).play_with(course)


def test_what_ended_later_or_goes_on_keeps_its_history() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        await gateway.pause_dag(TENANT, "d", None, None)
        waits = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
        for sweep in (sweeper(world, 179.9), sweeper(world, 1000.0, history_retention_days=2000.0)):
            assert await sweep.look() == SWEEP_S
        await sweeper(world).look()
        assert world.journal.runs[run_id].removed > 0
        assert world.journal.runs[waits].removed == 0

    World(0).play_with(course)


def test_a_run_of_one_surface_alone_is_erased_once_that_shows_it_no_more() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        task = TaskSpec(id="x", type="core.sleep")
        made = [
            (await gateway.live_runs.create(TENANT, LiveRunWanted(**wanted), None)).run_id
            for wanted in ({"tasks": (task,)}, {}, {"dag_id": "d"})
        ]
        await gateway.live_runs.cancel(TENANT, made[1])
        for run_id in made:
            await ended(world, run_id)
        await sweeper(world, run_retention_s=0.0).look()
        assert [world.journal.runs[run_id].removed > 0 for run_id in made] == [True] * 3
        assert (await gateway.live_runs.run(TENANT, made[0])).state == "succeeded"

        again = [(await gateway.live_runs.create(TENANT, LiveRunWanted(tasks=(task,)), None)).run_id for _ in range(2)]
        for run_id in again:
            await ended(world, run_id)
        await sweeper(world).look()
        assert [run_id in world.journal.runs for run_id in again] == [False, False]

    World(0).play_with(course)


def test_an_instance_that_ended_long_ago_is_erased_once_it_is_not_shown_and_its_plan_goes_on() -> None:
    async def course(world: World) -> None:
        instances = world.clients.gateways[0].instances
        world.clients.write_plan("demo", "# Demo\n## Phase 1: All\n- [ ] 1.1 Do it")
        instance_id = (await instances.start(TENANT, InstanceWanted(plan="demo"))).instance_id
        await ended(world, instance_id)
        await sweeper(world, 400.0, instance_retention_s=401 * 86_400.0).look()
        assert instance_id in world.journal.runs, "it is still shown"
        await sweeper(world).look()
        assert instance_id not in world.journal.runs
        again = (await instances.start(TENANT, InstanceWanted(plan="demo"))).instance_id
        await ended(world, again)

    World(0).play_with(course)


def test_checkpoints_that_are_no_longer_kept_are_refused_to_who_comes_back_for_them() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        live = gateway.live_runs
        run_id = await ended(world, (await live.create(TENANT, LiveRunWanted(dag_id="d"), None)).run_id)
        points = await live.checkpoints(TENANT, run_id, None, None)
        await sweeper(world).look()
        for after in points[:-1]:
            with pytest.raises(HistoryGone):
                await live.open_events(TENANT, run_id, after.at, 10)
        await live.open_events(TENANT, run_id, points[-1].at, 10)
        await live.open_events(TENANT, run_id, None, 10)
        assert await live.checkpoints(TENANT, run_id, None, None) == []
        assert (await live.run(TENANT, run_id)).state == "succeeded"

    World(0).play_with(course)


def test_a_backlog_is_worked_off_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "BATCH", 2)

    async def course(world: World) -> None:
        gateway = await defined(world)
        runs = [await a_run(world, gateway) for _ in range(5)]
        sweep = sweeper(world)
        pauses = [await sweep.look() for _ in range(3)]
        assert pauses == [BREATH_S, BREATH_S, SWEEP_S]
        assert all(world.journal.runs[run_id].removed for run_id in runs)

    World(0).play_with(course)


def test_one_history_that_cannot_be_read_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "BATCH", 1)

    async def course(world: World) -> None:
        gateway = await defined(world)
        bad, good = await a_run(world, gateway), await a_run(world, gateway)
        world.journal.runs[bad].events.pop(2)
        world.journal.runs[bad].dag_version = 99
        world.journal.runs[bad].events[0:1] = []
        sweep = sweeper(world)
        for _ in range(3):
            await sweep.look()
        assert (world.journal.runs[bad].removed, world.journal.runs[good].removed > 0) == (0, True)

    World(0).play_with(course)


def test_a_sweep_outlasts_an_absence_of_the_journal() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        world.journal.failing = [False]
        sweep = sweeper(world)
        with pytest.raises(JournalUnavailable):
            await sweep.look()
        sweep.start()
        await asyncio.sleep(1.0)
        assert world.journal.runs[run_id].removed > 0

    World(0).play_with(course)


def test_nothing_is_removed_when_histories_are_kept_for_ever() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        sweeper(world, 10_000.0, history_retention_days=0.0).start()
        await asyncio.sleep(SWEEP_S * 2)
        assert world.journal.runs[run_id].removed == 0

    World(0).play_with(course)
