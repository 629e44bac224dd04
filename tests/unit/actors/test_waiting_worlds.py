"""What waits for the world outlives everything: the shells together on virtual time, with deaths in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from orchestrator import actor_codec
from orchestrator import events as e
from orchestrator.command import Ballot, Command, Signalled
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.records import approvals_of
from orchestrator.starts import Trigger
from serve_app.gateway import Gateway
from tests.invariants import check_versions
from tests.world import RUN_ACTORS, World
from tests.world_clients import TENANT

DATA = msgspec.Raw(b'{"n":1}')
YES = Ballot("approve", "ada", ("client", "ada"))


def world(passivate_after_s: float = 0.5) -> World:
    made = World(0)
    made.settings = replace(made.settings, passivate_after_s=passivate_after_s)
    return made


async def started(world: World, *tasks: TaskSpec, **changes: Any) -> tuple[Gateway, str]:
    """A run of a DAG of these tasks, half a second later."""
    await world.clients.define(Definition(dag_id="d", owner="team", tasks=tasks, **changes))
    gateway = world.clients.gateways[0]
    run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
    await asyncio.sleep(0.5)
    return gateway, run_id


def told(world: World, run_id: str, kind: type[e.Event]) -> list[Any]:
    return [event for event in check_versions(world.journal.runs[run_id].events) if isinstance(event, kind)]


def kill_everything(world: World) -> None:
    for name in ("supervisor", "scheduler", *RUN_ACTORS, *world.workers):
        world.kill(name)


async def ends(world: World, run_id: str, within_s: float = 40.0) -> str:
    async with asyncio.timeout(within_s):
        while run_id in world.open():  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0.05)
    return world.journal.runs[run_id].state


def a_task(task: str, kind: str, /, *needs: str, **params: Any) -> TaskSpec:
    return TaskSpec(task, kind, needs, params=params)


@pytest.mark.parametrize("dies", [False, True])
def test_a_wait_of_ten_days_takes_no_memory_no_worker_and_ends_in_time(dies: bool) -> None:
    async def course(world: World) -> None:
        gateway, run_id = await started(world, a_task("w", "core.wait", seconds=864_000), a_task("a", "core.noop", "w"))
        await asyncio.sleep(20.0)
        assert world.journal.runs[run_id].owner == "", "it left memory"
        assert (await gateway.run(TENANT, run_id)).waiting_for["w"].kind == "time"
        if dies:
            kill_everything(world)
        world.clock.skew += timedelta(seconds=863_900)
        await asyncio.sleep(30.0)
        assert world.journal.runs[run_id].state == "running"
        assert await ends(world, run_id, 120.0) == "succeeded"
        [waiting], [ended, _] = told(world, run_id, e.TaskWaiting), told(world, run_id, e.TaskSucceeded)
        late_s = (ended.at - waiting.wait.until).total_seconds()
        assert 0 <= late_s < 20, late_s

    world().play_with(course)


def test_an_early_signal_to_a_queued_run_survives_the_death_of_everything() -> None:
    async def course(world: World) -> None:
        await world.clients.define(Definition("d", "team", tasks=(a_task("s", "core.signal", name="go"),)))
        gateway = world.clients.gateways[0]
        await gateway.pause_dag(TENANT, "d", None, None)
        run_id = (await gateway.trigger(TENANT, Trigger(dag_id="d"), None)).run_id
        sent = await gateway.waiting.signal(TENANT, run_id, "go", DATA, None, None)
        assert (sent.state, world.journal.runs[run_id].owner) == ("queued", "")
        kill_everything(world)
        await asyncio.sleep(20.0)
        await gateway.resume_dag(TENANT, "d", None, None)
        assert await ends(world, run_id) == "succeeded"
        [event] = told(world, run_id, e.TaskSucceeded)
        assert event.value.inline == DATA

    world().play_with(course)


def test_a_signal_wakes_a_run_that_has_left_memory() -> None:
    async def course(world: World) -> None:
        gateway, run_id = await started(world, a_task("s", "core.signal", name="go"))
        await asyncio.sleep(20.0)
        assert world.journal.runs[run_id].owner == ""
        await gateway.waiting.signal(TENANT, run_id, "go", DATA, None, None)
        assert await ends(world, run_id, 1.0) == "succeeded"
        with pytest.raises(Conflict, match="already succeeded"):
            await gateway.waiting.signal(TENANT, run_id, "go", DATA, None, None)

    world().play_with(course)


def test_one_request_id_is_one_signal_and_one_answer() -> None:
    async def course(world: World) -> None:
        gateway, run_id = await started(world, a_task("s", "core.signal", name="stop"))
        key = Idempotency("key", "f")
        first = await gateway.waiting.signal(TENANT, run_id, "go", DATA, None, key)
        second = await gateway.waiting.signal(TENANT, run_id, "go", DATA, None, key)
        assert second == msgspec.structs.replace(first, replayed=True)
        assert len(told(world, run_id, e.SignalReceived)) == 1

    world().play_with(course)


def test_a_stored_answer_is_given_to_its_own_command_and_to_no_other_of_the_same_turn() -> None:
    async def course(world: World) -> None:
        _, run_id = await started(world, a_task("s", "core.signal", name="stop"), a_task("t", "core.wait", seconds=60))
        owner = world.journal.runs[run_id].owner
        skip = Command(kind="skip_task", run_id=run_id, task="t", idem=Idempotency("key", "f"))
        await world.wire.ask(owner, "command", actor_codec.encode_command(skip))
        signal = Command(kind="signal", run_id=run_id, signal=Signalled("go", DATA, "x"))
        actor = world.wire.processes[owner].object
        both = [actor.command(actor_codec.encode_command(each)) for each in (skip, signal)]
        again, sent = map(actor_codec.decode_command_reply, await asyncio.gather(*both))
        assert (again.replayed, again.task_state) == (True, "skipped")
        assert (sent.replayed, sent.signal_id) == (False, "x")
        assert [event.signal_id for event in told(world, run_id, e.SignalReceived)] == ["x"]

    world(300.0).play_with(course)


def test_approvals_are_listed_until_they_are_decided_also_when_everything_died_in_between() -> None:
    async def course(world: World) -> None:
        ask = a_task("ask", "core.approval", prompt="Well?", quorum=2)
        gateway, run_id = await started(world, ask, a_task("w", "core.wait", seconds=5))
        [view] = await gateway.waiting.approvals(TENANT, dag_id="d", run_id=None)
        assert (view.run_id, view.task, view.prompt, view.votes) == (run_id, "ask", "Well?", ())
        await gateway.waiting.decide(TENANT, run_id, "ask", YES, None)
        await world.journal.put_records(approvals_of(TENANT), {f"{run_id}/ask/1": None})  # as if it had died before
        kill_everything(world)
        await asyncio.sleep(30.0)
        [view] = await gateway.waiting.approvals(TENANT, dag_id=None, run_id=run_id)
        assert [vote.by for vote in view.votes] == ["ada"]
        await gateway.waiting.decide(TENANT, run_id, "ask", msgspec.structs.replace(YES, by="bob"), None)
        assert await ends(world, run_id) == "succeeded"
        await asyncio.sleep(1.0)
        assert await gateway.waiting.approvals(TENANT, dag_id=None, run_id=None) == []
        assert await world.journal.records(approvals_of(TENANT)) == {}

    world(300.0).play_with(course)


def test_what_is_listed_wrongly_is_left_out_and_forgotten() -> None:
    async def course(world: World) -> None:
        gateway, run_id = await started(world, a_task("ask", "core.approval", prompt="Well?"))
        [record] = (await world.journal.records(approvals_of(TENANT))).values()
        await gateway.waiting.decide(TENANT, run_id, "ask", YES, None)
        await asyncio.sleep(1.0)
        await world.journal.put_records(approvals_of(TENANT), {f"{run_id}/ask/1": record})
        assert await gateway.waiting.approvals(TENANT, dag_id=None, run_id=None) == []
        assert await world.journal.records(approvals_of(TENANT)) == {}

    world().play_with(course)


def test_a_late_vote_is_refused_and_stands_in_the_journal() -> None:
    async def course(world: World) -> None:
        ask = a_task("ask", "core.approval", prompt="Well?")
        gateway, run_id = await started(world, ask, a_task("w", "core.wait", seconds=60))
        await gateway.waiting.decide(TENANT, run_id, "ask", YES, None)
        for _ in range(2):
            with pytest.raises(Conflict, match="not open to this vote any more"):
                await gateway.waiting.decide(TENANT, run_id, "ask", Ballot("reject", "bob", ("client",)), None)
        assert [(vote.by, vote.choice) for vote in told(world, run_id, e.VoteRefused)] == [("bob", "reject")]

    world().play_with(course)


def test_who_asks_for_a_task_or_run_that_is_none_is_told_so() -> None:
    async def course(world: World) -> None:
        gateway, run_id = await started(world, a_task("w", "core.wait", seconds=60))
        with pytest.raises(NotFound, match="task zz"):
            await gateway.waiting.decide(TENANT, run_id, "zz", YES, None)
        with pytest.raises(NotFound, match="run run_1"):
            await gateway.waiting.signal(TENANT, "run_1", "go", DATA, None, None)
        with pytest.raises(NotFound, match="run"):
            await gateway.waiting.query("other", run_id, "progress")

    world().play_with(course)


def test_a_run_answers_what_it_waits_for_and_how_far_it_is_without_an_actor() -> None:
    async def course(world: World) -> None:
        tasks = (a_task("a", "core.noop"), a_task("s", "core.signal", "a", name="go"), a_task("b", "core.noop", "s"))
        gateway, run_id = await started(world, *tasks)
        await gateway.waiting.signal(TENANT, run_id, "other", DATA, None, None)
        for name in RUN_ACTORS:
            world.wire.processes.pop(name).end()
        progress, waiting = await gateway.waiting.queries(TENANT, run_id)
        assert msgspec.json.decode(progress.value) == {"done": 1, "total": 3, "fraction": 0.3333, "tasks": {}}
        answer = msgspec.json.decode(waiting.value)
        assert answer["signals_kept"] == {"other": 1}
        assert (answer["tasks"]["s"]["kind"], answer["tasks"]["s"]["name"]) == ("signal", "go")
        with pytest.raises(NotFound, match="published value rows"):
            await gateway.waiting.query(TENANT, run_id, "rows")

    world().play_with(course)


def test_waiting_tasks_of_windows_hold_their_backfill_open() -> None:
    async def course(world: World) -> None:
        await world.clients.define(Definition("d", "team", tasks=(a_task("s", "core.signal", name="go"),)))
        gateway = world.clients.gateways[0]
        trigger = Trigger(dag_id="d", run_type="backfill", start="2026-02-01", end="2026-02-02")
        backfill = (await gateway.trigger(TENANT, trigger, None)).run_id
        await asyncio.sleep(1.0)
        view = await gateway.run(TENANT, backfill)
        assert (view.state, view.tasks) == ("running", {"s": "running"})
        with pytest.raises(Conflict, match="is a backfill"):
            await gateway.waiting.signal(TENANT, backfill, "go", DATA, None, None)
        for child in list(world.journal.runs[backfill].children):
            await gateway.waiting.signal(TENANT, child, "go", DATA, None, None)
        assert await ends(world, backfill) == "succeeded"

    world().play_with(course)


def test_code_that_sleeps_gives_its_slot_to_others_and_goes_on_after_everything_died() -> None:
    async def course(world: World) -> None:
        world.character.mischief.suspended = 1.0
        _, run_id = await started(world, TaskSpec("a", "core.sleep"))
        assert told(world, run_id, e.TaskSuspended)
        world.character.mischief.suspended = 0.0
        kill_everything(world)
        assert await ends(world, run_id) == "succeeded"
        attempts = [event.attempt for event in told(world, run_id, e.TaskStarted)]
        assert attempts == list(range(1, len(attempts) + 1))
        assert len(attempts) > 1
        assert not told(world, run_id, e.TaskRetrying)

    world().play_with(course)
