"""Runs that leave for the archive, in small worlds: months pass for the archiver alone."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import archiver as archiver_module
from actors.archive_store import ArchiveStore
from actors.archiver import Archiver
from actors.clock import Clock
from actors.gatherer import Gatherer
from actors.settings import Settings
from orchestrator import archive
from orchestrator.archive import RECORDS, Sweep
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict, Invalid, JournalUnavailable, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger
from orchestrator.views import CalledView, Frame, RunView
from serve_app.gateway import Gateway
from tests.world import World
from tests.world_clients import TENANT

DAY = "2025-02-01"
LATER = timedelta(days=31)


class LaterClock(Clock):
    """A clock that is a month ahead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now() + LATER


def archiver(world: World, **settings: Any) -> Archiver:
    return Archiver(world.journal, LaterClock(world.clock), changed(world.settings, settings))


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    return Settings.from_dict(settings.to_dict() | changes)


def wanted(world: World, **changes: Any) -> Sweep:
    """Everything that has ended by now."""
    now = world.clock.now() + timedelta(days=1)
    return Sweep(**({"id": "one", "before_ms": round(now.timestamp() * 1000), "to": ""} | changes))


async def swept(world: World) -> Sweep:
    return await archiver(world).sweep(wanted(world))


async def defined(world: World, **changes: Any) -> Gateway:
    """A gateway of a world in which DAG `d` is a → b."""
    tasks = (TaskSpec(id="a", type="core.sleep"), TaskSpec(id="b", type="core.sleep", depends_on=("a",)))
    await world.clients.define(Definition(**({"dag_id": "d", "owner": "team", "tasks": tasks} | changes)))
    return world.clients.gateways[0]


async def ended(world: World, run_id: str) -> str:
    async with asyncio.timeout(60.0):
        while run_id in world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.05)
    return run_id


async def a_run(world: World, gateway: Gateway, **given: Any) -> str:
    """One that has ended."""
    return await ended(world, (await gateway.trigger(TENANT, Trigger(dag_id="d", **given), None)).run_id)


async def a_backfill(world: World, gateway: Gateway, **given: Any) -> str:
    span = {"run_type": "backfill", "start": DAY, "end": "2025-02-03"}
    return await a_run(world, gateway, **(span | given))


async def streamed(gateway: Gateway, run_id: str, after: int | None) -> list[tuple[int | None, str, Any]]:
    """Everything until the end of the stream."""
    found: list[tuple[int | None, str, Any]] = []
    opened: AsyncIterator[Sequence[Frame]] | None = await gateway.open_events(TENANT, run_id, after)
    if opened is not None:
        async for frames in opened:
            found += [(frame.seq, frame.kind, frame.data) for frame in frames]
    return found


def as_here(view: RunView) -> RunView:
    assert view.archived
    return msgspec.structs.replace(view, archived=False, windows_per_s=None, eta=None)


def store(world: World) -> ArchiveStore:
    return ArchiveStore(world.settings.home)


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
        world.journal.events = real  # type: ignore[method-assign]
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


def test_a_window_is_not_run_again_because_its_run_left() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        day = {"start": DAY, "end": DAY}
        run_id = await a_run(world, gateway, **day)
        event = await a_run(world, gateway, event_id="order-1")
        await swept(world)
        assert world.journal.runs == {}
        plan = await gateway.plan(TENANT, Trigger(dag_id="d", **day))
        assert [window.action for window in plan.windows] == ["skip"]
        assert world.journal.runs == {}, "a plan brings nothing back"
        again = await gateway.trigger(TENANT, Trigger(dag_id="d", **day), None)
        assert (again.run_id, again.state, again.existing) == (run_id, "succeeded", True)
        assert (await gateway.trigger(TENANT, Trigger(dag_id="d", event_id="order-1"), None)).run_id == event
        assert await a_run(world, gateway, reprocess="completed", **day) == run_id
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


async def follower(world: World, **changes: Any) -> Gateway:
    """A gateway of a world in which DAG `f` follows `d`, window by window."""
    gateway = await defined(world)
    work = (TaskSpec(id="a", type="core.sleep"),)
    await world.clients.define(Definition("f", "team", tasks=work, after=("d",), **changes))
    return gateway


def runs_of(world: World, dag_id: str) -> list[tuple[str, str, int]]:
    return [(run.run_id, run.state, run.attempts) for run in world.journal.runs.values() if run.dag_id == dag_id]


