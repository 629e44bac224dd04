"""Artifacts that go with their runs, in small worlds: half a year passes for the sweeper alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors import artifact_sweeper
from actors.archiver import Archiver
from actors.artifact_folders import Place
from actors.artifact_sweeper import ArtifactSweeper, places_of
from actors.clock import Clock
from actors.settings import Settings
from actors.sweeper import LOOK_S, SWEEP_S
from orchestrator import events as e
from orchestrator import sweeps
from orchestrator.archive import Sweep
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict, JournalUnavailable, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.messages import Assignment, Value
from orchestrator.reclaim import SWEEPS, ArtifactSweep, Tally
from orchestrator.starts import Trigger
from orchestrator.views import Frame
from serve_app.gateway import Gateway
from tests.invariants import check_versions
from tests.world import World
from tests.world_cast import Key, Mischief, Shelf
from tests.world_clients import TENANT

LATER = timedelta(days=181)
SIZE = 1000


class LaterClock(Clock):
    """A clock that is half a year ahead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now() + LATER


@dataclass
class DiskShelf(Shelf):
    """Values that are files."""

    root: Path = Path()
    now: Callable[[], datetime] = field(default=datetime.now)

    def missing(self, task: Assignment, rng: Random) -> tuple[str, ...]:
        """What is not on the disk."""
        taken = [value.artifact for value in task.inputs.values() if value.artifact is not None]
        return tuple(name for name in taken if not (self.root / name).exists())

    def put(self, key: Key, node: str = "") -> Value:
        """Written now, by the clock of the world."""
        value = super().put(key, node)
        path = self.root / (value.artifact or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * SIZE)
        for written in (path, path.parent):
            os.utime(written, (self.now().timestamp(),) * 2)
        return value


def play(course: Callable[[World], Any]) -> None:
    """In a world whose tasks return large values."""

    async def staged(world: World) -> None:
        shelf = DiskShelf(0.0, 0, root=world.settings.artifacts, now=world.clock.now)
        world.character.mischief.shelf = shelf
        await course(world)

    World(0).play_with(staged, Mischief(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.1,)))


def sweeper(world: World, places: Callable[[], list[Place]] | None = None, **changes: Any) -> ArtifactSweeper:
    made = Settings.from_dict(world.settings.to_dict() | changes)
    return ArtifactSweeper(world.journal, LaterClock(world.clock), made, places or (lambda: places_of(made)))


def wanted(world: World, after: timedelta = timedelta(days=1), **changes: Any) -> ArtifactSweep:
    """Of runs that have ended by now."""
    before_ms = round((world.clock.now() + after).timestamp() * 1000)
    return ArtifactSweep(**({"id": "one", "before_ms": before_ms} | changes))


async def defined(world: World, **changes: Any) -> Gateway:
    """A gateway of a world in which DAG `d` is a → b."""
    sends = TaskSpec(id="a", type="core.sleep", **changes)
    takes = TaskSpec(id="b", type="core.sleep", depends_on=("a",), inputs={"x": "a"})
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=(sends, takes)))
    return world.clients.gateways[0]


async def started(gateway: Gateway) -> str:
    return str((await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id)


async def ended(world: World, run_id: str) -> str:
    async with asyncio.timeout(60.0):
        while run_id in world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.05)
    return run_id


async def archived(world: World) -> None:
    """Everything that ended has left the journal."""
    later = round((world.clock.now() + timedelta(days=1)).timestamp() * 1000)
    archiver = Archiver(world.journal, LaterClock(world.clock), world.settings)
    await archiver.sweep(Sweep(id="archive", before_ms=later, to=""))


def files(world: World) -> list[str]:
    root = world.settings.artifacts
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def told(gateway: Gateway, run_id: str) -> list[tuple[int | None, str, Any]]:
    """Everything on its stream."""
    opened: AsyncIterator[Sequence[Frame]] | None = await gateway.open_events(TENANT, run_id, None)
    assert opened is not None
    return [(frame.seq, frame.kind, frame.data) async for frames in opened for frame in frames]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not condition():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.01)


async def failed_in_b(world: World, gateway: Gateway) -> str:
    """A run whose first task succeeded and whose second did not."""
    run_id = await started(gateway)
    begun = e.TaskStarted
    await until(lambda: any(isinstance(event, begun) for event in check_versions(world.journal.runs[run_id].events)))
    await asyncio.sleep(0.05)
    world.character.mischief.permanent = 1.0
    await ended(world, run_id)
    world.character.mischief.permanent = 0.0
    return run_id


@pytest.mark.parametrize("leaves", [False, True], ids=["in the journal", "in the archive"])
def test_artifacts_of_an_old_run_go_and_it_is_read_as_before_and_a_retry_makes_them_again(leaves: bool) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await failed_in_b(world, gateway)
        if leaves:
            await archived(world)
        shown, events = await gateway.run(TENANT, run_id), await told(gateway, run_id)
        assert (shown.archived, files(world)) == (leaves, [f"{run_id}/a.1"])
        done = await sweeper(world).sweep(wanted(world))
        assert (done.state, done.runs, done.gone, done.there) == ("done", 1, Tally(1, SIZE), Tally())
        assert files(world) == []
        assert await gateway.run(TENANT, run_id) == shown
        assert await told(gateway, run_id) == events
        await gateway.retry_run(TENANT, run_id, None)
        await ended(world, run_id)
        assert (await gateway.run(TENANT, run_id)).state == "succeeded"
        assert files(world) == [f"{run_id}/a.2", f"{run_id}/b.3"], "b.2 found that a.1 is gone"

    play(course)


