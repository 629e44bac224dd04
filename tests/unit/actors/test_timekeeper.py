"""Schedules over the life of a server: each fire once, whatever dies, and overlap and catch-up as the DAG says."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from actors.settings import Settings
from actors.timekeeper import Timekeeper
from orchestrator import codec
from orchestrator.definition import Definition, TaskSpec, content_hash
from orchestrator.errors import Fenced, JournalUnavailable
from orchestrator.fires import timetable_of
from orchestrator.steps import Fire, FireResult, PutDag
from tests.fakes_journal import MemoryJournal
from tests.virtual_time import START, VirtualLoop, WorldClock, virtually
from tests.world import World
from tests.world_clients import TENANT

MINUTE = timedelta(minutes=1)


class Lossy(MemoryJournal):
    """Every second answer to a fire gets lost."""

    def __init__(self) -> None:
        super().__init__()
        self.fires = 0

    async def fire(self, fire: Fire) -> FireResult:
        answer = await super().fire(fire)
        self.fires += 1
        if self.fires % 2:
            raise JournalUnavailable("the answer got lost")
        return answer


class Stage:
    """A journal that stays and timekeepers that come and go."""

    def __init__(self) -> None:
        self.journal = Lossy()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock = WorldClock(loop, Random(1))
        self.tasks: list[asyncio.Task[None]] = []
        self.replaced = 0

    async def define(self, schedule: str | None = "* * * * *", **changes: Any) -> None:
        """The DAG `d` as a gateway would store it."""
        definition = Definition(dag_id="d", owner="o", schedule=schedule, **changes)
        timetable = timetable_of(definition, TENANT)
        fire = timetable.next(self.clock.now()) if timetable else None
        row = await self.journal.dag(TENANT, "d")
        await self.journal.put_dag(
            PutDag(
                tenant=TENANT,
                dag_id="d",
                definition=codec.encode_definition(definition),
                content_hash=content_hash(definition),
                owner="o",
                now_ms=0,
                base_version=row.version if row else 0,
                next_fire_ms=_ms(fire) if fire else 0,
                next_due_ms=_ms(timetable.due(fire)) if timetable and fire else 0,
            )
        )

    async def start(self) -> asyncio.Task[None]:
        """A scheduler's timekeeper, of a new epoch."""
        epoch = await self.journal.take_epoch("scheduler")
        keeper = Timekeeper(self.journal, self.clock, epoch, Settings(dags_catchup_max=5), self._count)
        task = asyncio.get_running_loop().create_task(keeper.run())
        self.tasks.append(task)
        return task

    def _count(self) -> None:
        self.replaced += 1

    async def away(self, lasts: timedelta) -> None:
        """Nobody looks for a while."""
        for task in self.tasks:
            task.cancel()
        await asyncio.sleep(lasts.total_seconds())

    def windows(self) -> list[str]:
        """Of the scheduled runs, in the order in which they came to be."""
        runs = (run for run in self.journal.runs.values() if run.run_type == "scheduled")
        return [run.window_key.partition("/")[0][11:16] for run in runs]

    def end(self, window: str) -> None:
        """The run of that minute ends."""
        for run in self.journal.runs.values():
            if f"T{window}:" in run.window_key.partition("/")[0]:
                self.journal._move(run, "succeeded")

    async def dropped(self) -> dict[str, int]:
        row = await self.journal.dag(TENANT, "d")
        assert row is not None
        assert {f"schedule_fires_dropped_total|d|{reason}": n for reason, n in row.dropped.items()} == {
            name: n for name, n in self.journal.counters.items() if "dropped" in name
        }
        return row.dropped


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def play(story: Any) -> None:
    async def course() -> None:
        stage = Stage()
        try:
            await story(stage)
        finally:
            for task in stage.tasks:
                task.cancel()

    virtually(course())


def test_each_minute_has_its_run_over_restarts_and_lost_answers() -> None:
    async def story(stage: Stage) -> None:
        await stage.define()
        for _ in range(6):
            await stage.start()
            await asyncio.sleep(30)
            await stage.away(timedelta(seconds=13))
        await stage.start()
        await asyncio.sleep(2)
        assert stage.windows() == ["12:00", "12:01", "12:02", "12:03", "12:04"]
        assert await stage.dropped() == {}

    play(story)


