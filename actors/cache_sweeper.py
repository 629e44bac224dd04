"""Forgets results of tasks that hold no more, and the oldest of too many. One of its kind, in the supervisor's process.

    every SWEEP_S, one DAG after another: what `caching.overdue` says

It lives there for the reasons of `retention.py`. A sweep changes no answer: what has expired is not used anyhow, and
what is forgotten is computed again. A result that is written between its look and its step may go with an older one of
its key; that too is computed again.
"""

from __future__ import annotations

import asyncio
import logging

from actors.clock import Clock
from orchestrator import caching, codec
from orchestrator.caching import CACHES, RESULTS, Kept
from orchestrator.errors import Broken
from orchestrator.ports import Journal

#: seconds between sweeps
SWEEP_S = 600.0

_log = logging.getLogger(__name__)


class CacheSweeper:
    """Sweeps. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep."""
        self._loop = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except Exception:
                _log.exception("kept results could not be swept")

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
