"""Runs and backfills through the gateway: each once, whoever asks how often."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Window
from orchestrator.errors import Conflict, Invalid, NotFound, OrchestratorError
from orchestrator.starts import Trigger, Triggered
from serve_app.gateway import Gateway
from tests.gateway_stage import NOW, SetClock, World, definition, key


@pytest.fixture
def world() -> World:
    return World()


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

    world.journal.create_runs = counting  # type: ignore[method-assign]  # a stand-in, in this one object
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

    world.journal.create_backfill = interfering  # type: ignore[method-assign]  # a stand-in, in this one object
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
