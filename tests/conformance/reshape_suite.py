"""What every journal does when a backfill is paused, capped or made wider while it goes on."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator import codec, streams
from orchestrator import events as e
from orchestrator.definition import Window
from orchestrator.ports import Journal
from orchestrator.rows import RunFilter
from orchestrator.steps import NewBackfill, NewWindow, StoredReply
from orchestrator.streams import BackfillShaped, RunsCreated, Wake, Widened
from tests.conformance.journal_builders import (
    AT,
    NOW_MS,
    Owner,
    append,
    create,
    create_windows,
    new_backfill,
    new_run,
    put,
)
from tests.conformance.journal_reads import backfilled, end, inbox, sched

KEY = "2025-01-01/2025-01-03"
WIDER = "2024-12-31/2025-01-04"


def widening(backfill: NewBackfill, windows: list[NewWindow], **changes: Any) -> NewBackfill:
    """A step that makes `backfill` wider, by default to WIDER with the first of `windows` in front."""
    event = e.BackfillWidened(AT, Window.of_key(WIDER), len(windows), 0, 0)
    values: dict[str, Any] = {
        "run_id": backfill.run_id,
        "tenant": "t",
        "dag_id": "d",
        "dag_version": 1,
        "window_key": WIDER,
        "created_ms": NOW_MS,
        "event": codec.encode_events([event]),
        "windows": tuple(windows),
        "widens": backfill.run_id,
        "widens_key": KEY,
        "in_front": 1,
    }
    return NewBackfill(**(values | changes))


class ReshapeSuite:
    """Needs a fixture `journal`."""

    async def test_more_windows_stand_where_they_belong_and_the_owner_is_told(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY, max_active_runs=2)
        await (await Owner(journal, "host").start()).commit(append(backfill.run_id, 1, 0))
        here = await journal.position(streams.SCHED)
        new = create_windows(["2024-12-31", "2025-01-04"], backfill.run_id)
        made = await journal.create_backfill(widening(backfill, new))
        assert (made.status, made.run_id, made.counts) == ("widened", backfill.run_id, {"queued": 5})
        found = [child.window_key[:10] for child in await journal.children(backfill.run_id)]
        assert found == ["2024-12-31", "2025-01-01", "2025-01-02", "2025-01-03", "2025-01-04"]
        row = await journal.summary(backfill.run_id)
        assert row is not None
        assert (row.version, row.window_key, row.owner, row.plan_hash) == (2, WIDER, "host", backfill.plan_hash)
        assert await inbox(journal, "host") == [Widened(backfill.run_id, 2)]
        queued = [item for item in await sched(journal, here) if isinstance(item, RunsCreated)]
        assert [(i.run_ids, i.parent, i.max_active_runs) for i in queued] == [
            (tuple(w.run_id for w in new), backfill.run_id, 2)
        ]
        page = await journal.summaries(RunFilter(tenant="t", parent=backfill.run_id), None, 10)
        assert len(page.rows) == 5

    async def test_it_is_found_by_what_it_was_over_and_by_what_it_is_over(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        await journal.create_backfill(widening(backfill, create_windows(["2024-12-31"])))
        for key in (KEY, WIDER):
            row = await journal.backfill_by_window("t", "d", key)
            assert row is not None
            assert row.run_id == backfill.run_id

    async def test_nobodys_backfill_is_taken_up_when_it_becomes_wider(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        here = await journal.position(streams.SCHED)
        await journal.create_backfill(widening(backfill, create_windows(["2024-12-31"])))
        assert Wake(backfill.run_id, "window") in await sched(journal, here)

    async def test_windows_with_runs_are_kept_or_adopted(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        backfill = await backfilled(journal, 3, key=KEY)
        one, two = await create(journal, new_run("2024-12-31"), new_run("2025-01-04"))
        await end(owner, one)
        keep = NewWindow(window_key="2024-12-31/2024-12-31", run_id=one, action="skip")
        adopt = NewWindow(window_key="2025-01-04/2025-01-04", run_id=two, action="adopt")
        for wrong in ([adopt, keep], [msgspec.structs.replace(keep, action="create"), adopt]):
            wrong = [msgspec.structs.replace(w, action="restart" if w is adopt else w.action) for w in wrong]
            assert (await journal.create_backfill(widening(backfill, wrong))).status == "changed"
        made = await journal.create_backfill(widening(backfill, [keep, adopt]))
        assert made.counts == {"queued": 4, "skipped": 1}
        await owner.commit(append(two, 1, state="running"))
        assert await journal.child_counts(backfill.run_id) == {"queued": 3, "running": 1, "skipped": 1}

    async def test_a_widening_that_was_planned_for_something_else_writes_nothing(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        step = widening(backfill, create_windows(["2024-12-31"]))
        before = await journal.summary(backfill.run_id)
        for changes in ({"widens_key": WIDER}, {"dag_version": 2}):
            wrong = msgspec.structs.replace(step, **changes)  # type: ignore[arg-type]  # each has its own type
            assert (await journal.create_backfill(wrong)).status == "changed"
        assert await journal.summary(backfill.run_id) == before
        assert (await journal.create_backfill(step)).status == "widened"

    async def test_a_widening_sent_twice_is_done_once(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        step = widening(backfill, create_windows(["2024-12-31"]), idem=StoredReply("k", "f", b"1"))
        first, second = await journal.create_backfill(step), await journal.create_backfill(step)
        assert (first.status, second.status, second.reply) == ("widened", "replayed", b"1")
        assert second.counts == first.counts == {"queued": 4}
        assert len(await journal.children(backfill.run_id)) == 4

    async def test_what_another_backfill_is_over_cannot_be_taken(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        other = new_backfill(create_windows(["2025-06-01"]), key=WIDER)
        await journal.create_backfill(other)
        refused = await journal.create_backfill(widening(backfill, create_windows(["2024-12-31"])))
        assert (refused.status, refused.run_id) == ("taken", other.run_id)

    async def test_a_backfill_that_has_ended_or_is_ending_gets_no_more_windows(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        owner = await Owner(journal).start()
        await owner.commit(append(backfill.run_id, 1, state="cancelling"))
        step = widening(backfill, create_windows(["2024-12-31"]))
        assert (await journal.create_backfill(step)).status == "over"
        await owner.commit(append(backfill.run_id, 2, state="cancelled", finished_ms=NOW_MS))
        refused = await journal.create_backfill(step)
        assert (refused.status, refused.state) == ("over", "cancelled")

    async def test_a_backfill_that_has_all_windows_already_stays_as_it_is(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 3, key=KEY)
        before = await journal.summary(backfill.run_id)
        made = await journal.create_backfill(widening(backfill, [], window_key=KEY, in_front=0))
        assert (made.status, made.counts) == ("widened", {"queued": 3})
        assert await journal.summary(backfill.run_id) == before

    async def test_the_scheduler_is_told_of_a_pause_a_resume_and_a_cap(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 2)
        owner = await Owner(journal).start()
        here = await journal.position(streams.SCHED)
        await owner.commit(append(backfill.run_id, 1, state="paused"))
        await owner.commit(append(backfill.run_id, 2, max_active_runs=3))
        await owner.commit(append(backfill.run_id, 3, state="running"))
        await owner.commit(append(backfill.run_id, 4, max_active_runs=0))
        told = [item for item in await sched(journal, here) if isinstance(item, BackfillShaped)]
        assert [(i.run_id, i.paused, i.max_active_runs) for i in told] == [
            (backfill.run_id, True, None),
            (backfill.run_id, True, 3),
            (backfill.run_id, False, 3),
            (backfill.run_id, False, None),
        ]
        row = await journal.summary(backfill.run_id)
        assert row is not None
        assert (row.state, row.max_active_runs) == ("running", None)

    async def test_a_window_is_not_admitted_for_a_backfill_that_is_paused(self, journal: Journal) -> None:
        backfill = await backfilled(journal, 2)
        scheduler = await journal.take_epoch("scheduler")
        owner = await Owner(journal).start()
        child = backfill.windows[0].run_id
        start = append(child, 1, state="running", scheduler_epoch=scheduler, lane=backfill.run_id)
        await owner.commit(append(backfill.run_id, 1, state="paused"))
        assert await owner.commit(start) == ["refused"]
        by_itself = append(backfill.windows[1].run_id, 1, state="running", scheduler_epoch=scheduler)
        assert await owner.commit(by_itself) == ["ok"]
        await owner.commit(append(backfill.run_id, 2, state="running"))
        assert await owner.commit(start) == ["ok"]

    async def test_partitions_are_windows_like_any_other(self, journal: Journal) -> None:
        await journal.put_dag(put())
        eu = Window(partition="day=a%2Fb/region=eu")
        [window] = create_windows(["x"])
        window = msgspec.structs.replace(window, window_key=eu.key())
        made = await journal.create_backfill(new_backfill([window], key="#0123"))
        found = (await journal.by_window("t", "d", [eu.key()]))[eu.key()]
        assert (found.run_id, found.window) == (window.run_id, eu)
        row = await journal.summary(made.run_id)
        assert row is not None
        assert row.window is None
        assert [child.window_key for child in await journal.children(made.run_id)] == [eu.key()]
