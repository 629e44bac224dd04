"""The gateway over the in-memory journal, with a control plane that plays the owner of runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from actors.clock import Clock
from orchestrator import actor_codec, codec
from orchestrator import events as e
from orchestrator.cluster_views import PoolView, RunWaiting, WorkerView
from orchestrator.command import Command, CommandReply
from orchestrator.control import LimitUsage
from orchestrator.definition import Definition, LimitUse, TaskResources, TaskSpec, Window
from orchestrator.errors import (
    ActorUnreachable,
    Conflict,
    Invalid,
    JournalUnavailable,
    NotFound,
    OrchestratorError,
    Unavailable,
)
from orchestrator.idempotency import Idempotency
from orchestrator.limits import LIMITS, Limit, Rate
from orchestrator.pools import POOLS, PoolSpec
from orchestrator.rows import RunFilter
from orchestrator.starts import Trigger, Triggered
from orchestrator.steps import Append, StoredReply
from orchestrator.task_shapes import pool_for, pool_spec
from serve_app import gateway as gateways
from serve_app.gateway import Gateway
from tests.conformance.journal_builders import Owner
from tests.fakes_journal import MemoryJournal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class SetClock(Clock):
    """Time that stands still."""

    def now(self) -> datetime:
        return NOW

    def _wall_ms(self) -> int:
        return round(NOW.timestamp() * 1000)


class Stage:
    """`ports.ControlPlane`: answers each command as told, and remembers it."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, Command]] = []
        self.reply = CommandReply(state="cancelled", attempts=1)
        self.hangs = False
        self.woken = 0
        self.journal: MemoryJournal

    async def command(self, owner: str, run_id: str, command: bytes) -> bytes:
        if self.hangs:
            await asyncio.sleep(60)
        self.commands.append((owner, actor_codec.decode_command(command)))
        return actor_codec.encode_command_reply(self.reply)

    async def workers(self) -> bytes:
        return actor_codec.encode_workers([WorkerView("w", "default", "idle")])

    async def scale_workers(self, pool: str, n: int) -> bytes:
        return actor_codec.encode_workers([WorkerView(f"w{i}", pool, "idle") for i in range(n)])

    async def drain_worker(self, worker_id: str) -> bytes:
        return actor_codec.encode_workers([WorkerView(worker_id, "default", "draining")])

    async def pools(self) -> bytes:
        return actor_codec.encode_pool_views(
            [PoolView("gpu", PoolSpec(max=4), wanted=3, workers=3, starting=1, busy=2)]
        )

    async def set_pool(self, change: bytes) -> bytes:
        name, spec = actor_codec.decode_pool_change(change)
        if spec is None and name != "gpu":
            raise NotFound("pool", name)
        return actor_codec.encode_pool_views([] if spec is None else [PoolView(name, spec)])

    async def alive(self) -> bool:
        return not self.hangs

    async def load(self) -> dict[str, int]:
        return {"workers": 1, "plain_waiting": 2, "pool_waiting|gpu": 3}

    async def gateway_exists(self) -> bool:
        return True

    async def gateway(self, ward: str, _request: bytes, _patience_s: float = 5.0) -> bytes:
        raise ActorUnreachable(ward, "it is not here")

    async def set_limit(self, change: bytes) -> None:
        key, limit = actor_codec.decode_limit_change(change)
        await self.journal.put_records(LIMITS, {key: None if limit is None else codec.encode_limit(limit)})

    async def explain(self, run_id: str) -> bytes:
        if self.hangs:
            raise ActorUnreachable("scheduler", "it hangs")
        return actor_codec.encode_waiting(RunWaiting(run_id, "slot", "manual", share=0.25))

    async def wake_archiver(self) -> None:
        self.woken += 1

    async def limit_usage(self) -> bytes:
        if self.hangs:
            raise ActorUnreachable("scheduler", "it hangs")
        return actor_codec.encode_usage(
            [LimitUsage("l/t/one", 2, 5), LimitUsage("l/other/one", 9, 9), LimitUsage("d/t/d", 1, 0)]
        )


