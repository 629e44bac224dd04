"""The keeper of plan files: what instances did becomes files, what others wrote becomes events."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.artifacts import Artifacts
from actors.plan_keeper import FINDING_MAX, IDLE_S, PlanKeeper
from actors.plan_store import PlanStore
from orchestrator.instance_events import findings_path
from orchestrator.instance_views import InstanceStatus, InstanceWanted
from orchestrator.messages import Value
from tests.plans import DEMO
from tests.world import World
from tests.world_clients import TENANT
from tests.world_wire import JournalRoad

CHAIN = "\n".join(["# Chain", "## Phase 1: All", *(f"- [ ] 1.{n} Step {n}" for n in range(1, 5))])


class Kept:
    """A world with a keeper, and the files of one plan."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = PlanStore(world.folder)
        self.released: list[str] = []
        #: times that an actor cannot be ended
        self.held = 0
        self.instances = world.clients.gateways[0].instances
        self.path = Path(world.folder, "docs", "plan-outputs", "demo", "status.json")
        self.keeper = self.another()
        self.loop: asyncio.Task[None] | None = None

    def another(self, **changes: Any) -> PlanKeeper:
        world = self.world
        settings = dataclasses.replace(world.settings, **changes)
        road: Any = JournalRoad(world.journal, world.wire, world.watcher.written)

        async def release(name: str) -> None:
            if self.held:
                self.held -= 1
                raise RuntimeError("GCS is away")
            self.released.append(name)

        return PlanKeeper(road, world.wire, self.store, world.clock, settings, release)

    async def start(self, text: str = DEMO, **wanted: Any) -> str:
        self.world.clients.write_plan("demo", text)
        made = await self.instances.start(TENANT, InstanceWanted(plan="demo", **wanted))
        return made.instance_id

    async def reaches(self, instance_id: str, word: str) -> InstanceStatus:
        async with asyncio.timeout(60.0):
            while (status := await self.instances.status(TENANT, instance_id)).status != word:  # noqa: ASYNC110 # nobody tells
                await asyncio.sleep(0.05)
        return status

    def document(self) -> Any:
        return json.loads(self.path.read_bytes())

    def words(self) -> dict[str, str]:
        return {entry["id"]: entry["status"] for entry in self.document()["tasks"]}

    def edit(self, change: Callable[[Any], object]) -> None:
        document = self.document()
        change(document)
        self.path.write_text(json.dumps(document))


def play(course: Callable[[Kept], Awaitable[None]]) -> None:
    async def staged(world: World) -> None:
        kept = Kept(world)
        await course(kept)

    World(0).play_with(staged)


def task(document: Any, task_id: str) -> Any:
    return next(entry for entry in document["tasks"] if entry["id"] == task_id)


def test_who_sees_an_instance_stopped_finds_its_files_written() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper.start()
        instance_id = await kept.start()
        await kept.reaches(instance_id, "stopped")
        document = kept.document()
        assert set(kept.words().values()) == {"completed"}
        [run] = document["runs"]
        assert (run["runId"], run["tasksCompleted"], run["completedAt"] is not None) == (instance_id, 3, True)
        assert document["summary"]["completed"] == 4
        assert document["currentPhase"] is None
        assert task(document, "1.3")["findingsPath"] == findings_path("demo", "1.3")
        assert [each.task_id for each in await kept.instances.findings(TENANT, "demo")] == ["1.1", "1.3", "2.1"]
        at_rest = await kept.instances.plan_status(TENANT, "demo")
        assert (at_rest.instance_id, at_rest.status) == ("", "stopped")
        assert {each.status for each in at_rest.tasks} == {"completed"}

    play(course)


def test_what_is_done_is_not_done_again_and_what_failed_is() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper.start()
        first = await kept.start(CHAIN, batch_size=1, max_iterations=2)
        assert (await kept.reaches(first, "stopped")).exit_reason == "max_iterations"
        kept.edit(lambda document: task(document, "1.3").update(status="failed", retryCount=2, lastError="no"))
        second = await kept.start(CHAIN)
        status = await kept.reaches(second, "stopped")
        assert [each.status for each in status.tasks] == ["completed"] * 4
        assert kept.world.watcher.histories[second].started == {"1.3": 1, "1.4": 1}
        assert [run["tasksCompleted"] for run in kept.document()["runs"]] == [2, 2]

    play(course)


@pytest.mark.parametrize(
    ("word", "shown"), [("skipped", "skipped"), ("completed", "completed"), ("failed", "pending"), ("odd", "pending")]
)
def test_an_edit_becomes_an_event_within_two_seconds_or_is_undone(word: str, shown: str) -> None:
    async def course(kept: Kept) -> None:
        kept.keeper.start()
        instance_id = await kept.start(CHAIN, batch_size=1)
        await kept.instances.pause(TENANT, instance_id)
        await asyncio.sleep(1.5)
        assert kept.words()["1.4"] == "pending"
        kept.edit(lambda document: task(document, "1.4").update(status=word, reason="by hand"))
        await asyncio.sleep(2.0)
        assert (await kept.instances.status(TENANT, instance_id)).tasks[3].status == shown
        assert kept.words()["1.4"] == shown
        if word == "skipped":
            assert task(kept.document(), "1.4")["reason"] == "by hand"

    play(course)


