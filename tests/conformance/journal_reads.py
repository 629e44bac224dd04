"""What journal suites read and do beside the step that they are about."""

from __future__ import annotations

from collections import Counter

from orchestrator import codec, streams
from orchestrator.ports import Journal
from orchestrator.steps import NewBackfill
from orchestrator.streams import InboxItem, SchedItem
from tests.conformance.journal_builders import NOW_MS, Owner, append, create_windows, days, new_backfill, put


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
