"""Runs of windows that left for the archive, for whoever starts something in those windows.

    DAG is read (`archived`) ─▶ windows that the journal has not ─▶ archive ─▶ back in the journal ─▶ the step

A window has one run for ever. So whoever creates a run of a window brings the one that it had back first, and tells the
journal which count of departures it saw when it read the DAG: if more left in between, the step is refused, and all of
this is done again (`DagRow.archived`). Source: `orchestrator/archive.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.archive_store import ArchiveStore
from orchestrator.archive import Shelved
from orchestrator.ports import Journal


class ArchivedWindows:
    """Of one data directory."""

    def __init__(self, journal: Journal, store: ArchiveStore) -> None:
        self._journal = journal
        self._store = store

    async def bring_back(self, tenant: str, dag_id: str, keys: Sequence[str]) -> None:
        """The runs of these windows are in the journal, as far as they were in the archive. Raises Unavailable."""
        here = await self._journal.by_window(tenant, dag_id, keys)
        absent = await self.runs(tenant, dag_id, [key for key in keys if key not in here])
        if absent:
            await self._journal.restore([(run.history, run.tasks) for run in absent])

    async def runs(self, tenant: str, dag_id: str, keys: Sequence[str]) -> list[Shelved]:
        """Runs of these windows, as the archive has them. Raises Unavailable."""

        def read() -> list[Shelved]:
            return list(self._store.read(self._store.by_window(tenant, dag_id, keys)).values())

        return [] if not keys or self._store.empty else await asyncio.to_thread(read)
