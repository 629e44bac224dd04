"""What every `ports.Journal` does about commits. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator import codec
from orchestrator.errors import Broken, Fenced
from orchestrator.ports import Journal
from orchestrator.steps import StoredReply
from tests.conformance.journal_builders import NOW_MS, Owner, append, create, new_run


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
        assert row.window == codec.decode_events((await journal.events(run, 0, 1))[0].events)[0].window  # type: ignore[union-attr]  # the first event is RunCreated
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