class World:
    """A gateway, its journal, and an owner that moves runs."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.stage = Stage()
        self.stage.journal = self.journal
        self.gateway = Gateway(self.journal, self.stage, SetClock(), windows_max=1000, dags_max=3)

    async def define(self, **changes: Any) -> None:
        await self.gateway.define_dag("t", definition(**changes), keep_tasks=False, expect=None, idem=None)

    async def end(self, run_id: str, state: str = "succeeded", letter: str = "d") -> None:
        owner = await Owner(self.journal).start()
        row = await self.journal.summary(run_id)
        assert row is not None
        events = codec.encode_events([e.RunStarted(NOW, 1), e.RunSucceeded(NOW)])
        step = Append(
            run_id=run_id,
            expected=row.version,
            count=2,
            events=events,
            state=state,
            attempts=row.attempts + 1,
            tasks=(("extract", letter), ("transform", letter)),
        )
        assert await owner.commit(step) == ["ok"]

    async def trigger(self, idem: Idempotency | None = None, **changes: Any) -> Triggered:
        return await self.gateway.trigger("t", Trigger(dag_id="d", **changes), idem)

    async def backfill(self, start: str = "2025-10-01", end: str = "2025-10-04", **changes: Any) -> Triggered:
        return await self.trigger(run_type="backfill", start=start, end=end, **changes)


@pytest.fixture
def world() -> World:
    return World()


def definition(**changes: Any) -> Definition:
    tasks = (TaskSpec("extract"), TaskSpec("transform", depends_on=("extract",)))
    return Definition(**({"dag_id": "d", "owner": "team", "tasks": tasks} | changes))


def key(name: str, fingerprint: str = "f") -> Idempotency:
    return Idempotency(name, fingerprint)


# DAGs


async def test_a_definition_gets_a_version_only_when_it_changes(world: World) -> None:
    gateway = world.gateway
    for sla_s, version in ((None, 1), (None, 1), (60, 2)):
        done = await gateway.define_dag("t", definition(sla_s=sla_s), keep_tasks=False, expect=None, idem=None)
        assert done.version == version
    with pytest.raises(Conflict, match="version 2, not 1"):
        await gateway.define_dag("t", definition(), keep_tasks=False, expect=1, idem=None)
    with pytest.raises(Conflict, match="does not exist"):
        await gateway.define_dag("t", definition(dag_id="x"), keep_tasks=False, expect="any", idem=None)
    assert (await gateway.define_dag("t", definition(), keep_tasks=False, expect=2, idem=None)).version == 3


async def test_a_repeated_definition_is_answered_whatever_it_expected(world: World) -> None:
    await world.define()
    for replayed in (False, True):
        done = await world.gateway.define_dag("t", definition(sla_s=1), keep_tasks=False, expect=1, idem=key("k"))
        assert (done.version, done.replayed) == (2, replayed)
    with pytest.raises(Conflict):
        await world.gateway.define_dag("t", definition(sla_s=1), keep_tasks=False, expect=None, idem=key("k", "g"))


async def test_an_existing_dag_keeps_its_tasks_when_none_are_given(world: World) -> None:
    await world.define()
    await world.gateway.define_dag("t", definition(tasks=(), owner="other"), keep_tasks=True, expect=None, idem=None)
    view = await world.gateway.dag("t", "d")
    assert ([t.id for t in view.definition.tasks], view.definition.owner) == (["extract", "transform"], "other")


async def test_a_schedule_starts_at_its_definition_or_change(world: World) -> None:
    await world.define(schedule="0 2 * * *")
    at_two = datetime(2026, 1, 3, 2, tzinfo=UTC)
    assert (await world.gateway.dag("t", "d")).next_run_at == at_two
    row = world.journal.dag_rows["t", "d"]
    row.next_fire_ms = row.next_due_ms = row.next_fire_ms - 86_400_000
    await world.define(schedule="0 2 * * *", sla_s=5)
    assert (await world.gateway.dag("t", "d")).next_run_at == at_two - timedelta(days=1), "what is due stays due"
    await world.define(schedule="0 3 * * *")
    assert (await world.gateway.dag("t", "d")).next_run_at == at_two.replace(day=2, hour=3) + timedelta(days=1)
    await world.gateway.pause_dag("t", "d", None, None)
    assert (await world.gateway.dag("t", "d")).next_run_at is None
    await world.define(schedule=None)
    await world.gateway.resume_dag("t", "d", None, None)
    assert (await world.gateway.dag("t", "d")).next_run_at is None


async def test_a_tenant_has_so_many_dags_and_sees_only_its_own(world: World) -> None:
    for name in ("a", "b", "d"):
        await world.define(dag_id=name)
    with pytest.raises(Conflict, match="at most 3"):
        await world.define(dag_id="e")
    with pytest.raises(NotFound):
        await world.gateway.dag("u", "d")
    with pytest.raises(NotFound):
        await world.gateway.pause_dag("u", "d", None, None)


async def test_dags_are_listed_by_page_and_filter(world: World) -> None:
    for name, owner in (("a", "x"), ("b", "y"), ("d", "x")):
        await world.define(dag_id=name, owner=owner)
    await world.gateway.pause_dag("t", "a", None, None)

    async def names(cursor: str | None = None, limit: int = 10, **wanted: Any) -> tuple[list[str], str | None]:
        values = {"paused": None, "owner": None} | wanted
        page = await world.gateway.dags("t", cursor=cursor, limit=limit, **values)
        return [view.definition.dag_id for view in page.items], page.next_cursor

    assert await names() == (["a", "b", "d"], None)
    assert await names(owner="x") == (["a", "d"], None)
    assert await names(paused=False) == (["b", "d"], None)
    first, cursor = await names(limit=2)
    assert (first, await names(cursor=cursor)) == (["a", "b"], (["d"], None))
    for bad in ("", "!", "Kg", "é", "YQ=="):
        with pytest.raises(Invalid):
            await names(cursor=bad)


# manual runs


async def test_a_manual_run_is_created_once_per_window_and_each_time_without_one(world: World) -> None:
    await world.define(sla_s=60)
    same = await asyncio.gather(*(world.trigger(start="2025-10-01", end="2025-10-01") for _ in range(50)))
    assert len({t.run_id for t in same}) == 1
    assert len({(await world.trigger()).run_id for _ in range(3)}) == 3
    view = await world.gateway.run("t", same[0].run_id)
    assert (view.state, view.window, view.run_type) == ("queued", Window("2025-10-01", "2025-10-01"), "manual")
    assert view.tasks == {"extract": "pending", "transform": "pending"}
    assert view.sla_deadline == NOW + timedelta(seconds=60)


async def test_state_and_tasks_of_a_run_are_of_one_instant(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.define()
    run_id = (await world.trigger()).run_id
    look = world.journal.look

    async def look_and_end(wanted: str) -> Any:
        seen = await look(wanted)
        await world.end(wanted)
        return seen

    monkeypatch.setattr(world.journal, "look", look_and_end)
    view = await world.gateway.run("t", run_id)
    assert (view.state, view.tasks) == ("queued", {"extract": "pending", "transform": "pending"})


async def test_creations_that_wait_share_one_step(world: World) -> None:
    await world.define()
    steps = 0
    real = world.journal.create_runs

    async def counting(creations: Any) -> Any:
        nonlocal steps
        steps += 1
        await asyncio.sleep(0.01)
        return await real(creations)

    world.journal.create_runs = counting  # type: ignore[method-assign]
    await asyncio.gather(*(world.trigger() for _ in range(100)))
    assert steps <= 2


async def test_a_key_replays_the_run_and_refuses_another_body(world: World) -> None:
    await world.define()
    first = await world.trigger(key("k"))
    again = await world.trigger(key("k"))
    assert (again.run_id, first.replayed, again.replayed) == (first.run_id, False, True)
    with pytest.raises(Conflict):
        await world.trigger(key("k", "g"))


async def test_equal_keys_at_once_give_one_run(world: World) -> None:
    await world.define()
    found = await asyncio.gather(*(world.trigger(key("k")) for _ in range(20)))
    assert len({t.run_id for t in found}) == 1
    assert Counter(t.replayed for t in found) == {False: 1, True: 19}


async def test_a_run_gets_the_version_that_is_current_although_another_replica_changed_it(world: World) -> None:
    await world.define()
    await world.trigger()
    other = Gateway(world.journal, world.stage, SetClock())
    await other.define_dag("t", definition(sla_s=9), keep_tasks=False, expect=None, idem=None)
    run = await world.trigger()
    assert (await world.gateway.run("t", run.run_id)).dag_version == 2


async def test_in_bulk_a_bad_entry_fails_alone_and_a_repetition_answers_alike(world: World) -> None:
    await world.define()
    triggers = [
        Trigger(dag_id="d"),
        Trigger(dag_id="nope"),
        Trigger(dag_id="d", start="2025-10-02", end="2025-10-01"),
        Trigger(dag_id="d", start="2025-10-01", end="2025-10-01"),
    ]

    def shape(outcomes: list[Triggered | OrchestratorError]) -> list[object]:
        return [o.run_id if isinstance(o, Triggered) else (type(o), str(o)) for o in outcomes]

    first, replayed = await world.gateway.trigger_many("t", triggers, key("k"))
    assert not replayed
    assert [type(o) for o in first] == [Triggered, NotFound, Invalid, Triggered]
    again, replayed = await world.gateway.trigger_many("t", triggers, key("k"))
    assert replayed
    assert shape(again) == shape(first)


async def test_reprocess_restarts_the_run_of_the_window(world: World) -> None:
    await world.define()
    day = {"start": "2025-10-01", "end": "2025-10-01"}
    run = await world.trigger(**day)
    await world.end(run.run_id, "failed", "f")
    await world.define(sla_s=3)
    assert (await world.trigger(**day)).state == "failed"
    pinned = await world.trigger(**day, reprocess="failed", pinned_version=True)
    assert (pinned.run_id, pinned.state) == (run.run_id, "queued")
    assert (await world.gateway.run("t", run.run_id)).dag_version == 1
    await world.end(run.run_id, "failed", "f")
    await world.trigger(**day, reprocess="failed")
    view = await world.gateway.run("t", run.run_id)
    assert (view.dag_version, view.state, set(view.tasks.values())) == (2, "queued", {"pending"})


async def test_a_manual_plan_hash_is_a_precondition_too(world: World) -> None:
    await world.define()
    day = {"start": "2025-10-01", "end": "2025-10-01"}
    plan = await world.gateway.plan("t", Trigger(dag_id="d", **day))
    first = await world.trigger(**day, plan_hash=plan.plan_hash)
    assert (await world.trigger(**day, plan_hash=plan.plan_hash)).run_id == first.run_id
    with pytest.raises(Conflict):
        await world.trigger(**day, plan_hash="sha256:0")


# events


async def test_an_event_starts_one_run_with_what_it_says_as_params(world: World) -> None:
    await world.define()
    told = [world.trigger(event_id="order-7", params={"n": n}) for n in range(20)]
    found = await asyncio.gather(*told)
    assert len({each.run_id for each in found}) == 1
    assert [each.existing for each in found].count(False) == 1
    await world.end(found[0].run_id)
    late = await world.trigger(event_id="order-7", idem=key("k"))
    assert (late.run_id, late.state, late.existing) == (found[0].run_id, "succeeded", True)
    view = await world.gateway.run("t", late.run_id)
    assert (view.window, view.run_type) == (None, "manual")
    created = codec.decode_events(world.journal.runs[late.run_id].events[0].events, e.SCHEMA)[0]
    assert isinstance(created, e.RunCreated)
    assert list(created.params) == ["n"]


async def test_an_event_is_neither_a_window_nor_an_event_of_another_dag(world: World) -> None:
    await world.define()
    await world.define(dag_id="other")
    name = "2025-10-01"
    one = await world.trigger(event_id=name)
    window = await world.trigger(start=name, end=name)
    other = await world.gateway.trigger("t", Trigger(dag_id="other", event_id=name), None)
    assert len({one.run_id, window.run_id, other.run_id}) == 3
    assert (await world.backfill(name, name)).counts is not None


# backfills


async def test_a_backfill_has_its_windows_and_is_one_however_often_it_is_posted(world: World) -> None:
    await world.define(schedule="0 2 * * *")
    found = await asyncio.gather(*(world.backfill() for _ in range(20)))
    assert len({t.run_id for t in found}) == 1
    assert found[0].counts is not None
    assert (found[0].counts.total, found[0].counts.queued) == (4, 4)
    view = await world.gateway.run("t", found[0].run_id)
    assert view.windows is not None
    assert [w.window.start for w in view.windows] == [f"2025-10-0{n}" for n in (1, 2, 3, 4)]
    assert (view.tasks, view.windows_truncated) == ({"extract": "pending", "transform": "pending"}, False)
    child = await world.gateway.run("t", view.windows[0].run_id)
    assert (child.parent_run_id, child.run_type) == (view.run_id, "manual")


async def test_a_plan_counts_what_then_happens_and_its_hash_guards_it(world: World) -> None:
    await world.define(schedule="0 2 * * *")
    for day in ("2025-10-03", "2025-10-04"):
        await world.end((await world.trigger(start=day, end=day)).run_id)
    wanted = {"run_type": "backfill", "start": "2025-10-03", "end": "2025-10-05"}
    plan = await world.gateway.plan("t", Trigger(dag_id="d", **wanted))
    assert plan.counts == {"total": 3, "create": 1, "restart": 0, "skip": 2}
    assert len(world.journal.runs) == 2
    await world.define(schedule="0 2 * * *", sla_s=60)
    with pytest.raises(Conflict, match="dry-run again"):
        await world.trigger(**wanted, plan_hash=plan.plan_hash)
    plan = await world.gateway.plan("t", Trigger(dag_id="d", **wanted))
    made = await world.trigger(**wanted, plan_hash=plan.plan_hash)
    assert made.counts is not None
    assert (made.counts.skipped, made.counts.queued) == (2, 1)
    assert (await world.trigger(**wanted, plan_hash=plan.plan_hash)).run_id == made.run_id
    with pytest.raises(Conflict):
        await world.trigger(**wanted, plan_hash="sha256:0")


async def test_a_plan_that_changes_while_it_is_written_is_made_again(world: World) -> None:
    await world.define()
    real = world.journal.create_backfill
    interfered = False

    async def interfering(backfill: Any) -> Any:
        nonlocal interfered
        if not interfered:
            interfered = True
            await world.trigger(start="2025-10-02", end="2025-10-02")
        return await real(backfill)

    world.journal.create_backfill = interfering  # type: ignore[method-assign]
    made = await world.backfill()
    assert made.counts is not None
    assert made.counts.total == 4
    adopted = await world.journal.by_window("t", "d", ["2025-10-02/2025-10-02"])
    assert adopted["2025-10-02/2025-10-02"].parent == ""


async def test_a_terminal_backfill_is_restarted_by_reprocess_only(world: World) -> None:
    await world.define()
    made = await world.backfill()
    view = await world.gateway.run("t", made.run_id)
    assert view.windows is not None
    for n, window in enumerate(view.windows):
        await world.end(window.run_id, "failed" if n == 0 else "succeeded", "f" if n == 0 else "d")
    assert (await world.gateway.run("t", made.run_id)).tasks == {"extract": "failed", "transform": "failed"}
    await world.end(made.run_id, "failed")
    assert (await world.backfill()).state == "failed"
    again = await world.backfill(reprocess="failed")
    assert (again.run_id, again.state) == (made.run_id, "queued")
    assert again.counts is not None
    assert (again.counts.succeeded, again.counts.queued, again.counts.skipped) == (3, 1, 0)
    assert (await world.backfill(reprocess="failed")).state == "queued", "an active one is answered as it is"


async def test_a_key_replays_a_backfill(world: World) -> None:
    await world.define()
    first = await world.backfill(idem=key("k"))
    await world.end(first.run_id)
    again = await world.backfill(idem=key("k"))
    assert (again.run_id, again.state, again.replayed, again.counts) == (first.run_id, "queued", True, first.counts)


async def test_windows_are_limited_and_dates_are_checked(world: World) -> None:
    await world.define()
    for wanted in (("2020-01-01", "2025-01-01"), ("2025-10-02", "2025-10-01"), ("2025-13-01", "2025-13-02")):
        with pytest.raises(Invalid):
            await world.backfill(*wanted)
    with pytest.raises(NotFound):
        await world.gateway.trigger("t", Trigger(dag_id="no", run_type="backfill", start="a", end="b"), None)
    assert world.journal.runs == {}


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


# rates


async def test_replicas_count_the_requests_of_a_caller_together(world: World) -> None:
    replicas = [world.gateway, Gateway(world.journal, world.stage, SetClock())]
    waits = [await replica.live_runs.ask_leave("k", 3, 60.0) for _ in range(2) for replica in replicas]
    assert waits[:3] == [0, 0, 0]
    assert 59 <= waits[3] <= 60
    assert await world.gateway.live_runs.ask_leave("other", 3, 60.0) == 0


async def test_a_request_is_not_held_up_when_the_journal_cannot_tell(world: World) -> None:
    assert await world.gateway.live_runs.ask_leave("k", 1, 60.0) == 0
    world.journal.failing = [False]
    assert await world.gateway.live_runs.ask_leave("k", 1, 60.0) == 0
    assert await world.gateway.live_runs.ask_leave("k", 1, 60.0) > 0


async def test_limits_are_what_is_defined_and_what_is_in_use() -> None:
    world = World()
    book = world.gateway.limit_book
    await book.set_limit("t", "two", Limit(3, Rate(10, 60.0)))
    assert [(v.name, v.kind, v.defined, v.max_running, v.running, v.waiting) for v in await book.limits("t")] == [
        ("one", "limit", False, None, 2, 5),
        ("two", "limit", True, 3, 0, 0),
        ("d", "dag", True, None, 1, 0),
    ]
    world.stage.hangs = True
    assert [view.name for view in await book.limits("t")] == ["two"], "what is defined, though nobody says what runs"
    await book.delete_limit("t", "two")
    assert await book.limits("t") == []


async def test_a_limit_out_of_bounds_or_of_another_tenant_is_refused() -> None:
    book = World().gateway.limit_book
    with pytest.raises(Invalid):
        await book.set_limit("t", "one", Limit(-1))
    with pytest.raises(Invalid):
        await book.set_limit("t", "one", Limit(rate=Rate(0)))
    await book.set_limit("t", "one", Limit(1))
    with pytest.raises(NotFound):
        await book.limit("other", "one")
    with pytest.raises(NotFound):
        await book.delete_limit("other", "one")


async def test_metrics_tell_limits_and_pools() -> None:
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in await World().gateway.metrics()
        for sample in family.samples
    }
    assert samples["limit_running", "t", "one"] == 2
    assert samples["limit_waiting", "t", "one"] == 5
    assert samples["limit_running", "t", "dag:d"] == 1
    assert (samples["pool_queue_length", "default"], samples["pool_queue_length", "gpu"]) == (2, 3)


async def test_pools_are_the_supervisors_to_define() -> None:
    book = World().gateway.pool_book
    assert [view.name for view in await book.pools()] == ["gpu"]
    assert (await book.pool("gpu")).wanted == 3
    assert (await book.set_pool("big", PoolSpec(max=2))).spec.max == 2
    await book.delete_pool("gpu")
    for refused in (book.pool("none"), book.delete_pool("none")):
        with pytest.raises(NotFound):
            await refused
    with pytest.raises(Invalid):
        await book.set_pool("big", PoolSpec(max=-1))


async def test_a_dag_whose_tasks_ask_for_resources_brings_the_pool_and_leaves_one_that_is_there() -> None:
    world = World()
    gpu = TaskResources(num_gpus=1.0)
    name = pool_for(gpu)
    await world.define(tasks=(TaskSpec(id="a", pool=name, resources=gpu),))
    kept = await world.journal.record(POOLS, name)
    assert kept is not None
    assert codec.decode_pool(kept) == pool_spec(gpu)
    await world.journal.put_records(POOLS, {name: codec.encode_pool(PoolSpec(num_gpus=1.0, max=99))})
    await world.define(tasks=(TaskSpec(id="b", pool=name, resources=gpu),))
    assert codec.decode_pool(await world.journal.record(POOLS, name) or b"").max == 99


async def test_metrics_tell_how_many_workers_a_pool_has_should_have_and_how_often_that_changed() -> None:
    world = World()
    await world.journal.count([("pool_scale_events_total|gpu|up", 2)])
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in await world.gateway.metrics()
        for sample in family.samples
    }
    names = {"wanted": 3, "ready": 2, "busy": 2, "max": 4}
    assert {name: samples[f"orchestrator_pool_workers_{name}", "gpu"] for name in names} == names
    assert samples["orchestrator_pool_scale_events_total", "gpu", "up"] == 2


async def test_a_ready_task_tells_what_it_waits_for() -> None:
    world = World()
    tasks = (
        TaskSpec(id="a"),
        TaskSpec(id="b", pool="gpu", limits=(LimitUse("one"),)),
        TaskSpec(id="c", depends_on=("a",)),
    )
    await world.define(tasks=tasks, max_active_tasks=1)
    run_id = (await world.trigger()).run_id
    book = world.gateway.limit_book
    await book.set_limit("t", "one", Limit(2))
    told = await book.waiting("t", run_id)
    assert told.tasks == (), "it has not started"
    assert (told.waiting_for, told.share) == ("slot", 0.25), "as the scheduler says"
    owner = await Owner(world.journal).start()
    started = codec.encode_events([e.RunStarted(NOW, 1)])
    step = Append(run_id=run_id, expected=1, count=1, events=started, state="running", attempts=1)
    assert await owner.commit(step) == ["ok"]
    reasons = {view.task: view.reasons for view in (await book.waiting("t", run_id)).tasks}
    assert set(reasons) == {"a", "b"}
    assert reasons["b"][0] == "pool gpu has no workers"
    assert "limit one: 2 of 2 in use" in reasons["b"]
    assert reasons["a"][-1] == "a worker slot of pool default"
    with pytest.raises(NotFound):
        await book.waiting("other", run_id)
