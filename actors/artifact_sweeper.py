"""Gives disks back: artifacts of runs that ended long ago go. One of its kind, in the supervisor's process.

    every place, BATCH folders at a time:
        old folders ─▶ their runs: in the journal, else in the archive ─▶ `reclaim.may_go` ─▶ old files in them go

Rules, and why nothing that is needed goes: `orchestrator/reclaim.py`. What is named from elsewhere is read once a
sweep, when the first folder may be cleared: the cache first, then runs that go on, so that a value which was taken from
the cache is seen in one or the other. A run that is brought back from the archive in the moment in which its folder is
cleared computes again what it misses. Nothing is locked, and nothing written but the record that tells how far it is: a
sweep that was cut off begins anew, with less to do, and goes through every folder, since those it was in look young.

Who wants a sweep leaves a record (`reclaim.ArtifactSweep`), then wakes this. With `artifacts_retention_days` one is
made every SWEEP_S by itself. Files are looked at in threads, at a pace that leaves the disk to others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.artifact_folders import Folder, Place, StoreFolders
from actors.artifact_places import FETCHED, root_of
from actors.clock import Clock
from actors.hosted import milliseconds
from actors.recurring import Recurring
from actors.settings import Settings
from orchestrator import codec, reclaim
from orchestrator.caching import CACHES, RESULTS, Kept
from orchestrator.errors import Broken, Unavailable
from orchestrator.ports import Journal
from orchestrator.reclaim import RECORDS, YOUNG_S, ArtifactSweep, Tally
from orchestrator.rows import RunRow

if TYPE_CHECKING:
    from actors.archive_store import ArchiveStore

#: seconds after the start, between two sweeps that nobody asked for, before a failed one is tried again, and between
#: two batches
FIRST_S = 300.0
SWEEP_S = 3600.0
AGAIN_S = 60.0
BREATH_S = 0.05
#: folders, and histories, in one step
BATCH = 100
HISTORIES = 20

_log = logging.getLogger(__name__)

#: where artifacts are at present
Places = Callable[[], Sequence[Place]]


def folders_of(settings: Settings) -> list[Path]:
    """Where this node has artifacts: of tasks, of other nodes, and files of jobs."""
    root = root_of(settings)
    return list(dict.fromkeys((root, root.with_name(root.name + FETCHED), settings.path("artifacts"))))


def places_of(settings: Settings) -> list[Place]:
    """What this process sees: its node's folders, and the store."""
    store = [StoreFolders(settings.artifacts_url)] if settings.artifacts_url else []
    return [*map(Folder, folders_of(settings)), *store]


