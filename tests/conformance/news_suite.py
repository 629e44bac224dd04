"""What every `ports.Journal` tells others of a commit: feed, scheduler, inboxes. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio

import msgspec

from orchestrator import codec, streams
from orchestrator.ports import Journal
from orchestrator.rows import RunFilter
from orchestrator.steps import Creation, Mail
from orchestrator.streams import Letter, RunMoved, RunsCreated
from tests.conformance.journal_builders import Owner, append, create, days, new_run, put
from tests.conformance.journal_reads import inbox, sched


class NewsSuite:
    """Subclasses give the fixture `journal`: an empty one."""

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
