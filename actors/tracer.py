"""Sends the spans of runs that have ended to a collector. One of its kind, in the supervisor's process.

    feed ──a life of a run has ended──▶ read its events ──▶ `traces.spans` ──▶ exporter ──▶ cursor is durable

It lives beside the supervisor for the reasons of `plan_keeper.py`, and only where traces are asked for. Who ended is
read from the feed, in a batch every PERIOD_S, so the runs themselves know nothing of it. How far it is, is kept in the
journal: after a death it goes on there, and what it then sends again are the same spans. The feed reaches back 20,000
commits; when it is behind by more, for the collector was away for long, the traces of then are lost, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from actors.recurring import Recurring
from actors.span_export import Exporter
from orchestrator import codec
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, History
from orchestrator.streams import FEED
from orchestrator.traces import Span, spans

#: seconds in which what ends is collected
PERIOD_S = 1.0
#: how long a read of the feed waits; commits in one read; runs whose events are read at once; spans in one message
BLOCK_MS = 10_000
READ_MAX = 1000
RUNS_MAX = 100
SPANS_MAX = 512
#: pauses before spans are sent again; after the last one they are dropped
PAUSES_S = (1.0, 5.0, 15.0, 30.0, 60.0)
#: pause after the journal did not answer
DOWN_S = 1.0

#: kind and key of the record with the cursor
KIND, KEY = "traces", "cursor"

_log = logging.getLogger(__name__)


class Tracer(Recurring):
    """Follows the feed. `start` returns at once."""

    def __init__(self, journal: Journal, exporter: Exporter) -> None:
        super().__init__("sending traces", PAUSES_S[-1], DOWN_S)
        self._journal = journal
        self._exporter = exporter
        #: as far as the feed was followed; "" = not in this life
        self._cursor = ""

    async def look(self) -> float:
        """Follow what came since the last look; seconds until the next. Raises Unavailable."""
        self._cursor = self._cursor or await self._begin()
        self._cursor = await self.follow(self._cursor)
        return PERIOD_S

    async def _begin(self) -> str:
        kept = await self._journal.record(KIND, KEY)
        return kept.decode().strip('"') if kept else await self._journal.position(FEED)

    async def follow(self, cursor: str) -> str:
        """Export what has ended since; the cursor then, which is durable. Raises Unavailable."""
        entries = await self._journal.tail(FEED, cursor, BLOCK_MS, READ_MAX)
        if not entries:
            return cursor
        ended = [
            (run_id, version)
            for entry in entries
            for run_id, version, state in codec.decode_feed(entry.item)
            if state in TERMINAL
        ]
        for first in range(0, len(ended), RUNS_MAX):
            await self._export(ended[first : first + RUNS_MAX])
        await self._journal.put_records(KIND, {KEY: f'"{entries[-1].cursor}"'.encode()})
        return entries[-1].cursor

    async def _export(self, ended: Iterable[tuple[str, int]]) -> None:
        versions: dict[str, set[int]] = {}
        for run_id, version in ended:
            versions.setdefault(run_id, set()).add(version)
        found: list[Span] = []
        for history in await self._journal.load(list(versions)):
            try:
                found += _spans(history, versions[history.row.run_id])
            except Exception:
                _log.exception("the trace of %s is lost", history.row.run_id)
        for first in range(0, len(found), SPANS_MAX):
            await self._send(found[first : first + SPANS_MAX])

    async def _send(self, batch: Sequence[Span]) -> None:
        for pause_s in (*PAUSES_S, None):
            if await self._sent(batch):
                return
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        _log.warning("%d spans are lost: the collector did not take them", len(batch))

    async def _sent(self, batch: Sequence[Span]) -> bool:
        try:
            return await asyncio.to_thread(self._exporter.export, batch)
        except Exception:
            _log.exception("spans could not be exported")
            return False


def _spans(history: History, versions: set[int]) -> list[Span]:
    """Of the lives of a run that ended with the batches that end at `versions`; jobs and backfills have none."""
    row = history.row
    if row.holder or row.run_type == "backfill" or row.removed:
        return []
    found: list[Span] = []
    before, events = 0, []
    for batch in history.batches:
        events += codec.decode_events(batch.events, batch.schema)
        if batch.last_version in versions:
            found += spans(events, before)
        before = batch.last_version
    return found