def test_a_fire_is_not_decided_on_in_the_part_of_a_millisecond_before_it() -> None:
    async def story(stage: Stage) -> None:
        await stage.define()
        epoch = await stage.journal.take_epoch("scheduler")
        keeper = Timekeeper(stage.journal, stage.clock, epoch, Settings(), lambda: None)
        now, fire = stage.clock.now(), START.replace(minute=0, hour=12, second=0)
        for early, windows in ((timedelta(microseconds=120), []), (timedelta(), ["12:00"])):
            stage.clock.skew = fire - early - now
            with contextlib.suppress(JournalUnavailable):
                await keeper.deliver()
            row = await stage.journal.dag(TENANT, "d")
            assert row is not None
            assert (stage.windows(), row.fired_ms) == (windows, _ms(fire) if windows else None)

    play(story)


def test_a_zombie_fires_nothing_and_ends() -> None:
    async def story(stage: Stage) -> None:
        await stage.define()
        zombie = await stage.start()
        await stage.start()
        await asyncio.sleep(130)
        assert stage.windows() == ["12:00", "12:01", "12:02"]
        with pytest.raises(Fenced):
            await zombie

    play(story)


@pytest.mark.parametrize(
    ("catchup", "windows", "missed"),
    [
        ("none", ["12:09"], 9),
        ("last", ["12:09"], 9),
        ("all", ["12:05", "12:06", "12:07", "12:08", "12:09"], 5),
    ],
)
@pytest.mark.parametrize("paused", [False, True], ids=["down", "paused"])
def test_what_was_missed_is_decided_on_once(catchup: Any, windows: list[str], missed: int, paused: bool) -> None:
    async def story(stage: Stage) -> None:
        await stage.define(catchup=catchup)
        if paused:
            await stage.start()
            await stage.journal.set_paused(TENANT, "d", True, 0)
        await asyncio.sleep(8 + 9 * 60 + 30)
        assert stage.windows() == []
        if paused:
            await stage.journal.set_paused(TENANT, "d", False, 0)
        else:
            await stage.start()
        await asyncio.sleep(2)
        assert stage.windows() == windows
        assert await stage.dropped() == {"missed": missed}
        await asyncio.sleep(40)
        assert stage.windows() == [*windows, "12:10"]

    play(story)


def test_skip_drops_fires_while_a_run_is_live_and_their_windows_stay_free() -> None:
    async def story(stage: Stage) -> None:
        await stage.define(overlap="skip")
        await stage.start()
        await asyncio.sleep(140)
        assert stage.windows() == ["12:00"]
        stage.end("12:00")
        await asyncio.sleep(60)
        assert stage.windows() == ["12:00", "12:03"]
        assert await stage.dropped() == {"overlap": 2}
        assert not any("T12:01" in key.partition("/")[0] for _, _, key in stage.journal.by_window_key)

    play(story)


def test_buffer_one_keeps_one_that_waits_over_a_restart() -> None:
    async def story(stage: Stage) -> None:
        await stage.define(overlap="buffer_one")
        await stage.start()
        await asyncio.sleep(10)
        [first] = stage.journal.runs.values()
        first.state = "running"
        await asyncio.sleep(60)
        assert stage.windows() == ["12:00", "12:01"]
        await stage.away(timedelta(seconds=1))
        await stage.start()
        await asyncio.sleep(110)
        assert stage.windows() == ["12:00", "12:01"]
        assert await stage.dropped() == {"overlap": 1}

    play(story)


def test_cancel_previous_notes_what_it_replaces_with_the_run_that_does() -> None:
    async def story(stage: Stage) -> None:
        await stage.define(overlap="cancel_previous")
        await stage.start()
        await asyncio.sleep(70)
        assert stage.windows() == ["12:00", "12:01"]
        first, second = stage.journal.runs
        assert await stage.journal.replaced() == [first]
        assert stage.replaced == 1
        stage.end("12:00")
        assert await stage.journal.replaced() == []
        assert await stage.journal.live_fires(TENANT, "d") == {second: "queued"}

    play(story)


