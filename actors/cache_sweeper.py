"""Forgets results of tasks that hold no more, and the oldest of too many. One of its kind, in the supervisor's process.

    every SWEEP_S, one DAG after another: what `caching.overdue` says

It lives there for the reasons of `retention.py`. A sweep changes no answer: what has expired is not used anyhow, and
what is forgotten is computed again. A result that is written between its look and its step may go with an older one of
its key; that too is computed again.
"""

from __future__ import annotations

from actors.clock import Clock
from actors.recurring import Recurring
from orchestrator import caching, codec
from orchestrator.caching import CACHES, RESULTS, Kept
from orchestrator.errors import Broken
from orchestrator.ports import Journal

#: seconds between sweeps
SWEEP_S = 600.0


class CacheSweeper(Recurring):
    """Sweeps. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        super().__init__("forgetting results", SWEEP_S, first_s=SWEEP_S)
        self._journal = journal
        self._clock = clock

    async def look(self) -> float:
        """Sweep; seconds until the next one. Raises JournalUnavailable."""
        await self.sweep()
        return SWEEP_S

    async def sweep(self) -> int:
        """Once; how many were forgotten. Raises JournalUnavailable."""
        gone = 0
        for name in await self._journal.records(CACHES):
            kind = RESULTS + name
            found = await self._journal.records(kind)
            records = {key: (kept, len(found[key])) for key in found if (kept := _kept(found[key])) is not None}
            if keys := [*(found.keys() - records.keys()), *caching.overdue(records, self._clock.now())]:
                await self._journal.put_records(kind, dict.fromkeys(keys))
                gone += len(keys)
        return gone


def _kept(record: bytes) -> Kept | None:
    """None = it cannot be read, so nobody uses it."""
    try:
        return codec.decode_document(record, Kept)
    except Broken:
        return None
