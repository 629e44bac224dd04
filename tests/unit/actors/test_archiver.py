"""The archiver itself: what leaves when, over crashes, and what is told of it."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import archiver as archiver_module
from actors.archive_store import ArchiveStore
from actors.sweeper import LOOK_S
from orchestrator import archive, sweeps
from orchestrator.archive import Sweep
from orchestrator.errors import Conflict, Invalid, JournalUnavailable, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.rows import RunFilter
from tests.archive_world import (
    DAY,
    LATER,
    a_backfill,
    a_run,
    archiver,
    defined,
    ended,
    segments,
    span,
    store,
    streamed,
    swept,
    wanted,
)
from tests.world import World
from tests.world_clients import TENANT


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
        await world.journal.put_records(archive.SWEEPS.records, {"one": archive.SWEEPS.encode(wanted(world))})
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
        world.journal._step = failing  # type: ignore[method-assign]  # a stand-in, in this one object
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
        await world.journal.put_records(
            archive.SWEEPS.records, {"one": archive.SWEEPS.encode(wanted(world, state="running"))}
        )
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


def test_a_sweep_that_fails_for_good_holds_up_no_other_one() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        first, second = wanted(world, to="relative", asked_ms=1), wanted(world, id="two", asked_ms=2)
        await world.journal.put_records(
            archive.SWEEPS.records, {each.id: archive.SWEEPS.encode(each) for each in (first, second)}
        )
        serving = archiver(world)
        serving.start()
        await asyncio.sleep(1)
        assert [sweep.state for sweep in await gateway.archive.sweeps()] == ["done", "failed"]
        assert (await gateway.run(TENANT, run_id)).archived
        serving.stop()

    World(0).play_with(course)


@pytest.mark.parametrize("by_itself", [False, True], ids=["asked for", "by itself"])
def test_a_place_that_is_away_holds_up_no_sweep_to_another_one_and_is_told(by_itself: bool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    away = str(tmp_path / "file/folder")

    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        first, second = wanted(world, to=away, asked_ms=1), wanted(world, id="two", asked_ms=2)
        asked = [second] if by_itself else [first, second]
        await world.journal.put_records(
            archive.SWEEPS.records, {each.id: archive.SWEEPS.encode(each) for each in asked}
        )
        serving = archiver(world, **({"archive_url": away, "archive_after_days": 30} if by_itself else {}))
        serving.start()
        await asyncio.sleep(3 * archiver_module.AGAIN_S)
        assert (await gateway.run(TENANT, run_id)).archived
        known = {sweep.to: sweep for sweep in await gateway.archive.sweeps()}
        assert known[""].state == "done"
        assert known[away].state == "done", "there is nothing left to be written"
        serving.stop()

    World(0).play_with(course)


def test_why_a_sweep_is_put_off_is_told_until_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()

    async def course(world: World) -> None:
        gateway = await defined(world)
        await a_run(world, gateway)
        sweep = wanted(world, to=str(tmp_path / "folder"))
        with pytest.raises(Unavailable):
            await archiver(world).sweep(sweep)
        [put_off] = await gateway.archive.sweeps()
        assert put_off.state == "running"
        assert "folder" in put_off.error
        (tmp_path / "folder").unlink()
        assert (await archiver(world).sweep(put_off)).error == ""

    World(0).play_with(course)


def test_a_sweep_that_nobody_could_tell_of_is_seen_before_long() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await a_run(world, gateway)
        serving = archiver(world, archive_after_days=30.0)
        serving.start()
        await asyncio.sleep(1)
        late = await a_run(world, gateway)
        await world.journal.put_records(archive.SWEEPS.records, {"one": archive.SWEEPS.encode(wanted(world))})
        await asyncio.sleep(LOOK_S + 1)
        assert (await gateway.run(TENANT, late)).archived
        assert (await gateway.run(TENANT, run_id)).archived
        assert world.journal.counters["archive_sweeps_done"] == 2, "the next one by itself is not due before an hour"
        serving.stop()

    World(0).play_with(course)


def test_a_segment_is_written_when_there_is_much_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver_module, "READ", 2)
    monkeypatch.setattr(archiver_module, "SEGMENT_BYTES", 5_000)

    async def course(world: World) -> None:
        gateway = await defined(world)
        runs = [await a_run(world, gateway) for _ in range(5)]
        for run_id in runs:
            world.journal.logs[run_id, "a", 1] = [b"x" * 3_000]
        sweep = await swept(world)
        assert (sweep.runs, world.journal.runs) == (5, {})
        assert len(segments(world)) == 3
        assert all([(await gateway.run(TENANT, run_id)).archived for run_id in runs])

    World(0).play_with(course)


def test_a_key_asks_for_one_sweep_and_for_no_other() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        first = await gateway.archive.sweep(LATER, None, Idempotency("k", "f"))
        assert await gateway.archive.sweep(LATER, None, Idempotency("k", "f")) == first
        with pytest.raises(Conflict, match="another body"):
            await gateway.archive.sweep(timedelta(0), None, Idempotency("k", "g"))
        assert await gateway.archive.sweeps() == [first]

    World(0).play_with(course)


def test_a_sweep_is_wanted_although_this_control_plane_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        monkeypatch.setattr(gateway.archive._sweeps._control, "wake_archiver", _stands_by, raising=False)
        sweep = await gateway.archive.sweep(LATER, None, None)
        assert await gateway.archive.sweeps() == [sweep]

    World(0).play_with(course)


async def _stands_by() -> None:
    raise Unavailable("another one is in charge")


def test_it_sweeps_by_itself_when_so_set() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        old = await a_run(world, gateway)
        serving = archiver(world, archive_after_days=30.0)
        serving.start()
        await asyncio.sleep(1)
        assert (await gateway.run(TENANT, old)).archived
        [sweep] = await gateway.archive.sweeps()
        assert (sweep.id, sweep.state) == (sweeps.AUTOMATIC, "done")
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
        made = [Sweep(id=f"s{n:02d}", before_ms=0, to="", state="done", asked_ms=n) for n in range(sweeps.TOLD + 3)]
        await world.journal.put_records(
            archive.SWEEPS.records, {sweep.id: archive.SWEEPS.encode(sweep) for sweep in made}
        )
        assert await archiver(world).wanted() is None
        assert archive.SWEEPS.in_order(await world.journal.records(archive.SWEEPS.records)) == made[3:]

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
