"""Gives the journal's memory back: what ended long ago leaves for the archive. In the supervisor's process.

    backfills, then runs that ended before then, BATCH at a time:
        read ─▶ segment (synced) ─▶ index (committed) ─▶ released from the journal, if still at that version

Each step is durable before the next and may be done twice: a kill before the index is committed leaves a file that
nobody names; one after it leaves runs in both places, of which the next sweep releases those that are unchanged
without writing them again. Reads look into the journal first, then into the archive, and what left was in the index
before. Two sweeps at a time do no harm either, so nothing is locked.

What a sweep is and who wants one: `sweeper.py`; with `archive_after_days` it makes some by itself. One that a crash cut
off goes on at the next start. Windows leave in small steps with a breath in between, for every step makes those plan
again who plan windows of that DAG just then. At last old news go: both streams of them are bounded by entries, which
may each tell of a thousand runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from actors.clock import Clock
from actors.settings import Settings
from actors.sweeper import Errand, Sweeper
from orchestrator import archive, codec
from orchestrator.archive import Shelved, Sweep
from orchestrator.errors import OrchestratorError, Unavailable
from orchestrator.ports import Journal
from orchestrator.rows import History, RunRow
from orchestrator.sweeps import AUTOMATIC

#: seconds before a sweep that was put off is tried again, and between two batches
AGAIN_S = 10.0
BREATH_S = 0.05
#: runs, and backfills, looked at in one go; most of a go make one segment
BATCH = 250
BACKFILLS = 5
#: runs read at once, and bytes of events and output after which a segment is written: they are all in memory until then
READ = 10
SEGMENT_BYTES = 64 * 1024 * 1024
#: windows that forget their backfill in one step
DISBANDED = 500
#: news of runs are worth nothing after this: who reads them waits for them, and who starts reads the rows first
NEWS_MS = 3_600_000

_log = logging.getLogger(__name__)


class Archiver(Sweeper[Sweep]):
    """Its sweeps let runs leave."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings) -> None:
        kept = timedelta(days=settings.archive_after_days)
        super().__init__(journal, clock, archive.SWEEPS, kept, work="archiving", again_s=AGAIN_S)
        self._settings = settings

    def _own(self, before_ms: int, asked_ms: int) -> Sweep:
        return Sweep(id=AUTOMATIC, before_ms=before_ms, to=self._settings.archive_url, asked_ms=asked_ms)

    async def _errand(self, wanted: Sweep) -> _Errand:
        return _Errand(self._journal, self._clock, self._settings, wanted)