def test_a_window_that_starts_because_of_another_dag_goes_on_with_the_run_that_left() -> None:
    async def course(world: World) -> None:
        gateway = await follower(world)
        day = {"start": DAY, "end": DAY}
        await a_run(world, gateway, **day)
        await asyncio.sleep(10.0)
        [(run_id, _, _)] = runs_of(world, "f")
        sweep = await swept(world)
        assert (sweep.runs, world.journal.runs) == (2, {})
        await a_run(world, gateway, reprocess="completed", **day)
        await asyncio.sleep(10.0)
        assert runs_of(world, "f") == [(run_id, "succeeded", 2)]
        await swept(world)
        assert store(world).by_window(TENANT, "f", [f"{DAY}/{DAY}"]) == [run_id]

    World(0).play_with(course)


def test_a_window_that_leaves_while_others_start_it_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look into the archive and the step that starts the window, its run leaves."""

    async def course(world: World) -> None:
        gateway = await follower(world)
        day = {"start": DAY, "end": DAY}
        await a_run(world, gateway, **day)
        await asyncio.sleep(10.0)
        [(run_id, _, _)] = runs_of(world, "f")
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
        await a_run(world, gateway, reprocess="completed", **day)
        await asyncio.wait_for(gathering.wait(), 60.0)
        await asyncio.sleep(10.0)
        assert runs_of(world, "f") == [(run_id, "succeeded", 2)]

    World(0).play_with(course)


def test_an_archive_that_cannot_be_read_starts_no_second_run_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        gateway = await follower(world)
        day = {"start": DAY, "end": DAY}
        await a_run(world, gateway, **day)
        await asyncio.sleep(10.0)
        [(run_id, _, _)] = runs_of(world, "f")
        await archiver(world).sweep(wanted(world))
        again = await gateway.trigger(TENANT, Trigger(dag_id="d", reprocess="completed", **day), None)

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


async def caller(world: World, **below: Any) -> tuple[Gateway, str, str]:
    """A run that called one of DAG `child`, and the id of that."""
    work = TaskSpec(id="s", type="core.wait", params={"seconds": 60})
    await world.clients.define(Definition("child", "team", tasks=(work,)))
    call = TaskSpec(id="call", type="core.dag", params={"dag_id": "child"})
    rest = TaskSpec(id="rest", type="core.wait", params={"seconds": 600}, depends_on=("call",))
    gateway = await defined(world, tasks=(call, rest))
    run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d", **below), None)).run_id
    await asyncio.sleep(5.0)
    return gateway, run_id, (await gateway.run(TENANT, run_id)).children["call"].run_id


def test_a_called_run_leaves_after_its_caller_and_both_tell_of_each_other() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await caller(world, start=DAY, end=DAY)
        await asyncio.sleep(120.0)
        assert (await gateway.run(TENANT, child)).state == "succeeded"
        assert (await swept(world)).runs == 0, "its caller goes on"
        await asyncio.sleep(600.0)
        shown = await gateway.run(TENANT, run_id)
        assert shown.children == {"call": CalledView(child, "child", "succeeded")}
        below = await gateway.run(TENANT, child)
        sweep = await swept(world)
        assert (sweep.runs, sweep.left, world.journal.runs) == (2, 0, {})
        assert as_here(await gateway.run(TENANT, run_id)) == shown
        assert as_here(await gateway.run(TENANT, child)) == below
        assert (below.parent_run_id, below.parent_task) == (run_id, "call")

    World(0).play_with(course)


def test_the_window_of_a_called_run_is_nobody_elses_in_the_archive_too() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await caller(world, start=DAY, end=DAY)
        await asyncio.sleep(720.0)
        await swept(world)
        assert store(world).by_window(TENANT, "child", [f"{DAY}/{DAY}"]) == []
        own = await gateway.trigger(TENANT, Trigger(dag_id="child", start=DAY, end=DAY), None)
        assert own.run_id != child, "it stood for the window of its caller only"
        assert not own.existing
        with pytest.raises(Conflict):
            await gateway.retry_run(TENANT, child, None)  # nothing of it failed
        back = await gateway.run(TENANT, child)
        assert (back.archived, back.parent_run_id) == (False, run_id)
        shown = await gateway.run(TENANT, run_id)
        assert (shown.archived, shown.children) == (True, {"call": CalledView(child, "child", "succeeded")})

    World(0).play_with(course)


def test_a_run_that_came_back_tells_of_the_runs_it_called_that_are_still_away() -> None:
    async def course(world: World) -> None:
        gateway, run_id, child = await caller(world)
        await asyncio.sleep(720.0)
        await swept(world)
        with pytest.raises(Conflict):
            await gateway.retry_run(TENANT, run_id, None)
        back = await gateway.run(TENANT, run_id)
        assert (back.archived, back.children) == (False, {"call": CalledView(child, "child", "succeeded")})
        assert (await gateway.run(TENANT, child)).archived

    World(0).play_with(course)


def test_runs_of_a_backfill_leave_after_it_however_long_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one that was cancelled, of one that adopted them, and of one that was widened, among them."""
    monkeypatch.setattr(archiver_module, "DISBANDED", 1)

    async def course(world: World) -> None:
        gateway = await defined(world)
        first = await a_backfill(world, gateway)
        adopting = (await gateway.trigger(TENANT, span(end="2025-02-08"), None)).run_id
        also = (await gateway.trigger(TENANT, span(start="2025-02-02", end="2025-02-08"), None)).run_id
        await gateway.cancel_run(TENANT, also, None)
        await ended(world, adopting)
        await ended(world, also)
        early = await archiver(world).sweep(wanted(world, before_ms=1))
        assert (early.backfills, early.runs) == (0, 0)
        sweep = await swept(world)
        assert (sweep.backfills, sweep.runs, sweep.left) == (3, 8, 0)
        assert world.journal.runs == world.journal.released == {}
        for run_id in (first, adopting, also):
            assert (await gateway.run(TENANT, run_id)).archived

    World(0).play_with(course)


