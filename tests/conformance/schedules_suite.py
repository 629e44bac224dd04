"""What every `ports.Journal` does about DAGs, their fires, and timers. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from orchestrator import streams
from orchestrator.errors import Fenced
from orchestrator.ports import Journal
from orchestrator.rows import SLAS_SHOWN, DueCron
from orchestrator.steps import CreatedRun, DagWritten, DroppedFires, Fire, FireResult, NewWindow, StoredReply
from orchestrator.streams import DagChanged, TimerFired, Wake
from tests.conformance.journal_builders import (
    NOW_MS,
    Owner,
    a_fire,
    append,
    create,
    create_windows,
    days,
    new_backfill,
    new_run,
    put,
    restarted,
)
from tests.conformance.journal_reads import inbox, sched


class DagsSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    async def test_a_changed_definition_is_the_next_version_and_an_equal_one_is_not(self, journal: Journal) -> None:
        assert (await journal.put_dag(put(definition=b"one"))).version == 1
        assert (await journal.put_dag(put(base_version=1, now_ms=NOW_MS + 1))).version == 1
        changed = put(base_version=1, definition=b"two", content_hash="h2", now_ms=NOW_MS + 2)
        assert (await journal.put_dag(changed)).version == 2
        row = await journal.dag("t", "d")
        assert row is not None
        assert (row.version, row.definition, row.created_ms, row.updated_ms) == (2, b"two", NOW_MS, NOW_MS + 2)
        assert await journal.definition("t", "d", 1) == b"one"
        assert await journal.definition("t", "d", 3) is None
        assert await sched(journal) == [DagChanged("t", "d", 1, False), DagChanged("t", "d", 2, False)]

    async def test_a_definition_made_on_another_version_is_refused(self, journal: Journal) -> None:
        results = await asyncio.gather(*(journal.put_dag(put(content_hash=f"h{n}")) for n in range(10)))
        assert Counter(r.status for r in results) == {"ok": 1, "changed": 9}
        assert (await journal.put_dag(put(base_version=7))).status == "changed"

    async def test_a_tenant_has_at_most_so_many_dags(self, journal: Journal) -> None:
        for name in ("a", "b"):
            await journal.put_dag(put(name, max_dags=2))
        assert (await journal.put_dag(put("c", max_dags=2))).status == "full"
        assert (await journal.put_dag(put("a", base_version=1, content_hash="h2", max_dags=2))).version == 2
        assert (await journal.put_dag(put("c", tenant="u", max_dags=2))).status == "ok"

    async def test_dags_are_listed_by_name(self, journal: Journal) -> None:
        for name in ("b", "a.1", "C", "a", "a-1"):
            await journal.put_dag(put(name))
        assert [d.dag_id for d in await journal.dags("t", "", 10)] == ["C", "a", "a-1", "a.1", "b"]
        assert [d.dag_id for d in await journal.dags("t", "a", 2)] == ["a-1", "a.1"]
        assert await journal.dags("u", "", 10) == []
        assert await journal.dag("u", "a") is None

    async def test_pausing_is_idempotent_and_survives_a_new_version(self, journal: Journal) -> None:
        assert (await journal.set_paused("t", "d", True, NOW_MS)).status == "missing"
        await journal.put_dag(put())
        for _ in range(2):
            assert await journal.set_paused("t", "d", True, NOW_MS) == DagWritten("ok", 1, True)
        assert (await journal.put_dag(put(base_version=1, content_hash="h2"))).paused
        await journal.put_dag(put(base_version=2, content_hash="h3", next_fire_ms=7))
        assert await journal.next_due() is None
        assert not (await journal.set_paused("t", "d", False, NOW_MS)).paused
        assert await journal.next_due() == 7
        assert len(await sched(journal)) == 5

    async def test_a_key_answers_the_first_definition(self, journal: Journal) -> None:
        key = StoredReply("k", "f", b"{}")
        await journal.put_dag(put(idem=key))
        await journal.put_dag(put(base_version=1, content_hash="h2"))
        again = await journal.put_dag(put(base_version=2, content_hash="h3", idem=key))
        assert (again.status, again.version) == ("replayed", 1)
        assert (await journal.put_dag(put(idem=StoredReply("k", "g")))).status == "conflict"
        pause = StoredReply("p", "f")
        await journal.set_paused("t", "d", True, NOW_MS, pause)
        await journal.set_paused("t", "d", False, NOW_MS)
        assert await journal.set_paused("t", "d", True, NOW_MS, pause) == DagWritten("replayed", 2, True)


class SchedulesSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    async def test_a_fire_happens_once(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        assert await journal.due_crons(999) == []
        assert await journal.due_crons(1000) == [DueCron("t", "d", 1000)]
        fires = [
            Fire(
                tenant="t",
                dag_id="d",
                scheduler_epoch=scheduler.epoch,
                expected_ms=1000,
                next_ms=2000,
                runs=(new_run("2025-01-01", run_type="scheduled"),),
                counts=(("fires", 1),),
            )
            for _ in range(5)
        ]
        results = await asyncio.gather(*(journal.fire(f) for f in fires))
        assert Counter(r.status for r in results) == {"ok": 1, "stale": 4}
        assert await journal.due_crons(1999) == []
        assert await journal.next_due() == 2000
        row = await journal.dag("t", "d")
        assert row is not None
        assert (row.next_fire_ms, row.fired_ms, row.run_counts) == (2000, 1000, {"queued": 1})
        assert (await journal.metrics())["fires"] == 1

    async def test_a_fire_whose_window_has_a_run_answers_it(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        [run] = await create(journal, new_run("2025-01-01"))
        fire = Fire(
            tenant="t",
            dag_id="d",
            scheduler_epoch=scheduler.epoch,
            expected_ms=1000,
            next_ms=0,
            runs=(new_run("2025-01-01"),),
        )
        assert await journal.fire(fire) == FireResult("ok", (CreatedRun(run, "queued", "existing"),))
        assert await journal.next_due() is None
        assert await journal.due_crons(10_000) == []

    async def test_a_fire_is_refused_when_something_changed(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        fire = Fire(tenant="t", dag_id="d", scheduler_epoch=scheduler.epoch, expected_ms=1000, next_ms=2000)
        old = msgspec.structs.replace(fire, scheduler_epoch=scheduler.epoch - 1)
        assert (await journal.fire(old)).status == "fenced"
        stale = msgspec.structs.replace(fire, runs=(new_run("2025-01-01"), new_run("2025-01-02", dag_version=9)))
        assert (await journal.fire(stale)).status == "changed"
        await journal.set_paused("t", "d", True, NOW_MS)
        assert (await journal.fire(fire)).status == "paused"
        assert await journal.due_crons(5000) == []
        await journal.set_paused("t", "d", False, NOW_MS)
        assert await journal.due_crons(5000) == [DueCron("t", "d", 1000)]
        assert await journal.fire(fire) == FireResult("ok")

    async def test_one_step_of_a_schedule_makes_runs_and_drops_fires(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        runs = tuple(new_run(day, run_type="scheduled") for day in days(3))
        drops = (DroppedFires("missed", 40, 800), DroppedFires("overlap", 2, 4000))
        step = a_fire(scheduler, 1000, next_ms=9000, last_ms=4000, runs=runs, dropped=drops)
        made = await journal.fire(step)
        assert [(run.run_id, run.how) for run in made.runs] == [(run.run_id, "created") for run in runs]
        assert (await journal.fire(step)).status == "stale"
        assert (await journal.fire(a_fire(scheduler, 9000, dropped=drops[:1]))).status == "ok"
        row = await journal.dag("t", "d")
        assert row is not None
        assert (row.dropped, row.dropped_ms, row.dropped_why) == ({"missed": 80, "overlap": 2}, 800, "missed")
        assert (row.next_fire_ms, row.fired_ms) == (None, 9000)
        [queued] = [item for item in await sched(journal) if isinstance(item, streams.RunsCreated)]
        assert queued.run_ids == tuple(run.run_id for run in runs)

    async def test_a_schedule_is_due_when_jitter_says_so_also_after_a_pause(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000, next_due_ms=1300))
        for _ in range(2):
            assert await journal.due_crons(1299) == []
            assert await journal.due_crons(1300) == [DueCron("t", "d", 1300)]
            await journal.set_paused("t", "d", True, NOW_MS)
            await journal.set_paused("t", "d", False, NOW_MS)
        await journal.put_dag(put(base_version=1, content_hash="h2"))
        assert await journal.next_due() == 1300
        assert (await journal.fire(a_fire(scheduler, 1000, next_ms=2000, next_due_ms=2700))).status == "ok"
        row = await journal.dag("t", "d")
        assert row is not None
        assert (row.next_fire_ms, row.next_due_ms, await journal.next_due()) == (2000, 2700, 2700)

    async def test_the_runs_of_fires_are_known_until_they_end(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        await create(journal, new_run("2025-02-01"))
        first, second = (new_run(day, run_type="scheduled") for day in days(2))
        await journal.fire(a_fire(scheduler, 1000, next_ms=2000, runs=(first,)))
        await journal.fire(a_fire(scheduler, 2000, next_ms=3000, runs=(second,)))
        owner = await Owner(journal, "run-actor-0").start()
        await owner.commit(append(first.run_id, 1, state="running"))
        assert await journal.live_fires("t", "d") == {first.run_id: "running", second.run_id: "queued"}
        assert await journal.live_fires("u", "d") == {}
        await owner.commit(append(first.run_id, 2, state="failed"))
        assert await journal.live_fires("t", "d") == {second.run_id: "queued"}
        await owner.commit(append(first.run_id, 3, state="running"))
        assert sorted(await journal.live_fires("t", "d")) == sorted((first.run_id, second.run_id))

    async def test_runs_that_a_backfill_restarts_are_not_those_of_fires(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        run = new_run("2025-01-01", run_type="scheduled")
        await journal.fire(a_fire(scheduler, 1000, next_ms=2000, runs=(run,)))
        owner = await Owner(journal, "run-actor-0").start()
        await owner.commit(append(run.run_id, 1, state="failed"))
        window = NewWindow(
            window_key=run.window_key,
            run_id=run.run_id,
            action="restart",
            event=restarted(),
            before="failed",
            dag_version=1,
        )
        made = await journal.create_backfill(new_backfill([window], reprocess="failed"))
        assert made.status == "created"
        assert await journal.live_fires("t", "d") == {}

    async def test_a_replaced_run_is_noted_until_it_has_ended(self, journal: Journal) -> None:
        scheduler = await Owner(journal, "scheduler").start()
        await journal.put_dag(put(next_fire_ms=1000))
        first, second = (new_run(day, run_type="scheduled") for day in days(2))
        await journal.fire(a_fire(scheduler, 1000, next_ms=2000, runs=(first,)))
        replaces = (first.run_id, "run_unknown")
        await journal.fire(a_fire(scheduler, 2000, next_ms=3000, runs=(second,), replaces=replaces))
        assert await journal.replaced() == [first.run_id]
        owner = await Owner(journal, "run-actor-0").start()
        await owner.commit(append(first.run_id, 1, state="cancelled"))
        assert await journal.replaced() == []
        await journal.fire(a_fire(scheduler, 3000, next_ms=4000, replaces=replaces))
        assert await journal.replaced() == []

    async def test_a_schedule_stays_changes_or_goes_with_the_definition(self, journal: Journal) -> None:
        await journal.put_dag(put(next_fire_ms=1000))
        await journal.put_dag(put(base_version=1, content_hash="h2"))
        assert await journal.next_due() == 1000
        await journal.put_dag(put(base_version=2, content_hash="h3", next_fire_ms=500))
        assert await journal.next_due() == 500
        await journal.put_dag(put(base_version=3, content_hash="h4", next_fire_ms=0))
        assert await journal.next_due() is None

    async def test_due_timers_reach_the_owner_or_the_scheduler_once(self, journal: Journal) -> None:
        scheduler, owner = await Owner(journal, "scheduler").start(), await Owner(journal).start()
        one, two, three = await create(journal, new_run(sla_ms=50), new_run(), new_run(sla_ms=60))
        await owner.commit(append(two, 1, wake_at_ms=40), append(three, 1, state="cancelled"))
        here = await journal.position(streams.SCHED)
        assert await journal.next_due() == 40
        assert await journal.pop_timers(scheduler.epoch, 39) == 0
        assert await journal.pop_timers(scheduler.epoch, 1000) == 2
        assert await journal.pop_timers(scheduler.epoch, 1000) == 0
        assert await inbox(journal, "actor-1") == [TimerFired(two, "wake", 40)]
        assert await sched(journal, here) == [Wake(one, "sla")]
        with pytest.raises(Fenced):
            await journal.pop_timers(scheduler.epoch - 1, 1000)

    async def test_a_timer_can_be_moved_and_removed(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await owner.commit(append(run, 1, wake_at_ms=40))
        await owner.commit(append(run, 2, wake_at_ms=70))
        assert await journal.next_due() == 70
        await owner.commit(append(run, 3, wake_at_ms=0))
        assert await journal.next_due() is None

    async def test_a_queued_run_is_woken_when_its_creation_or_restart_said(self, journal: Journal) -> None:
        scheduler, owner = await Owner(journal, "scheduler").start(), await Owner(journal).start()
        [run] = await create(journal, new_run("2025-01-01", wake_ms=50))
        here = await journal.position(streams.SCHED)
        assert await journal.next_due() == 50
        assert await journal.pop_timers(scheduler.epoch, 50) == 1
        assert await sched(journal, here) == [Wake(run, "wake")]
        await owner.commit(append(run, 1, state="failed"))
        await create(journal, new_run("2025-01-01", reprocess="failed", wake_ms=70))
        assert await journal.next_due() == 70
        await owner.commit(append(run, 3, passive=True, wake_at_ms=90))
        assert await journal.next_due() == 90

    async def test_windows_of_a_backfill_are_woken_too(self, journal: Journal) -> None:
        await create(journal, new_run("2026-01-01"))
        windows = [msgspec.structs.replace(w, wake_ms=60) for w in create_windows(["2025-01-01", "2025-01-02"])]
        await journal.create_backfill(new_backfill(windows))
        scheduler = await Owner(journal, "scheduler").start()
        assert await journal.pop_timers(scheduler.epoch, 60) == 2

    async def test_a_row_tells_which_slas_were_missed_until_the_run_is_queued_again(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run("2025-01-01"))
        await owner.commit(append(run, 1, sla_missed=("b", "")))
        await owner.commit(append(run, 2, sla_missed=("a",)))
        row = await journal.summary(run)
        assert row is not None
        assert row.sla_missed == ("b", "", "a")
        await owner.commit(append(run, 3, sla_missed=tuple(f"t{n}" for n in range(200)), state="failed"))
        row = await journal.summary(run)
        assert row is not None
        assert row.sla_missed == ("b", "", "a", *(f"t{n}" for n in range(SLAS_SHOWN - 3)))
        await create(journal, new_run("2025-01-01", reprocess="failed"))
        row = await journal.summary(run)
        assert row is not None
        assert row.sla_missed == ()

    async def test_a_revived_run_has_its_deadline_again(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(sla_ms=NOW_MS + 1000))
        await owner.commit(append(run, 1, state="failed", finished_ms=NOW_MS + 10))
        assert await journal.next_due() is None
        await owner.commit(append(run, 2, state="running", finished_ms=0))
        assert await journal.next_due() == NOW_MS + 1000
