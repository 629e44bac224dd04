"""What every journal does about what starts runs: DAGs that follow others, assets, and events."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import codec
from orchestrator.messages import Cause
from orchestrator.ports import Journal
from orchestrator.steps import Creation, Gather, Mail, StoredReply
from orchestrator.streams import TRIGGERS, Produced, Succeeded
from tests.conformance.journal_builders import (
    NOW_MS,
    Owner,
    append,
    create,
    create_windows,
    new_backfill,
    new_run,
    put,
)
from tests.conformance.journal_reads import end, inbox

CAUSES = codec.encode_causes([Cause("dag", "u", "run_1", attempt=1)])


async def scheduler(journal: Journal) -> Owner:
    return await Owner(journal, "scheduler").start()


def gather(owner: Owner, **changes: Any) -> Gather:
    values: dict[str, Any] = {
        "scheduler_epoch": owner.epoch,
        "kind": "gathered",
        "key": "t|d",
        "expected": b"",
        "record": b'{"seen":"1-0"}',
        "tenant": "t",
        "dag_id": "d",
        "dag_version": 1,
    }
    return Gather(**(values | changes))


class TriggersSuite:
    """Needs a fixture `journal`."""

    async def test_who_follows_and_who_makes_is_known_by_the_current_version(self, journal: Journal) -> None:
        await journal.put_dag(put("a", makes=("s3://x", "s3://y")))
        await journal.put_dag(put("b", follows=("after/a", "asset/s3://x", "event/e")))
        assert await journal.followers("t", "after/a") == ["b"]
        assert await journal.followers("t", "event/e") == ["b"]
        assert await journal.makers("t", "s3://x") == ["a"]
        assert await journal.assets("t") == ["s3://x", "s3://y"]
        assert await journal.followers("other", "after/a") == []
        await journal.put_dag(put("a", content_hash="h2", base_version=1, makes=("s3://z",)))
        await journal.put_dag(put("b", content_hash="h2", base_version=1, follows=("after/c",)))
        assert await journal.followers("t", "after/a") == []
        assert await journal.followers("t", "after/c") == ["b"]
        assert await journal.assets("t") == ["s3://z"]
        await journal.put_dag(put("a", content_hash="h3", base_version=2))
        assert await journal.assets("t") == []

    async def test_a_dag_that_would_start_itself_is_refused_and_changes_nothing(self, journal: Journal) -> None:
        await journal.put_dag(put("a", makes=("x",)))
        await journal.put_dag(put("b", follows=("asset/x",)))
        await journal.put_dag(put("c", follows=("after/b",)))
        refused = await journal.put_dag(
            put("a", content_hash="h2", base_version=1, makes=("x",), follows=("after/z", "after/c"))
        )
        assert (refused.status, refused.reply) == ("circle", b"a b c a")
        assert await journal.followers("t", "after/z") == []
        dag = await journal.dag("t", "a")
        assert dag is not None
        assert dag.version == 1
        assert (await journal.put_dag(put("self", follows=("after/self",)))).reply == b"self self"

    async def test_a_diamond_is_no_circle(self, journal: Journal) -> None:
        await journal.put_dag(put("d", follows=("after/b", "after/c")))
        await journal.put_dag(put("b", follows=("after/a",)))
        await journal.put_dag(put("c", follows=("after/a",)))
        assert (await journal.put_dag(put("a", follows=("after/first",)))).status == "ok"

    async def test_followers_are_told_of_a_success_and_of_nothing_else(self, journal: Journal) -> None:
        await journal.put_dag(put("f", follows=("after/d",)))
        owner = await Owner(journal).start()
        one, two, three = await create(journal, new_run("2025-01-01"), new_run(), new_run())
        await end(owner, one)
        await end(owner, two, "failed")
        await end(owner, three, "cancelled")
        told = await inbox(journal, TRIGGERS)
        assert told == [Succeeded("t", "d", one, "2025-01-01/2025-01-01", 1, NOW_MS + 700)]

    async def test_windows_of_a_backfill_are_told_of_and_not_the_backfill(self, journal: Journal) -> None:
        await journal.put_dag(put("f", follows=("after/d",)))
        await journal.put_dag(put())
        owner = await Owner(journal).start()
        backfill = new_backfill(create_windows(["2025-01-01"]))
        await journal.create_backfill(backfill)
        [child] = await journal.children(backfill.run_id)
        await end(owner, child.run_id)
        await end(owner, backfill.run_id)
        assert [item.run_id for item in await inbox(journal, TRIGGERS) if isinstance(item, Succeeded)] == [child.run_id]

    async def test_nobody_is_told_of_a_dag_that_nobody_follows(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await end(owner, run)
        assert await inbox(journal, TRIGGERS) == []

    async def test_an_update_is_told_with_the_commit_that_it_is_in(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        item = Produced("t", "d", run, "a", 1, ("x",), NOW_MS)
        mail = (Mail(TRIGGERS, codec.encode_items([item]), run),)
        assert await owner.commit(append(run, 7), mail=mail) == ["stale"]
        assert await inbox(journal, TRIGGERS) == []
        assert await owner.commit(append(run, 1), mail=mail) == ["ok"]
        assert await inbox(journal, TRIGGERS) == [item]

    async def test_runs_start_in_the_step_that_consumes_their_causes(self, journal: Journal) -> None:
        owner = await scheduler(journal)
        await journal.put_dag(put())
        run = new_run(because=CAUSES)
        step = gather(owner, runs=(run,))
        done = await journal.gather(step)
        assert (done.status, [(each.run_id, each.how) for each in done.runs]) == ("ok", [(run.run_id, "created")])
        assert await journal.record("gathered", "t|d") == b'{"seen":"1-0"}'
        row = await journal.summary(run.run_id)
        assert row is not None
        assert row.because == CAUSES.decode()
        assert (await journal.metrics())["triggered_runs_total|d"] == 1
        assert (await journal.gather(step)).status == "stale", "the same step again changes nothing"
        again = new_run()
        assert (await journal.gather(gather(owner, expected=b"{}", runs=(again,)))).status == "stale"
        assert await journal.summary(again.run_id) is None

    @pytest.mark.parametrize("wrong", [{"dag_version": 2}, {"paused": True}])
    async def test_a_step_is_refused_when_the_dag_has_changed(self, journal: Journal, wrong: dict[str, Any]) -> None:
        owner = await scheduler(journal)
        await journal.put_dag(put())
        assert (await journal.gather(gather(owner, **wrong))).status == "changed"
        assert await journal.record("gathered", "t|d") is None

    async def test_a_former_scheduler_gathers_nothing(self, journal: Journal) -> None:
        former = await scheduler(journal)
        step = gather(former)
        await scheduler(journal)
        await journal.put_dag(put())
        assert (await journal.gather(step)).status == "fenced"

    async def test_a_window_in_which_a_run_goes_on_is_left(self, journal: Journal) -> None:
        owner, host = await scheduler(journal), await Owner(journal).start()
        [first] = await create(journal, new_run("2025-01-01"))
        runs = tuple(new_run(day, reprocess="completed", because=CAUSES) for day in ("2025-01-01", "2025-01-02"))
        waits = await journal.gather(gather(owner, record=b"1", runs=runs[:1]))
        assert [(each.run_id, each.how) for each in waits.runs] == [(first, "existing")], "it has not begun"
        await host.commit(append(first, 1, state="running", attempts=1))
        busy = await journal.gather(gather(owner, expected=b"1", record=b"2", runs=runs))
        assert (busy.status, busy.busy) == ("busy", ("2025-01-01/2025-01-01",))
        assert await journal.record("gathered", "t|d") == b"1"
        await host.commit(append(first, 2, state="failed", finished_ms=NOW_MS))
        done = await journal.gather(gather(owner, expected=b"1", record=b"2", runs=runs))
        assert [(each.run_id, each.how) for each in done.runs] == [(first, "restarted"), (runs[1].run_id, "created")]
        row = await journal.summary(first)
        assert row is not None
        assert (row.state, row.because) == ("queued", CAUSES.decode())

    async def test_an_event_is_told_once_with_all_its_runs(self, journal: Journal) -> None:
        for dag in ("d", "e"):
            await journal.put_dag(put(dag))
        runs = (new_run(), new_run(dag_id="e"))
        once = ("t", "order/7")
        first = await journal.create_runs([Creation(runs, once=once)])
        assert first[0].status == "ok"
        again = await journal.create_runs([Creation((new_run(),), StoredReply("k", "f"), once=once)])
        assert again[0].status == "told"
        assert [run.run_id for run in again[0].runs] == [run.run_id for run in runs]
        other = await journal.create_runs([Creation((new_run(),), once=("u", "order/7"))])
        assert other[0].status == "ok", "another tenant's"

    async def test_an_event_to_which_nobody_listens_is_told_once_too(self, journal: Journal) -> None:
        await journal.put_dag(put())
        [first] = await journal.create_runs([Creation((), once=("t", "order/8"))])
        [again] = await journal.create_runs([Creation((new_run(),), once=("t", "order/8"))])
        assert (first.status, first.runs, again.status, again.runs) == ("ok", (), "told", ())