class _Errand(Errand[Sweep]):
    def __init__(self, journal: Journal, clock: Clock, settings: Settings, sweep: Sweep) -> None:
        from actors.archive_store import ArchiveStore  # SQLite is not needed before something leaves

        super().__init__(journal, clock, archive.SWEEPS, msgspec.structs.replace(sweep, left=0))
        self._store = ArchiveStore(settings.home)

    async def carry_out(self) -> None:
        await self.backfills()
        await self.runs()
        await self._journal.trim_news(NEWS_MS)

    async def backfills(self) -> None:
        """Backfills leave before their windows, which may leave only then."""
        stay = 0
        while rows := await self._journal.backfills_ended_before(self._sweep.before_ms, BACKFILLS, stay):
            gone = await self._shelve([row for row in rows if archive.may_leave(row, None, self._clock.now())])
            stay += len(rows) - len(gone)
            self._add(backfills=len(gone))
            await self.tell()
            await asyncio.sleep(BREATH_S)
        self._add(left=stay)
        while await self._journal.disband(DISBANDED):  # noqa: ASYNC110 # nobody tells
            await asyncio.sleep(0)

    async def runs(self) -> None:
        """Runs leave, windows among them."""
        stay = 0
        while rows := await self._journal.ended_before(self._sweep.before_ms, BATCH, stay):
            gone = await self._shelve(await self._leaving(rows))
            stay += len(rows) - len(gone)
            self._add(runs=len(gone))
            await self.tell()
            await asyncio.sleep(BREATH_S)
        self._add(left=stay)

    async def _leaving(self, rows: Sequence[RunRow]) -> list[RunRow]:
        """Those that no fire can be about, and that no backfill here counts."""
        names = sorted({(row.tenant, row.dag_id) for row in rows if not row.watchers})
        found = [await self._journal.dag(*name) for name in names]
        stands = {name: dag.next_fire_ms if dag else None for name, dag in zip(names, found, strict=True)}
        now = self._clock.now()
        return [row for row in rows if not row.watchers and archive.may_leave(row, stands[row.tenant, row.dag_id], now)]

    async def _shelve(self, rows: Sequence[RunRow]) -> set[str]:
        """They are in the archive; those that are no longer in the journal."""
        gone: set[str] = set()
        runs: list[Shelved] = []
        for first in range(0, len(rows), READ):
            histories = await self._journal.load([row.run_id for row in rows[first : first + READ]])
            runs += [run for run in await asyncio.gather(*map(self._whole, histories)) if run is not None]
            if sum(run.bulk_bytes for run in runs) >= SEGMENT_BYTES:
                gone |= await self._leave(runs)
                runs = []
        return gone | await self._leave(runs)

    async def _leave(self, runs: Sequence[Shelved]) -> set[str]:
        if not runs:
            return set()
        size_bytes = await asyncio.to_thread(self._keep, runs)
        if size_bytes:
            self._add(size_bytes=size_bytes)
            await self._journal.count([("archive_segments", 1), ("archive_bytes", size_bytes)])
        return await self._journal.release({run.row.run_id: run.row.version for run in runs})

    def _keep(self, runs: Sequence[Shelved]) -> int:
        """Bytes written: what is there as it is already is not written again."""
        known = self._store.versions([run.row.run_id for run in runs])
        new = archive.unwritten(runs, known)
        former = self._store.read([run.row.run_id for run in new if run.row.run_id in known])
        merged = [archive.merged(run, former.get(run.row.run_id)) for run in new]
        return self._store.add(merged, self._sweep.to) if merged else 0

    async def _whole(self, history: History) -> Shelved | None:
        """The run with all that belongs to it; None when it cannot be read, so it stays."""
        row = history.row
        try:
            logs = await self._logs(history)
            run = archive.shelved(history, await self._journal.tasks(row.run_id), logs)
            if row.run_type != "backfill":
                return run
            return msgspec.structs.replace(
                run,
                children=tuple(await self._journal.children(row.run_id)),
                counts=await self._journal.child_counts(row.run_id),
                task_counts=await self._journal.child_tasks(row.run_id),
            )
        except OrchestratorError as error:
            if isinstance(error, Unavailable):
                raise
            _log.exception("run %s stays in the journal", row.run_id)
            return None

    async def _logs(self, history: History) -> dict[str, str]:
        events = [event for batch in history.batches for event in codec.decode_events(batch.events, batch.schema)]
        named = {(getattr(event, "task", None), getattr(event, "attempt", None)) for event in events}
        attempts = sorted((task, attempt) for task, attempt in named if task is not None and attempt is not None)
        printed = await asyncio.gather(*(self._journal.log(history.row.run_id, *each) for each in attempts))
        return {
            archive.log_key(*each): b"".join(chunks).decode("utf-8", "replace")
            for each, chunks in zip(attempts, printed, strict=True)
            if chunks
        }

    def _add(self, runs: int = 0, backfills: int = 0, size_bytes: int = 0, left: int = 0) -> None:
        sweep = self._sweep
        self._sweep = msgspec.structs.replace(
            sweep,
            runs=sweep.runs + runs,
            backfills=sweep.backfills + backfills,
            size_bytes=sweep.size_bytes + size_bytes,
            left=sweep.left + left,
        )
