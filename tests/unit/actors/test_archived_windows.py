"""Windows whose runs are in the archive: no run of them starts twice, in small worlds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors.gatherer import Gatherer
from orchestrator.errors import Conflict, Unavailable
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger
from serve_app.gateway import Gateway
from tests.archive_world import (
    DAY,
    a_backfill,
    a_run,
    archiver,
    as_here,
    defined,
    ended,
    follower,
    runs_of,
    store,
    streamed,
    swept,
    wanted,
)
from tests.world import World
from tests.world_clients import TENANT

WINDOW = {"start": DAY, "end": DAY}


async def followed(world: World) -> tuple[Gateway, str]:
    """A gateway, and the run of the window that began because another DAG succeeded."""
    gateway = await follower(world)
    await a_run(world, gateway, **WINDOW)
    await asyncio.sleep(10.0)
    [(run_id, _, _)] = runs_of(world, "f")
    return gateway, run_id


def test_a_window_is_not_run_again_because_its_run_left() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway, **WINDOW)
        event = await a_run(world, gateway, event_id="order-1")
        await swept(world)
        assert world.journal.runs == {}
        plan = await gateway.plan(TENANT, Trigger(dag_id="d", **WINDOW))
        assert [window.action for window in plan.windows] == ["skip"]
        assert world.journal.runs == {}, "a plan brings nothing back"
        again = await gateway.trigger(TENANT, Trigger(dag_id="d", **WINDOW), None)
        assert (again.run_id, again.state, again.existing) == (run_id, "succeeded", True)
        assert (await gateway.trigger(TENANT, Trigger(dag_id="d", event_id="order-1"), None)).run_id == event
        assert await a_run(world, gateway, reprocess="completed", **WINDOW) == run_id
        shown = await gateway.run(TENANT, run_id)
        assert (shown.state, shown.attempts, shown.archived) == ("succeeded", 2, False)

    World(0).play_with(course)


def test_a_backfill_that_left_is_answered_as_it_was() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_backfill(world, gateway)
        shown, events = await gateway.run(TENANT, run_id), await streamed(gateway, run_id, None)
        sweep = await swept(world)
        assert (sweep.backfills, sweep.runs, sweep.left) == (1, 3, 0)
        assert world.journal.runs == world.journal.released == {}
        assert as_here(await gateway.run(TENANT, run_id)) == msgspec.structs.replace(
            shown, windows_per_s=None, eta=None
        )
        assert await streamed(gateway, run_id, None) == events
        span = {"dag_id": "d", "run_type": "backfill", "start": DAY, "end": "2025-02-03"}
        again = await gateway.trigger(TENANT, Trigger(**span), None)
        assert (again.run_id, again.state, again.counts) == (run_id, "succeeded", shown.counts)
        with pytest.raises(Conflict, match="plan"):
            await gateway.trigger(TENANT, Trigger(**span, plan_hash="other"), None)
        assert world.journal.runs == {}
        with pytest.raises(Conflict, match="in the archive"):
            await gateway.retry_run(TENANT, run_id, None)

    World(0).play_with(course)


def test_a_wider_backfill_runs_only_windows_that_never_ran() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await a_backfill(world, gateway)
        await swept(world)
        wide = await a_backfill(world, gateway, end="2025-02-05")
        shown = await gateway.run(TENANT, wide)
        assert shown.counts is not None
        assert (shown.counts.total, shown.counts.skipped, shown.counts.succeeded) == (5, 3, 2)
        assert {run.attempts for run in world.journal.runs.values() if run.run_type == "manual"} == {1}
        sweep = await swept(world)
        assert (sweep.backfills, sweep.runs, sweep.left) == (1, 5, 0)
        assert len(store(world).page(RunFilter(tenant=TENANT), None, 100).rows) == 7

    World(0).play_with(course)


def test_a_backfill_is_reprocessed_over_the_runs_that_left() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        former = await a_backfill(world, gateway)
        windows = [each.run_id for each in (await gateway.run(TENANT, former)).windows or ()]
        await swept(world)
        again = await a_backfill(world, gateway, reprocess="completed")
        assert again != former
        assert [each.run_id for each in (await gateway.run(TENANT, again)).windows or ()] == windows
        assert {world.journal.runs[run_id].attempts for run_id in windows} == {2}
        assert (await gateway.run(TENANT, former)).archived

    World(0).play_with(course)


def test_a_window_that_starts_because_of_another_dag_goes_on_with_the_run_that_left() -> None:
    async def course(world: World) -> None:
        gateway, run_id = await followed(world)
        sweep = await swept(world)
        assert (sweep.runs, world.journal.runs) == (2, {})
        await a_run(world, gateway, reprocess="completed", **WINDOW)
        await asyncio.sleep(10.0)
        assert runs_of(world, "f") == [(run_id, "succeeded", 2)]
        await swept(world)
        assert store(world).by_window(TENANT, "f", [f"{DAY}/{DAY}"]) == [run_id]

    World(0).play_with(course)


def test_a_window_that_leaves_while_others_start_it_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look into the archive and the step that starts the window, its run leaves."""

    async def course(world: World) -> None:
        gateway, run_id = await followed(world)
        before, gathering, met = Gatherer._bring_back, asyncio.Event(), 0

        async def then_it_leaves(self: Gatherer, row: Any, starts: Any) -> None:
            nonlocal met
            await before(self, row, starts)
            if starts and not met:
                met += 1
                await swept(world)
                assert runs_of(world, "f") == []
                gathering.set()

        monkeypatch.setattr(Gatherer, "_bring_back", then_it_leaves)
        await a_run(world, gateway, reprocess="completed", **WINDOW)
        await asyncio.wait_for(gathering.wait(), 60.0)
        await asyncio.sleep(10.0)
        assert runs_of(world, "f") == [(run_id, "succeeded", 2)]

    World(0).play_with(course)


