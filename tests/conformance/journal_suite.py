"""What every implementation of `ports.Journal` does. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from orchestrator import codec, streams
from orchestrator.errors import Broken, Fenced
from orchestrator.ports import METRICS_MAX, Journal
from orchestrator.rows import SLAS_SHOWN, Beat, DueCron, OwnerRow, RunFilter
from orchestrator.steps import (
    CreatedRun,
    Creation,
    DagWritten,
    DroppedFires,
    Fire,
    FireResult,
    Mail,
    NewBackfill,
    NewWindow,
    StoredReply,
)
from orchestrator.streams import (
    DagChanged,
    InboxItem,
    Letter,
    RunMoved,
    RunsCreated,
    SchedItem,
    TimerFired,
    Wake,
    WindowNews,
)
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
    progress,
    put,
    restarted,
)


async def sched(journal: Journal, after: str = "0-0") -> list[SchedItem]:
    return [item for entry in await journal.tail(streams.SCHED, after, 0) for item in codec.decode_sched(entry.item)]


async def inbox(journal: Journal, actor: str, after: str = "0-0") -> list[InboxItem]:
    found = await journal.tail(streams.inbox(actor), after, 0)
    return [item for entry in found for item in codec.decode_inbox(entry.item)]


async def backfilled(journal: Journal, n: int = 3, **changes: object) -> NewBackfill:
    """A backfill of `n` fresh windows."""
    await journal.put_dag(put())
    backfill = new_backfill(create_windows(days(n)), **changes)
    assert (await journal.create_backfill(backfill)).status == "created"
    return backfill


async def end(owner: Owner, run: str, state: str = "succeeded") -> None:
    """Run it to its end."""
    row = await owner.journal.summary(run)
    assert row is not None
    step = append(run, row.version, state="running", attempts=row.attempts + 1, started_ms=NOW_MS)
    assert await owner.commit(step) == ["ok"]
    step = append(run, row.version + 1, state=state, finished_ms=NOW_MS + 700, tasks=(("a", "d"),))
    assert await owner.commit(step) == ["ok"]


async def recount(journal: Journal, backfill: str) -> dict[str, int]:
    """A backfill's counters, from its windows."""
    return dict(Counter("skipped" if c.kept else c.state for c in await journal.children(backfill)))


