"""What every `ports.Journal` does about backfills. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec

from orchestrator import streams
from orchestrator.ports import Journal
from orchestrator.rows import RunFilter
from orchestrator.steps import NewWindow, StoredReply
from orchestrator.streams import RunsCreated, Wake, WindowNews
from tests.conformance.journal_builders import (
    Owner,
    append,
    create,
    create_windows,
    days,
    new_backfill,
    new_run,
    put,
    restarted,
)
from tests.conformance.journal_reads import backfilled, end, inbox, recount, recount_tasks, sched


class BackfillsSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    async def test_a_backfill_exists_with_all_its_windows(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, max_active_runs=2, backwards=True, plan_hash="sha256:1")
        row = await journal.summary(backfill.run_id)
        assert row is not None
        assert (row.run_type, row.max_active_runs, row.backwards, row.plan_hash) == ("backfill", 2, True, "sha256:1")
        children = await journal.children(backfill.run_id)
        assert [c.run_id for c in children] == [w.run_id for w in backfill.windows]
        assert [c.window_key for c in children] == [w.window_key for w in backfill.windows]
        assert {(c.state, c.version, c.kept) for c in children} == {("queued", 1, False)}
        assert [c.run_id for c in await journal.children(backfill.run_id, 2)] == [
            w.run_id for w in backfill.windows[:2]
        ]
        assert await journal.child_counts(backfill.run_id) == {"queued": 3}
        child = await journal.summary(children[0].run_id)
        assert child is not None
        assert (child.parent, child.watchers) == (backfill.run_id, (backfill.run_id,))
        listed = await journal.summaries(RunFilter(tenant="t", parent=backfill.run_id), None, 10)
        assert [r.run_id for r in listed.rows] == [c.run_id for c in children][::-1]
        assert (await journal.summaries(RunFilter(tenant="u", parent=backfill.run_id), None, 10)).rows == ()
        assert await journal.backfill_by_window("t", "d", backfill.window_key) == row
        assert await journal.backfill_by_window("t", "d", "x/y") is None
        dag = await journal.dag("t", "d")
        assert dag is not None
        assert dag.run_counts == {"queued": 3}, "the backfill itself is left out"

    async def test_the_scheduler_hears_of_a_backfill_and_of_its_windows_in_starting_order(
        self, journal: Journal
    ) -> None:
        backfill = await backfilled(journal, 3, max_active_runs=2, backwards=True)
        items = [i for i in await sched(journal) if isinstance(i, RunsCreated)]
        assert [(i.run_type, i.parent, i.max_active_runs) for i in items] == [
            ("backfill", "", 2),
            ("manual", backfill.run_id, 2),
        ]
        assert items[1].run_ids == tuple(w.run_id for w in reversed(backfill.windows))

    async def test_fifty_equal_backfills_at_once_give_one(self, journal: Journal) -> None:
        await journal.put_dag(put())
        wanted = [new_backfill(create_windows(days(4))) for _ in range(50)]
        results = await asyncio.gather(*(journal.create_backfill(b) for b in wanted))
        assert len({r.run_id for r in results}) == 1
        assert Counter(r.status for r in results) == {"created": 1, "existing": 49}
        assert {tuple(r.counts.items()) for r in results} == {(("queued", 4),)}
        assert len((await journal.summaries(RunFilter(tenant="t"), None, 10)).rows) == 5

    async def test_a_plan_that_no_longer_holds_writes_nothing(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run("2025-01-01"), new_run("2025-01-02"))
        await end(owner, one)
        skip, adopt = (
            NewWindow(window_key="2025-01-01/2025-01-01", run_id=one, action="skip"),
            NewWindow(window_key="2025-01-02/2025-01-02", run_id=two, action="adopt"),
        )
        fresh = create_windows(["2025-01-03"])[0]
        wrong = [
            [msgspec.structs.replace(fresh, window_key=skip.window_key)],
            [msgspec.structs.replace(skip, action="restart", before="succeeded", event=restarted(), dag_version=1)],
            [msgspec.structs.replace(skip, action="adopt")],
            [msgspec.structs.replace(skip, action="skip", window_key="2025-01-02/2025-01-02")],
            [msgspec.structs.replace(skip, run_id=two)],
            [msgspec.structs.replace(adopt, action="skip")],
            [skip, adopt, msgspec.structs.replace(fresh, action="skip")],
        ]
        rows = await journal.summaries(RunFilter(tenant="t"), None, 10)
        for windows in wrong:
            assert (await journal.create_backfill(new_backfill(windows))).status == "changed"
        stale = new_backfill([skip, adopt, fresh], dag_version=2)
        assert (await journal.create_backfill(stale)).status == "changed"
        assert await journal.summaries(RunFilter(tenant="t"), None, 10) == rows
        assert (await journal.create_backfill(new_backfill([skip, adopt, fresh]))).status == "created"

    async def test_kept_windows_count_as_skipped_and_adopted_ones_by_their_state(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run("2025-01-01"), new_run("2025-01-02"))
        await end(owner, one)
        await owner.commit(append(two, 1, state="running", tasks=(("a", "d"), ("b", "r"))))
        windows = [
            NewWindow(window_key="2025-01-01/2025-01-01", run_id=one, action="skip"),
            NewWindow(window_key="2025-01-02/2025-01-02", run_id=two, action="adopt"),
            *create_windows(["2025-01-03"]),
        ]
        made = await journal.create_backfill(new_backfill(windows))
        assert made.counts == {"skipped": 1, "running": 1, "queued": 1}
        assert await journal.child_tasks(made.run_id) == {"a": {"d": 1}, "b": {"r": 1}}
        await owner.commit(append(two, 2, state="succeeded", tasks=(("b", "d"),)))
        assert await journal.child_counts(made.run_id) == {"skipped": 1, "succeeded": 1, "queued": 1}
        assert await journal.child_tasks(made.run_id) == {"a": {"d": 1}, "b": {"d": 1}}
        letters = (("a", "d"), ("a[]", "2"), ("a[0]", "d"))
        await owner.commit(append(two, 3, tasks=letters))
        assert await journal.child_tasks(made.run_id) == {"a": {"d": 1}, "b": {"d": 1}}, "no instances of mapped tasks"
        assert await journal.tasks(two) == {"b": "d", **dict(letters)}
        adopted = await journal.summary(two)
        assert adopted is not None
        assert (adopted.parent, adopted.watchers) == ("", (made.run_id,))

    async def test_news_of_windows_reach_the_owner_of_every_watching_backfill(self, journal: Journal) -> None:
        owner, host = await Owner(journal).start(), await Owner(journal, "host").start()
        first = await backfilled(journal, 2)
        child = first.windows[1].run_id
        key = first.windows[1].window_key
        adopt = NewWindow(window_key=key, run_id=child, action="adopt")
        second = await journal.create_backfill(new_backfill([adopt], key="2025-01-02/2025-01-02"))
        await host.commit(append(first.run_id, 1, 0))
        here = await journal.position(streams.SCHED)
        await owner.commit(append(child, 1, state="running"))
        assert await inbox(journal, "host") == [WindowNews(first.run_id, child, key, "queued", "running", 2)]
        assert await sched(journal, here) == [Wake(second.run_id, "window")]
        for made in (first.run_id, second.run_id):
            assert await journal.child_counts(made) == await recount(journal, made)

    async def test_a_terminal_backfill_is_restarted_with_the_windows_it_has(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        backfill = await backfilled(journal, 3)
        for n, window in enumerate(backfill.windows):
            await end(owner, window.run_id, "failed" if n == 1 else "succeeded")
        await end(owner, backfill.run_id, "failed")
        row = await journal.summary(backfill.run_id)
        assert row is not None
        here = await journal.position(streams.SCHED)
        again = NewWindow(
            window_key=backfill.windows[1].window_key,
            run_id=backfill.windows[1].run_id,
            action="restart",
            event=restarted(),
            before="failed",
            dag_version=1,
        )
        windows = [msgspec.structs.replace(w, action="skip", event=b"") for w in backfill.windows]
        windows[1] = again
        restart = new_backfill(
            windows,
            reprocess="failed",
            restarts=backfill.run_id,
            restarts_version=row.version,
            restart_events=restarted(),
            restart_count=1,
        )
        late = msgspec.structs.replace(restart, restarts_version=row.version - 1)
        assert (await journal.create_backfill(late)).status == "changed"
        fewer = msgspec.structs.replace(restart, windows=tuple(windows[:2]))
        assert (await journal.create_backfill(fewer)).status == "changed"
        ignorant = msgspec.structs.replace(restart, restarts="")
        assert (await journal.create_backfill(ignorant)).status == "changed"
        mistaken = [w if w.action == "skip" else msgspec.structs.replace(w, before="cancelled") for w in windows]
        wrong = msgspec.structs.replace(restart, windows=tuple(mistaken))
        assert (await journal.create_backfill(wrong)).status == "changed"
        made = await journal.create_backfill(restart)
        assert (made.status, made.run_id, made.counts) == ("restarted", backfill.run_id, {"succeeded": 2, "queued": 1})
        assert [c.version for c in await journal.children(backfill.run_id)] == [3, 4, 3]
        assert await journal.child_tasks(backfill.run_id) == {"a": {"d": 2}}
        items = await sched(journal, here)
        assert [(i.run_ids, i.restarted, i.versions) for i in items if isinstance(i, RunsCreated)] == [
            ((backfill.run_id,), True, ((await journal.summary(backfill.run_id)).version,)),
            ((again.run_id,), True, (4,)),
        ]
        assert [i for i in items if isinstance(i, Wake)] == [], "the backfill itself is not told of its own restart"
        assert (await journal.create_backfill(restart)).status == "existing"

    async def test_an_existing_backfill_answers_only_to_the_plan_that_made_it(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 2, plan_hash="sha256:1")
        same = msgspec.structs.replace(backfill, require_hash="sha256:1")
        other = msgspec.structs.replace(backfill, require_hash="sha256:2")
        assert (await journal.create_backfill(same)).run_id == backfill.run_id
        assert (await journal.create_backfill(other)).status == "hash"

    async def test_a_key_answers_the_first_backfill(self, journal: Journal) -> None:
        key = StoredReply("k", "f", b"{}")
        backfill = await backfilled(journal, 2, idem=key)
        other = new_backfill(create_windows(["2026-01-01"]), key="2026-01-01/2026-01-01", idem=key)
        again = await journal.create_backfill(other)
        assert (again.status, again.run_id, again.counts) == ("replayed", backfill.run_id, {"queued": 2})
        refused = msgspec.structs.replace(other, idem=StoredReply("k", "g", b"{}"))
        assert (await journal.create_backfill(refused)).status == "conflict"

    async def test_counters_of_overlapping_backfills_equal_a_recount(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        first = await backfilled(journal, 6)
        ends = ("succeeded", "failed", "cancelled", "succeeded")
        for window, state in zip(first.windows[:4], ends, strict=True):
            await end(owner, window.run_id, state)
        await owner.commit(append(first.windows[4].run_id, 1, state="running", tasks=(("a", "r"), ("b", "f"))))
        actions = ("skip", "restart", "restart", "skip", "adopt", "adopt")
        windows = [
            NewWindow(
                window_key=w.window_key,
                run_id=w.run_id,
                action=action,
                event=restarted() if action == "restart" else b"",
                before=ends[n] if n < 4 else "",
                dag_version=1,
            )
            for n, (w, action) in enumerate(zip(first.windows, actions, strict=True))
        ]
        made = await journal.create_backfill(new_backfill(windows, key="a/b", reprocess="failed"))
        assert made.status == "created"
        await owner.commit(append(first.windows[1].run_id, 4, state="running", tasks=(("a", "e"), ("b", "r"))))
        await owner.commit(append(first.windows[4].run_id, 2, tasks_reset=True, tasks=(("b", "d"),)))
        for backfill in (first.run_id, made.run_id):
            assert await journal.child_counts(backfill) == await recount(journal, backfill)
            assert await journal.child_tasks(backfill) == await recount_tasks(journal, backfill)
        assert (await recount(journal, made.run_id))["skipped"] == 2

    async def test_runs_are_found_by_their_windows(self, journal: Journal) -> None:
        [one] = await create(journal, new_run("2025-01-01"))
        found = await journal.by_window("t", "d", ["2025-01-01/2025-01-01", "2025-01-02/2025-01-02"])
        assert {key: row.run_id for key, row in found.items()} == {"2025-01-01/2025-01-01": one}

    async def test_a_thousand_windows_are_one_step(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 2500)
        assert await journal.child_counts(backfill.run_id) == {"queued": 2500}
        children = await journal.children(backfill.run_id)
        assert [c.run_id for c in children] == [w.run_id for w in backfill.windows]
        found = await journal.by_window("t", "d", [w.window_key for w in backfill.windows])
        assert len(found) == 2500
