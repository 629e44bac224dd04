"""Backfills over partitions, and backfills that become wider, through the gateway and the in-memory journal."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import codec
from orchestrator import events as e
from orchestrator.definition import Window
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.partitions import parse
from orchestrator.starts import Trigger, Widening, Wider
from orchestrator.steps import Append
from tests.conformance.journal_builders import Owner
from tests.gateway_stage import NOW, World, key


@pytest.fixture
def world() -> World:
    return World()


async def keys(world: World, run_id: str) -> list[str]:
    return [child.window_key for child in await world.journal.children(run_id)]


async def widen(world: World, run_id: str, idem: str | None = None, **changes: Any) -> Wider:
    return await world.gateway.widen_run("t", run_id, Widening(**changes), key(idem) if idem else None)


def dates(*days: int) -> list[str]:
    return [f"2025-10-{n:02d}/2025-10-{n:02d}" for n in days]


async def test_days_are_added_on_both_sides_and_stand_by_date(world: World) -> None:
    await world.define()
    made = await world.backfill("2025-10-03", "2025-10-04")
    done = await widen(world, made.run_id, start="2025-10-02", end="2025-10-06")
    assert (done.run_id, done.added, done.counts.total, done.state) == (made.run_id, 3, 5, "queued")
    assert await keys(world, made.run_id) == dates(2, 3, 4, 5, 6)
    view = await world.gateway.run("t", made.run_id)
    assert view.window is not None
    assert (view.window.start, view.window.end) == ("2025-10-02", "2025-10-06")


async def test_the_same_again_and_less_than_there_is_change_nothing(world: World) -> None:
    await world.define()
    made = await world.backfill("2025-10-03", "2025-10-04")
    for _ in range(2):
        done = await widen(world, made.run_id, end="2025-10-05")
    assert (done.added, done.counts.total) == (0, 3)
    assert (await widen(world, made.run_id, start="2025-10-04", end="2025-10-04")).added == 0
    assert world.journal.runs[made.run_id].version == 2


async def test_a_widening_under_a_key_is_answered_alike(world: World) -> None:
    await world.define()
    made = await world.backfill()
    first = await widen(world, made.run_id, "k", end="2025-10-05")
    await widen(world, made.run_id, end="2025-10-09")
    again = await widen(world, made.run_id, "k", end="2025-10-05")
    assert (again.replayed, again.added, again.counts) == (True, first.added, first.counts)
    with pytest.raises(Conflict, match="another body"):
        await world.gateway.widen_run("t", made.run_id, Widening(end="2025-10-07"), key("k", "g"))


async def test_ten_at_once_give_each_day_once(world: World) -> None:
    await world.define()
    made = await world.backfill("2025-10-10", "2025-10-10")
    wanted = [{"start": f"2025-10-{10 - n:02d}", "end": f"2025-10-{10 + n:02d}"} for n in range(1, 6)]
    await asyncio.gather(*(widen(world, made.run_id, **each) for each in wanted * 2))
    assert await keys(world, made.run_id) == dates(*range(5, 16))


async def test_what_was_posted_and_what_it_is_over_now_are_the_same_backfill(world: World) -> None:
    await world.define()
    plan = await world.gateway.plan("t", Trigger(dag_id="d", run_type="backfill", start="2025-10-01", end="2025-10-04"))
    made = await world.backfill(plan_hash=plan.plan_hash)
    await widen(world, made.run_id, end="2025-10-05")
    assert (await world.backfill("2025-10-01", "2025-10-05")).run_id == made.run_id
    assert (await world.backfill(plan_hash=plan.plan_hash)).run_id == made.run_id, "its answer may have been lost"


async def test_a_range_that_another_backfill_is_over_is_refused(world: World) -> None:
    await world.define()
    made, other = await world.backfill(), await world.backfill("2025-10-01", "2025-10-05")
    with pytest.raises(Conflict, match=other.run_id):
        await widen(world, made.run_id, end="2025-10-05")


async def test_a_dry_run_tells_what_comes_new_and_its_hash_guards_it(world: World) -> None:
    await world.define()
    await world.end((await world.trigger(start="2025-10-06", end="2025-10-06")).run_id)
    made = await world.backfill()
    wanted = Widening(end="2025-10-06")
    plan = await world.gateway.plan_widening("t", made.run_id, wanted)
    assert plan.counts == {"total": 2, "create": 1, "restart": 0, "skip": 1}
    assert len(await keys(world, made.run_id)) == 4
    await world.define(sla_s=60)
    with pytest.raises(Conflict, match="dry-run again"):
        await widen(world, made.run_id, end="2025-10-06", plan_hash=plan.plan_hash)
    plan = await world.gateway.plan_widening("t", made.run_id, wanted)
    done = await widen(world, made.run_id, end="2025-10-06", plan_hash=plan.plan_hash)
    assert (done.added, done.counts.queued, done.counts.skipped) == (2, 5, 1)
    assert (await widen(world, made.run_id, end="2025-10-06", plan_hash=plan.plan_hash)).added == 0
    [event] = [
        event
        for batch in world.journal.runs[made.run_id].events
        for event in codec.decode_events(batch.events, batch.schema)
        if isinstance(event, e.BackfillWidened)
    ]
    assert (event.added, event.total, event.skipped, event.plan_hash) == (2, 6, 1, plan.plan_hash)


async def test_windows_that_ran_are_restarted_where_the_widening_says_so(world: World) -> None:
    await world.define()
    run = await world.trigger(start="2025-10-05", end="2025-10-05")
    await world.end(run.run_id)
    made = await world.backfill()
    done = await widen(world, made.run_id, end="2025-10-05", reprocess="completed")
    assert (done.added, done.counts.queued) == (1, 5)
    assert world.journal.runs[run.run_id].state == "queued"


async def test_a_backfill_that_has_ended_and_a_run_that_is_none_are_refused(world: World) -> None:
    await world.define()
    made, run = await world.backfill(), await world.trigger()
    await world.end(made.run_id)
    for call in (world.gateway.plan_widening, lambda *given: world.gateway.widen_run(*given, None)):
        with pytest.raises(Conflict, match="already succeeded"):
            await call("t", made.run_id, Widening(end="2025-10-09"))
        with pytest.raises(Conflict, match="no backfill"):
            await call("t", run.run_id, Widening(end="2025-10-09"))
        with pytest.raises(NotFound):
            await call("other", made.run_id, Widening(end="2025-10-09"))


async def test_the_limit_holds_for_all_windows_together(world: World) -> None:
    await world.define()
    made = await world.backfill("2024-01-01", "2026-09-01")
    with pytest.raises(Invalid, match="at most 1000"):
        await widen(world, made.run_id, end="2026-12-01")


# partitions


async def test_a_backfill_over_partitions_is_one_in_whatever_order_they_are_given(world: World) -> None:
    await world.define()
    made = await world.trigger(run_type="backfill", partitions=parse(["eu", "us"]))
    again = await world.trigger(run_type="backfill", partitions=parse(["us", "eu"]))
    assert (again.run_id, again.counts) == (made.run_id, made.counts)
    view = await world.gateway.run("t", made.run_id)
    assert view.windows is not None
    assert ([w.window.partition for w in view.windows], view.window) == (["eu", "us"], None)
    one = await world.trigger(partition="us")
    assert one.run_id == view.windows[1].run_id


async def test_without_partitions_it_is_over_those_that_the_dag_declares(world: World) -> None:
    await world.define(partitions=parse({"region": ["eu", "us"], "day": ["mon"]}))
    made = await world.trigger(run_type="backfill", run_backwards=True)
    assert await keys(world, made.run_id) == ["=day=mon/region=eu", "=day=mon/region=us"]
    ids = [child.run_id for child in await world.journal.children(made.run_id)]
    assert ids == sorted(ids, reverse=True), "backwards, the last one is created first"
    for wrong in ({"partitions": parse(["eu"])}, {"partition": "eu"}):
        run_type = "backfill" if "partitions" in wrong else "manual"
        with pytest.raises(Invalid, match="declares"):
            await world.trigger(run_type=run_type, **wrong)


async def test_a_dag_without_partitions_needs_dates_or_partitions(world: World) -> None:
    await world.define()
    with pytest.raises(Invalid, match="from and to"):
        await world.trigger(run_type="backfill")


async def test_partitions_are_reprocessed_and_planned_like_days(world: World) -> None:
    await world.define()
    asked = {"run_type": "backfill", "partitions": parse(["eu", "us"])}
    plan = await world.gateway.plan("t", Trigger(dag_id="d", **asked))  # type: ignore[arg-type]  # each has its own type
    made = await world.trigger(**asked, plan_hash=plan.plan_hash)
    for n, child in enumerate(await world.journal.children(made.run_id)):
        await world.end(child.run_id, ("failed", "succeeded")[n])
    await world.end(made.run_id, "failed")
    again = await world.trigger(**asked, reprocess="failed")
    assert again.counts is not None
    assert (again.run_id, again.counts.queued, again.counts.succeeded) == (made.run_id, 1, 1)


async def test_partitions_are_added_to_partitions_and_days_to_days(world: World) -> None:
    await world.define()
    made = await world.trigger(run_type="backfill", partitions=parse(["eu", "us"]))
    done = await widen(world, made.run_id, partitions=parse(["us", "ap"]))
    assert (done.added, await keys(world, made.run_id)) == (1, ["=eu", "=us", "=ap"])
    assert (await world.trigger(run_type="backfill", partitions=parse(["ap", "eu", "us"]))).run_id == made.run_id
    with pytest.raises(Invalid, match="wider by partitions"):
        await widen(world, made.run_id, end="2025-10-09")
    of_days = await world.backfill()
    with pytest.raises(Invalid, match="wider by dates"):
        await widen(world, of_days.run_id, partitions=parse(["eu"]))


# pace


async def test_progress_and_eta_follow_from_the_journal(world: World) -> None:
    await world.define()
    made = await world.backfill()
    first = (await world.journal.children(made.run_id))[0]
    owner = await Owner(world.journal).start()
    for n, (before, after) in enumerate((("queued", "running"), ("running", "succeeded"))):
        change = codec.encode_events([e.RunPaused(NOW)])
        step = Append(run_id=first.run_id, expected=1 + n, count=1, events=change, state=after)
        assert await owner.commit(step) == ["ok"]
        when = NOW + timedelta(seconds=10 * n)
        counts = e.Counts(total=4, queued=3, running=1 - n, succeeded=n)
        window = Window.of_key(first.window_key)
        events: list[e.Event] = [e.WindowChanged(when, window, first.run_id, before, after, counts)]
        if n == 0:
            events.insert(0, e.RunStarted(NOW, 1))
        version = world.journal.runs[made.run_id].version
        step = Append(
            run_id=made.run_id,
            expected=version,
            count=len(events),
            events=codec.encode_events(events),
            state="running",
            attempts=1,
        )
        assert await owner.commit(step) == ["ok"]
    view = await world.gateway.run("t", made.run_id)
    assert (view.progress, view.windows_per_s, view.eta) == (0.25, 0.1, NOW + timedelta(seconds=40))
