"""Orchestrator instances over the real shells in small worlds (contracts/instances.md, sections 2 to 4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from orchestrator.errors import Conflict, InstanceDead, Invalid, NotFound
from orchestrator.instance_views import InstanceView, InstanceWanted
from orchestrator.views import Frame
from serve_app.instances import Instances
from tests.plans import DEMO
from tests.world import World
from tests.world_clients import TENANT

CHAIN = "\n".join(["# Chain", "## Phase 1: All", *(f"- [ ] 1.{n} Step {n}" for n in range(1, 7))])


def of(world: World, replica: int = 0) -> Instances:
    return world.clients.gateways[replica].instances


async def started(world: World, text: str = DEMO, name: str = "demo", **wanted: Any) -> str:
    world.clients.write_plan(name, text)
    return (await of(world).start(TENANT, InstanceWanted(plan=name, **wanted))).instance_id


async def reaches(world: World, instance_id: str, word: str, within_s: float = 30.0) -> Any:
    """The status, once its word is that."""
    async with asyncio.timeout(within_s):
        while (status := await of(world).status(TENANT, instance_id)).status != word:  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.02)
    return status


def words(status: Any) -> dict[str, str]:
    return {task.task_id: task.status for task in status.tasks}


async def told(frames: AsyncIterator[Sequence[Frame]]) -> list[Frame]:
    """All there is until the stream ends."""
    async with asyncio.timeout(60.0):
        return [frame async for chunk in frames for frame in chunk if frame.seq is not None]


def short(frames: Sequence[Frame]) -> list[Any]:
    out: list[Any] = []
    for frame in frames:
        assert frame.data is not None
        data = frame.data["data"]
        match frame.kind:
            case "task_changed":
                out.append((data["task_id"], data["new_status"]))
            case "tool_started" | "tool_completed":
                out.append((frame.kind, data["tool_id"]))
            case "phase_changed":
                out.append((data["old_phase"], data["new_phase"]))
            case "orchestrator_state":
                out.append(data["new_state"])
            case _:
                out.append(frame.kind)
    return out


def test_a_plan_is_worked_through_in_its_order() -> None:
    async def course(world: World) -> None:
        instance_id = await started(world)
        view = await of(world).instance(TENANT, instance_id)
        assert (view.status, view.alive, view.executor, view.exit_reason) == ("running", True, "echo", None)
        assert view.pid > 0
        assert world.journal.runs[instance_id].owner == f"orchestrator:{instance_id}"
        status = await reaches(world, instance_id, "stopped")
        assert (status.exit_reason, status.iteration, status.max_iterations) == ("complete", 3, 50)
        assert set(words(status).values()) == {"completed"}
        by_id = {task.task_id: task for task in status.tasks}
        assert by_id["2.1"].started_at >= by_id["1.3"].completed_at
        assert by_id["1.3"].description == "Write the file (depends: 1.1, 1.2)"
        ended = await of(world).instance(TENANT, instance_id)
        assert (ended.status, ended.alive, ended.exit_reason) == ("stopped", False, "complete")
        assert f"orchestrator:{instance_id}" not in world.wire.processes

    World(0).play_with(course)


def test_two_starters_at_once_get_one_instance_and_one_refusal() -> None:
    async def course(world: World) -> None:
        world.clients.write_plan("demo", DEMO)
        asked = [of(world, n % 2).start(TENANT, InstanceWanted(plan="demo", batch_size=1 + n)) for n in range(6)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        [made] = [a for a in answers if isinstance(a, InstanceView)]
        refused = [a for a in answers if isinstance(a, Conflict)]
        assert {str(why) for why in refused} == {f"Plan 'demo' is already being run by '{made.instance_id}'"}
        assert len(refused) == 5
        await reaches(world, made.instance_id, "stopped")
        again = await started(world)
        assert [view.instance_id for view in await of(world).instances(TENANT)] == [made.instance_id, again]

    World(0).play_with(course)


def test_what_cannot_be_started_is_refused() -> None:
    async def course(world: World) -> None:
        with pytest.raises(NotFound) as unknown:
            await of(world).start(TENANT, InstanceWanted(plan="nope"))
        assert unknown.value.kind == "plan"
        with pytest.raises(Invalid, match="Unknown executor 'y'"):
            await started(world, executor="y")
        cycle = "# C\n## Phase 1: A\n- [ ] 1.1 a (depends: 1.2)\n- [ ] 1.2 b (depends: 1.1)"
        with pytest.raises(Invalid, match=r"Dependency cycle detected: 1\.1 -> 1\.2 -> 1\.1"):
            await started(world, cycle)
        with pytest.raises(NotFound):
            await of(world).instance(TENANT, "orch-1")
        with pytest.raises(NotFound):
            await of(world).start("another", InstanceWanted(plan="demo"))
        assert not world.journal.runs

    World(0).play_with(course)


def test_a_paused_instance_starts_nothing_until_it_is_resumed() -> None:
    async def course(world: World) -> None:
        instance_id = await started(world, CHAIN, batch_size=1)
        assert (await of(world).pause(TENANT, instance_id)).success
        assert (await of(world).status(TENANT, instance_id)).status == "paused"
        assert (await of(world).pause(TENANT, instance_id)).message == f"Orchestrator '{instance_id}' pause requested"
        await asyncio.sleep(1.0)
        before = words(await of(world).status(TENANT, instance_id))
        await asyncio.sleep(5.0)
        assert words(await of(world).status(TENANT, instance_id)) == before
        assert "in_progress" not in before.values()
        assert (await of(world).instance(TENANT, instance_id)).status == "running"
        assert (await of(world).resume(TENANT, instance_id)).success
        assert (await reaches(world, instance_id, "stopped")).exit_reason == "complete"

    World(0).play_with(course)


def test_a_shutdown_lets_the_batch_finish_and_a_forced_one_does_not() -> None:
    async def course(world: World, force: bool) -> list[str]:
        world.character.mischief.takes_s = (2.0,)
        instance_id = await started(world, CHAIN, batch_size=1)
        await asyncio.sleep(0.5)
        assert (await of(world).shut_down(TENANT, instance_id, force)).success
        if not force:
            assert (await of(world).status(TENANT, instance_id)).status == "stopping"
            assert (await of(world).instance(TENANT, instance_id)).status == "stopping"
            assert (await of(world).shut_down(TENANT, instance_id, force)).success
            assert await of(world).pause(TENANT, instance_id) == _not("Pause not acknowledged")
        status = await reaches(world, instance_id, "stopped")
        assert status.exit_reason == "shutdown"
        with pytest.raises(InstanceDead):
            await of(world).pause(TENANT, instance_id)
        return list(words(status).values())

    assert World(0).play_with(lambda world: course(world, False)) == ["completed"] + ["pending"] * 5
    assert World(0).play_with(lambda world: course(world, True)) == ["pending"] * 6


def _not(message: str) -> Any:
    from orchestrator.instance_views import Acknowledged

    return Acknowledged(False, message)


def test_a_paused_instance_can_be_shut_down() -> None:
    async def course(world: World) -> None:
        instance_id = await started(world, CHAIN, batch_size=3)
        await of(world).pause(TENANT, instance_id)
        await of(world).shut_down(TENANT, instance_id, False)
        assert (await reaches(world, instance_id, "stopped")).exit_reason == "shutdown"

    World(0).play_with(course)


def test_tasks_are_skipped_and_retried_in_the_words_of_the_contract() -> None:
    async def course(world: World) -> None:
        instance_id = await started(world, CHAIN, batch_size=1)
        await of(world).pause(TENANT, instance_id)
        skip, retry = of(world).skip_task, of(world).retry_task
        done = await skip(TENANT, instance_id, "1.6", "later")
        assert (done.success, done.message) == (True, "Task '1.6' skipped")
        assert (await skip(TENANT, instance_id, "1.6", None)).success
        unknown = await skip(TENANT, instance_id, "9.9", None)
        assert unknown.error == "Failed to mark task 9.9 as skipped. Task may not exist."
        assert (unknown.success, unknown.message) == (False, "Skip failed")
        again = await retry(TENANT, instance_id, "1.6")
        assert (again.success, again.message) == (True, "Task '1.6' reset for retry")
        task = (await of(world).status(TENANT, instance_id)).tasks[-1]
        assert (task.status, task.retry_count, task.completed_at) == ("pending", 1, None)
        refused = await retry(TENANT, instance_id, "1.6")
        assert refused.error == "Task status is 'pending', must be 'failed' or 'skipped'"
        with pytest.raises(NotFound) as nobody:
            await retry(TENANT, instance_id, "9.9")
        assert nobody.value.kind == "task"
        await of(world).resume(TENANT, instance_id)
        await reaches(world, instance_id, "stopped")
        refused = await skip(TENANT, instance_id, "1.1", None)
        assert refused.error == "Task status is 'completed'"

    World(0).play_with(course)


def test_a_failed_task_is_tried_again_last_and_blocks_when_its_retries_are_used_up() -> None:
    async def course(world: World) -> None:
        world.character.mischief.permanent = 0.0
        world.character.mischief.error = 1.0
        text = "# B\n## Phase 1: A\n- [ ] 1.1 a\n- [ ] 1.2 b\n## Phase 2: B\n- [ ] 2.1 c"
        instance_id = await started(world, text, batch_size=1, max_retries=1)
        status = await reaches(world, instance_id, "stopped")
        assert (status.exit_reason, status.iteration) == ("blocked", 4)
        assert [(t.status, t.retry_count, t.last_error) for t in status.tasks] == [
            ("failed", 1, "Boom"),
            ("failed", 1, "Boom"),
            ("pending", 0, None),
        ]
        world.character.mischief.error = 0.0
        done = await of(world).retry_task(TENANT, instance_id, "1.1")
        assert done.success, done
        after = (await of(world).status(TENANT, instance_id)).tasks[0]
        assert (after.status, after.retry_count, after.last_error) == ("pending", 2, None)
        assert (await of(world).skip_task(TENANT, instance_id, "2.1", None)).success
        assert (await of(world).instance(TENANT, instance_id)).status == "stopped"
        assert world.journal.runs[instance_id].state == "failed"

    World(0).play_with(course)


def test_an_instance_gives_up_after_its_last_batch() -> None:
    async def course(world: World) -> None:
        instance_id = await started(world, CHAIN, batch_size=2, max_iterations=2)
        status = await reaches(world, instance_id, "stopped")
        assert (status.exit_reason, status.iteration) == ("max_iterations", 2)
        assert list(words(status).values()) == ["completed"] * 4 + ["pending"] * 2

    World(0).play_with(course)


def test_an_instance_whose_actor_dies_goes_on() -> None:
    async def course(world: World) -> None:
        world.character.mischief.takes_s = (0.5,)
        instance_id = await started(world, CHAIN, batch_size=2)
        _, _, frames = await of(world).open_events(TENANT, instance_id, 0)
        reader = asyncio.create_task(told(frames))
        for _ in range(3):
            await asyncio.sleep(0.4)
            world.kill(f"orchestrator:{instance_id}")
        status = await reaches(world, instance_id, "stopped", 90.0)
        assert status.exit_reason == "complete"
        assert [frame.seq for frame in await reader] == list(range(1, 1 + len(reader.result())))

    World(0).play_with(course)


def test_an_instance_whose_actor_does_not_come_back_has_crashed() -> None:
    async def course(world: World) -> None:
        world.character.mischief.takes_s = (600.0,)
        instance_id = await started(world, CHAIN)
        await asyncio.sleep(1.0)  # it has told the scheduler of its incarnation, which would start it otherwise
        world.wire.processes.pop(f"orchestrator:{instance_id}").end()
        view = await of(world).instance(TENANT, instance_id)
        assert (view.status, view.alive) == ("running", False)
        with pytest.raises(InstanceDead):
            await of(world).pause(TENANT, instance_id)
        await asyncio.sleep(75.0)
        view = await of(world).instance(TENANT, instance_id)
        assert (view.status, view.alive, view.exit_reason) == ("crashed", False, "error")
        status = await of(world).status(TENANT, instance_id)
        assert (status.status, status.exit_reason) == ("stopped", "error")
        world.start(f"orchestrator:{instance_id}")
        await asyncio.sleep(1.0)
        assert (await of(world).instance(TENANT, instance_id)).status == "running"

    World(0).play_with(course)


def test_signs_of_life_do_not_move_the_run() -> None:
    async def course(world: World) -> None:
        world.character.mischief.takes_s = (600.0,)
        instance_id = await started(world, CHAIN)
        await asyncio.sleep(1.0)
        version = world.journal.runs[instance_id].version
        first = (await of(world).instance(TENANT, instance_id)).last_heartbeat
        await asyncio.sleep(25.0)
        later = (await of(world).instance(TENANT, instance_id)).last_heartbeat
        assert 15.0 < (later - first).total_seconds() < 25.0
        assert world.journal.runs[instance_id].version == version

    World(0).play_with(course)


def test_a_stream_tells_everything_in_order_and_resumes_anywhere() -> None:
    async def course(world: World) -> None:
        text = "# B\n## Phase 1: A\n- [ ] 1.1 a\n## Phase 2: B\n- [ ] 2.1 c"
        instance_id = await started(world, text)
        snapshot, seq, frames = await of(world).open_events(TENANT, instance_id, 0)
        assert (snapshot.instance_id, snapshot.status) == (instance_id, "running")
        every = await told(frames)
        assert [frame.seq for frame in every] == list(range(1, len(every) + 1))
        assert short(every) == [
            ("1.1", "in_progress"),
            ("tool_started", "1.1/1"),
            "status_updated",
            ("tool_completed", "1.1/1"),
            ("1.1", "completed"),
            ("Phase 1: A", "Phase 2: B"),
            ("2.1", "in_progress"),
            ("tool_started", "2.1/1"),
            "status_updated",
            ("tool_completed", "2.1/1"),
            ("2.1", "completed"),
            ("Phase 2: B", None),
            "status_updated",
            "stopped",
        ]
        for since in range(len(every) + 1):
            _, latest, rest = await of(world, 1).open_events(TENANT, instance_id, since)
            assert latest == len(every)
            assert [frame.seq for frame in await told(rest)] == [frame.seq for frame in every[since:]]
        _, _, far = await of(world).open_events(TENANT, instance_id, 999)
        assert await told(far) == []
        assert seq <= len(every)

    World(0).play_with(course)


def test_an_ended_instance_is_gone_after_a_while_and_health_counts_the_running() -> None:
    async def course(world: World) -> None:
        world.clients.write_plan("demo", DEMO)
        instance_id = await started(world)
        assert await of(world).running() == 1
        await reaches(world, instance_id, "stopped")
        assert await of(world).running() == 0
        await asyncio.sleep(3601.0)
        assert await of(world).instances(TENANT) == []
        with pytest.raises(NotFound):
            await of(world).status(TENANT, instance_id)

    World(0).play_with(course)
