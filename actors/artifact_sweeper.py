"""Gives disks back: artifacts of runs that ended long ago go. One of its kind, in the supervisor's process.

    every place, BATCH folders at a time:
        old folders ─▶ their runs: in the journal, else in the archive ─▶ `reclaim.may_go` ─▶ old files in them go

Rules, and why nothing that is needed goes: `orchestrator/reclaim.py`. What is named from elsewhere is read once a
sweep, when the first folder may be cleared: the cache first, then runs that go on, so that a value which was taken from
the cache is seen in one or the other. A run that is brought back from the archive in the moment in which its folder is
cleared computes again what it misses. Nothing is locked, and nothing written but the record that tells how far it is: a
sweep that was cut off begins anew, with less to do, and goes through every folder, since those it was in look young.

What a sweep is and who wants one: `sweeper.py`; with `artifacts_retention_days` it makes some by itself. Files are
looked at in threads, at a pace that leaves the disk to others.
"""

from __future__ import annotations

import asyncio
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
from actors.settings import Settings
from actors.sweeper import Errand, Sweeper
from orchestrator import codec, reclaim
from orchestrator.caching import CACHES, RESULTS, Kept
from orchestrator.errors import Broken
from orchestrator.ports import Journal
from orchestrator.reclaim import SWEEPS, YOUNG_S, ArtifactSweep, Tally
from orchestrator.rows import RunRow
from orchestrator.sweeps import AUTOMATIC

if TYPE_CHECKING:
    from actors.archive_store import ArchiveStore

#: seconds after the start in which it makes no sweep by itself, before one that was put off is tried again, and between
#: two batches
FIRST_S = 300.0
AGAIN_S = 60.0
BREATH_S = 0.05
#: folders, and histories, in one step
BATCH = 100
HISTORIES = 20

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


class ArtifactSweeper(Sweeper[ArtifactSweep]):
    """Its sweeps remove artifacts."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings, places: Places) -> None:
        kept = timedelta(days=settings.artifacts_retention_days)
        super().__init__(journal, clock, SWEEPS, kept, work="sweeping artifacts", again_s=AGAIN_S, own_first_s=FIRST_S)
        self._settings = settings
        self._places = places

    def _own(self, before_ms: int, asked_ms: int) -> ArtifactSweep:
        return ArtifactSweep(id=AUTOMATIC, before_ms=before_ms, asked_ms=asked_ms)

    async def _errand(self, wanted: ArtifactSweep) -> _Errand:
        former = await self._journal.record(SWEEPS.records, wanted.id)
        cut_off = former is not None and SWEEPS.decode(former).state == "running"
        return _Errand(self._journal, self._clock, self._settings, wanted, self._places, thorough=cut_off)


class _Errand(Errand[ArtifactSweep]):
    """A `thorough` one looks at folders that seem to be young, too."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        settings: Settings,
        sweep: ArtifactSweep,
        places: Places,
        *,
        thorough: bool,
    ) -> None:
        anew = msgspec.structs.replace(sweep, runs=0, gone=Tally(), there=Tally())
        super().__init__(journal, clock, SWEEPS, anew)
        self._settings = settings
        self._places = places
        youngest_ms = milliseconds(clock.now()) - YOUNG_S * 1000
        self._before_ms = min(sweep.before_ms, youngest_ms)
        self._folders_before = math.inf if thorough else self._before_ms / 1000
        #: artifacts that are named from elsewhere; None = not read yet
        self._held: frozenset[str] | None = None
        #: runs that something went of
        self._cleared: set[str] = set()
        self._archive: ArchiveStore | None = None
        if os.path.exists(settings.path("archive")):
            from actors.archive_store import ArchiveStore  # SQLite is not needed where nothing ever left

            self._archive = ArchiveStore(settings.home)

    async def carry_out(self) -> None:
        places = await asyncio.to_thread(self._places)
        for place in places:
            await self.clear(place)
        await self.measure(places)

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
