"""Lets go of what ended longer ago than `history_retention_days`. One of its kind, in the supervisor's process.

    runs that ended before then, BATCH at a time ──▶ of DAGs: their history is removed, the row stays
                                                     of other kinds, once they are shown nowhere: erased

It lives beside the supervisor for the reasons of `plan_keeper.py`, and knows nothing that matters: what is to be done
the journal tells (`ended_before`), and each step of it is atomic and holds only for the version it was decided on, so
that a crash, or a twin, changes nothing. A backlog is worked off slowly: BATCH runs every BREATH_S. What stays of a
run, and why: `orchestrator/retention.py`.
"""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta

from actors.clock import Clock
from actors.hosted import HostedRun, instant, milliseconds
from actors.reading import Reader
from actors.recurring import Recurring
from actors.settings import Settings
from orchestrator import codec
from orchestrator.errors import Unavailable
from orchestrator.ports import Journal
from orchestrator.retention import removal
from orchestrator.rows import History, RunRow

#: seconds between looks, and between two batches of a backlog
SWEEP_S = 600.0
BREATH_S = 1.0
#: runs looked at in one go
BATCH = 50

_log = logging.getLogger(__name__)


class Retention(Recurring):
    """Sweeps. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings) -> None:
        super().__init__("removing histories", SWEEP_S)
        self._journal = journal
        self._clock = clock
        self._reader = Reader(journal)
        #: 0 = for ever; an instance is read from its whole history for as long as it is shown
        self._kept = timedelta(days=settings.history_retention_days)
        if self._kept:
            self._kept = max(self._kept, timedelta(seconds=settings.instance_retention_s))
        #: kind of runs that only one surface shows -> seconds after their end for which it does
        self._shown_s = {
            "@run": settings.run_retention_s or math.inf,
            "@flow": settings.run_retention_s or math.inf,
            "@plan": settings.instance_retention_s,
        }
        #: runs that cannot be let go of, in this life
        self._stuck: set[str] = set()

    def start(self) -> None:
        """Begin to sweep, unless everything is kept for ever."""
        if self._kept:
            super().start()

    async def look(self) -> float:
        """One batch; seconds until the next. Raises JournalUnavailable."""
        now = self._clock.now()
        limit = BATCH + len(self._stuck)
        found = await self._journal.ended_before(milliseconds(now - self._kept), limit)
        rows = [row for row in found if row.run_id not in self._stuck]
        unseen = {row.run_id for row in rows if self._is_unseen(row, now)}
        if await self._journal.erase(sorted(unseen)) < len(unseen):
            self._stuck |= unseen
        for row in rows:
            if row.run_id not in unseen:
                await self._trim(row, now)
        return BREATH_S if len(found) == limit else SWEEP_S

    def _is_unseen(self, row: RunRow, now: datetime) -> bool:
        shown_s = self._shown_s.get(row.dag_id.partition("/")[0], math.inf)
        return row.finished_ms is not None and (now - instant(row.finished_ms)).total_seconds() > shown_s

    async def _trim(self, row: RunRow, now: datetime) -> None:
        try:
            for history in await self._journal.load([row.run_id]):
                await self._remove(history, now)
        except Unavailable:
            raise
        except Exception:
            _log.exception("the history of %s stays", row.run_id)
            self._stuck.add(row.run_id)

    async def _remove(self, history: History, now: datetime) -> None:
        hosted = await self._reader.revive(history)
        if not isinstance(hosted, HostedRun) or not hosted.ended:
            return
        events = [event for batch in history.batches for event in codec.decode_events(batch.events, batch.schema)]
        event = removal(hosted.run, events, now)
        await self._journal.remove_history(history.row.run_id, event.through, codec.encode_events([event]))
