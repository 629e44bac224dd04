"""Runs that left for the archive: shown from there, and brought back to the journal when something is to be done.

    a run that the journal has not ──▶ archive: view, events, output; nothing is brought back
    a command on it                ──▶ brought back as it was, then carried out
    a window that is planned       ──▶ its run counts as existing; brought back in the step that needs its row

Everything looks into the journal first: what left is in the index before it is gone there. A backfill does not come
back, since its windows would all have to: posted again it is answered from here, or with `reprocess` made anew over the
runs that its windows have; a command on it is refused, and says so. Signals, queries and what a task waits for are
those of runs that go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

import msgspec

from actors.archive_store import ArchiveStore, shelf_at
from actors.archived_windows import ArchivedWindows
from actors.clock import Clock
from orchestrator import archive, codec
from orchestrator.archive import Shelved, Sweep
from orchestrator.calls import called_in
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.narration import Narrator
from orchestrator.ports import ControlPlane, Journal
from orchestrator.rows import EventBatch, RunFilter, RunPage, RunRow
from orchestrator.views import CalledView, Frame, LogChunk, MapView, Page, RunView
from serve_app import map_instances, rendering
from serve_app.cursors import run_of
from serve_app.dag_book import DagBook
from serve_app.run_stream import Left
from serve_app.sweep_book import SweepBook

T = TypeVar("T")

#: events told in one chunk of a stream
_FRAMES = 1000


class ArchivedRuns:
    """The archive of one data directory, as a replica uses it."""

    def __init__(
        self,
        journal: Journal,
        book: DagBook,
        store: ArchiveStore,
        clock: Clock,
        control: ControlPlane,
        url: str = "",
    ) -> None:
        self._journal = journal
        self._book = book
        self._store = store
        self._windows = ArchivedWindows(journal, store)
        self._sweeps = SweepBook(journal, clock, control, archive.SWEEPS)
        #: where segments are written when nobody says
        self._url = url

    # what it shows

    async def found(self, tenant: str, run_id: str) -> Shelved:
        """A run that the journal has not. Raises NotFound."""
        run = await self._ask(lambda: self._store.run(run_id), None)
        if run is None or run.row.tenant != tenant:
            raise NotFound("run", run_id)
        return run

    async def row(self, tenant: str, run_id: str) -> RunRow | None:
        """The row of a run that is here."""
        run = await self._ask(lambda: self._store.run(run_id), None)
        return run.row if run is not None and run.row.tenant == tenant else None

    async def has_left(self, run_id: str) -> bool:
        """Is a run that was in the journal no longer there?"""
        return not self._store.empty and await self._journal.summary(run_id) is None

    def rest_of(self, tenant: str, run_id: str) -> Left:
        """For a stream of a run that was in the journal when it began."""

        async def left(after: int) -> AsyncIterator[Sequence[Frame]] | None:
            return _frames(await self.found(tenant, run_id), after) if await self.has_left(run_id) else None

        return left

    async def run(self, tenant: str, run_id: str) -> RunView:
        """One run with its tasks and windows. Raises NotFound."""
        run = await self.found(tenant, run_id)
        definition = await self._book.version(tenant, run.row.dag_id, run.row.dag_version)
        names = [task.id for task in definition.tasks]
        view = msgspec.structs.replace(rendering.run_view(run.row), archived=True)
        if run.row.run_type != "backfill":
            return msgspec.structs.replace(
                view,
                tasks=rendering.task_states(names, run.tasks),
                cached=rendering.cached(names, run.tasks),
                children=await self._called(run.batches) if rendering.calls(definition) else {},
            )
        counts = rendering.counts_view(run.counts)
        return msgspec.structs.replace(
            view,
            tasks=rendering.backfill_tasks(names, run.task_counts, counts, run.row.state),
            windows=rendering.window_views(run.children),
            windows_truncated=len(run.children) > rendering.WINDOWS_SHOWN,
            counts=counts,
            progress=1.0,
        )

    async def with_children(
        self, run_id: str, definition: Definition, here: dict[str, CalledView]
    ) -> dict[str, CalledView]:
        """The runs that tasks of a run in the journal called: `here` has those that are there, too."""
        if self._store.empty or len(here) == rendering.calls(definition):
            return here
        histories = await self._journal.load([run_id])
        return await self._called(histories[0].batches) | here if histories else here

    async def _called(self, batches: Sequence[EventBatch]) -> dict[str, CalledView]:
        calls = called_in(event for batch in batches for event in codec.decode_events(batch.events, batch.schema))
        ids = [call.run_id for call in calls.values()]
        found = {row.run_id: row for row in await asyncio.gather(*map(self._journal.summary, ids)) if row is not None}
        absent, nothing = [each for each in ids if each not in found], dict[str, Shelved]()
        left = await self._ask(lambda: self._store.read(absent), nothing)
        found |= {run_id: run.row for run_id, run in left.items()}
        return rendering.called_views({task: found[c.run_id] for task, c in calls.items() if c.run_id in found})

    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        """Runs as they were when they left, newest first, but for those that are back. Raises Invalid about the cursor.

        A page may have less than `limit` of them although another one follows.
        """
        after = run_of(cursor)
        page = await self._ask(lambda: self._store.page(wanted, after, limit), RunPage((), None))
        here = await asyncio.gather(*(self._journal.summary(row.run_id) for row in page.rows))
        gone = (row for row, found in zip(page.rows, here, strict=True) if found is None)
        views = (msgspec.structs.replace(rendering.run_view(row), archived=True) for row in gone)
        return Page(tuple(views), page.next_cursor)

    async def frames(self, tenant: str, run_id: str, after: int | None) -> AsyncIterator[Sequence[Frame]] | None:
        """Events after `after` (None = all), then `end`; None when there are none. Raises NotFound."""
        run = await self.found(tenant, run_id)
        begin = max(run.row.removed, min(after or 0, run.row.version))
        return None if after is not None and begin == run.row.version else _frames(run, begin)

    async def logs(self, tenant: str, run_id: str, task: str, attempt: int | None) -> list[LogChunk]:
        """Captured output, oldest attempt first. Raises NotFound."""
        from actors.attempt_log import TRUNCATION_MARK as MARK

        run = await self.found(tenant, run_id)
        map_instances.check_task(await self._book.version(tenant, run.row.dag_id, run.row.dag_version), task)
        return [
            LogChunk(task, number, text.removesuffix(MARK), truncated=text.endswith(MARK))
            for number, text in run.printed(task)
            if attempt in (None, number)
        ]

    async def with_former(
        self, tenant: str, run_id: str, task: str, attempts: Sequence[int], chunks: list[LogChunk]
    ) -> list[LogChunk]:
        """With what attempts printed of which only the archive knows: the run was there, and is back."""
        told = {chunk.attempt for chunk in chunks}
        missing = [attempt for attempt in attempts if attempt not in told]
        if not missing or self._store.empty:
            return chunks
        try:
            former = await self.logs(tenant, run_id, task, None)
        except NotFound:
            return chunks
        return sorted([*chunks, *(each for each in former if each.attempt in missing)], key=lambda each: each.attempt)

    async def instances(
        self, tenant: str, run_id: str, task: str, states: tuple[str, ...] | None, after: int, limit: int
    ) -> MapView:
        """A mapped task and a page of its instances. Raises NotFound; Invalid when it is not mapped."""
        run = await self.found(tenant, run_id)
        definition = await self._book.version(tenant, run.row.dag_id, run.row.dag_version)
        map_instances.check_task(definition, task)
        map_instances.check_mapped(definition, task)
        return map_instances.view(run_id, task, run.tasks, states, after, limit)

    # what comes back

    async def bring_back(self, tenant: str, run_id: str) -> RunRow:
        """The run is in the journal as it was; its row. Raises NotFound, and Conflict for a backfill."""
        run = await self.found(tenant, run_id)
        if run.row.run_type == "backfill":
            raise Conflict(f"backfill {run_id} is in the archive: retry its windows, or post it again with reprocess")
        await self._journal.restore([(run.history, run.tasks)])
        row = await self._journal.summary(run_id)
        if row is None:
            raise Conflict(f"run {run_id} is in the archive, and its window has another run by now")
        return row

    async def windows(self, tenant: str, dag_id: str, keys: Sequence[str]) -> dict[str, RunRow]:
        """Runs that stand for these windows, in the journal or here."""
        here = await self._journal.by_window(tenant, dag_id, keys)
        absent = await self._windows.runs(tenant, dag_id, [key for key in keys if key not in here])
        return {**{run.row.window_key: run.row for run in absent}, **here}

    async def bring_windows(self, tenant: str, dag_id: str, keys: Sequence[str]) -> None:
        """The runs of these windows are in the journal, as far as they were here."""
        await self._windows.bring_back(tenant, dag_id, keys)

    async def backfill(self, tenant: str, dag_id: str, window_key: str) -> Shelved | None:
        """The backfill over just that, if it left."""
        return await self._ask(lambda: self._store.backfill_by_window(tenant, dag_id, window_key), None)

    # what sends runs there

    async def sweep(self, older_than: timedelta, to: str | None, idem: Idempotency | None) -> Sweep:
        """What ended longer ago leaves, durably wanted; asked again under the same key, how far that is.

        Raises Invalid about `to`, and Conflict when the key was another request's.
        """
        to = self._url if to is None else to
        await asyncio.to_thread(shelf_at, to, self._store.folder)
        return await self._sweeps.want(partial(Sweep, to=to), older_than, idem)

    async def sweeps(self) -> list[Sweep]:
        """Those that go on, and those that ended last; the latest first."""
        return await self._sweeps.sweeps()

    async def _ask(self, read: Callable[[], T], nothing: T) -> T:
        """What the store says; without a thread where nothing ever left."""
        return nothing if self._store.empty else await asyncio.to_thread(read)


async def _frames(run: Shelved, after: int) -> AsyncIterator[Sequence[Frame]]:
    narrator = Narrator(run.row.run_id)
    chunk: list[Frame] = []
    for batch in run.batches:
        for event in codec.decode_events(batch.events, batch.schema):
            frame = narrator.tell(event)
            if frame.seq is not None and frame.seq > after:
                chunk.append(frame)
        if len(chunk) >= _FRAMES:
            yield chunk
            chunk = []
    yield [*chunk, Frame(None, "end", {"run_id": run.row.run_id, "state": run.row.state})]
