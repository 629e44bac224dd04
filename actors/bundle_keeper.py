"""Lets go of bundles that nobody needs any more. The supervisor's process sweeps; an operator may ask for it sooner.

    a bundle stays while   somebody sent or deployed it less than `grace` ago,
                           the current version of a DAG names it, or
                           the journal has a run of a version that names it, and with it all that a retry needs

A run whose history was removed, or that left for the archive, counts no more: retried after that, it may be told that
its bundle is gone, and goes on once the same code is deployed again, since the same code has the same id. A bundle that
is deployed in the very moment in which it goes is put back by that deploy (`serve_app/bundles.py`). Looking costs a
look at every run of the DAGs that were deployed from bundles which are current no more; others cost one read.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.settings import Settings
from orchestrator import codec
from orchestrator.bundle_record import RECORDS, USES, BundleRecord, use_key, uses_of
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, RunFilter

#: seconds between sweeps
SWEEP_S = 6 * 3600.0
#: of sweeps that nobody asked for
GRACE = timedelta(days=1)
_PAGE = 500

_log = logging.getLogger(__name__)


class BundleKeeper:
    """Sweeps. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings) -> None:
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep."""
        self._loop = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                gone = await self.prune(GRACE)
            except Exception:
                _log.exception("bundles could not be swept")
            else:
                _log.info("removed %d bundles", len(gone))

    async def prune(self, grace: timedelta) -> list[str]:
        """Once; ids of those that went. Raises Unavailable."""
        before_ms = milliseconds(self._clock.now() - grace)
        uses = uses_of(await self._journal.records(USES))
        gone = []
        for bundle, blob in sorted((await self._journal.records(RECORDS)).items()):
            dags = uses.get(bundle, [])
            if _touched_ms(blob) > before_ms or await self._is_needed(bundle, dags):
                continue
            if await self._remove(bundle, dags, before_ms):
                gone.append(bundle)
        return gone

    async def _remove(self, bundle: str, dags: list[str], before_ms: int) -> bool:
        blob = await self._journal.record(RECORDS, bundle)
        if blob is None or _touched_ms(blob) > before_ms:
            return False
        from actors.bundle_store import BundleStore  # who never had a bundle need not have it in memory

        store = BundleStore(self._settings.home, self._settings.bundles_url)
        await asyncio.to_thread(store.remove, bundle)
        await self._journal.put_records(USES, {use_key(bundle, dag_id): None for dag_id in dags})
        await self._journal.put_records(RECORDS, {bundle: None})
        return True

    async def _is_needed(self, bundle: str, dags: list[str]) -> bool:
        for dag_id in dags:
            if await self.is_current(bundle, dag_id) or await self._has_runs(bundle, dag_id):
                return True
        return False

    async def is_current(self, bundle: str, dag_id: str) -> bool:
        """Does the current version of the DAG name it?"""
        row = await self._journal.dag(DEFAULT_TENANT, dag_id)
        return row is not None and codec.decode_definition(row.definition).bundle == bundle

    async def _has_runs(self, bundle: str, dag_id: str) -> bool:
        cursor: str | None = None
        named: dict[int, bool] = {}
        while True:
            page = await self._journal.summaries(RunFilter(tenant=DEFAULT_TENANT, dag_id=dag_id), cursor, _PAGE)
            for row in page.rows:
                if row.removed and row.state in TERMINAL:
                    continue
                if row.dag_version not in named:
                    named[row.dag_version] = await self._names(dag_id, row.dag_version, bundle)
                if named[row.dag_version]:
                    return True
            cursor = page.next_cursor
            if cursor is None:
                return False

    async def _names(self, dag_id: str, version: int, bundle: str) -> bool:
        blob = await self._journal.definition(DEFAULT_TENANT, dag_id, version)
        return blob is not None and codec.decode_definition(blob).bundle == bundle


def _touched_ms(blob: bytes) -> int:
    return msgspec.json.decode(blob, type=BundleRecord).touched_ms
