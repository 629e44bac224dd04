"""Deadlines and callbacks through the shells, on virtual time: whoever is killed, what was due is found again, once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors.names import WEBHOOKS
from orchestrator import codec, outside_codec
from orchestrator import events as e
from orchestrator.definition import Definition, TaskSpec
from orchestrator.streams import Letter, inbox
from orchestrator.webhook import Notice
from serve_app.gateway import Gateway
from tests.unit.actors.test_small_worlds import backfilled, ends, triggered
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT

URL = "https://example.org/hook"
#: a type that nobody here runs
ELSEWHERE = "elsewhere.only"


async def defined(world: World, *tasks: TaskSpec, **changes: Any) -> Gateway:
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=tasks, **changes))
    return world.clients.gateways[0]


def slow(name: str = "a", **changes: Any) -> TaskSpec:
    """A task that waits for a worker for ever."""
    return TaskSpec(id=name, type=ELSEWHERE, **changes)


def quick(name: str = "a", **changes: Any) -> TaskSpec:
    return TaskSpec(id=name, type="core.sleep", **changes)


def events_of(world: World, run_id: str, kind: type[e.Event]) -> list[Any]:
    batches = world.journal.runs[run_id].events
    return [event for b in batches for event in codec.decode_events(b.events, b.schema) if isinstance(event, kind)]


def told(world: World) -> list[tuple[Notice, dict[str, Any]]]:
    """Notices that the outbox was given, with their payloads."""
    found = []
    for _, item in world.journal.streams[inbox(WEBHOOKS)]:
        for letter in codec.decode_inbox(item):
            assert isinstance(letter, Letter)
            notice = outside_codec.decode_notice(bytes(letter.data))
            found.append((notice, msgspec.json.decode(notice.payload)))
    return found


async def restart_all(world: World, away_s: float) -> None:
    """Every process of the control plane ends, and comes back after a while."""
    names = ["scheduler", *RUN_ACTORS]
    for name in names:
        world.wire.processes.pop(name).end()
    await asyncio.sleep(away_s)
    for name in names:
        world.start(name)


@pytest.mark.parametrize("away_s", [1.0, 30.0])
def test_the_sla_of_a_task_survives_a_full_restart_and_is_told_once(away_s: float) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, slow(sla_s=10), quick("b"))
        run_id = await triggered(gateway)
        await asyncio.sleep(2.0)
        await restart_all(world, away_s)
        await asyncio.sleep(15.0)
        await restart_all(world, 1.0)
        await asyncio.sleep(15.0)
        [missed] = events_of(world, run_id, e.SlaMissed)
        created = events_of(world, run_id, e.RunCreated)[0]
        assert (missed.task, (missed.deadline - created.at).total_seconds()) == ("a", 10.0)
        assert (missed.at - missed.deadline).total_seconds() < max(2.0, away_s)
        assert world.journal.runs[run_id].sla_missed == ("a",)
        assert world.journal.counters["task_sla_breaches_total|d"] == 1
        assert world.journal.runs[run_id].state == "running"
        view = await gateway.run(TENANT, run_id)
        assert (view.sla_missed, view.tasks_sla_missed) == (False, ("a",))

    World(0).play_with(course)


def test_a_task_whose_sla_cancels_it_fails_with_that_reason_and_frees_its_worker() -> None:
    async def course(world: World) -> None:
        world.character.mischief.takes_s = (60.0,)
        gateway = await defined(
            world, quick(sla_s=2, on_sla_miss=("mark", "cancel"), retries=3), quick("b", depends_on=("a",))
        )
        run_id = await triggered(gateway)
        assert await ends(world, run_id) == "failed"
        [failed] = events_of(world, run_id, e.TaskFailed)
        assert (failed.reason, failed.timed_out, failed.attempt) == ("sla", True, 1)
        assert world.journal.runs[run_id].tasks == {"a": "t", "b": "u"}
        world.character.mischief.takes_s = (0.1,)
        await defined(world, quick())
        assert await ends(world, await triggered(gateway)) == "succeeded"

    World(0).play_with(course)


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_that_is_admitted_too_late_ends_as_timed_out_while_it_is_queued(dies: bool) -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, slow(), max_active_runs=1, queue_timeout_s=5.0, callback_url=URL)
        first = await triggered(gateway)
        await asyncio.sleep(1.0)
        second = await triggered(gateway)
        if dies:
            await restart_all(world, 10.0)
        assert await ends(world, second) == "timed_out"
        [end] = events_of(world, second, e.RunTimedOut)
        assert (end.reason, end.error) == ("queued", "QueueTimeout: not admitted within 5 s")
        assert world.journal.runs[first].state == "running"
        view = await gateway.run(TENANT, second)
        assert (view.timed_out, view.tasks) == ("queued", {"a": "cancelled"})
        assert [payload["event"] for _, payload in told(world)] == ["run.failed"]

    World(0).play_with(course)


def test_a_paused_dag_does_not_stop_the_clock_of_its_queued_runs() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, quick(sla_s=3), quick("b", sla_s=6), queue_timeout_s=9.0)
        await gateway.pause_dag(TENANT, "d", None, None)
        run_id = await triggered(gateway)
        assert await ends(world, run_id) == "timed_out"
        missed = events_of(world, run_id, e.SlaMissed)
        assert [event.task for event in missed] == ["a", "b"]
        assert all((event.at - event.deadline).total_seconds() < 2.0 for event in missed)

    World(0).play_with(course)


def test_a_task_that_no_worker_takes_in_time_fails_with_that_reason() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, quick(), slow("b", depends_on=("a",), queue_timeout_s=3.0), quick("c"))
        run_id = await triggered(gateway)
        await asyncio.sleep(1.0)
        await restart_all(world, 0.5)
        assert await ends(world, run_id) == "failed"
        [failed] = events_of(world, run_id, e.TaskFailed)
        [done] = [event for event in events_of(world, run_id, e.TaskSucceeded) if event.task == "a"]
        assert (failed.reason, failed.error) == ("queued", "QueueTimeout: no worker took it within 3 s")
        assert 3.0 <= (failed.at - done.at).total_seconds() < 5.0
        assert world.journal.runs[run_id].error == f"b: {failed.error}"

    World(0).play_with(course)


def test_the_callback_is_owed_for_every_end_of_runs_windows_and_backfills() -> None:
    async def course(world: World) -> None:
        gateway = await defined(world, quick(), callback_url=URL)
        run_id, backfill = await triggered(gateway), await backfilled(gateway, 2)
        await ends(world, backfill)
        await ends(world, run_id)
        await restart_all(world, 1.0)
        await asyncio.sleep(20.0)
        payloads = {payload["run_id"]: payload for _, payload in told(world)}
        children = world.journal.runs[backfill].children
        assert sorted(payloads) == sorted([run_id, backfill, *children])
        assert len(told(world)) == 4
        assert {payload["event"] for payload in payloads.values()} == {"run.success"}
        assert payloads[children[0]] == {
            "event": "run.success",
            "dag_id": "d",
            "run_id": children[0],
            "state": "success",
            "window": {"from": "2026-02-01", "to": "2026-02-01"},
            "attempts": 1,
        }
        assert payloads[backfill]["window"] == {"from": "2026-02-01", "to": "2026-02-02"}
        assert {notice.url for notice, _ in told(world)} == {URL}

    World(0).play_with(course)


def test_a_missed_sla_is_told_by_webhook_when_asked_for_and_a_run_can_be_cancelled_by_its() -> None:
    async def course(world: World) -> None:
        gateway = await defined(
            world,
            slow(sla_s=2, on_sla_miss=("event", "webhook")),
            sla_s=4,
            on_sla_miss=("mark", "webhook", "cancel"),
            callback_url=URL,
        )
        run_id = await triggered(gateway)
        assert await ends(world, run_id) == "cancelled"
        events = [(payload["event"], payload.get("task", "-"), payload["state"]) for _, payload in told(world)]
        assert events == [
            ("sla.missed", "a", "running"),
            ("sla.missed", None, "running"),
            ("run.cancelled", "-", "cancelled"),
        ]
        assert world.journal.runs[run_id].sla_missed == ("",)  # `event` alone marks nothing
        assert (await gateway.run(TENANT, run_id)).sla_missed

    World(0).play_with(course)
