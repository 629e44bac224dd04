"""What every `ports.Journal` does about runs that leave for an archive, and come back. `test_journals.py` runs it."""

from __future__ import annotations

import msgspec

from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, RunFilter
from orchestrator.steps import Creation
from orchestrator.streams import FEED, SCHED
from tests.conformance.calls_suite import calling, start
from tests.conformance.held_suite import held, hold
from tests.conformance.journal_builders import (
    NOW_MS,
    Owner,
    append,
    create,
    create_windows,
    new_backfill,
    new_id,
    new_run,
    put,
)
from tests.conformance.reshape_suite import KEY as NARROW
from tests.conformance.reshape_suite import WIDER, widening
from tests.conformance.retention_suite import DAY, KEY, LATER_MS, before, ended, removed, row_of
from tests.conformance.triggers_suite import gather

OVER = {"state": "succeeded", "finished_ms": NOW_MS, "tasks": (("a", "d"),)}


async def archived(journal: Journal) -> int:
    row = await journal.dag("t", "d")
    assert row is not None
    return row.archived


class ArchiveSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    async def test_nothing_is_left_of_what_was_released(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(DAY))
        await ended(journal, owner, run)
        assert await journal.release({run: 4}) == {run}
        assert await journal.look(run) is None
        assert await journal.load([run]) == []
        assert await journal.tasks(run) == {}
        assert await journal.by_window("t", "d", [KEY]) == {}
        assert (await journal.summaries(RunFilter(tenant="t"), None, 10)).rows == ()
        assert await journal.state_counts("t", "") == {}
        assert await before(journal) == []
        row = await journal.dag("t", "d")
        assert row is not None
        assert row.run_counts == {}
        assert await journal.release({run: 4}) == set()
        assert (await journal.metrics())["archive_runs"] == 1

    async def test_only_what_ended_and_is_as_it_was_seen_is_released(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        over, going_on, queued = await create(journal, new_run(), new_run(), new_run())
        await ended(journal, owner, over)
        await owner.commit(append(going_on, 1, state="running"))
        [job] = await hold(journal, held())
        assert await journal.release({over: 3, going_on: 2, queued: 1, job: 1, "unknown": 1}) == set()
        assert await journal.release({over: 4, queued: 1}) == {over}

    async def test_what_was_skipped_is_found_behind_what_was_left(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        runs = await create(journal, *(new_run() for _ in range(3)))
        for n, run in enumerate(runs):
            await ended(journal, owner, run, at_ms=NOW_MS + n)
        assert [row.run_id for row in await journal.ended_before(LATER_MS, 1, 1)] == [runs[1]]
        assert [row.run_id for row in await journal.ended_before(LATER_MS, 10, 2)] == [runs[2]]

    async def test_what_is_restored_is_as_it_was(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run(DAY), new_run())
        await owner.commit(append(two, 1, state="running", attempts=1, sla_missed=("", "a")))
        await owner.commit(append(two, 2, state="failed", finished_ms=NOW_MS, error="late", tasks=(("a", "f"),)))
        await ended(journal, owner, one)
        known = await journal.load([one, two])
        tasks = [await journal.tasks(run) for run in (one, two)]
        page = await journal.summaries(RunFilter(tenant="t", dag_id="d"), None, 10)
        dag = await journal.dag("t", "d")
        assert dag is not None
        assert await journal.release({one: 4, two: 3}) == {one, two}
        shelved = list(zip(known, tasks, strict=True))
        assert await journal.restore(shelved) == 2
        assert await journal.restore(shelved) == 0
        assert await journal.load([one, two]) == known
        assert [await journal.tasks(run) for run in (one, two)] == tasks
        assert await journal.summaries(RunFilter(tenant="t", dag_id="d"), None, 10) == page
        assert await journal.dag("t", "d") == msgspec.structs.replace(dag, archived=1)
        assert (await journal.by_window("t", "d", [KEY]))[KEY].run_id == one
        assert sorted(await before(journal)) == sorted([one, two])
        assert await create(journal, new_run(DAY, reprocess="completed")) == [one]

    async def test_a_run_is_not_restored_over_the_one_that_its_window_has_now(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(DAY))
        await ended(journal, owner, run)
        [history] = await journal.load([run])
        await journal.release({run: 4})
        [other] = await create(journal, new_run(DAY))
        assert await journal.restore([(history, {})]) == 0
        assert (await journal.by_window("t", "d", [KEY]))[KEY].run_id == other

    async def test_what_has_no_history_any_more_is_not_found_among_those_that_do(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await ended(journal, owner, run)
        await journal.remove_history(run, 4, removed(4))
        [history] = await journal.load([run])
        assert await journal.release({run: 5}) == {run}
        await journal.restore([(history, {"a": "d"})])
        assert await journal.load([run]) == [history]
        assert await before(journal) == []

    async def test_who_looked_into_the_archive_before_a_window_went_there_looks_again(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(DAY))
        seen = await archived(journal)
        await ended(journal, owner, run)
        await journal.release({run: 4})
        late, same = new_run(DAY), (("t", "d", seen),)
        assert [r.status for r in await journal.create_runs([Creation((late,), archived=same)])] == ["changed"]
        backfill = new_backfill(create_windows([DAY]), archived=seen)
        assert (await journal.create_backfill(backfill)).status == "changed"
        now = await archived(journal)
        assert now > seen
        found = await journal.create_runs([Creation((late,), archived=(("t", "d", now),))])
        assert [(r.status, r.runs[0].how) for r in found] == [("ok", "created")]

    async def test_old_news_go_and_later_ones_come(self, journal: Journal) -> None:
        await create(journal, new_run())
        for age_ms, left in ((3_600_000, True), (-1000, False)):
            await journal.trim_news(age_ms)
            for stream in (SCHED, FEED):
                assert bool(await journal.tail(stream, "0-0", 0)) == left
        cursor = await journal.position(FEED)
        await create(journal, new_run())
        assert len(await journal.tail(FEED, cursor, 0)) == 1

    async def test_a_called_run_stays_until_its_caller_has_ended_and_its_window_is_its_own(
        self, journal: Journal
    ) -> None:
        owner = await Owner(journal, "other").start()
        child = new_id()
        host, parent = await calling(journal, child)
        assert await start(journal, parent, child, day=DAY) == "ok"
        await ended(journal, owner, child)
        assert await journal.release({child: 4}) == set(), "whoever has the caller next looks how it ended"
        assert await host.commit(append(parent, 2, state="succeeded", finished_ms=NOW_MS)) == ["ok"]
        [history], tasks = await journal.load([child]), await journal.tasks(child)
        assert await journal.release({child: 4}) == {child}
        assert await archived(journal) == 0, "it stands for no window"
        [standing] = await create(journal, new_run(DAY))
        assert await journal.restore([(history, tasks)]) == 1
        assert (await journal.by_window("t", "d", [KEY]))[KEY].run_id == standing
        row = await row_of(journal, child)
        assert (row, row.caller) == (history.row, (parent, "a"))

    async def test_a_called_run_leaves_when_its_caller_calls_another_or_is_gone(self, journal: Journal) -> None:
        owner = await Owner(journal, "other").start()
        child, again = new_id(), new_id()
        host, parent = await calling(journal, child)
        await start(journal, parent, child)
        await ended(journal, owner, child)
        assert await host.commit(append(parent, 2, calls=(("a", again),))) == ["ok"]
        assert await journal.release({child: 4}) == {child}
        await start(journal, parent, again)
        await ended(journal, owner, again)
        assert await host.commit(append(parent, 3, state="succeeded", finished_ms=NOW_MS)) == ["ok"]
        assert await journal.release({parent: 4}) == {parent}
        assert await journal.release({again: 4}) == {again}

    async def test_what_started_a_run_comes_back_with_it(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(because=b'[{"kind":"dag","name":"u"}]'))
        await ended(journal, owner, run)
        [history] = await journal.load([run])
        assert history.row.because
        await journal.release({run: 4})
        await journal.restore([(history, {})])
        assert await journal.load([run]) == [history]

    async def test_what_was_told_starts_nothing_over_windows_that_left_meanwhile(self, journal: Journal) -> None:
        owner, scheduler = await Owner(journal).start(), await Owner(journal, "scheduler").start()
        [run] = await create(journal, new_run(DAY))
        seen = await archived(journal)
        await ended(journal, owner, run)
        await journal.release({run: 4})
        late = gather(scheduler, runs=(new_run(DAY, reprocess="completed"),), archived=seen)
        assert (await journal.gather(late)).status == "changed"
        alone = gather(scheduler, runs=(new_run(),), archived=seen)
        assert (await journal.gather(alone)).status == "ok", "a run without a window asks nobody"
        now = gather(scheduler, key="other", runs=late.runs, archived=await archived(journal))
        assert [made.how for made in (await journal.gather(now)).runs] == ["created"]

    async def test_windows_go_after_the_backfill_that_counts_them(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        await journal.put_dag(put())
        backfill = new_backfill(create_windows(["2025-01-01", "2025-01-02", "2025-01-03"]))
        await journal.create_backfill(backfill)
        children = [row.run_id for row in await journal.children(backfill.run_id)]
        await owner.commit(*(append(child, 1, **OVER) for child in children))
        assert await journal.release(dict.fromkeys(children, 2)) == set()
        assert await journal.release({backfill.run_id: 1}) == set()
        await owner.commit(append(backfill.run_id, 1, state="succeeded", finished_ms=NOW_MS))
        assert [row.run_id for row in await journal.backfills_ended_before(LATER_MS, 9)] == [backfill.run_id]
        assert await journal.release({backfill.run_id: 2}) == {backfill.run_id}
        assert await journal.backfills_ended_before(LATER_MS, 9) == []
        assert await journal.backfill_by_window("t", "d", backfill.window_key) is None
        assert await journal.release(dict.fromkeys(children, 2)) == set()
        assert await journal.disband(2) == 1
        assert await journal.release(dict.fromkeys(children, 2)) == set(children[:2])
        assert await journal.disband(2) == 0
        assert await journal.disband(2) == 0
        assert await journal.release({children[2]: 2}) == {children[2]}
        assert await journal.children(backfill.run_id) == []
        assert await journal.child_counts(backfill.run_id) == {}

    async def test_what_a_backfill_was_over_is_free_once_it_left(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        await journal.put_dag(put())
        gone = new_backfill(create_windows(["2025-06-01"]), key=WIDER)
        await journal.create_backfill(gone)
        wide = {"widens_key": WIDER, "window_key": "2024-12-31/2025-06-02", "in_front": 0}
        assert (await journal.create_backfill(widening(gone, [], **wide))).status == "widened"
        await journal.create_backfill(widening(gone, create_windows(["2025-06-02"]), **wide))
        await owner.commit(append(gone.run_id, 2, state="succeeded", finished_ms=NOW_MS))
        assert await journal.release({gone.run_id: 3}) == {gone.run_id}
        backfill = new_backfill(create_windows(["2025-01-01"]), key=NARROW, archived=await archived(journal))
        assert (await journal.create_backfill(backfill)).status == "created"
        wider = widening(backfill, create_windows(["2024-12-31"]), archived=await archived(journal))
        assert (await journal.create_backfill(wider)).status == "widened"

    async def test_a_window_may_go_on_while_its_backfill_leaves(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        await journal.put_dag(put())
        backfill = new_backfill(create_windows([DAY]))
        await journal.create_backfill(backfill)
        [child] = [row.run_id for row in await journal.children(backfill.run_id)]
        over = {"state": "failed", "finished_ms": NOW_MS}
        await owner.commit(append(child, 1, **over), append(backfill.run_id, 1, **over))
        await journal.release({backfill.run_id: 2})
        assert await create(journal, new_run(DAY, reprocess="failed")) == [child]
        await owner.commit(append(child, 3, state="running", tasks=(("a", "r"),)))
        assert await journal.disband(9) == 0
        await owner.commit(append(child, 4, state="succeeded", finished_ms=NOW_MS + 1, tasks=(("a", "d"),)))
        row = await row_of(journal, child)
        assert row.state in TERMINAL
        assert row.watchers == ()
        assert await journal.release({child: 5}) == {child}

    async def test_a_run_that_a_backfill_keeps_stays_as_long_as_that(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(DAY))
        await ended(journal, owner, run)
        [window] = create_windows([DAY])
        kept = msgspec.structs.replace(window, run_id=run, action="skip", event=b"")
        backfill = new_backfill([kept])
        assert (await journal.create_backfill(backfill)).status == "created"
        assert await journal.release({run: 4}) == set()
        await owner.commit(append(backfill.run_id, 1, state="succeeded", finished_ms=NOW_MS))
        assert await journal.release({backfill.run_id: 2}) == {backfill.run_id}
        assert await journal.disband(9) == 0
        assert await journal.release({run: 4}) == {run}
