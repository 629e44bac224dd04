"""Commands and reads of runs through the gateway."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from orchestrator import actor_codec, codec
from orchestrator import events as e
from orchestrator.command import Command, CommandReply
from orchestrator.definition import Definition, TaskSpec
from orchestrator.errors import Conflict, Invalid, JournalUnavailable, NotFound, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger
from orchestrator.steps import Append, StoredReply
from serve_app import gateway as gateways
from tests.conformance.journal_builders import Owner
from tests.gateway_stage import NOW, World, key


@pytest.fixture
def world() -> World:
    return World()


# reads


async def test_lists_page_through_everything_once(world: World) -> None:
    await world.define()
    ids = [(await world.trigger()).run_id for _ in range(7)]
    wanted = RunFilter(tenant="t", dag_id="d", state="queued", run_type="manual")
    found, cursor = list[str](), None
    while True:
        page = await world.gateway.runs(wanted, cursor, 3)
        found += [view.run_id for view in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ids[::-1]
    with pytest.raises(Invalid):
        await world.gateway.runs(wanted, "x", 3)


async def test_another_tenants_run_does_not_exist(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    gateway = world.gateway
    for ask in (
        gateway.run("u", run),
        gateway.cancel_run("u", run, None),
        gateway.open_events("u", run, None),
        gateway.logs("u", run, "extract", None),
    ):
        with pytest.raises(NotFound):
            await ask
    assert world.stage.commands == []


async def test_output_is_found_by_the_attempts_there_were(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    owner = await Owner(world.journal).start()
    events = codec.encode_events([e.TaskStarted(NOW, "extract", n, "w") for n in (1, 2)])
    await owner.commit(Append(run_id=run, expected=1, count=2, events=events))
    world.journal.logs = {
        (run, "extract", 1): [b"one\n", b"more"],
        (run, "extract", 2): [b"two\n[output truncated after 1 MiB]\n"],
    }
    chunks = await world.gateway.logs("t", run, "extract", None)
    assert [(c.attempt, c.text, c.truncated) for c in chunks] == [(1, "one\nmore", False), (2, "two", True)]
    assert [c.attempt for c in await world.gateway.logs("t", run, "extract", 2)] == [2]
    with pytest.raises(NotFound):
        await world.gateway.logs("t", run, "nope", None)


async def test_instances_are_asked_for_by_their_map_and_known_by_their_ids(world: World) -> None:
    work = TaskSpec(id="work", expand={"item": [1, 2]})
    definition = Definition(dag_id="mapped", owner="o", tasks=(work, TaskSpec(id="plain")))
    await world.gateway.define_dag("t", definition, keep_tasks=False, expect=None, idem=None)
    run = (await world.gateway.trigger("t", Trigger(dag_id="mapped"), None)).run_id
    owner = await Owner(world.journal).start()
    tasks = (("work", "r"), ("work[]", "2"), ("work[1]", "d"))
    await owner.commit(Append(run_id=run, expected=1, count=0, tasks=tasks))
    assert (await world.gateway.run("t", run)).tasks == {"work": "running", "plain": "pending"}
    ask = partial(world.gateway.map_instances, "t", run, states=None, cursor=None, limit=10)
    found = await ask("work")
    assert [(each.task, each.state) for each in found.items] == [("work[0]", "pending"), ("work[1]", "succeeded")]
    assert await world.gateway.logs("t", run, "work[1]", 1) == []
    for task, error in (("plain", Invalid), ("work[1]", Invalid), ("plain[0]", NotFound), ("none", NotFound)):
        with pytest.raises(error):
            await ask(task)
    with pytest.raises(NotFound):
        await world.gateway.map_instances("u", run, "work", states=None, cursor=None, limit=10)


async def test_nothing_follows_a_run_that_ended_and_was_read(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    await world.end(run)
    assert await world.gateway.open_events("t", run, 3) is None
    assert await world.gateway.open_events("t", run, 99) is None
    frames = await world.gateway.open_events("t", run, 1)
    assert frames is not None
    assert [frame.seq async for chunk in frames for frame in chunk] == [2, 3, None]


async def test_an_id_beyond_the_last_of_a_live_run_means_live_only(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    frames = await world.gateway.open_events("t", run, 10**15)
    assert frames is not None
    first = asyncio.create_task(anext(frames))
    await asyncio.sleep(0.01)
    await world.end(run)
    assert next(frame.seq for frame in await first) == 2


# commands


async def test_a_command_goes_to_the_owner_and_its_answer_comes_back(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    owner = await Owner(world.journal, "actor-7").start()
    await owner.commit(Append(run_id=run, expected=1, count=0))
    world.stage.reply = CommandReply(state="running", attempts=2, task_state="pending")
    done = await world.gateway.retry_task("t", run, "extract", key("k"))
    assert (done.state, done.attempts, done.task_state) == ("running", 2, "pending")
    [(where, command)] = world.stage.commands
    assert (where, command) == (
        "actor-7",
        Command(kind="retry_task", run_id=run, task="extract", idem=Idempotency("k", "f")),
    )


@pytest.mark.parametrize(
    ("refused", "error"), [("conflict", Conflict), ("not_found", NotFound), ("unavailable", Unavailable)]
)
async def test_a_refusal_is_raised_as_what_it_is(world: World, refused: str, error: type[Exception]) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    world.stage.reply = CommandReply(refused=refused, message="no")
    with pytest.raises(error):
        await world.gateway.cancel_run("t", run, None)


async def test_a_repeated_command_is_answered_from_the_journal(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    reply = CommandReply(state="cancelled", attempts=1)
    await world.journal.store_reply(StoredReply("k", "f", actor_codec.encode_command_reply(reply)))
    done = await world.gateway.cancel_run("t", run, key("k"))
    assert (done.state, done.replayed, world.stage.commands) == ("cancelled", True, [])
    with pytest.raises(Conflict):
        await world.gateway.cancel_run("t", run, key("k", "g"))


async def test_a_task_command_on_a_backfill_reaches_the_windows_where_it_is_allowed(world: World) -> None:
    await world.define()
    made = await world.backfill()
    view = await world.gateway.run("t", made.run_id)
    assert view.windows is not None
    with pytest.raises(Conflict):
        await world.gateway.retry_task("t", made.run_id, "extract", None)
    await world.end(view.windows[1].run_id, "failed", "f")
    await world.end(view.windows[2].run_id)
    world.stage.reply = CommandReply(state="running", attempts=2, task_state="pending")
    for replayed in (False, True):
        done = await world.gateway.retry_task("t", made.run_id, "extract", key("k"))
        assert (done.task_state, done.replayed) == ("pending", replayed)
    assert [command.run_id for _, command in world.stage.commands] == [view.windows[1].run_id]
    with pytest.raises(NotFound):
        await world.gateway.retry_task("t", made.run_id, "nope", None)


async def test_an_actor_that_hangs_is_unavailable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = gateways.within(0.02)(world.stage.command)
    world.stage.hangs = True
    with pytest.raises(Unavailable):
        await limited("", "run_1", b"{}")


async def test_a_journal_that_is_down_is_unavailable_and_not_ready(world: World) -> None:
    await world.define()
    run = (await world.trigger()).run_id
    assert await world.gateway.ready() is None
    world.journal.failing = [False] * 10
    assert await world.gateway.ready() == "journal"
    for ask in (world.gateway.run("t", run), world.gateway.trigger("t", Trigger(dag_id="d"), None)):
        with pytest.raises(JournalUnavailable):
            await ask


async def test_workers_are_passed_on(world: World) -> None:
    assert [w.worker_id for w in await world.gateway.workers()] == ["w"]
    assert len(await world.gateway.scale_workers("default", 3)) == 3
    assert (await world.gateway.drain_worker("w")).state == "draining"


async def test_waiting_for_a_run_ends_with_the_run() -> None:
    world = World()
    await world.define()
    run_id = (await world.gateway.trigger("t", Trigger(dag_id="d"), None)).run_id
    waiting = asyncio.create_task(world.gateway.wait("t", run_id, 5))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await world.end(run_id)
    await asyncio.wait_for(waiting, 1)


async def test_waiting_for_a_run_ends_with_the_time_given() -> None:
    world = World()
    await world.define()
    run_id = (await world.gateway.trigger("t", Trigger(dag_id="d"), None)).run_id
    await asyncio.wait_for(world.gateway.wait("t", run_id, 0.05), 1)
    assert (await world.gateway.run("t", run_id)).state == "queued"


async def test_waiting_for_a_run_of_another_tenant_is_refused() -> None:
    world = World()
    await world.define()
    run_id = (await world.gateway.trigger("t", Trigger(dag_id="d"), None)).run_id
    with pytest.raises(NotFound):
        await world.gateway.wait("other", run_id, 5)
