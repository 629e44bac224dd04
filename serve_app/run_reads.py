"""What runs are and did, as last committed: from the journal, or from the archive they left for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from orchestrator import codec, pace
from orchestrator import events as e
from orchestrator.errors import HistoryGone, Invalid
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, RunFilter, RunRow
from orchestrator.views import CalledView, Frame, LogChunk, MapView, Page, RunView
from serve_app import map_instances, rendering
from serve_app.archived_runs import ArchivedRuns
from serve_app.asking import shown
from serve_app.cursors import run_of
from serve_app.dag_book import DagBook
from serve_app.hub import Follower, Hub
from serve_app.run_stream import run_frames
from serve_app.waiting import Waiting


class RunReads:
    """The gateway's part about reading runs; deadlines are the gateway's."""

    def __init__(self, journal: Journal, book: DagBook, archive: ArchivedRuns, hub: Hub, waiting: Waiting) -> None:
        self._journal = journal
        self._book = book
        self._archive = archive
        self._hub = hub
        self._waiting = waiting

    async def run(self, tenant: str, run_id: str) -> RunView:
        """One run with its tasks and windows. Raises NotFound."""
        found = await self._journal.look(run_id)
        if found is None:
            return await self._archive.run(tenant, run_id)
        row = shown(found[0], tenant, run_id)
        view = await self._run_here(tenant, run_id, row, found[1])
        if row.state in TERMINAL and await self._archive.has_left(
            run_id
        ):  # in between, and with it what it is shown by
            return await self._archive.run(tenant, run_id)
        return view

    async def _run_here(self, tenant: str, run_id: str, row: RunRow, letters: Mapping[str, str]) -> RunView:
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        names = [task.id for task in definition.tasks]
        view = rendering.run_view(row)
        if row.run_type != "backfill":
            waits = await self._waiting.waits(run_id) if rendering.waits(letters) else {}
            children: dict[str, CalledView] = {}
            if rendering.calls(definition):
                children = rendering.called_views(await self._journal.called(run_id))
                children = await self._archive.with_children(run_id, definition, children)
            states, cached = rendering.task_states(names, letters), rendering.cached(names, letters)
            return msgspec.structs.replace(view, tasks=states, waiting_for=waits, children=children, cached=cached)
        windows, counted, letters_by_task, recent = await asyncio.gather(
            self._journal.children(row.run_id, rendering.WINDOWS_SHOWN + 1),
            self._journal.child_counts(row.run_id),
            self._journal.child_tasks(row.run_id),
            self._recent(row),
        )
        counts = rendering.counts_view(counted)
        if row.state == "queued":  # its windows may have begun in between, and it with them
            row = await self._row(tenant, run_id)
            view = rendering.run_view(row)
        speed = pace.pace(recent, counts, view.started_at, row.state)
        return msgspec.structs.replace(
            view,
            tasks=rendering.backfill_tasks(names, letters_by_task, counts, row.state),
            windows=rendering.window_views(windows),
            windows_truncated=len(windows) > rendering.WINDOWS_SHOWN,
            counts=counts,
            progress=speed.progress,
            eta=speed.eta,
            windows_per_s=speed.windows_per_s,
        )

    async def _recent(self, row: RunRow) -> list[e.Event]:
        """The latest events of a backfill, as many as its pace is read from."""
        batches = await self._journal.events(row.run_id, max(0, row.version - pace.SAMPLE), pace.SAMPLE)
        return [event for batch in batches for event in codec.decode_events(batch.events, batch.schema)]

    async def wait(self, tenant: str, run_id: str, seconds: float) -> None:
        """Returns when the run has ended, or after `seconds`. Raises NotFound."""
        follower = await self._hub.follow(run_id)
        try:
            async with asyncio.timeout(seconds):
                while (await self._row(tenant, run_id)).state not in TERMINAL:
                    await _ended_or_unknown(follower)
        except TimeoutError:
            return
        finally:
            self._hub.leave(follower)

    async def runs(self, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunView]:
        """Runs, newest first; `state` is a core word. Raises Invalid about the cursor."""
        page = await self._journal.summaries(wanted, run_of(cursor), limit)
        return Page(tuple(rendering.run_view(row) for row in page.rows), page.next_cursor)

    async def map_instances(
        self, tenant: str, run_id: str, task: str, *, states: tuple[str, ...] | None, cursor: str | None, limit: int
    ) -> MapView:
        """A mapped task and a page of its instances. Raises NotFound; Invalid when it is not mapped."""
        found = await self._journal.look(run_id)
        if found is None:
            return await self._archive.instances(tenant, run_id, task, states, int(cursor or -1), limit)
        row = shown(found[0], tenant, run_id)
        definition = await self._book.version(row.tenant, row.dag_id, row.dag_version)
        map_instances.check_task(definition, task)
        map_instances.check_mapped(definition, task)
        if row.run_type == "backfill":
            raise Invalid("the instances of a backfill are those of its windows", (("run_id", "is a backfill"),))
        return map_instances.view(run_id, task, found[1], states, int(cursor or -1), limit)

    async def open_events(self, tenant: str, run_id: str, after: int | None) -> AsyncIterator[Sequence[Frame]] | None:
        """Events after `after` (None = all), then live; None when nothing will ever follow.

        Raises NotFound, and HistoryGone when some are no longer kept; who has had none yet begins with what there is.
        """
        found = await self._journal.summary(run_id)
        row = shown(found, tenant, run_id) if found else (await self._archive.found(tenant, run_id)).row
        through = max(0, row.removed - 1)
        if (after or 0) < through and (after or row.version == row.removed):
            raise HistoryGone(run_id, through)
        if found is None:
            return await self._archive.frames(tenant, run_id, after)
        begin = max(row.removed, min(after or 0, row.version))
        if after is not None and begin == row.version and row.state in TERMINAL:
            return None
        return run_frames(self._hub, run_id, begin, self._archive.rest_of(tenant, run_id))

    async def logs(self, tenant: str, run_id: str, task: str, attempt: int | None) -> list[LogChunk]:
        """Captured output, oldest attempt first. Raises NotFound."""
        found = await self._journal.summary(run_id)
        if found is None:
            return await self._archive.logs(tenant, run_id, task, attempt)
        row = shown(found, tenant, run_id)
        map_instances.check_task(await self._book.version(row.tenant, row.dag_id, row.dag_version), task)
        attempts = [attempt] if attempt is not None else await self._attempts(run_id, task)
        outputs = await asyncio.gather(*(self._journal.log(run_id, task, n) for n in attempts))
        chunks = [_log(task, n, chunks) for n, chunks in zip(attempts, outputs, strict=True) if chunks]
        if await self._archive.has_left(run_id):  # in between
            return await self._archive.logs(tenant, run_id, task, attempt)
        return await self._archive.with_former(tenant, run_id, task, attempts, chunks)

    async def _attempts(self, run_id: str, task: str) -> list[int]:
        found: set[int] = set()
        seen = 0
        while batches := await self._journal.events(run_id, seen, 256):
            for batch in batches:
                for event in codec.decode_events(batch.events, batch.schema):
                    if getattr(event, "task", None) == task and hasattr(event, "attempt"):
                        found.add(event.attempt)
                    elif isinstance(event, e.HistoryRemoved):
                        found.update(range(1, event.task_attempts.get(task, 0) + 1))
            seen = batches[-1].last_version
        return sorted(found)

    async def _row(self, tenant: str, run_id: str) -> RunRow:
        found = await self._journal.summary(run_id)
        return shown(found, tenant, run_id) if found else (await self._archive.found(tenant, run_id)).row


def _log(task: str, attempt: int, chunks: list[bytes]) -> LogChunk:
    from actors.attempt_log import TRUNCATION_MARK

    text = b"".join(chunks).decode("utf-8", "replace")
    return LogChunk(task, attempt, text.removesuffix(TRUNCATION_MARK), truncated=text.endswith(TRUNCATION_MARK))


async def _ended_or_unknown(follower: Follower) -> None:
    """The feed told that the run has ended, or that it cannot tell."""
    while True:
        await follower.changed.wait()
        follower.changed.clear()
        if follower.state == "" or follower.state in TERMINAL:
            return
