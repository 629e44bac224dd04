"""Gives the journal's memory back: what ended long ago leaves for the archive. In the supervisor's process.

    backfills, then runs that ended before then, BATCH at a time:
        read ─▶ segment (synced) ─▶ index (committed) ─▶ released from the journal, if still at that version

Each step is durable before the next and may be done twice: a kill before the index is committed leaves a file that
nobody names; one after it leaves runs in both places, of which the next sweep releases those that are unchanged
without writing them again. Reads look into the journal first, then into the archive, and what left was in the index
before. Two sweeps at a time do no harm either, so nothing is locked.

Who wants a sweep leaves a record (`archive.Sweep`), then wakes this; where that cannot be told, as by a server that
stands by, it is seen within LOOK_S. A sweep that a crash cut off goes on at the next start. The same record tells how
far it is. With `archive_after_days` one is made every SWEEP_S by itself. Windows leave
in small steps with a breath in between, for every step makes those plan again who plan windows of that DAG just then.
At last old news go: both streams of them are bounded by entries, which may each tell of a thousand runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.recurring import Recurring
from actors.settings import Settings
from orchestrator import archive, codec
from orchestrator.archive import RECORDS, Shelved, Sweep
from orchestrator.errors import OrchestratorError, Unavailable
from orchestrator.ports import Journal
from orchestrator.rows import History, RunRow

#: seconds between two sweeps that nobody asked for, between looks for those that somebody did, before one that was put
#: off is tried again, and between two batches
SWEEP_S = 3600.0
LOOK_S = 60.0
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


class Archiver(Recurring):
    """Sweeps when asked, and by itself when so set. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings) -> None:
        super().__init__("archiving", LOOK_S, AGAIN_S)
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._kept = timedelta(days=settings.archive_after_days)
        #: when the next sweep that nobody asks for is due, by the loop's time
        self._due_s = 0.0

    async def look(self) -> float:
        """Work off what is due, and what is wanted; seconds until the next look. Raises Unavailable."""
        now_s = asyncio.get_running_loop().time()
        if self._kept and now_s >= self._due_s:
            await self._try(self._automatic())
            self._due_s = now_s + SWEEP_S
        tried: set[str] = set()
        while (wanted := await self.wanted()) and wanted.id not in tried:
            tried.add(wanted.id)
            await self._try(wanted)
        return LOOK_S

    async def _try(self, wanted: Sweep) -> None:
        """It is done, or has failed for good, as it says itself; others go on. Raises Unavailable."""
        try:
            await self.sweep(wanted)
        except Unavailable:
            raise
        except Exception:
            _log.exception("sweep %s failed", wanted.id)

    async def wanted(self) -> Sweep | None:
        """The first sweep that has not ended, if there is one. Raises JournalUnavailable."""
        found = archive.sweeps(await self._journal.records(RECORDS))
        over = [sweep.id for sweep in found if not sweep.open]
        if len(over) > archive.TOLD:
            await self._journal.put_records(RECORDS, dict.fromkeys(over[: -archive.TOLD]))
        return next((sweep for sweep in found if sweep.open), None)

    def _automatic(self) -> Sweep:
        now = self._clock.now()
        before_ms, to = milliseconds(now - self._kept), self._settings.archive_url
        return Sweep(id=archive.AUTOMATIC, before_ms=before_ms, to=to, asked_ms=milliseconds(now))

    async def sweep(self, wanted: Sweep) -> Sweep:
        """Everything that may leave has left. Raises Unavailable: then it is still wanted; and what refuses `to`."""
        errand = _Errand(self._journal, self._clock, self._settings, msgspec.structs.replace(wanted, state="running"))
        try:
            await errand.tell()
            await errand.backfills()
            await errand.runs()
            await self._journal.trim_news(NEWS_MS)
            done = await errand.tell("done")
        except Unavailable:
            await self._count("put_off")
            raise
        except Exception as error:
            await errand.tell("failed", str(error))
            await self._count("failed")
            raise
        await self._count("done")
        return done

    async def _count(self, end: str) -> None:
        await self._journal.count([(f"archive_sweeps_{end}", 1)])


class _Errand:
    """One sweep under way."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings, sweep: Sweep) -> None:
        from actors.archive_store import ArchiveStore  # SQLite is not needed before something leaves

        self._journal = journal
        self._clock = clock
        self._store = ArchiveStore(settings.home)
        self._sweep = msgspec.structs.replace(sweep, left=0)

    async def tell(self, state: str = "running", error: str = "") -> Sweep:
        """How far it is, for whoever asks."""
        now_ms = milliseconds(self._clock.now())
        self._sweep = msgspec.structs.replace(self._sweep, state=state, error=error, updated_ms=now_ms)
        await self._journal.put_records(RECORDS, {self._sweep.id: archive.encode_sweep(self._sweep)})
        return self._sweep

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