def span(**changes: Any) -> Trigger:
    return Trigger(**({"dag_id": "d", "run_type": "backfill", "start": DAY, "end": DAY} | changes))


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


def segments(world: World) -> list[Path]:
    return sorted(Path(world.settings.home, "archive", "segments").iterdir())


def test_a_run_in_the_way_of_a_fire_stays() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, schedule="0 0 * * *")
        await gateway.pause_dag(TENANT, "d", None, None)
        await gateway.resume_dag(TENANT, "d", None, None)
        today = world.clock.now().date().isoformat()
        kept = await a_run(world, gateway, start=today, end=today)
        gone = await a_run(world, gateway, start=DAY, end=DAY)
        sweep = await swept(world)
        assert kept in world.journal.runs
        assert gone not in world.journal.runs
        assert sweep.left == len(world.journal.runs)

    World(0).play_with(course)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("step", range(0, 36, 2))
def test_a_sweep_that_is_cut_off_anywhere_loses_and_doubles_nothing(step: int, lost: bool) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        backfill = await a_backfill(world, gateway)
        alone = [await a_run(world, gateway) for _ in range(2)]
        windows = [each.run_id for each in (await gateway.run(TENANT, backfill)).windows or ()]
        everything = {run_id: await streamed(gateway, run_id, None) for run_id in (backfill, *alone, *windows)}
        await world.journal.put_records(RECORDS, {"one": archive.encode_sweep(wanted(world))})
        failing, calls = world.journal._step, 0

        def fail(action: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                if lost:
                    failing(action)
                raise JournalUnavailable("cut off")
            return failing(action)

        world.journal._step = fail  # type: ignore[method-assign]  # every step of the journal goes through it
        try:
            await archiver(world).sweep(wanted(world))
        except JournalUnavailable:
            pass
        world.journal._step = failing  # type: ignore[method-assign]
        for run_id, events in everything.items():
            assert await streamed(gateway, run_id, None) == events, "readable at any instant"
        again = await archiver(world).wanted()
        if again is not None:
            await archiver(world).sweep(again)
        for run_id, events in everything.items():
            assert (await gateway.run(TENANT, run_id)).archived
            assert await streamed(gateway, run_id, None) == events
        assert world.journal.runs == world.journal.released == {}
        assert len(store(world).page(RunFilter(tenant=TENANT), None, 100).rows) == len(everything)
        assert await a_backfill(world, gateway) == backfill
        assert world.journal.runs == {}

    World(0).play_with(course)


def test_a_kill_between_segment_and_index_leaves_a_file_that_the_next_sweep_makes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)

        def killed(*_: Any) -> Any:
            raise Unavailable("killed")

        with monkeypatch.context() as patched:
            patched.setattr("actors.archive_store._entries", killed)
            with pytest.raises(Unavailable):
                await swept(world)
        [segment] = segments(world)
        assert run_id in world.journal.runs
        await swept(world)
        assert segments(world) == [segment]
        assert (await gateway.run(TENANT, run_id)).archived
        [line] = gzip.decompress(segment.read_bytes()).splitlines()
        assert archive.decode(line).row.run_id == run_id

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


