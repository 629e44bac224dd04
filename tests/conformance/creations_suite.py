"""What every `ports.Journal` does about new runs and lists of runs. `test_journals.py` runs it on each."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from orchestrator.ports import Journal
from orchestrator.rows import RunFilter
from orchestrator.steps import Creation, StoredReply
from orchestrator.streams import RunsCreated
from tests.conformance.journal_builders import NOW_MS, Owner, append, create, new_run, put
from tests.conformance.journal_reads import end, sched


class CreationsSuite:
    """Subclasses give the fixture `journal`: an empty one."""

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
