"""Lets go of bundles that nobody needs any more. The supervisor's process sweeps; people may ask for it sooner.

    a tenant's bundle stays while   it was sent or deployed less than `grace` ago,
                                    the current version of a DAG names it, or
                                    the journal has a run of a version that names it, and with it all a retry needs

and its file while any tenant holds it. A run whose history was removed, or that left for the archive, counts no more:
retried after that, it may be told that its bundle is gone, and goes on once the same code is deployed again, since the
same code has the same id. Records go first, then the file: a crash in between leaves a file that is nobody's until
somebody sends it again. A bundle that is sent or deployed in the very moment in which it goes is put back, here or by
that deploy (`serve_app/bundles.py`). A sweep looks once at every run of the DAGs that were deployed from bundles which
are current no more; others cost one read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.recurring import Recurring
from actors.settings import Settings
from orchestrator import codec
from orchestrator.bundle_record import RECORDS, USES, BundleRecord, held, record_key, use_key, uses_of
from orchestrator.errors import Conflict, NotFound
from orchestrator.ports import Journal
from orchestrator.rows import TERMINAL, RunFilter

if TYPE_CHECKING:
    from actors.bundle_store import BundleStore

#: seconds between sweeps
SWEEP_S = 6 * 3600.0
#: of sweeps that nobody asked for
GRACE = timedelta(days=1)
_PAGE = 500

#: (tenant, DAG) -> bundle -> a run that was created with it
Pins = dict[tuple[str, str], dict[str, str]]

_log = logging.getLogger(__name__)


class BundleKeeper(Recurring):
    """Sweeps. `start` returns at once."""

    def __init__(self, journal: Journal, clock: Clock, settings: Settings) -> None:
        super().__init__("removing bundles", SWEEP_S, first_s=SWEEP_S)
        self._journal = journal
        self._clock = clock
        self._settings = settings

    async def look(self) -> float:
        """Sweep; seconds until the next one. Raises Unavailable."""
        gone = await self.prune(GRACE)
        _log.info("removed %d bundles", len(gone))
        return SWEEP_S

    async def prune(self, grace: timedelta, tenant: str | None = None) -> list[str]:
        """Once, for that tenant (None = for all); ids of those that went. Raises Unavailable."""
        before_ms = milliseconds(self._clock.now() - grace)
        uses, pins = uses_of(await self._journal.records(USES)), Pins()
        gone = []
        for (bundle, holder), record in held(await self._journal.records(RECORDS)).items():
            if tenant not in (None, holder) or record.touched_ms > before_ms:
                continue
            dags = uses.get((bundle, holder), [])
            why = await self._need(bundle, holder, dags, pins)
            if why is None and await self._remove(bundle, holder, dags, before_ms):
                gone.append(bundle)
        return gone

    async def delete(self, bundle: str, tenant: str) -> None:
        """The tenant does not hold it any more. Raises NotFound; Conflict when something needs it; Unavailable."""
        if await self._journal.record(RECORDS, record_key(bundle, tenant)) is None:
            raise NotFound("bundle", bundle)
        now_ms = milliseconds(self._clock.now())
        dags = uses_of(await self._journal.records(USES)).get((bundle, tenant), [])
        why = await self._need(bundle, tenant, dags, {})
        if why is not None or not await self._remove(bundle, tenant, dags, now_ms):
            raise Conflict(f"bundle {bundle[:12]} is in use: {why or 'somebody has just sent or deployed it'}")

    async def is_current(self, bundle: str, tenant: str, dag_id: str) -> bool:
        """Does the current version of the DAG name it?"""
        row = await self._journal.dag(tenant, dag_id)
        return row is not None and codec.decode_definition(row.definition).bundle == bundle

    async def _need(self, bundle: str, tenant: str, dags: Iterable[str], pins: Pins) -> str | None:
        """Why one of these DAGs needs the bundle; None = none does. `pins` remembers what was found."""
        for dag_id in dags:
            if await self.is_current(bundle, tenant, dag_id):
                return f"the current version of DAG {dag_id} names it"
            if (tenant, dag_id) not in pins:
                pins[tenant, dag_id] = await self._pinned(tenant, dag_id)
            if (run_id := pins[tenant, dag_id].get(bundle)) is not None:
                return f"run {run_id} of DAG {dag_id} was created with it, and may be retried"
        return None

    async def _remove(self, bundle: str, tenant: str, dags: list[str], before_ms: int) -> bool:
        """False: somebody wants it again, and has it."""
        key, uses = record_key(bundle, tenant), [use_key(bundle, dag_id, tenant) for dag_id in dags]
        blob = await self._journal.record(RECORDS, key)
        if blob is None or msgspec.json.decode(blob, type=BundleRecord).touched_ms > before_ms:
            return False
        await self._journal.put_records(USES, dict.fromkeys(uses))
        await self._journal.put_records(RECORDS, {key: None})
        if any([await self.is_current(bundle, tenant, dag_id) for dag_id in dags]):  # deployed just now
            await self._journal.put_records(RECORDS, {key: blob})
            await self._journal.put_records(USES, dict.fromkeys(uses, b"{}"))
            return False
        await self._drop_file(bundle)
        return True

    async def _drop_file(self, bundle: str) -> None:
        """It is gone unless somebody holds the bundle, also one who came in between and saw it there."""
        if await self._is_held(bundle):
            return
        removed = await self._taken(bundle)
        if removed is not None and await self._is_held(bundle):
            await asyncio.to_thread(self._store().put, bundle, removed)

    async def _taken(self, bundle: str) -> bytes | None:
        return await asyncio.to_thread(self._store().take, bundle)

    def _store(self) -> BundleStore:
        from actors.bundle_store import BundleStore  # who never had a bundle need not have it in memory

        return BundleStore(self._settings.home, self._settings.bundles_url)

    async def _is_held(self, bundle: str) -> bool:
        return any(each == bundle for each, _ in held(await self._journal.records(RECORDS)))

    async def _pinned(self, tenant: str, dag_id: str) -> dict[str, str]:
        """Bundle -> a run of the DAG that was created with it."""
        cursor: str | None = None
        #: version -> its bundle, or "" when it has none
        named: dict[int, str] = {}
        found: dict[str, str] = {}
        while True:
            page = await self._journal.summaries(RunFilter(tenant=tenant, dag_id=dag_id), cursor, _PAGE)
            for row in page.rows:
                if row.removed and row.state in TERMINAL:
                    continue
                if row.dag_version not in named:
                    named[row.dag_version] = await self._named(tenant, dag_id, row.dag_version)
                found.setdefault(named[row.dag_version], row.run_id)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def _named(self, tenant: str, dag_id: str, version: int) -> str:
        blob = await self._journal.definition(tenant, dag_id, version)
        return "" if blob is None else codec.decode_definition(blob).bundle or ""