def test_what_left_what_was_written_and_how_sweeps_ended_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await a_backfill(world, gateway)
        with monkeypatch.context() as patched:
            patched.setattr(ArchiveStore, "add", _away)
            with pytest.raises(Unavailable):
                await swept(world)
        with pytest.raises(Invalid):
            await archiver(world).sweep(wanted(world, to="relative"))
        sweep = await swept(world)
        counted = {name: n for name, n in world.journal.counters.items() if name.startswith("archive_")}
        assert counted == {
            "archive_runs": 3,
            "archive_backfills": 1,
            "archive_segments": len(segments(world)),
            "archive_bytes": sweep.size_bytes,
            "archive_sweeps_put_off": 1,
            "archive_sweeps_failed": 1,
            "archive_sweeps_done": 1,
        }
        assert sum(file.stat().st_size for file in segments(world)) == sweep.size_bytes

    World(0).play_with(course)


def _away(*_: Any) -> Any:
    raise Unavailable("the store is away")


def test_what_was_wanted_before_a_crash_is_done_at_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        await world.journal.put_records(RECORDS, {"one": archive.encode_sweep(wanted(world, state="running"))})
        serving = archiver(world)
        world.journal.failing = [False]
        serving.start()
        await asyncio.sleep(archiver_module.AGAIN_S + 2)
        assert (await gateway.run(TENANT, run_id)).archived
        [sweep] = await gateway.archive.sweeps()
        assert (sweep.state, sweep.runs) == ("done", 1)
        later = await a_run(world, gateway)
        await gateway.archive.sweep(timedelta(0), None, None)
        serving.wake()
        await asyncio.sleep(1)
        assert (await gateway.run(TENANT, later)).archived
        serving.stop()

    World(0).play_with(course)


def test_it_sweeps_by_itself_when_so_set() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        old = await a_run(world, gateway)
        serving = archiver(world, archive_after_days=30.0)
        serving.start()
        await asyncio.sleep(1)
        assert (await gateway.run(TENANT, old)).archived
        [sweep] = await gateway.archive.sweeps()
        assert (sweep.id, sweep.state) == (archive.AUTOMATIC, "done")
        serving.stop()

    World(0).play_with(course)


def test_a_place_that_cannot_be_written_fails_the_sweep_and_says_why() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        with pytest.raises(Exception, match="absolute"):
            await archiver(world).sweep(wanted(world, to="relative"))
        [sweep] = await gateway.archive.sweeps()
        assert sweep.state == "failed"
        assert "absolute" in sweep.error
        assert run_id in world.journal.runs
        assert await archiver(world).wanted() is None

    World(0).play_with(course)


def test_of_ended_sweeps_the_latest_are_told() -> None:
    async def course(world: World) -> None:
        made = [Sweep(id=f"s{n:02d}", before_ms=0, to="", state="done", asked_ms=n) for n in range(archive.TOLD + 3)]
        await world.journal.put_records(RECORDS, {sweep.id: archive.encode_sweep(sweep) for sweep in made})
        assert await archiver(world).wanted() is None
        assert archive.sweeps(await world.journal.records(RECORDS)) == made[3:]

    World(0).play_with(course)


@pytest.mark.parametrize(
    ("start", "next_fire", "leaves"),
    [
        ("2025-01-01", None, True),
        ("2025-03-30", None, False),
        ("2025-03-29T10:00:00Z", None, True),
        ("2025-01-01", datetime(2025, 1, 2, tzinfo=UTC), False),
        ("2025-01-01", datetime(2025, 1, 3, tzinfo=UTC), True),
        ("2025-03-30", datetime(2026, 1, 3, tzinfo=UTC), False),
    ],
)
def test_a_window_leaves_when_no_fire_can_be_about_it(start: str, next_fire: datetime | None, leaves: bool) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        row = msgspec.structs.replace(world.journal.runs[run_id].row(), window_key=f"{start}/{start}")
        at_ms = None if next_fire is None else round(next_fire.timestamp() * 1000)
        now = datetime(2025, 3, 31, 12, tzinfo=UTC)
        assert archive.may_leave(row, at_ms, now) == leaves
        assert archive.may_leave(msgspec.structs.replace(row, run_type="backfill"), at_ms, now)
        assert archive.may_leave(msgspec.structs.replace(row, window_key=""), at_ms, now)
        assert archive.may_leave(msgspec.structs.replace(row, window_key="!event"), at_ms, now)
        assert not archive.may_leave(msgspec.structs.replace(row, dag_id="@run"), at_ms, now)

    World(0).play_with(course)
