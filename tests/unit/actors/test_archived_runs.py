"""Runs in the archive are shown, followed and commanded as before, in small worlds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from orchestrator.errors import NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger
from tests.archive_world import (
    DAY,
    a_backfill,
    a_run,
    archiver,
    as_here,
    defined,
    ended,
    segments,
    store,
    streamed,
    swept,
    wanted,
)
from tests.world import World
from tests.world_clients import TENANT


def test_a_run_in_the_archive_is_shown_as_before() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        world.journal.logs[run_id, "a", 1] = [b"one ", b"two"]
        shown, events = await gateway.run(TENANT, run_id), await streamed(gateway, run_id, None)
        rest, printed = await streamed(gateway, run_id, 2), await gateway.logs(TENANT, run_id, "a", None)
        sweep = await swept(world)
        assert (sweep.state, sweep.runs, sweep.left) == ("done", 1, 0)
        assert sweep.size_bytes > 0
        assert world.journal.runs == {}
        assert as_here(await gateway.run(TENANT, run_id)) == shown
        assert await streamed(gateway, run_id, None) == events
        assert await streamed(gateway, run_id, 2) == rest
        assert await gateway.open_events(TENANT, run_id, events[-2][0]) is None
        assert await gateway.logs(TENANT, run_id, "a", None) == printed
        assert [chunk.text for chunk in printed] == ["one two"]
        assert await gateway.logs(TENANT, run_id, "a", 2) == []
        await gateway.wait(TENANT, run_id, 1.0)
        assert world.journal.runs == {}, "reading brings nothing back"

    World(0).play_with(course)


@pytest.mark.parametrize("of", ["run", "backfill"])
def test_a_run_that_leaves_while_it_is_read_is_read_whole(of: str) -> None:
    """Between the look at its row and the rest."""

    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await (a_run(world, gateway) if of == "run" else a_backfill(world, gateway))
        world.journal.logs[run_id, "a", 1] = [b"printed"]
        shown = await gateway.run(TENANT, run_id)
        if of == "run":
            printed = await gateway.logs(TENANT, run_id, "a", None)
            left_after(world, "summary")
            assert await gateway.logs(TENANT, run_id, "a", None) == printed
            assert [chunk.text for chunk in printed] == ["printed"]
            await back(world, run_id)
        left_after(world, "look")
        found = as_here(await gateway.run(TENANT, run_id))
        assert found == msgspec.structs.replace(shown, windows_per_s=None, eta=None)

    World(0).play_with(course)


@pytest.mark.parametrize("after", [None, 2])
def test_a_stream_of_a_run_that_leaves_before_it_is_read_ends_as_ever(after: int | None) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        events = await streamed(gateway, run_id, after)
        left_after(world, "summary")
        before = world.loop.time()
        assert await streamed(gateway, run_id, after) == events
        assert world.loop.time() - before < 5.0
        assert world.journal.runs == {}

    World(0).play_with(course)


def test_a_stream_that_is_open_when_its_run_ends_and_leaves_at_once_is_told_the_rest() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        other = await a_run(world, gateway)
        await swept(world)
        assert (await gateway.run(TENANT, other)).archived
        run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
        real = world.journal.events

        async def nothing_yet(wanted: str, after: int, limit: int) -> Any:
            return [] if wanted == run_id and after else await real(wanted, after, limit)

        world.journal.events = nothing_yet  # type: ignore[method-assign]  # the reader comes too early
        reader = asyncio.create_task(streamed(gateway, run_id, None))
        await ended(world, run_id)
        await swept(world)
        await asyncio.sleep(30.0)
        world.journal.events = real  # type: ignore[method-assign]  # a stand-in, in this one object
        told = [frame for frame in await reader if frame[1] != "keep_alive"]
        assert told == await streamed(gateway, run_id, None)

    World(0).play_with(course)


def test_a_command_on_a_run_that_leaves_just_then_is_sent_again() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        world.character.mischief.permanent = 1.0
        run_id = await a_run(world, gateway)
        world.character.mischief.permanent = 0.0
        left_after(world, "summary")
        with pytest.raises(Unavailable):
            await gateway.retry_run(TENANT, run_id, Idempotency("k", "f"))
        done = await gateway.retry_run(TENANT, run_id, Idempotency("k", "f"))
        assert done.state in ("queued", "running")
        assert not done.replayed
        await ended(world, run_id)
        assert (await gateway.run(TENANT, run_id)).state == "succeeded"
        assert (await gateway.retry_run(TENANT, run_id, Idempotency("k", "f"))).replayed

    World(0).play_with(course)


def test_a_run_that_is_back_is_in_no_list_of_the_archive_until_it_leaves_again() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        world.character.mischief.permanent = 1.0
        back, stays = await a_run(world, gateway), await a_run(world, gateway)
        await swept(world)
        world.character.mischief.permanent = 0.0

        async def listed(limit: int = 10) -> tuple[list[str], str | None]:
            page = await gateway.archive.runs(RunFilter(tenant=TENANT, dag_id="d"), None, limit)
            return [view.run_id for view in page.items], page.next_cursor

        assert await listed() == ([stays, back], None)
        await gateway.retry_run(TENANT, stays, None)
        assert await listed() == ([back], None)
        assert await listed(1) == ([], stays), "a page may have less than it could, and another one may follow"
        await ended(world, stays)
        await swept(world)
        assert await listed() == ([stays, back], None)

    World(0).play_with(course)


def left_after(world: World, step: str) -> None:
    """Everything leaves once the journal has been asked that."""
    real = getattr(world.journal, step)

    async def answer(*given: Any) -> Any:
        found = await real(*given)
        setattr(world.journal, step, real)
        await swept(world)
        return found

    setattr(world.journal, step, answer)


async def back(world: World, run_id: str) -> None:
    run = store(world).run(run_id)
    assert run is not None
    await world.journal.restore([(run.history, run.tasks)])


def test_it_is_nobody_elses() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        await swept(world)
        for tenant, asked in (("other", run_id), (TENANT, "run_unknown")):
            for call in (
                gateway.run(tenant, asked),
                gateway.open_events(tenant, asked, None),
                gateway.logs(tenant, asked, "a", None),
                gateway.retry_run(tenant, asked, None),
                gateway.map_instances(tenant, asked, "a", states=None, cursor=None, limit=5),
            ):
                with pytest.raises(NotFound):
                    await call
        with pytest.raises(NotFound):
            await gateway.logs(TENANT, run_id, "unknown", None)

    World(0).play_with(course)


def test_what_goes_on_stays_and_what_ended_later_too() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        early = await archiver(world).sweep(wanted(world, before_ms=1))
        assert (early.runs, early.left) == (0, 0)
        assert run_id in world.journal.runs
        await gateway.pause_dag(TENANT, "d", None, None)
        queued = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
        await swept(world)
        assert list(world.journal.runs) == [queued]

    World(0).play_with(course)


def test_a_run_that_is_retried_comes_back_and_leaves_again_with_all_it_had() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        world.character.mischief.permanent = 1.0
        run_id = await a_run(world, gateway)
        world.journal.logs[run_id, "a", 1] = [b"first"]
        events = await streamed(gateway, run_id, None)
        await swept(world)
        world.character.mischief.permanent = 0.0
        changed = await gateway.retry_run(TENANT, run_id, None)
        assert changed.state in ("queued", "running")
        await ended(world, run_id)
        assert (await gateway.run(TENANT, run_id)).state == "succeeded"
        world.journal.logs[run_id, "a", 2] = [b"second"]
        printed = await gateway.logs(TENANT, run_id, "a", None)
        assert [(chunk.attempt, chunk.text) for chunk in printed] == [(1, "first"), (2, "second")]
        all_of_it = await streamed(gateway, run_id, None)
        assert all_of_it[: len(events) - 1] == events[:-1]
        await swept(world)
        assert await streamed(gateway, run_id, None) == all_of_it
        assert await gateway.logs(TENANT, run_id, "a", None) == printed

    World(0).play_with(course)


def test_what_came_back_unchanged_leaves_without_being_written_again() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway, start=DAY, end=DAY)
        await swept(world)
        files = segments(world)
        await gateway.trigger(TENANT, Trigger(dag_id="d", start=DAY, end=DAY), None)
        assert run_id in world.journal.runs
        sweep = await swept(world)
        assert (sweep.runs, sweep.size_bytes) == (1, 0)
        assert segments(world) == files
        assert world.journal.runs == {}

    World(0).play_with(course)