def test_an_archive_that_cannot_be_read_starts_no_second_run_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        gateway, run_id = await followed(world)
        await archiver(world).sweep(wanted(world))
        again = await gateway.trigger(TENANT, Trigger(dag_id="d", reprocess="completed", **WINDOW), None)

        def unreadable(*_: Any) -> Any:
            raise Unavailable("the disk is away")

        with monkeypatch.context() as patched:
            patched.setattr("actors.archive_store.ArchiveStore.by_window", unreadable)
            await ended(world, again.run_id)
            await asyncio.sleep(10.0)
            assert runs_of(world, "f") == []
        await asyncio.sleep(10.0)
        assert runs_of(world, "f") == [(run_id, "succeeded", 2)]

    World(0).play_with(course)


def test_an_event_that_is_told_again_is_answered_with_the_runs_that_left() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, on_event="order")
        first = await gateway.starters.tell(TENANT, "order", "o1", {}, None)
        await ended(world, first.runs[0].run_id)
        await swept(world)
        again = await gateway.starters.tell(TENANT, "order", "o1", {}, None)
        assert again.duplicate
        assert [(run.run_id, run.dag_id, run.state) for run in again.runs] == [(first.runs[0].run_id, "d", "succeeded")]
        assert world.journal.runs == {}

    World(0).play_with(course)


def test_whoever_plans_while_windows_leave_plans_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look into the archive and its step, the run of the window leaves."""

    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway, start=DAY, end=DAY)
        other = await a_run(world, gateway, start="2025-03-01", end="2025-03-01")
        await archiver(world).sweep(wanted(world))
        await gateway.trigger(TENANT, Trigger(dag_id="d", start=DAY, end=DAY), None)
        assert list(world.journal.runs) == [run_id]
        brought = gateway.archive.bring_windows

        async def then_they_leave(*where: Any) -> None:
            monkeypatch.undo()
            await brought(*where)
            await swept(world)

        for given in ({"run_type": "backfill", "start": DAY, "end": DAY}, {"start": DAY, "end": DAY}):
            monkeypatch.setattr(gateway.archive, "bring_windows", then_they_leave)
            await gateway.trigger(TENANT, Trigger(dag_id="d", **given), None)
            assert {run.run_id for run in world.journal.runs.values() if run.run_type == "manual"} == {run_id}
            assert {run.attempts for run in world.journal.runs.values() if run.run_type == "manual"} == {1}
        assert other not in world.journal.runs

    World(0).play_with(course)