async def recount_tasks(journal: Journal, backfill: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for child in await journal.children(backfill):
        for task, letter in (await journal.tasks(child.run_id)).items():
            if not child.kept and letter != "p":
                letters = found.setdefault(task, {})
                letters[letter] = letters.get(letter, 0) + 1
    return found


class JournalSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    # appends

    async def test_what_was_appended_is_read_back_with_its_version(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        assert await owner.commit(append(run, 1, 3), append(run, 4, 0)) == ["ok", "ok"]
        batches = await journal.events(run, 0, 10)
        assert [batch.last_version for batch in batches] == [1, 4]
        assert [len(codec.decode_events(batch.events, batch.schema)) for batch in batches] == [1, 3]

    async def test_events_are_read_from_any_version(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await owner.commit(append(run, 1, 3))
        await owner.commit(append(run, 4, 2))
        for after, last in ((0, [1, 4, 6]), (1, [4, 6]), (2, [4, 6]), (4, [6]), (5, [6]), (6, []), (99, [])):
            assert [b.last_version for b in await journal.events(run, after, 10)] == last
        assert [b.last_version for b in await journal.events(run, 0, 2)] == [1, 4]

    async def test_a_row_holds_what_the_appends_said(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run("2025-01-01", sla_ms=NOW_MS + 60_000))
        step = append(run, 1, state="running", attempts=1, started_ms=NOW_MS + 5, tasks=(("a", "d"), ("b", "r")))
        await owner.commit(step)
        row = await journal.summary(run)
        assert row is not None
        assert (row.state, row.version, row.owner, row.attempts) == ("running", 2, "actor-1", 1)
        assert (row.created_ms, row.started_ms, row.finished_ms, row.sla_ms) == (
            NOW_MS,
            NOW_MS + 5,
            None,
            NOW_MS + 60_000,
        )
        assert row.window == codec.decode_events((await journal.events(run, 0, 1))[0].events)[0].window  # type: ignore[union-attr]
        assert await journal.tasks(run) == {"a": "d", "b": "r"}
        assert await journal.look(run) == (await journal.summary(run), {"a": "d", "b": "r"})
        await owner.commit(append(run, 2, state="failed", finished_ms=NOW_MS + 9, error="boom: a\nb|é"))
        row = await journal.summary(run)
        assert row is not None
        assert (row.state, row.finished_ms, row.error, row.owner) == ("failed", NOW_MS + 9, "boom: a\nb|é", "")

    async def test_an_append_on_another_version_is_stale_and_changes_nothing(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run(), new_run())
        assert await owner.commit(append(one, 2), append(two, 1)) == ["stale", "ok"]
        assert len(await journal.events(one, 0, 10)) == 1
        assert len(await journal.events(two, 0, 10)) == 2

    async def test_an_append_to_a_run_of_another_owner_is_stale_and_names_the_owner(self, journal: Journal) -> None:
        first, second = await Owner(journal, "one").start(), await Owner(journal, "two").start()
        [run] = await create(journal, new_run())
        await first.commit(append(run, 1))
        [result] = await journal.commit(second.step(append(run, 2)))
        assert (result.status, result.version, result.owner) == ("stale", 2, "one")

    async def test_an_append_to_a_run_that_never_was_is_missing(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        assert await owner.commit(append("run_x", 1)) == ["missing"]

    async def test_a_commit_sent_again_is_answered_alike_and_applied_once(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        step = owner.step(append(run, 1, 2), append(run, 9), counts=(("sla_breaches_total|d", 1),))
        first = await journal.commit(step)
        assert await journal.commit(step) == first
        assert [r.status for r in first] == ["ok", "stale"]
        assert len(await journal.events(run, 0, 10)) == 2
        assert (await journal.metrics())["sla_breaches_total|d"] == 1

    async def test_an_older_turn_is_a_bug(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        old = owner.step()
        await owner.commit()
        with pytest.raises(Broken):
            await journal.commit(old)

    async def test_a_former_incarnation_is_fenced(self, journal: Journal) -> None:
        old = await Owner(journal).start()
        [run] = await create(journal, new_run())
        new = await Owner(journal).start()
        with pytest.raises(Fenced):
            await old.commit(append(run, 1))
        assert await new.commit(append(run, 1)) == ["ok"]
        assert new.epoch == old.epoch + 1

    async def test_two_incarnations_at_once_never_share_an_epoch(self, journal: Journal) -> None:
        epochs = await asyncio.gather(*(journal.take_epoch("x") for _ in range(20)))
        assert sorted(epochs) == list(range(1, 21))

    async def test_an_owner_has_its_runs_until_they_end_or_it_lets_go(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        ids = await create(journal, *(new_run() for _ in range(3)))
        await owner.commit(*(append(run, 1, 0) for run in ids))
        assert await journal.owned("actor-1") == ids
        assert len(await journal.events(ids[0], 0, 10)) == 1, "a claim without events adds none"
        await owner.commit(append(ids[0], 1, state="cancelled"), append(ids[1], 1, 0, passive=True))
        assert await journal.owned("actor-1") == [ids[2]]
        other = await Owner(journal, "other").start()
        assert await other.commit(append(ids[1], 1, 0)) == ["ok"]
        assert await journal.owned("other") == [ids[1]]

    async def test_an_admission_by_a_former_scheduler_is_refused(self, journal: Journal) -> None:
        scheduler, owner = await Owner(journal, "scheduler").start(), await Owner(journal).start()
        one, two = await create(journal, new_run(), new_run())
        assert await owner.commit(append(one, 1, scheduler_epoch=scheduler.epoch)) == ["ok"]
        await scheduler.start()
        assert await owner.commit(append(two, 1, scheduler_epoch=scheduler.epoch - 1)) == ["refused"]
        assert await owner.commit(append(two, 1, scheduler_epoch=scheduler.epoch)) == ["ok"]

    async def test_an_admission_to_a_paused_dag_is_refused(self, journal: Journal) -> None:
        scheduler, owner = await Owner(journal, "scheduler").start(), await Owner(journal).start()
        [run] = await create(journal, new_run())
        await journal.set_paused("t", "d", True, NOW_MS)
        assert await owner.commit(append(run, 1, scheduler_epoch=scheduler.epoch)) == ["refused"]
        assert await owner.commit(append(run, 1)) == ["ok"], "only admissions are guarded"

    async def test_a_reply_is_stored_with_the_append_and_answered_afterwards(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        idem = StoredReply("k", "f", b'{"state":"cancelled"}')
        assert await owner.commit(append(run, 1, idem=idem)) == ["ok"]
        [again] = await journal.commit(owner.step(append(run, 2, idem=StoredReply("k", "f", b"{}"))))
        assert (again.status, again.reply, again.version) == ("replayed", b'{"state":"cancelled"}', 2)
        [other] = await journal.commit(owner.step(append(run, 2, idem=StoredReply("k", "g", b"{}"))))
        assert other.status == "conflict"
        assert await journal.stored_reply("k") == idem
        assert await journal.stored_reply("unknown") is None

    async def test_the_first_reply_under_a_key_stays(self, journal: Journal) -> None:
        for body in (b"one", b"two"):
            await journal.store_reply(StoredReply("k", "f", body))
        assert await journal.stored_reply("k") == StoredReply("k", "f", b"one")

    async def test_a_stale_append_stores_no_reply(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await owner.commit(append(run, 7, idem=StoredReply("k", "f", b"{}")))
        assert await journal.stored_reply("k") is None

    async def test_tasks_can_all_be_pending_again(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await owner.commit(append(run, 1, tasks=(("a", "d"), ("b", "f"))))
        await owner.commit(append(run, 2, tasks_reset=True, tasks=(("a", "r"),)))
        assert await journal.tasks(run) == {"a": "r"}

    async def test_a_thousand_runs_and_tasks_fit_one_commit(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        ids = await create(journal, *(new_run() for _ in range(1500)))
        letters = tuple((f"task-{n}", "d") for n in range(4000))
        steps = [append(run, 1, state="running") for run in ids[1:]]
        assert set(await owner.commit(append(ids[0], 1, 4000, tasks=letters), *steps)) == {"ok"}
        assert len(await journal.tasks(ids[0])) == 4000
        assert await journal.owned("actor-1") == ids

    # what commits tell others

    async def test_the_feed_names_every_change_of_a_commit_once(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run(), new_run())
        here = await journal.position(streams.FEED)
        await owner.commit(append(one, 1, 2, state="running"), append(two, 5), append(two, 1))
        [entry] = await journal.tail(streams.FEED, here, 0)
        assert codec.decode_feed(entry.item) == [(one, 3, "running"), (two, 2, "queued")]

    async def test_the_feed_says_when_the_server_goes_away(self, journal: Journal) -> None:
        here = await journal.position(streams.FEED)
        await journal.part()
        [entry] = await journal.tail(streams.FEED, here, 0)
        assert codec.decode_feed(entry.item) == [streams.PARTING]

    async def test_the_scheduler_hears_of_ends_and_of_runs_that_lost_their_owner(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two, three = await create(journal, new_run(), new_run(), new_run())
        here = await journal.position(streams.SCHED)
        await owner.commit(append(one, 1, state="running"), append(two, 1, state="running"))
        assert await sched(journal, here) == [], "a start was the scheduler's own doing"
        await owner.commit(
            append(one, 2, state="failed"), append(two, 2, passive=True), append(three, 1, state="cancelled")
        )
        assert await sched(journal, here) == [
            RunMoved(one, "t", "d", "manual", "", "running", "failed", ""),
            RunMoved(two, "t", "d", "manual", "", "running", "running", ""),
            RunMoved(three, "t", "d", "manual", "", "queued", "cancelled", ""),
        ]
        here = await journal.position(streams.SCHED)
        await owner.commit(append(one, 3, state="running"))
        assert await sched(journal, here) == [RunMoved(one, "t", "d", "manual", "", "failed", "running", "actor-1")]

    async def test_new_runs_of_one_dag_reach_the_scheduler_in_one_item(self, journal: Journal) -> None:
        await journal.put_dag(put("d"))
        await journal.put_dag(put("other"))
        here = await journal.position(streams.SCHED)
        runs = [new_run(), new_run(), new_run(dag_id="other")]
        await journal.create_runs([Creation(tuple(runs[:1])), Creation(tuple(runs[1:]))])
        found = await sched(journal, here)
        assert [(i.dag_id, i.run_ids, i.restarted, i.versions) for i in found if isinstance(i, RunsCreated)] == [
            ("d", (runs[0].run_id, runs[1].run_id), False, ()),
            ("other", (runs[2].run_id,), False, ()),
        ]

    async def test_runs_of_what_is_nobodys_dag_are_in_lists_of_their_own(self, journal: Journal) -> None:
        await journal.put_dag(put("d"))
        assert (await journal.put_dag(put("@flow/f1", max_dags=1))).status == "ok"
        assert [row.dag_id for row in await journal.dags("t", "", 10)] == ["d"]
        plain, hidden = new_run(dag_id="d"), new_run(dag_id="@flow/f1")
        results = await journal.create_runs([Creation((plain, hidden))])
        assert results[0].status == "ok"
        listed = await journal.summaries(RunFilter(tenant="t"), None, 10)
        assert [row.run_id for row in listed.rows] == [plain.run_id]
        own = await journal.summaries(RunFilter(tenant="t", kind="@flow"), None, 10)
        assert [row.run_id for row in own.rows] == [hidden.run_id]
        by_id = await journal.summaries(
            RunFilter(tenant="t", kind="@flow", dag_id="@flow/f1", state="queued"), None, 10
        )
        assert [row.run_id for row in by_id.rows] == [hidden.run_id]
        assert (await journal.summaries(RunFilter(tenant="t", kind="@run"), None, 10)).rows == ()

    async def test_runs_of_all_forms_of_id_are_listed_by_creation(self, journal: Journal) -> None:
        await journal.put_dag(put("d"))
        runs = [new_run(dag_id="d") for _ in range(6)]
        runs[1::2] = [msgspec.structs.replace(r, run_id=r.run_id.removeprefix("run_")) for r in runs[1::2]]
        await journal.create_runs([Creation(tuple(runs))])
        owner = await Owner(journal).start()
        for run in runs[:2]:
            await owner.commit(append(run.run_id, 1, state="running"))
        ids = [run.run_id for run in reversed(runs)]
        page = await journal.summaries(RunFilter(tenant="t", dag_id="d"), None, 4)
        rest = await journal.summaries(RunFilter(tenant="t", dag_id="d"), page.next_cursor, 4)
        assert [row.run_id for row in (*page.rows, *rest.rows)] == ids
        running = await journal.summaries(RunFilter(tenant="t", state="running"), None, 4)
        assert [row.run_id for row in running.rows] == ids[-2:]

    async def test_mail_reaches_the_other_inbox_once(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        step = owner.step(mail=(Mail("actor-2", codec.encode_mail("actor-1", b'{"n":1}')),))
        await journal.commit(step)
        await journal.commit(step)
        assert await inbox(journal, "actor-2") == [Letter("actor-1", msgspec.Raw(b'{"n":1}'))]

    async def test_mail_about_a_run_goes_out_only_with_what_is_appended_to_it(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run(), new_run())
        letters = {run: codec.encode_mail("actor-1", b'"%s"' % run.encode()) for run in (one, two)}
        mail = tuple(Mail("actor-2", item, run) for run, item in letters.items())
        assert await owner.commit(append(one, 1), append(two, 9), mail=mail) == ["ok", "stale"]
        assert await inbox(journal, "actor-2") == [Letter("actor-1", msgspec.Raw(b'"%s"' % one.encode()))]
        await owner.commit(mail=(Mail("actor-2", letters[two], two),))
        assert len(await inbox(journal, "actor-2")) == 1

    async def test_an_inbox_is_read_on_from_the_committed_cursor(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        for n in (1, 2, 3):
            await owner.commit(mail=(Mail("actor-1", codec.encode_mail("x", b"%d" % n)),))
        entries = await journal.tail(streams.inbox("actor-1"), "0-0", 0)
        await owner.commit(cursor=entries[1].cursor)
        assert (await journal.owner("actor-1")).cursor == entries[1].cursor
        assert await journal.take_epoch("actor-1") == 2
        rest = await journal.tail(streams.inbox("actor-1"), (await journal.owner("actor-1")).cursor, 0)
        assert rest == entries[2:]

    async def test_a_tail_waits_for_the_next_entry(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        here = await journal.position(streams.FEED)
        waiting = asyncio.create_task(journal.tail(streams.FEED, here, 5000))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await owner.commit(append(run, 1))
        [entry] = await asyncio.wait_for(waiting, 2)
        assert codec.decode_feed(entry.item) == [(run, 2, "queued")]
        assert await journal.tail(streams.FEED, entry.cursor, 20) == []

    async def test_a_tail_that_was_given_up_does_not_disturb_the_next(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        here = await journal.position(streams.FEED)
        waiting = asyncio.create_task(journal.tail(streams.FEED, here, 5000))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await owner.commit(append(run, 1))
        assert len(await journal.tail(streams.FEED, here, 1000)) == 1

    async def test_a_trimmed_stream_forgets_up_to_the_cursor(self, journal: Journal) -> None:
        for day in days(3):
            await create(journal, new_run(day))
        entries = await journal.tail(streams.SCHED, "0-0", 0)
        await journal.trim(streams.SCHED, entries[1].cursor)
        assert await journal.tail(streams.SCHED, "0-0", 0) == entries[2:]

    # creations

    async def test_fifty_equal_creations_at_once_give_one_run(self, journal: Journal) -> None:
        await journal.put_dag(put())
        wanted = [new_run("2025-01-01") for _ in range(50)]
        results = await asyncio.gather(*(journal.create_runs([Creation((run,))]) for run in wanted))
        assert len({result.runs[0].run_id for [result] in results}) == 1
        assert Counter(result.runs[0].how for [result] in results) == {"created": 1, "existing": 49}
        assert len((await journal.summaries(RunFilter(tenant="t"), None, 10)).rows) == 1

    async def test_equal_windows_in_one_request_are_one_run(self, journal: Journal) -> None:
        await journal.put_dag(put())
        [result] = await journal.create_runs([Creation((new_run("2025-01-01"), new_run("2025-01-01"), new_run()))])
        assert [run.how for run in result.runs] == ["created", "existing", "created"]
        assert result.runs[0].run_id == result.runs[1].run_id

    async def test_a_creation_sent_again_creates_nothing(self, journal: Journal) -> None:
        await journal.put_dag(put())
        creation = Creation((new_run(), new_run("2025-01-01")))
        first = await journal.create_runs([creation])
        assert await journal.create_runs([creation]) == first
        assert len((await journal.summaries(RunFilter(tenant="t"), None, 10)).rows) == 2

    async def test_a_key_answers_the_first_creation_and_refuses_another_body(self, journal: Journal) -> None:
        await journal.put_dag(put())
        key = StoredReply("k", "f", b'["note"]')
        [first] = await journal.create_runs([Creation((new_run(),), key)])
        again, other = await journal.create_runs(
            [Creation((new_run(),), key), Creation((new_run(),), StoredReply("k", "g"))]
        )
        assert (again.status, again.runs, again.reply) == ("replayed", first.runs, b'["note"]')
        assert other.status == "conflict"
        assert len((await journal.summaries(RunFilter(tenant="t"), None, 10)).rows) == 1

    async def test_a_creation_for_a_replaced_dag_version_creates_nothing(self, journal: Journal) -> None:
        await journal.put_dag(put())
        await journal.put_dag(put(base_version=1, content_hash="h2"))
        stale, fresh = await journal.create_runs(
            [Creation((new_run(dag_version=2), new_run())), Creation((new_run(dag_version=2),))]
        )
        assert (stale.status, fresh.status) == ("changed", "ok")
        assert len((await journal.summaries(RunFilter(tenant="t"), None, 10)).rows) == 1

    @pytest.mark.parametrize(
        ("policy", "state", "how"),
        [
            ("none", "failed", "existing"),
            ("failed", "failed", "restarted"),
            ("failed", "cancelled", "restarted"),
            ("failed", "timed_out", "restarted"),
            ("failed", "succeeded", "existing"),
            ("completed", "succeeded", "restarted"),
            ("completed", "running", "existing"),
        ],
    )
    async def test_reprocess_decides_which_runs_are_restarted(
        self, journal: Journal, policy: str, state: str, how: str
    ) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run("2025-01-01"))
        await owner.commit(append(run, 1, state="running", started_ms=NOW_MS, tasks=(("a", "f"),)))
        if state != "running":
            await owner.commit(append(run, 2, state=state, error="x", finished_ms=NOW_MS))
        [result] = await journal.create_runs([Creation((new_run("2025-01-01", reprocess=policy),))])
        assert (result.runs[0].run_id, result.runs[0].how) == (run, how)
        row = await journal.summary(run)
        assert row is not None
        if how == "restarted":
            assert (row.state, row.version, row.finished_ms, row.started_ms, row.error) == ("queued", 4, None, None, "")
            assert await journal.tasks(run) == {}
            assert isinstance((await sched(journal))[-1], RunsCreated)
            assert await owner.commit(append(run, 4)) == ["ok"]
        else:
            assert row.state == state

    async def test_a_pinned_restart_holds_only_for_the_version_it_was_made_for(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run("2025-01-01"))
        await end(owner, run, "failed")
        await journal.put_dag(put(base_version=1, content_hash="h2"))
        again = {"reprocess": "failed", "dag_version": 2}
        wrong = new_run("2025-01-01", **again, pinned_version=2, restart_version=2)
        right = new_run("2025-01-01", **again, pinned_version=1, restart_version=1)
        one, two = await journal.create_runs([Creation((wrong,)), Creation((right,))])
        assert (one.status, two.status) == ("changed", "ok")
        row = await journal.summary(run)
        assert row is not None
        assert (row.dag_version, row.state) == (1, "queued")

    # pages

    async def test_pages_are_newest_first_and_never_repeat_while_runs_arrive(self, journal: Journal) -> None:
        await create(journal, *(new_run() for _ in range(25)))
        before = {row.run_id for row in (await journal.summaries(RunFilter(tenant="t"), None, 100)).rows}
        seen, cursor = list[str](), None
        while True:
            page = await journal.summaries(RunFilter(tenant="t"), cursor, 7)
            seen += [row.run_id for row in page.rows]
            cursor = page.next_cursor
            await create(journal, new_run())
            if cursor is None:
                break
        assert seen == sorted(before, reverse=True)

    async def test_filters_are_exact_and_follow_the_state(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        mine = await create(journal, *(new_run() for _ in range(6)))
        [other] = await create(journal, new_run(dag_id="other", run_type="scheduled"))
        await owner.commit(*(append(run, 1, state="running") for run in mine[:4]), append(other, 1, state="running"))
        await owner.commit(append(mine[0], 2, state="succeeded"))

        async def ids(**wanted: str) -> list[str]:
            found, cursor = list[str](), None
            while True:
                page = await journal.summaries(RunFilter(tenant="t", **wanted), cursor, 2)
                found += [row.run_id for row in page.rows]
                cursor = page.next_cursor
                if cursor is None:
                    return found

        assert await ids(state="running") == [other, mine[3], mine[2], mine[1]]
        assert await ids(dag_id="d", state="running") == [mine[3], mine[2], mine[1]]
        assert await ids(dag_id="d") == mine[::-1]
        assert await ids(run_type="scheduled") == [other]
        assert await ids(dag_id="d", run_type="scheduled") == []
        assert await ids(state="succeeded") == [mine[0]]
        assert (await journal.summaries(RunFilter(tenant="u"), None, 9)).rows == ()

    # backfills

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

    # DAGs

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

    # time

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

    # the whole system's numbers

    async def test_ends_are_counted_and_measured(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        for state, took in (("succeeded", 3), ("succeeded", 700), ("failed", 4_000_000)):
            [run] = await create(journal, new_run())
            await owner.commit(append(run, 1, state=state, finished_ms=NOW_MS + took))
        found = await journal.metrics()
        assert found == {
            "runs_total|d|succeeded": 2,
            "runs_total|d|failed": 1,
            "run_latency_seconds|d|le|0.005": 1,
            "run_latency_seconds|d|le|1": 1,
            "run_latency_seconds|d|count": 3,
            "run_latency_seconds|d|sum_ms": 4_000_703,
        }
        await journal.count([("http|GET", 2), ("http|GET", 3)])
        assert (await journal.metrics())["http|GET"] == 5
        dag = await journal.dag("t", "d")
        assert dag is not None
        assert dag.run_counts == {"succeeded": 2, "failed": 1}

    async def test_metrics_of_very_many_dags_are_counted_under_one_name(self, journal: Journal) -> None:
        await journal.count([(f"runs_total|d{n}|failed", 1) for n in range(METRICS_MAX)])
        owner = await Owner(journal).start()
        failed = (("runs_total|new|failed", 2), ("runs_total|newer|failed", 3), ("runs_total|d7|failed", 4))
        await owner.commit(counts=(*failed, ("jobs|count", 1)))
        await journal.count([("runs_total|newest|failed", 5), ("http|GET|/health|200|count", 1)])
        found = await journal.metrics()
        assert (found["runs_total|other|failed"], found["runs_total|d7|failed"]) == (10, 5)
        assert (found["jobs|count"], found["http|GET|/health|200|count"], len(found)) == (1, 1, METRICS_MAX + 3)

    # recovery

    async def test_everything_open_is_found_again(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        ids = await create(journal, *(new_run() for _ in range(5)))
        await owner.commit(append(ids[0], 1, state="succeeded"), append(ids[1], 1, state="running"))
        backfill = await backfilled(journal, 2)
        found = await journal.queued_and_active()
        assert [row.run_id for row in found] == sorted(
            [*ids[1:], backfill.run_id, *(w.run_id for w in backfill.windows)]
        )
        assert {row.run_id: row.state for row in found}[ids[1]] == "running"

    async def test_histories_are_loaded_whole(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        ids = await create(journal, *(new_run() for _ in range(700)))
        await owner.commit(*(append(run, 1, 2) for run in ids))
        found = await journal.load([*ids, "run_unknown"])
        assert [h.row.run_id for h in found] == ids
        assert {tuple(b.last_version for b in h.batches) for h in found} == {(1, 3)}
        assert found[3].batches[1].events == progress(2)

    async def test_a_run_that_is_to_be_alone_is_refused_while_another_one_goes_on(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        await journal.put_dag(put("@plan/p"))
        await journal.put_dag(put("@plan/q"))
        first, second, third = (new_run(dag_id="@plan/p", alone=True) for _ in range(3))
        other = new_run(dag_id="@plan/q", alone=True)
        made = await journal.create_runs([Creation((run,)) for run in (first, second, other)])
        assert [result.status for result in made] == ["ok", "busy", "ok"]
        assert made[1].runs == (CreatedRun(first.run_id, "queued", "existing"),)
        assert await journal.summary(second.run_id) is None
        assert [result.status for result in await journal.create_runs([Creation((first,))])] == ["ok"]
        await owner.commit(append(first.run_id, 1, state="running"))
        busy = (await journal.create_runs([Creation((third,))]))[0]
        assert (busy.status, busy.runs[0].state) == ("busy", "running")
        await owner.commit(append(first.run_id, 2, state="cancelling"))
        assert (await journal.create_runs([Creation((third,))]))[0].status == "busy"
        await owner.commit(append(first.run_id, 3, state="cancelled", finished_ms=NOW_MS))
        assert (await journal.create_runs([Creation((third,))]))[0].status == "ok"
        elsewhere = new_run(dag_id="@plan/p", alone=True, tenant="u")
        await journal.put_dag(put("@plan/p", tenant="u"))
        assert (await journal.create_runs([Creation((elsewhere,))]))[0].status == "ok"

    async def test_starters_at_the_same_moment_get_one_run(self, journal: Journal) -> None:
        await journal.put_dag(put("@plan/p"))
        runs = [new_run(dag_id="@plan/p", alone=True) for _ in range(20)]
        answers = await asyncio.gather(*(journal.create_runs([Creation((run,))]) for run in runs))
        statuses = Counter(answer[0].status for answer in answers)
        assert statuses == {"ok": 1, "busy": 19}
        [stands] = {answer[0].runs[0].run_id for answer in answers}
        assert await journal.summary(stands) is not None

    async def test_signs_of_life_are_kept_beside_the_run_until_they_are_forgotten(self, journal: Journal) -> None:
        assert await journal.beats() == []
        await journal.beat("orch-2", 0, NOW_MS)
        await journal.beat("orch-1", 7, NOW_MS)
        await journal.beat("orch-2", 8, NOW_MS + 10)
        await journal.beat("orch-2", 0, NOW_MS + 20)
        await journal.keep("orch-2", 5)
        await journal.keep("orch-3", 5)
        found = await journal.beats()
        assert found == [Beat("orch-1", 7, NOW_MS), Beat("orch-2", 8, NOW_MS + 20, 5)]
        await journal.forget("orch-1")
        await journal.forget("orch-1")
        assert [beat.run_id for beat in await journal.beats()] == ["orch-2"]

    async def test_unknown_things_are_empty_not_errors(self, journal: Journal) -> None:
        assert await journal.summary("x") is None
        assert await journal.tasks("x") == {}
        assert await journal.look("x") is None
        assert await journal.events("x", 0, 5) == []
        assert await journal.children("x") == []
        assert await journal.child_counts("x") == {}
        assert await journal.owned("x") == []
        assert await journal.owner("x") == OwnerRow(0, 0, "0-0")
        assert await journal.position("x") == "0-0"
        assert await journal.log("x", "a", 1) is None
        assert (await journal.summaries(RunFilter(tenant="t", parent="x"), None, 5)).rows == ()
        assert await journal.ping()