def test_what_goes_on_and_what_ended_lately_keeps_its_artifacts_and_what_nobody_knows_does_not() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        run_id = await ended(world, await started(gateway))
        early = await sweeper(world).sweep(wanted(world, -timedelta(days=1)))
        assert (early.runs, early.there) == (0, Tally(2, 2 * SIZE))
        world.character.mischief.takes_s = (1000.0,)
        open_ = await started(gateway)
        await asyncio.sleep(1.0)
        world.character.mischief.shelf.put((open_, "z", 1))  # type: ignore[union-attr]
        await sweeper(world).sweep(wanted(world))
        assert files(world) == [f"{open_}/z.1"]
        world.character.mischief.shelf.put((run_id, "a", 1))  # type: ignore[union-attr]
        assert await world.journal.erase([run_id]) == 1
        await sweeper(world).sweep(wanted(world))
        assert files(world) == [f"{open_}/z.1"]
        assert world.journal.counters["artifact_files_removed"] == 3
        assert world.journal.counters["artifact_bytes_removed"] == 3 * SIZE
        assert world.journal.counters["artifact_sweeps_done"] == 3

    play(course)


def test_a_result_in_the_cache_is_there_until_it_expires_and_then_for_the_run_that_took_it() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, cache_ttl_s=400 * 86_400)
        first = await ended(world, await started(gateway))
        await asyncio.sleep(1.0)
        await sweeper(world).sweep(wanted(world))
        assert files(world) == [f"{first}/a.1"]
        world.character.mischief.takes_s = (1000.0,)
        second = await started(gateway)
        await asyncio.sleep(1.0)
        history = check_versions(world.journal.runs[second].events)
        assert [event.task for event in history if isinstance(event, e.TaskSucceeded) and event.cached] == ["a"]
        for kind in [kind for kind in world.journal.documents if kind.startswith("cache/")]:
            world.journal.documents[kind].clear()
        shelf = world.character.mischief.shelf
        assert shelf is not None
        shelf.put((first, "a", 1))  # as old as the run
        await sweeper(world).sweep(wanted(world))
        assert files(world) == [f"{first}/a.1"], "the second run goes on"

    play(course)


def test_who_takes_a_result_from_the_cache_marks_it_as_used() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, cache_ttl_s=86_400)
        first = await ended(world, await started(gateway))
        await asyncio.sleep(1.0)
        file = world.settings.artifacts / first / "a.1"
        os.utime(file, (1.0, 1.0))
        await ended(world, await started(gateway))
        assert file.stat().st_mtime > 1.0

    play(course)


def test_a_sweep_that_is_asked_for_is_done_once_and_told() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        asked = await gateway.artifacts.sweep(timedelta(0), True, None)
        assert (await gateway.artifacts.sweeps())[0] == asked
        serving = sweeper(world, artifacts_retention_days=0.0)
        serving.start()
        await asyncio.sleep(5.0)
        [shown] = await gateway.artifacts.sweeps()
        assert (shown.id, shown.state, shown.dry_run, shown.gone) == (asked.id, "done", True, Tally(2, 2 * SIZE))
        assert len(files(world)) == 2
        await gateway.artifacts.sweep(timedelta(0), False, None)
        await asyncio.sleep(1.0)
        assert len(files(world)) == 2, "nobody told it"
        serving.wake()
        await asyncio.sleep(5.0)
        assert files(world) == []
        serving.stop()

    play(course)


def test_asked_again_under_its_key_a_sweep_tells_how_far_it_is_and_another_one_is_refused() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        key = Idempotency("k", "this request")
        asked = await gateway.artifacts.sweep(timedelta(0), False, key)
        done = await sweeper(world).sweep(asked)
        assert await gateway.artifacts.sweep(timedelta(0), False, key) == done
        assert done.state == "done"
        with pytest.raises(Conflict):
            await gateway.artifacts.sweep(timedelta(0), True, Idempotency("k", "another request"))

    play(course)


def test_it_sweeps_by_itself_and_not_at_once_unless_everything_is_kept() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        idle, serving = sweeper(world, artifacts_retention_days=0.0), sweeper(world, artifacts_retention_days=180.0)
        idle.start()
        await asyncio.sleep(2 * artifact_sweeper.FIRST_S)
        assert len(files(world)) == 2
        idle.stop()
        serving.start()
        await asyncio.sleep(artifact_sweeper.FIRST_S - 1.0)
        assert len(files(world)) == 2
        await asyncio.sleep(10.0)
        assert files(world) == []
        assert [sweep.id for sweep in await gateway.artifacts.sweeps()] == [sweeps.AUTOMATIC]
        await ended(world, await started(gateway))
        await asyncio.sleep(SWEEP_S)
        assert files(world) == []
        serving.stop()

    play(course)


