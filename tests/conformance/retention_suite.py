"""What every `ports.Journal` does about histories that are older than anybody needs. `test_journals.py` runs it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from orchestrator import codec, streams
from orchestrator import events as e
from orchestrator.ports import Journal
from orchestrator.rows import RunRow
from tests.conformance.held_suite import OWNER, held, hold
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

DAY = "2025-01-01"
KEY = f"{DAY}/{DAY}"
LATER_MS = NOW_MS + 10_000


def removed(through: int) -> bytes:
    """The event that stands for all up to that version but the first."""
    return codec.encode_events([e.HistoryRemoved(AT + timedelta(days=200), through, AT, "succeeded", 1, {"a": 2})])


async def ended(journal: Journal, owner: Owner, *runs: str, at_ms: int = NOW_MS) -> None:
    """They run, and end then, at version 4."""
    await owner.commit(*(append(run, 1, state="running", attempts=1, tasks=(("a", "r"),)) for run in runs))
    over = {"state": "succeeded", "finished_ms": at_ms, "tasks": (("a", "d"),)}
    await owner.commit(*(append(run, 2, 2, **over) for run in runs))


async def before(journal: Journal, instant_ms: int = LATER_MS, limit: int = 100) -> list[str]:
    return [row.run_id for row in await journal.ended_before(instant_ms, limit)]


async def row_of(journal: Journal, run: str) -> RunRow:
    row = await journal.summary(run)
    assert row is not None
    return row


class RetentionSuite:
    """Subclasses give the fixture `journal`: an empty one."""

    async def test_runs_that_ended_before_an_instant_are_found_the_first_first(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two, three, four, _open = await create(journal, *(new_run() for _ in range(5)))
        for run, at_ms in ((two, 10), (one, 20), (four, 30), (three, 40)):
            await ended(journal, owner, run, at_ms=NOW_MS + at_ms)
        assert await before(journal, NOW_MS + 30) == [two, one]
        assert await before(journal) == [two, one, four, three]
        assert await before(journal, limit=3) == [two, one, four]

    async def test_a_run_that_is_cancelled_in_the_queue_has_ended(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await owner.commit(append(run, 1, state="cancelled", finished_ms=NOW_MS))
        assert await before(journal) == [run]

    async def test_a_run_that_goes_on_has_not_ended(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        window, revived, erased = await create(journal, new_run(DAY), new_run(), new_run())
        await ended(journal, owner, window, revived, erased)
        await create(journal, new_run(DAY, reprocess="completed"))
        await owner.commit(append(revived, 4, state="running"))
        await journal.erase([erased])
        assert await before(journal) == []
        await owner.commit(append(revived, 5, state="failed", finished_ms=NOW_MS + 5))
        assert await before(journal) == [revived]

    async def test_backfills_and_held_runs_are_not_among_them(self, journal: Journal) -> None:
        owner, holder = await Owner(journal).start(), await Owner(journal, OWNER).start()
        await journal.put_dag(put())
        backfill = new_backfill(create_windows([DAY]))
        await journal.create_backfill(backfill)
        [child] = [row.run_id for row in await journal.children(backfill.run_id)]
        [job] = await hold(journal, held())
        over = {"state": "failed", "finished_ms": NOW_MS}
        await owner.commit(append(child, 1, **over), append(backfill.run_id, 1, **over))
        await holder.commit(append(job, 1, **over))
        assert await before(journal) == [child]
        assert not await journal.remove_history(backfill.run_id, 2, removed(2))
        assert not await journal.remove_history(job, 2, removed(2))

    async def test_of_a_removed_history_the_first_event_and_the_row_stay(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(DAY))
        await ended(journal, owner, run)
        [first, *_] = await journal.events(run, 0, 10)
        known = await row_of(journal, run)
        assert await journal.remove_history(run, 4, removed(4))
        assert [b.last_version for b in await journal.events(run, 0, 10)] == [1, 5]
        [history] = await journal.load([run])
        assert history.batches[0] == first
        assert history.batches[1].events == removed(4)
        assert history.row == msgspec.structs.replace(known, version=5, removed=5)
        assert await journal.tasks(run) == {"a": "d"}
        assert (await journal.by_window("t", "d", [KEY]))[KEY].run_id == run
        assert await before(journal) == []

    async def test_followers_are_told_that_there_is_one_more_event(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await ended(journal, owner, run)
        at = await journal.position(streams.FEED)
        await journal.remove_history(run, 4, removed(4))
        [entry] = await journal.tail(streams.FEED, at, 0)
        assert codec.decode_feed(entry.item) == [(run, 5, "succeeded")]

    @pytest.mark.parametrize("version", [3, 5])
    async def test_a_history_is_removed_only_at_the_version_that_was_seen(self, journal: Journal, version: int) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await ended(journal, owner, run)
        assert not await journal.remove_history(run, version, removed(version))
        assert [b.last_version for b in await journal.events(run, 0, 10)] == [1, 2, 4]

    async def test_a_history_is_removed_once_and_not_while_the_run_goes_on(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        one, two = await create(journal, new_run(), new_run())
        await ended(journal, owner, one)
        assert await journal.remove_history(one, 4, removed(4))
        assert not await journal.remove_history(one, 4, removed(4))
        assert not await journal.remove_history(two, 1, removed(1))
        assert not await journal.remove_history("unknown", 1, removed(1))

    async def test_who_decided_on_the_whole_history_is_stale(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run())
        await ended(journal, owner, run)
        await journal.remove_history(run, 4, removed(4))
        assert await owner.commit(append(run, 4, state="running")) == ["stale"]

    async def test_a_window_is_reprocessed_also_without_its_history(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        [run] = await create(journal, new_run(DAY))
        await ended(journal, owner, run)
        await journal.remove_history(run, 4, removed(4))
        assert await create(journal, new_run(DAY)) == [run]
        assert await create(journal, new_run(DAY, reprocess="completed")) == [run]
        await owner.commit(append(run, 6, state="running"))
        await owner.commit(append(run, 7, state="succeeded", finished_ms=NOW_MS + 5))
        assert [b.last_version for b in await journal.events(run, 0, 10)] == [1, 5, 6, 7, 8]
        row = await row_of(journal, run)
        assert (row.state, row.version, row.removed) == ("succeeded", 8, 5)
        assert await before(journal) == [run]
        assert await journal.remove_history(run, 8, removed(8))
        assert [b.last_version for b in await journal.events(run, 0, 10)] == [1, 9]

    async def test_a_definition_named_by_its_content_goes_with_its_last_run(self, journal: Journal) -> None:
        owner = await Owner(journal).start()
        flow = "@flow/0123456789abcdef"
        one, two = await create(journal, new_run(dag_id=flow), new_run(dag_id=flow))
        [caller] = await create(journal, new_run(dag_id="@run"))
        await ended(journal, owner, one, two, caller)
        assert await journal.erase([one, caller]) == 2
        assert await journal.definition("t", flow, 1) is not None
        assert await journal.erase([two]) == 1
        assert await journal.definition("t", flow, 1) is None
        assert await journal.dag("t", flow) is None
        assert await journal.dag("t", "@run") is not None
        assert await create(journal, new_run(dag_id=flow)) != []