class ArtifactSweeper(Recurring):
    """Sweeps when asked, and by itself unless everything is kept for ever. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings, places: Places) -> None:
        super().__init__("sweeping artifacts", SWEEP_S, AGAIN_S)
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._kept = timedelta(days=settings.artifacts_retention_days)
        self._places = places
        #: when the next sweep that nobody asks for is due, by the loop's time
        self._due_s = 0.0

    def start(self) -> None:
        """Begin, with what a former life left undone."""
        self._due_s = asyncio.get_running_loop().time() + FIRST_S
        super().start()

    async def look(self) -> float | None:
        """Work off what is due, and what is wanted; seconds until the next of its own. Raises Unavailable."""
        now_s = asyncio.get_running_loop().time()
        if self._kept and now_s >= self._due_s:
            await self._try(self._automatic())
            self._due_s = now_s + SWEEP_S
        tried: set[str] = set()
        while (wanted := await self.wanted()) and wanted.id not in tried:
            tried.add(wanted.id)
            await self._try(wanted)
        return self._due_s - now_s if self._kept else None

    async def _try(self, wanted: ArtifactSweep) -> None:
        """It is done, or has failed for good, as it says itself; others go on. Raises Unavailable."""
        try:
            await self.sweep(wanted)
        except Unavailable:
            raise
        except Exception:
            _log.exception("sweep %s of artifacts failed", wanted.id)

    async def wanted(self) -> ArtifactSweep | None:
        """The first sweep that somebody asked for and that has not ended. Raises JournalUnavailable.

        One that nobody asked for is made anew instead, as settings are now.
        """
        found = reclaim.sweeps(await self._journal.records(RECORDS))
        over = [sweep.id for sweep in found if not sweep.open]
        if len(over) > reclaim.TOLD:
            await self._journal.put_records(RECORDS, dict.fromkeys(over[: -reclaim.TOLD]))
        return next((sweep for sweep in found if sweep.open and sweep.id != reclaim.AUTOMATIC), None)

    def _automatic(self) -> ArtifactSweep:
        now = self._clock.now()
        before_ms = milliseconds(now - self._kept)
        return ArtifactSweep(id=reclaim.AUTOMATIC, before_ms=before_ms, asked_ms=milliseconds(now))

    async def sweep(self, wanted: ArtifactSweep) -> ArtifactSweep:
        """Everything that may go is gone. Raises Unavailable: then it is still wanted."""
        former = await self._journal.record(RECORDS, wanted.id)
        cut_off = former is not None and reclaim.decode_sweep(former).state == "running"
        errand = _Errand(self._journal, self._clock, self._settings, wanted, thorough=cut_off)
        try:
            await errand.tell()
            places = await asyncio.to_thread(self._places)
            for place in places:
                await errand.clear(place)
            await errand.measure(places)
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
        await self._journal.count([(f"artifact_sweeps_{end}", 1)])


class _Errand:
    """One sweep under way; a `thorough` one looks at folders that seem to be young, too."""

    def __init__(
        self, journal: Journal, clock: Clock, settings: Settings, sweep: ArtifactSweep, *, thorough: bool
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._settings = settings
        youngest_ms = milliseconds(clock.now()) - YOUNG_S * 1000
        self._before_ms = min(sweep.before_ms, youngest_ms)
        self._folders_before = math.inf if thorough else self._before_ms / 1000
        self._sweep = ArtifactSweep(
            id=sweep.id, before_ms=sweep.before_ms, dry_run=sweep.dry_run, state="running", asked_ms=sweep.asked_ms
        )
        #: artifacts that are named from elsewhere; None = not read yet
        self._held: frozenset[str] | None = None
        #: runs that something went of
        self._cleared: set[str] = set()
        self._archive: ArchiveStore | None = None
        if os.path.exists(settings.path("archive")):
            from actors.archive_store import ArchiveStore  # SQLite is not needed where nothing ever left

            self._archive = ArchiveStore(settings.home)

    async def tell(self, state: str = "running", error: str = "") -> ArtifactSweep:
        """How far it is, for whoever asks."""
        now_ms = milliseconds(self._clock.now())
        self._sweep = msgspec.structs.replace(self._sweep, state=state, error=error, updated_ms=now_ms)
        await self._journal.put_records(RECORDS, {self._sweep.id: reclaim.encode_sweep(self._sweep)})
        return self._sweep

    async def clear(self, place: Place) -> None:
        """What may go of that place is gone."""
        after = ""
        while names := await asyncio.to_thread(place.runs, self._folders_before, after, BATCH):
            after = names[-1]
            if over := await self._over(names):
                await self._remove(place, reclaim.of_runs(await self._named_elsewhere(), over))
            await asyncio.sleep(BREATH_S)

    async def measure(self, places: Sequence[Place]) -> None:
        """What is there now is known."""
        there = [await asyncio.to_thread(place.here) for place in places]
        self._sweep = msgspec.structs.replace(self._sweep, there=sum(there, Tally()))

    async def _remove(self, place: Place, held: dict[str, frozenset[str]]) -> None:
        gone = await asyncio.to_thread(place.clear, held, self._before_ms / 1000, dry_run=self._sweep.dry_run)
        if not gone:
            return
        self._cleared |= gone.keys()
        total = sum(gone.values(), Tally())
        self._sweep = msgspec.structs.replace(self._sweep, runs=len(self._cleared), gone=self._sweep.gone + total)
        if not self._sweep.dry_run:
            counts = [("artifact_files_removed", total.files), ("artifact_bytes_removed", total.size_bytes)]
            await self._journal.count(counts)
        await self.tell()

    async def _over(self, run_ids: Sequence[str]) -> set[str]:
        """Those of these runs that were over before then, or are known to nobody."""
        rows = dict(zip(run_ids, await asyncio.gather(*map(self._journal.summary, run_ids)), strict=True))
        absent = [run_id for run_id, row in rows.items() if row is None]
        found: dict[str, RunRow] = {}
        if absent and self._archive is not None:  # what leaves is there before it is gone from the journal
            found = await asyncio.to_thread(self._archive.rows, absent)
        return {run_id for run_id, row in rows.items() if reclaim.may_go(row or found.get(run_id), self._before_ms)}

    async def _named_elsewhere(self) -> frozenset[str]:
        """Artifacts that the cache, or a run that goes on, may hand to somebody."""
        if self._held is None:
            cached = [name async for name in self._cached()]
            self._held = frozenset([*cached, *[name async for name in self._of_open_runs()]])
        return self._held

    async def _cached(self) -> AsyncIterator[str]:
        now = self._clock.now()
        for name in await self._journal.records(CACHES):
            records = (await self._journal.records(RESULTS + name)).values()
            for artifact in reclaim.cached(filter(None, map(_kept, records)), now):
                yield artifact
            await asyncio.sleep(0)

    async def _of_open_runs(self) -> AsyncIterator[str]:
        rows = await self._journal.queued_and_active()
        # a file of a store cannot be marked as used, so all runs are read then
        old = [row.run_id for row in rows if self._settings.artifacts_url or row.created_ms <= self._before_ms]
        for first in range(0, len(old), HISTORIES):
            for history in await self._journal.load(old[first : first + HISTORIES]):
                for batch in history.batches:
                    events = codec.decode_events(batch.events, batch.schema)
                    for artifact in reclaim.elsewhere(history.row.run_id, events):
                        yield artifact
            await asyncio.sleep(0)


def _kept(record: bytes) -> Kept | None:
    """None = it cannot be read, so nobody uses it."""
    try:
        return codec.decode_document(record, Kept)
    except Broken:
        return None
