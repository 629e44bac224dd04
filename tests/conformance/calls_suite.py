"""What every journal does about runs that tasks of other runs call."""

from __future__ import annotations

from typing import Any

from orchestrator import streams
from orchestrator.ports import Journal
from orchestrator.steps import Creation
from orchestrator.streams import RunMoved, Wake, WindowNews
from tests.conformance.journal_builders import NOW_MS, Owner, append, create, new_id, new_run, put
from tests.conformance.journal_reads import end, inbox, sched


async def calling(journal: Journal, child: str, task: str = "a") -> tuple[Owner, str]:
    """A run whose task calls `child`, and its owner."""
    [parent] = await create(journal, new_run())
    owner = await Owner(journal, "host").start()
    step = append(parent, 1, state="running", attempts=1, started_ms=NOW_MS, calls=((task, child),))
    assert await owner.commit(step) == ["ok"]
    return owner, parent


async def start(journal: Journal, parent: str, child: str, task: str = "a", **changes: Any) -> str:
    """What became of the creation."""
    new = new_run(changes.pop("day", None), run_id=child, caller=(parent, task), **changes)
    [result] = await journal.create_runs([Creation((new,))])
    return result.status


class CallsSuite:
    """Needs a fixture `journal`."""

    async def test_a_called_run_is_created_once_and_knows_its_caller(self, journal: Journal) -> None:
        child = new_id()
        _, parent = await calling(journal, child)
        assert [await start(journal, parent, child) for _ in range(2)] == ["ok", "ok"]
        row = await journal.summary(child)
        assert row is not None
        assert (row.caller, row.parent, row.watchers, row.state) == ((parent, "a"), "", (), "queued")
        assert (await journal.called(parent)).keys() == {"a"}
        created = [item for item in await sched(journal) if isinstance(item, streams.RunsCreated)]
        assert [item.run_ids for item in created if child in item.run_ids] == [(child,)]

    async def test_what_nobody_calls_is_not_created(self, journal: Journal) -> None:
        child = new_id()
        owner, parent = await calling(journal, child)
        assert await start(journal, parent, new_id()) == "unwanted"
        assert await start(journal, parent, child, "b") == "unwanted"
        assert await start(journal, new_id(), child) == "unwanted"
        assert await owner.commit(append(parent, 2, calls=(("a", ""),))) == ["ok"]
        assert await start(journal, parent, child) == "unwanted"
        assert await journal.called(parent) == {}
        assert await journal.replaced() == []

    async def test_the_end_of_a_called_run_is_told_to_the_owner_of_its_caller(self, journal: Journal) -> None:
        child = new_id()
        _, parent = await calling(journal, child)
        await start(journal, parent, child)
        await end(await Owner(journal).start(), child)
        [news] = await inbox(journal, "host")
        assert news == WindowNews(parent, child, "", "running", "succeeded", 3)
        assert (await journal.called(parent))["a"].state == "succeeded"

    async def test_a_caller_that_nobody_owns_is_woken(self, journal: Journal) -> None:
        child = new_id()
        owner, parent = await calling(journal, child)
        await start(journal, parent, child)
        assert await owner.commit(append(parent, 2, 0, passive=True)) == ["ok"]
        await end(await Owner(journal).start(), child, "failed")
        assert Wake(parent, "window") in await sched(journal)
        assert await inbox(journal, "host") == []

    async def test_a_caller_that_has_ended_hears_nothing(self, journal: Journal) -> None:
        child = new_id()
        owner, parent = await calling(journal, child)
        await start(journal, parent, child)
        step = append(parent, 2, state="cancelled", finished_ms=NOW_MS, calls=(("a", ""),))
        assert await owner.commit(step) == ["ok"]
        await end(await Owner(journal).start(), child, "cancelled")
        assert Wake(parent, "window") not in await sched(journal)
        assert await inbox(journal, "host") == []

    async def test_a_run_that_nobody_waits_for_any_more_is_to_be_cancelled_until_it_has_ended(
        self, journal: Journal
    ) -> None:
        child = new_id()
        owner, parent = await calling(journal, child)
        await start(journal, parent, child)
        again = new_id()
        assert await owner.commit(append(parent, 2, calls=(("a", ""), ("a", again)))) == ["ok"]
        assert await journal.replaced() == [child]
        assert Wake(child, "orphan") in await sched(journal)
        assert await start(journal, parent, again) == "ok"
        assert [row.run_id for row in (await journal.called(parent)).values()] == [again]
        await end(await Owner(journal).start(), child, "cancelled")
        assert await journal.replaced() == []

    async def test_a_called_run_never_stands_for_its_window(self, journal: Journal) -> None:
        child = new_id()
        _, parent = await calling(journal, child)
        [standing] = await create(journal, new_run("2025-01-01"))
        assert await start(journal, parent, child, day="2025-01-01") == "ok"
        row = await journal.summary(child)
        assert row is not None
        assert row.window is not None
        found = await journal.by_window("t", "d", [row.window_key])
        assert [each.run_id for each in found.values()] == [standing]

    async def test_a_caller_that_is_restarted_has_called_nobody(self, journal: Journal) -> None:
        child = new_id()
        await journal.put_dag(put())
        [parent] = await create(journal, new_run("2025-01-02"))
        owner = await Owner(journal, "host").start()
        step = append(parent, 1, state="running", attempts=1, started_ms=NOW_MS, calls=(("a", child),))
        assert await owner.commit(step) == ["ok"]
        await start(journal, parent, child)
        await end(await Owner(journal).start(), child)
        assert await owner.commit(append(parent, 2, state="succeeded", finished_ms=NOW_MS)) == ["ok"]
        await create(journal, new_run("2025-01-02", reprocess="completed"))
        assert await journal.called(parent) == {}
        moved = [item for item in await sched(journal) if isinstance(item, RunMoved)]
        assert {item.run_id for item in moved} >= {parent, child}