def test_a_schedule_ends_and_begins_when_it_says_so() -> None:
    async def story(stage: Stage) -> None:
        bounds = {"start_at": "2026-03-01T12:02:00Z", "end_at": "2026-03-01T12:03:30Z"}
        await stage.define(**bounds)
        await stage.start()
        await asyncio.sleep(600)
        assert stage.windows() == ["12:02", "12:03"]
        assert await stage.journal.next_due() is None
        await stage.define(**bounds | {"end_at": "2026-03-01T12:12:00Z"})
        await asyncio.sleep(300)
        assert stage.windows() == ["12:02", "12:03", "12:10", "12:11", "12:12"]

    play(story)


def test_jitter_delays_the_run_and_not_its_window() -> None:
    async def story(stage: Stage) -> None:
        await stage.define("*/10 * * * *", jitter_s=300)
        timetable = timetable_of(Definition(dag_id="d", owner="o", schedule="*/10 * * * *", jitter_s=300), TENANT)
        assert timetable is not None
        await stage.start()
        await asyncio.sleep(1900)
        runs = list(stage.journal.runs.values())
        fires = timetable.between(START, START + 30 * MINUTE)
        assert stage.windows() == [f"{fire:%H:%M}" for fire in fires]
        for run, fire in zip(runs, fires, strict=True):
            assert 0 <= run.created_ms - _ms(timetable.due(fire)) < 1100

    play(story)


# ── with the other shells


def _defined(**changes: Any) -> Definition:
    task = TaskSpec(id="t", type="core.sleep")
    return Definition(dag_id="d", owner="team", tasks=(task,), schedule="* * * * *", **changes)


def _states(world: World) -> list[str]:
    return [run.state for run in world.journal.runs.values() if run.run_type == "scheduled"]


@pytest.mark.parametrize("dies", ["", "scheduler", "run-actor-0", "run-actor-1"])
def test_a_replaced_run_is_cancelled_and_the_later_one_runs(dies: str) -> None:
    async def course(world: World) -> None:
        world.character.mischief.takes_s = (75.0,)
        await world.clients.define(_defined(overlap="cancel_previous"))
        await asyncio.sleep(65.0)
        if dies:
            world.kill(dies)
        await asyncio.sleep(30.0)
        states = _states(world)
        assert states[0] == "cancelled"
        assert states[1:] == ["running"]
        assert await world.journal.replaced() == []
        await world.clients.define(msgspec.structs.replace(_defined(overlap="cancel_previous"), schedule=None))
        await asyncio.sleep(90.0)
        assert _states(world) == ["cancelled", "succeeded"]

    World(0).play_with(course)


@pytest.mark.parametrize("dies", ["", "scheduler"])
def test_a_run_that_waits_for_the_previous_one_starts_when_that_has_ended(dies: str) -> None:
    async def course(world: World) -> None:
        world.character.mischief.takes_s = (100.0,)
        await world.clients.define(_defined(overlap="buffer_one"))
        await asyncio.sleep(68.0)
        assert _states(world) == ["running", "queued"]
        if dies:
            world.kill(dies)
        await asyncio.sleep(28.0)
        assert _states(world) == ["running", "queued"]
        await asyncio.sleep(20.0)
        assert _states(world)[:2] == ["succeeded", "running"]

    World(0).play_with(course)


def test_manual_runs_pass_a_scheduled_one_that_waits_and_do_not_count_as_previous() -> None:
    async def course(world: World) -> None:
        from orchestrator.starts import Trigger

        world.character.mischief.takes_s = (100.0,)
        await world.clients.define(_defined(overlap="skip"))
        gateway = world.clients.gateways[0]
        await gateway.trigger(TENANT, Trigger(dag_id="d"), None)
        await asyncio.sleep(10.0)
        assert _states(world) == ["running"]
        await world.clients.define(_defined(overlap="buffer_one"))
        await asyncio.sleep(60.0)
        assert _states(world) == ["running", "queued"]
        made = await gateway.trigger(TENANT, Trigger(dag_id="d"), None)
        await asyncio.sleep(1.0)
        assert world.journal.runs[made.run_id].state == "running"

    World(0).play_with(course)
