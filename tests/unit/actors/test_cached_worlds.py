"""Results are used again by later runs: the shells together on virtual time, with deaths in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from actors.cache_sweeper import CacheSweeper
from orchestrator import caching
from orchestrator import events as e
from orchestrator.definition import TaskSpec
from orchestrator.messages import Value
from serve_app.gateway import Gateway
from tests.builders import a_value
from tests.invariants import check_versions
from tests.unit.actors.test_small_worlds import defined, ends, triggered
from tests.world import RUN_ACTORS, World
from tests.world_cast import value_of
from tests.world_clients import TENANT

HOUR = 3600.0


def task(name: str = "a", *needs: str, **changes: Any) -> TaskSpec:
    return TaskSpec(id=name, type="core.sleep", depends_on=needs, **({"cache_ttl_s": HOUR} | changes))


def told(world: World, run_id: str, kind: type[e.Event]) -> list[Any]:
    return [event for event in check_versions(world.journal.runs[run_id].events) if isinstance(event, kind)]


def computed(world: World, run_id: str) -> list[str]:
    """Tasks that a worker ran."""
    return sorted({event.task for event in told(world, run_id, e.TaskStarted)})


async def ran(world: World, gateway: Gateway, **changes: Any) -> str:
    """A run that has ended well, and whose results are kept."""
    run_id = await triggered(gateway, **changes)
    assert await ends(world, run_id) == "succeeded"
    await asyncio.sleep(0.2)
    return run_id


def kept(world: World) -> dict[str, dict[str, bytes]]:
    return {kind: records for kind, records in world.journal.documents.items() if kind.startswith("cache/") and records}


def test_a_second_run_uses_the_result_of_the_first_without_a_worker_and_says_whose_it_is() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task(), task("b", "a", inputs={"x": "a"}))
        first = await ran(world, gateway)
        second = await ran(world, gateway)
        assert (computed(world, first), computed(world, second)) == (["a", "b"], [])
        [a, b] = told(world, second, e.TaskSucceeded)
        assert (a.value, a.attempt, a.cached.run_id, a.cached.task) == (value_of((first, "a", 1)), 1, first, "a")
        assert b.cached.run_id == first, "an equal input makes an equal task"
        view = await gateway.run(TENANT, second)
        assert (view.cached, view.tasks) == ({"a": first, "b": first}, {"a": "succeeded", "b": "succeeded"})
        assert (await gateway.run(TENANT, first)).cached == {}
        counters = world.journal.counters
        assert (counters["task_cache_misses_total|d"], counters["task_cache_hits_total|d"]) == (2, 2)
        assert counters["orchestrator_tasks_total|d|succeeded"] == 4
        assert counters["orchestrator_task_duration_seconds|d|count"] == 2, "what took place nowhere took no time"

    World(0).play_with(course)


@pytest.mark.parametrize(
    "changes",
    [{"params": {"day": 2}}, {"cache_version": "2"}, {"cache_key": "shared"}],
    ids=["params", "version", "namespace"],
)
def test_a_task_that_differs_is_computed(changes: dict[str, Any]) -> None:
    async def course(world: World) -> None:
        await ran(world, await defined(world, task(params={"day": 1})))
        gateway = await defined(world, task(**({"params": {"day": 1}} | changes)))
        assert computed(world, await ran(world, gateway)) == ["a"]
        assert computed(world, await ran(world, gateway)) == []

    World(0).play_with(course)


def test_a_result_holds_for_its_time_and_no_longer() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        await ran(world, gateway)
        world.clock.skew += timedelta(seconds=HOUR - 30)
        assert computed(world, await ran(world, gateway)) == []
        world.clock.skew += timedelta(seconds=60)
        assert computed(world, await ran(world, gateway)) == ["a"], "a use does not prolong it"

    World(0).play_with(course)


def test_a_shorter_time_holds_from_the_next_definition_on() -> None:
    async def course(world: World) -> None:
        await ran(world, await defined(world, task()))
        world.clock.skew += timedelta(seconds=60)
        assert computed(world, await ran(world, await defined(world, task(cache_ttl_s=10.0)))) == ["a"]

    World(0).play_with(course)


def test_a_reprocessed_run_computes_and_keeps_what_comes_of_it() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        one = {"start": "2026-02-01", "end": "2026-02-01"}
        run_id = await ran(world, gateway, **one)
        assert await triggered(gateway, reprocess="completed", **one) == run_id
        assert await ends(world, run_id) == "succeeded"
        await asyncio.sleep(0.2)
        assert [event.attempt for event in told(world, run_id, e.TaskStarted)] == [1, 2]
        other = await ran(world, gateway)
        assert told(world, other, e.TaskSucceeded)[0].value == value_of((run_id, "a", 2))

    World(0).play_with(course)


def test_a_task_retried_by_hand_computes_although_its_result_is_known_by_then() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        world.character.mischief.permanent = 1.0
        run_id = await triggered(gateway)
        assert await ends(world, run_id) == "failed"
        world.character.mischief.permanent = 0.0
        await ran(world, gateway)
        await gateway.retry_task(TENANT, run_id, "a", None)
        assert await ends(world, run_id) == "succeeded"
        [succeeded] = told(world, run_id, e.TaskSucceeded)
        assert (succeeded.attempt, succeeded.cached) == (2, None)

    World(0).play_with(course)


def test_each_instance_of_a_map_is_looked_up_by_its_own_element() -> None:
    async def course(world: World) -> None:
        def mapped(*items: int) -> TaskSpec:
            return task("m", expand={"x": list(items)}, max_active=2)

        await ran(world, await defined(world, mapped(1, 2, 3)))
        gateway = await defined(world, mapped(3, 4, 1))
        run_id = await ran(world, gateway)
        assert computed(world, run_id) == ["m[1]"]
        assert {event.task: event.cached.task for event in told(world, run_id, e.TaskSucceeded) if event.cached} == {
            "m[0]": "m[2]",
            "m[2]": "m[0]",
        }
        page = await gateway.map_instances(TENANT, run_id, "m", states=None, cursor=None, limit=10)
        assert [bool(each.cached_from) for each in page.items] == [True, False, True]

    World(0).play_with(course)


def test_a_whole_map_of_a_thousand_is_used_again() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task("m", expand={"x": list(range(1000))}))
        world.character.mischief.takes_s = (0.0,)
        first = await triggered(gateway)
        assert await ends(world, first, 60.0) == "succeeded"
        await asyncio.sleep(0.5)
        assert computed(world, await ran(world, gateway)) == []

    World(0).play_with(course)


def test_after_an_uncache_what_began_before_it_is_not_used() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task(), task("b", params={"n": 1}))
        await ran(world, gateway)
        world.character.mischief.takes_s = (2.0,)
        await gateway.cache.uncache(TENANT, "d", "a")
        under_way = await triggered(gateway)
        await asyncio.sleep(1.0)
        assert computed(world, under_way) == ["a"]
        await gateway.cache.uncache(TENANT, "d", None)
        assert await ends(world, under_way) == "succeeded"
        await asyncio.sleep(0.2)
        assert computed(world, await ran(world, gateway)) == ["a", "b"]
        assert computed(world, await ran(world, gateway)) == []

    World(0).play_with(course)


@pytest.mark.parametrize("away_s", [0.0, 0.3])
def test_a_run_that_dies_while_it_is_looked_up_is_looked_up_again(away_s: float) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        await ran(world, gateway)
        hold = asyncio.Event()
        _delayed(world, hold)
        run_id = await triggered(gateway)
        await asyncio.sleep(0.3)
        assert told(world, run_id, e.RunStarted)
        assert not told(world, run_id, e.TaskSucceeded)
        for name in RUN_ACTORS:
            world.wire.processes.pop(name).end()
        await asyncio.sleep(away_s)
        hold.set()
        for name in RUN_ACTORS:
            world.start(name)
        assert await ends(world, run_id) == "succeeded"
        assert computed(world, run_id) == []

    World(0).play_with(course)


def test_a_pause_holds_what_was_looked_up_and_a_resume_lets_it_go() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        await ran(world, gateway)
        hold = asyncio.Event()
        _delayed(world, hold)
        run_id = await triggered(gateway)
        await asyncio.sleep(0.3)
        await gateway.pause_run(TENANT, run_id, None)
        hold.set()
        await asyncio.sleep(2.0)
        assert world.journal.runs[run_id].state == "paused"
        assert not told(world, run_id, e.TaskSucceeded)
        await gateway.resume_run(TENANT, run_id, None)
        assert await ends(world, run_id) == "succeeded"
        assert computed(world, run_id) == []

    World(0).play_with(course)


@pytest.mark.parametrize("command", ["cancel_run", "skip_task"])
def test_what_ends_a_task_while_it_is_looked_up_counts(command: str) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        await ran(world, gateway)
        hold = asyncio.Event()
        _delayed(world, hold)
        run_id = await triggered(gateway)
        await asyncio.sleep(0.3)
        more = ("a",) if command == "skip_task" else ()
        await getattr(gateway, command)(TENANT, run_id, *more, None)
        hold.set()
        await asyncio.sleep(1.0)
        assert not told(world, run_id, e.TaskSucceeded)
        assert await ends(world, run_id) in ("cancelled", "succeeded")

    World(0).play_with(course)


def test_a_result_that_was_not_kept_because_its_owner_died_is_computed_again() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task(), TaskSpec(id="z", type="core.wait", params={"seconds": 5}))
        hold = asyncio.Event()
        _delayed(world, hold, "put_records", lambda kind: kind.startswith("cache"))
        first = await triggered(gateway)
        await asyncio.sleep(1.0)
        assert told(world, first, e.TaskSucceeded), "the result is durable in its run"
        for name in RUN_ACTORS:
            world.wire.processes.pop(name).end()
            world.start(name)
        hold.set()
        assert await ends(world, first) == "succeeded"
        assert kept(world) == {}
        assert computed(world, await ran(world, gateway)) == ["a"]

    World(0).play_with(course)


def test_a_large_result_whose_artifact_is_gone_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Value(artifact="run_0/a.1", size_bytes=1_000_000)

    async def course(world: World) -> None:
        gateway = await defined(world, task())
        monkeypatch.setattr("tests.world_cast.value_of", lambda _: large)
        file = world.settings.path("artifacts", "run_0", "a.1")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        await ran(world, gateway)
        [found] = told(world, run := await ran(world, gateway), e.TaskSucceeded)
        assert (computed(world, run), found.value) == ([], large)
        file.unlink()
        assert computed(world, await ran(world, gateway)) == ["a"]

    World(0).play_with(course)


def test_a_branch_whose_known_choice_does_not_fit_any_more_chooses_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def course(world: World) -> None:
        for way in ("left", "right"):
            monkeypatch.setattr("tests.world_cast.value_of", lambda key, way=way: a_value([way]))
            gateway = await defined(world, task(branch=True), TaskSpec(id=way, depends_on=("a",)))
            run_id = await ran(world, gateway)
            assert computed(world, run_id) == sorted(["a", way])
        assert world.journal.counters["task_cache_misses_total|d"] == 2
        assert computed(world, await ran(world, gateway)) == ["right"], "of the ways that there are it chose this"

    World(0).play_with(course)


def test_a_record_that_cannot_be_read_is_none_and_swept() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task())
        await ran(world, gateway)
        [records] = kept(world).values()
        records.update(dict.fromkeys(records, b'{"of": "another version"}'))
        assert await CacheSweeper(world.journal, world.clock).sweep() == 1  # type: ignore[arg-type]  # the world's clock
        await ran(world, gateway)
        records.update(dict.fromkeys(records, b"{"))
        assert computed(world, await ran(world, gateway)) == ["a"]

    World(0).play_with(course)


def test_a_sweep_forgets_what_has_expired() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, task(), task("b", cache_ttl_s=10.0, params={"n": 1}))
        await ran(world, gateway)
        world.clock.skew += timedelta(seconds=60)
        assert await CacheSweeper(world.journal, world.clock).sweep() == 1  # type: ignore[arg-type]  # the world's clock
        [(kind, records)] = kept(world).items()
        assert (kind, len(records)) == (caching.kind_of(TENANT, "d", None), 1)
        assert computed(world, await ran(world, gateway)) == ["b"]

    World(0).play_with(course)


def _delayed(
    world: World, hold: asyncio.Event, method: str = "record", concerns: Callable[[str], bool] = lambda _: True
) -> None:
    """The journal takes its time over records until `hold` is set."""
    original = getattr(world.journal, method)

    async def late(kind: str, rest: Any) -> Any:
        if concerns(kind):
            await hold.wait()
        return await original(kind, rest)

    setattr(world.journal, method, late)
