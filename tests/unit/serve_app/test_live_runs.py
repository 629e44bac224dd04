"""Runs of the runs surface, over the real shells in small worlds (contracts/runs.md, sections 2 to 4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import AlreadyEnded, Conflict, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.live_run_views import LiveRunWanted
from orchestrator.messages import NO_JSON
from orchestrator.rows import RunFilter
from orchestrator.views import Frame
from serve_app import channel
from serve_app.live_runs import LiveRuns
from tests.world import DRIVEN_TTL_S, World
from tests.world_clients import TENANT

RAW = msgspec.Raw(b'{"k": [1]}')


def live(world: World) -> LiveRuns:
    return world.clients.gateways[0].live_runs


def a_task(name: str, *needs: str, **changes: Any) -> TaskSpec:
    return TaskSpec(id=name, type="core.sleep", depends_on=needs, **changes)


async def created(world: World, **wanted: Any) -> str:
    return (await live(world).create(TENANT, LiveRunWanted(**wanted), None)).run_id


async def reaches(world: World, run_id: str, *states: str, within_s: float = 20.0) -> str:
    async with asyncio.timeout(within_s):
        while (state := (await live(world).run(TENANT, run_id)).state) not in states:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
    return state


async def kinds(world: World, run_id: str) -> list[str]:
    return [each.kind for each in await live(world).checkpoints(TENANT, run_id, None, None)]


async def take(chunks: AsyncIterator[Sequence[Frame]], number: int) -> list[Frame]:
    """The next frames that are not fillers."""
    found: list[Frame] = []
    async with asyncio.timeout(20.0):
        while len(found) < number:
            found += [frame for frame in await anext(chunks) if frame.kind != "keep_alive"]
    return found


def told(frames: Sequence[Frame]) -> list[str]:
    return [each.data["type"] if each.kind == "checkpoint" else each.data["status"] for each in frames if each.data]


def test_a_run_without_tasks_runs_at_once_and_is_ended_by_its_caller() -> None:
    async def course(world: World) -> None:
        began_s = world.loop.time()
        run_id = await created(world, owner="u1", metadata=RAW)
        await reaches(world, run_id, "running")
        assert world.loop.time() - began_s < 0.08
        view = await live(world).run(TENANT, run_id)
        assert (view.mode, view.owner, bytes(view.metadata)) == ("redis", "u1", bytes(RAW))
        posted = await live(world).post_checkpoint(TENANT, run_id, "step", RAW)
        await live(world).post_checkpoint(TENANT, run_id, "run.completed", msgspec.Raw(b""))
        assert await reaches(world, run_id, "succeeded")
        found = await live(world).checkpoints(TENANT, run_id, None, None)
        assert [each.kind for each in found] == ["started", "step", "run.completed", "completed"]
        assert (found[1].id, bytes(found[1].data), found[0].data) == (posted.id, bytes(RAW), NO_JSON)
        assert await live(world).checkpoints(TENANT, run_id, found[1].at, None) == found[2:]
        assert await live(world).checkpoints(TENANT, run_id, None, 2) == found[:2]

    World(0).play_with(course)


def test_a_plan_runs_its_tasks_and_equal_plans_are_one_definition() -> None:
    async def course(world: World) -> None:
        tasks = (a_task("a"), a_task("b", "a"))
        runs = [await created(world, tasks=tasks) for _ in range(3)]
        for run_id in runs:
            await reaches(world, run_id, "succeeded")
        assert await kinds(world, runs[0]) == [
            "started",
            "task.started",
            "task.completed",
            "task.started",
            "task.completed",
            "completed",
        ]
        [first, *_] = await live(world).checkpoints(TENANT, runs[0], None, 1)
        assert msgspec.json.decode(first.data) == {"definition": None, "version": None, "tasks": ["a", "b"]}
        made = {world.journal.runs[run_id].dag_id for run_id in runs}
        assert len(made) == 1
        assert await world.clients.gateways[0].dags(TENANT, paused=None, owner=None, cursor=None, limit=9) == (
            await world.clients.gateways[1].dags(TENANT, paused=None, owner=None, cursor=None, limit=9)
        )
        assert (await world.clients.gateways[0].dags(TENANT, paused=None, owner=None, cursor=None, limit=9)).items == ()

    World(0).play_with(course)


def test_a_run_of_a_dag_is_seen_on_both_surfaces_and_others_on_one() -> None:
    async def course(world: World) -> None:
        gateway = world.clients.gateways[0]
        await world.clients.define(Definition(dag_id="d", owner="team", tasks=(a_task("a"),)))
        shared, alone = await created(world, dag_id="d"), await created(world)
        other = await gateway.trigger(TENANT, _trigger(), None)
        await reaches(world, shared, "succeeded")
        assert (await gateway.run(TENANT, shared)).run_type == "manual"
        page = await gateway.runs(RunFilter(tenant=TENANT), None, 9)
        assert [view.run_id for view in page.items] == [other.run_id, shared]
        with pytest.raises(NotFound):
            await gateway.run(TENANT, alone)
        with pytest.raises(NotFound):
            await live(world).run(TENANT, other.run_id)
        [first, *_] = await live(world).checkpoints(TENANT, shared, None, 1)
        assert msgspec.json.decode(first.data) == {"definition": "d", "version": 1, "tasks": ["a"]}

    World(0).play_with(course)


def _trigger() -> Any:
    from orchestrator.starts import Trigger

    return Trigger(dag_id="d")


def test_what_is_unknown_or_somebody_elses_does_not_exist() -> None:
    async def course(world: World) -> None:
        run_id = await created(world)
        for tenant, name in ((TENANT, "nope"), (TENANT, "0" * 22), ("another", run_id)):
            for ask in (
                live(world).run(tenant, name),
                live(world).checkpoints(tenant, name, None, None),
                live(world).post_checkpoint(tenant, name, "step", NO_JSON),
                live(world).cancel(tenant, name),
                live(world).open_events(tenant, name, None, 10),
            ):
                with pytest.raises(NotFound):
                    await ask
        for dag_id in ("nope", "@run"):
            with pytest.raises(NotFound):
                await created(world, dag_id=dag_id)

    World(0).play_with(course)


def test_a_cancelled_run_tears_down_behind_what_its_follower_sees() -> None:
    async def course(world: World) -> None:
        tasks = (a_task("up"), *(a_task(f"w{n}", "up") for n in range(9)), a_task("down", "w8", teardown_of=("up",)))
        run_id = await created(world, tasks=tasks)
        await reaches(world, run_id, "running")
        while "task.completed" not in await kinds(world, run_id):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)
        await live(world).cancel(TENANT, run_id)
        with pytest.raises(AlreadyEnded) as ended:
            await live(world).cancel(TENANT, run_id)
        assert ended.value.state == "cancelling"
        await reaches(world, run_id, "cancelled")
        told = await kinds(world, run_id)
        assert told[-3:] == ["task.started", "task.completed", "canceled"]
        assert told.count("task.completed") < len(tasks)

    World(0).play_with(course)


def test_a_run_is_cancelled_once_and_takes_checkpoints_afterwards() -> None:
    async def course(world: World) -> None:
        run_id = await created(world, tasks=(a_task("a"), a_task("b", "a")))
        await reaches(world, run_id, "running")
        await live(world).cancel(TENANT, run_id)
        with pytest.raises(AlreadyEnded) as ended:
            await live(world).cancel(TENANT, run_id)
        assert ended.value.state == "cancelled"
        await asyncio.sleep(1.0)
        await live(world).post_checkpoint(TENANT, run_id, "note", NO_JSON)
        assert (await kinds(world, run_id))[-4:] == ["task.canceled", "task.canceled", "canceled", "note"]
        assert (await live(world).run(TENANT, run_id)).state == "cancelled"
        done = await created(world, tasks=())
        with pytest.raises(AlreadyEnded, match="succeeded"):
            await _after(reaches(world, done, "succeeded"), lambda: live(world).cancel(TENANT, done))

    World(0).play_with(course)


async def _after(first: Any, then: Any) -> None:
    await first
    await then()


def test_equal_keys_give_one_run_and_another_request_under_a_key_is_refused() -> None:
    async def course(world: World) -> None:
        wanted = LiveRunWanted(tasks=(a_task("a"),))
        key = Idempotency("k", "f1")
        first = await live(world).create(TENANT, wanted, key)
        again = await live(world).create(TENANT, wanted, key)
        assert (again.run_id, first.replayed, again.replayed) == (first.run_id, False, True)
        with pytest.raises(Conflict):
            await live(world).create(TENANT, wanted, Idempotency("k", "f2"))

    World(0).play_with(course)


def test_a_driven_run_that_nobody_drives_fails_also_when_everything_was_away() -> None:
    async def course(world: World) -> None:
        run_id = await created(world)
        await reaches(world, run_id, "running")
        await asyncio.sleep(DRIVEN_TTL_S - 5)
        owner = world.journal.runs[run_id].owner
        for name in ("scheduler", *filter(None, [owner])):
            world.kill(name)
        await reaches(world, run_id, "failed", within_s=60.0)
        [*_, last] = await live(world).checkpoints(TENANT, run_id, None, None)
        assert msgspec.json.decode(last.data)["reason"] == "idle"

    World(0).play_with(course)


def test_a_stream_replays_the_last_checkpoints_and_goes_on_live() -> None:
    async def course(world: World) -> None:
        run_id = await created(world)
        await reaches(world, run_id, "running")
        for n in range(5):
            await live(world).post_checkpoint(TENANT, run_id, f"s{n}", NO_JSON)
        frames = await live(world).open_events(TENANT, run_id, None, 2)
        assert told(await take(frames, 2)) == ["s3", "s4"]
        await live(world).post_checkpoint(TENANT, run_id, "s5", NO_JSON)
        await live(world).cancel(TENANT, run_id)
        assert told(await take(frames, 3)) == ["s5", "cancelled", "canceled"]
        await live(world).post_checkpoint(TENANT, run_id, "s6", NO_JSON)
        assert told(await take(frames, 1)) == ["s6"]
        late = await live(world).open_events(TENANT, run_id, None, 1)
        assert told(await take(late, 1)) == ["s6"]

    World(0).play_with(course)


def test_what_happens_once_a_stream_was_asked_for_is_live_however_late_it_is_read() -> None:
    async def course(world: World) -> None:
        run_id = await created(world)
        await reaches(world, run_id, "running")
        frames = await live(world).open_events(TENANT, run_id, None, 0)
        await live(world).post_checkpoint(TENANT, run_id, "s0", NO_JSON)
        await live(world).cancel(TENANT, run_id)
        await asyncio.sleep(1.0)
        assert told(await take(frames, 3)) == ["s0", "cancelled", "canceled"]
        again = await live(world).open_events(TENANT, run_id, None, 1)
        await live(world).post_checkpoint(TENANT, run_id, "s1", NO_JSON)
        assert told(await take(again, 2)) == ["canceled", "s1"]

    World(0).play_with(course)


def test_a_stream_resumes_behind_any_checkpoint_without_gap_or_repeat() -> None:
    async def course(world: World) -> None:
        run_id = await created(world)
        await reaches(world, run_id, "running")
        for n in range(30):
            await live(world).post_checkpoint(TENANT, run_id, f"s{n}", NO_JSON)
        every = await live(world).checkpoints(TENANT, run_id, None, None)
        assert len({each.at for each in every}) == len(every)
        for cut in range(0, len(every) - 1, 7):
            frames = await live(world).open_events(TENANT, run_id, every[cut].at, 1)
            rest = await take(frames, len(every) - cut - 1)
            assert [frame.data["id"] for frame in rest if frame.data] == [each.id for each in every[cut + 1 :]]
        far = await live(world).open_events(TENANT, run_id, datetime(2100, 1, 1, tzinfo=UTC), 10)
        first = asyncio.ensure_future(take(far, 1))
        await asyncio.sleep(0.1)
        await live(world).post_checkpoint(TENANT, run_id, "now", NO_JSON)
        assert told(await first) == ["now"]

    World(0).play_with(course)


def test_whoever_wants_more_than_is_kept_for_others_reads_it_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "KEPT", 4)

    async def course(world: World) -> None:
        run_id = await created(world)
        await reaches(world, run_id, "running")
        follower = await live(world).open_events(TENANT, run_id, None, 1)
        assert told(await take(follower, 1)) == ["started"]
        for n in range(20):
            await live(world).post_checkpoint(TENANT, run_id, f"s{n}", NO_JSON)
            assert told(await take(follower, 1)) == [f"s{n}"]
        [shared] = live(world)._hub._channels.values()
        assert shared.base > 10
        every = await live(world).checkpoints(TENANT, run_id, None, None)
        early = await live(world).open_events(TENANT, run_id, every[2].at, 10)
        assert told(await take(early, 18)) == [f"s{n}" for n in range(2, 20)]
        last = await live(world).open_events(TENANT, run_id, None, 15)
        assert told(await take(last, 15)) == [f"s{n}" for n in range(5, 20)]
        late = await live(world).open_events(TENANT, run_id, every[-2].at, 10)
        assert told(await take(late, 1)) == ["s19"]
        slow = await live(world).open_events(TENANT, run_id, None, 1)
        for n in range(20, 40):
            await live(world).post_checkpoint(TENANT, run_id, f"s{n}", NO_JSON)
            assert told(await take(follower, 1)) == [f"s{n}"]
        assert told(await take(slow, 21)) == [f"s{n}" for n in range(19, 40)]

    World(0).play_with(course)


def test_a_run_that_ended_long_ago_is_not_shown_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        monkeypatch.setattr(live(world), "_retention", timedelta(seconds=30))
        run_id, running = await created(world), await created(world)
        await live(world).cancel(TENANT, run_id)
        await asyncio.sleep(29)
        assert (await live(world).run(TENANT, run_id)).state == "cancelled"
        await asyncio.sleep(2)
        for asked in (live(world).run(TENANT, run_id), live(world).cancel(TENANT, run_id)):
            with pytest.raises(NotFound):
                await asked
        assert (await live(world).run(TENANT, running)).state == "running"

    World(0).play_with(course)