def test_keys_of_others_stay_and_are_told_once() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper.start()
        instance_id = await kept.start(CHAIN, batch_size=1)
        await kept.instances.pause(TENANT, instance_id)
        await asyncio.sleep(1.5)
        version = kept.world.journal.runs[instance_id].version
        kept.edit(lambda document: document.update(extra={"k": 1}) or task(document, "1.4").update(notes="mine"))
        await asyncio.sleep(3.0)
        assert kept.world.journal.runs[instance_id].version == version + 1
        await kept.instances.resume(TENANT, instance_id)
        await kept.reaches(instance_id, "stopped")
        document = kept.document()
        assert (document["extra"], task(document, "1.4")["notes"]) == ({"k": 1}, "mine")
        assert task(document, "1.4")["status"] == "completed"
        _, _, frames = await kept.instances.open_events(TENANT, instance_id, 0)
        told = [f for chunk in [c async for c in frames] for f in chunk if f.kind == "status_updated"]
        assert told[-1].data is not None
        assert told[-1].data["data"]["extra"] == {"k": 1}

    play(course)


def test_a_keeper_that_takes_over_writes_the_same_and_finds_edits_of_the_time_between() -> None:
    async def course(kept: Kept) -> None:
        instance_id = await kept.start(CHAIN, batch_size=1)
        await kept.instances.pause(TENANT, instance_id)
        await asyncio.sleep(1.5)
        await kept.keeper.look()
        before = kept.path.read_bytes()
        await kept.another().look()
        await asyncio.sleep(1.0)
        assert kept.path.read_bytes() == before
        kept.edit(lambda document: task(document, "1.3").update(status="skipped"))
        late = kept.another()
        for _ in range(3):
            await late.look()
        assert kept.words()["1.3"] == "skipped"
        assert (await kept.instances.status(TENANT, instance_id)).tasks[2].status == "skipped"

    play(course)


def test_an_instance_is_not_forgotten_before_its_actor_is_ended() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper = kept.another(instance_retention_s=30.0)
        kept.keeper.start()
        kept.held = 2
        instance_id = await kept.start()
        await kept.reaches(instance_id, "stopped")
        await asyncio.sleep(40.0)
        assert kept.held == 0
        assert kept.released == [f"orchestrator:{instance_id}"]
        assert await kept.world.journal.beats() == []

    play(course)


def test_an_instance_is_forgotten_when_it_is_over() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper = kept.another(instance_retention_s=30.0)
        kept.keeper.start()
        instance_id = await kept.start()
        await kept.reaches(instance_id, "stopped")
        assert [beat.run_id for beat in await kept.world.journal.beats()] == [instance_id]
        await asyncio.sleep(32.0)
        assert await kept.world.journal.beats() == []
        assert kept.released == [f"orchestrator:{instance_id}"]
        assert await kept.keeper.look() == IDLE_S

    play(course)


def test_what_people_do_to_an_ended_instance_is_written_too() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper.start()
        instance_id = await kept.start(CHAIN, batch_size=1, max_iterations=1)
        await kept.reaches(instance_id, "stopped")
        assert (await kept.instances.skip_task(TENANT, instance_id, "1.2", "no need")).success
        status = await kept.instances.status(TENANT, instance_id)
        assert (status.status, status.tasks[1].status) == ("stopped", "skipped")
        assert kept.words()["1.2"] == "skipped"

    play(course)


def test_a_malformed_file_is_kept_aside_and_written_anew() -> None:
    async def course(kept: Kept) -> None:
        kept.keeper.start()
        instance_id = await kept.start(CHAIN, batch_size=1)
        await kept.instances.pause(TENANT, instance_id)
        await asyncio.sleep(1.5)
        kept.path.write_text("{ not json")
        await kept.instances.resume(TENANT, instance_id)
        await kept.reaches(instance_id, "stopped")
        assert set(kept.words().values()) == {"completed"}
        assert kept.path.with_name("status.json.bak").read_text() == "{ not json"

    play(course)


def test_large_and_foreign_results_become_bounded_text(tmp_path: Path) -> None:
    async def course(kept: Kept) -> None:
        artifacts = Artifacts(kept.world.settings.path("artifacts"))
        large = artifacts.keep("orch-x", "1.1", 1, "x" * (FINDING_MAX + 5) + "end")
        text = kept.keeper._text_of("1.1", large)
        assert text is not None
        assert text.endswith("xend\n")
        assert len(text) < FINDING_MAX + 100
        foreign = artifacts.keep("orch-x", "1.1", 2, Path("/"))
        assert "is not plain data" in str(kept.keeper._text_of("1.1", foreign))
        assert kept.keeper._text_of("1.1", artifacts.keep("orch-x", "1.1", 3, {})) is None
        assert kept.keeper._text_of("1.1", Value(artifact="orch-x/9.9")) is not None
        assert kept.keeper._text_of("1.1", artifacts.keep("orch-x", "1.1", 4, {"n": 1})) == '{\n  "n": 1\n}\n'

    async def staged(world: World) -> None:
        world.settings = type(world.settings)(**(world.settings.to_dict() | {"home": str(tmp_path)}))
        await course(Kept(world))

    World(0).play_with(staged)