def test_a_sweep_is_put_off_while_the_journal_is_away_and_failed_when_it_cannot_go_on() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        real = world.journal.queued_and_active

        async def away() -> Any:
            raise JournalUnavailable("away")

        world.journal.queued_and_active = away  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await sweeper(world).sweep(wanted(world))
        assert len(files(world)) == 2, "nothing goes before it is known who needs it"
        asked = await gateway.artifacts.sweep(timedelta(0), False, None)
        serving = sweeper(world, artifacts_retention_days=0.0)
        serving.start()
        await asyncio.sleep(1.0)
        world.journal.queued_and_active = real  # type: ignore[method-assign]
        await asyncio.sleep(artifact_sweeper.AGAIN_S + 5.0)
        assert {sweep.id: sweep.state for sweep in await gateway.artifacts.sweeps()}[asked.id] == "done"
        serving.stop()

        def broken() -> list[Place]:
            raise RuntimeError("no such disk")

        with pytest.raises(RuntimeError):
            await sweeper(world, broken).sweep(wanted(world, id="two"))
        [failed] = [sweep for sweep in await gateway.artifacts.sweeps() if sweep.id == "two"]
        assert (failed.state, failed.error) == ("failed", "no such disk")
        assert world.journal.counters["artifact_sweeps_failed"] == 1

    play(course)


def test_a_sweep_of_its_own_that_was_cut_off_is_not_taken_up_when_everything_is_to_be_kept_now() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        cut_off = wanted(world, id=sweeps.AUTOMATIC, state="running")
        await world.journal.put_records(SWEEPS.records, {cut_off.id: SWEEPS.encode(cut_off)})
        serving = sweeper(world, artifacts_retention_days=0.0)
        serving.start()
        await asyncio.sleep(2 * SWEEP_S)
        assert len(files(world)) == 2
        serving.stop()

    play(course)


def test_a_sweep_of_its_own_that_was_put_off_is_tried_again_soon() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        away = [True]

        def places() -> list[Place]:
            if away:
                raise Unavailable("the store is away")
            return places_of(world.settings)

        serving = sweeper(world, places)
        serving.start()
        await asyncio.sleep(artifact_sweeper.FIRST_S + 10.0)
        away.clear()
        await asyncio.sleep(artifact_sweeper.AGAIN_S)
        assert files(world) == []
        assert world.journal.counters["artifact_sweeps_put_off"] == 1
        serving.stop()

    play(course)


def test_a_sweep_that_fails_for_good_holds_up_no_other_one() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        await ended(world, await started(gateway))
        first, second = wanted(world, id="one", asked_ms=1), wanted(world, id="two", asked_ms=2)
        await world.journal.put_records(SWEEPS.records, {each.id: SWEEPS.encode(each) for each in (first, second)})
        broken = [True]

        def places() -> list[Place]:
            if broken:
                broken.clear()
                raise RuntimeError("no such disk")
            return places_of(world.settings)

        serving = sweeper(world, places, artifacts_retention_days=0.0)
        serving.start()
        await asyncio.sleep(5.0)
        assert {sweep.id: sweep.state for sweep in await gateway.artifacts.sweeps()} == {"one": "failed", "two": "done"}
        assert files(world) == []
        serving.stop()

    play(course)


def test_a_sweep_that_nobody_could_tell_of_is_seen_before_long() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world)
        serving = sweeper(world, artifacts_retention_days=0.0)
        serving.start()
        await asyncio.sleep(1.0)
        asked = await gateway.artifacts.sweep(timedelta(0), True, None)
        await asyncio.sleep(LOOK_S)
        assert [(sweep.id, sweep.state) for sweep in await gateway.artifacts.sweeps()] == [(asked.id, "done")]
        serving.stop()

    play(course)


def test_those_that_ended_long_ago_are_told_no_more() -> None:
    async def course(world: World) -> None:
        over = {
            f"s{n}": SWEEPS.encode(ArtifactSweep(id=f"s{n}", before_ms=0, state="done", asked_ms=n))
            for n in range(sweeps.TOLD + 3)
        }
        await world.journal.put_records(SWEEPS.records, dict(over))
        assert await sweeper(world).wanted() is None
        assert sorted(await world.journal.records(SWEEPS.records)) == sorted(list(over)[3:])

    play(course)


def test_every_directory_of_a_node_is_looked_at_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_ARTIFACTS_DIR", raising=False)
    plain = Settings(home="/data")
    assert artifact_sweeper.folders_of(plain) == [Path("/data/artifacts"), Path("/data/artifacts-fetched")]
    apart = Settings(home="/data", artifacts_dir="/mnt/values")
    folders = [Path("/mnt/values"), Path("/mnt/values-fetched"), Path("/data/artifacts")]
    assert artifact_sweeper.folders_of(apart) == folders, "files of jobs are in the data directory"
    assert len(places_of(Settings(home="/data", artifacts_url="s3://b/x"))) == 3
