"""Bundles of code, as an API replica takes them in.

    PUT ─▶ checked against its id ─▶ record ─▶ file               (repeated: nothing changes)
    deploy ─▶ record ─▶ unpacked here ─▶ requirements installed ─▶ imported by a process of its own (`bundle_check`)
           ─▶ where all nodes find it ─▶ use ─▶ a version of each DAG in it that names the bundle
           ─▶ record, uses and file once more, as a sweep may just have removed them

A deploy that is refused changes nothing but the time at which somebody last wanted the bundle. One that is repeated
finds everything done: under the same `X-Request-Id` each DAG's answer is the stored one, so that a repeat that is late
does not bring back code that was replaced meanwhile. DAGs are deployed one after another; one that is refused (it would
wait for itself, say) leaves those before it deployed, and says so.

The same content is one file, whoever sent it; each tenant holds what it sent itself, and to it nothing else exists.
What is on offer in the data directory (`BundleStore.offer`) is from the operator's command line, to the first tenant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from actors.bundle_check import check
from actors.bundle_keeper import BundleKeeper
from actors.bundle_store import BundleStore
from actors.clock import Clock
from actors.hosted import instant, milliseconds
from actors.settings import Settings
from orchestrator import bundle as bundles
from orchestrator.bundle_record import (
    RECORDS,
    USES,
    BundleRecord,
    BundleStored,
    BundleView,
    held,
    record_key,
    use_key,
    uses_of,
)
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.ports import Journal
from orchestrator.views import DagDefined
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.ports import Expect

#: bytes that all bundles of a tenant may take, packed
KEPT_MAX = 2 * 1024**3


class Define(Protocol):
    """`Gateway.define_dag`."""

    async def __call__(
        self, tenant: str, definition: Definition, *, keep_tasks: bool, expect: Expect, idem: Idempotency | None
    ) -> DagDefined: ...


class Bundles:
    """`ports.Bundles` over the journal and the store."""

    def __init__(self, journal: Journal, define: Define, clock: Clock, settings: Settings) -> None:
        self._journal = journal
        self._define = define
        self._clock = clock
        self._code_dirs = settings.code_dirs
        self._store = BundleStore(settings.home, settings.bundles_url)
        self._keeper = BundleKeeper(journal, clock, settings)
        #: one at a time is unpacked and imported
        self._checking = asyncio.Lock()

    @within(LONG_DEADLINE_S)
    async def put(self, tenant: str, bundle: str, packed: bytes) -> BundleStored:
        """The tenant has it, durably. Raises Invalid, Conflict when there is no room, Unavailable."""
        actual, files = await asyncio.to_thread(_measured, packed)
        if actual != bundle:
            raise Invalid(f"this is bundle {actual}, not {bundle}", (("bundle", "not the id of the content"),))
        is_new = not await self._has(tenant, bundle)
        if is_new:
            await self._check_room(tenant, len(packed))
        await self._touch(tenant, bundle, len(packed), files)
        written = await asyncio.to_thread(self._store.put, bundle, packed)
        if not await self._has(tenant, bundle):  # it was deleted just now
            await self._touch(tenant, bundle, len(packed), files)
            await asyncio.to_thread(self._store.put, bundle, packed)
        return BundleStored(bundle, len(packed), files, is_new or written)

    async def deploy(self, tenant: str, bundle: str, idem: Idempotency | None) -> list[DagDefined]:
        """Its DAGs are the current ones. Raises Invalid with what is wrong in it, NotFound, Conflict, Unavailable.

        Keeps no deadline of 5 s: installing and importing have limits of their own.
        """
        if tenant == DEFAULT_TENANT:
            await self._take_offer(bundle)
        if not await self._has(tenant, bundle):
            raise NotFound("bundle", bundle)
        packed = await asyncio.to_thread(self._store.packed, bundle)
        _, files = await asyncio.to_thread(_measured, packed)
        await self._touch(tenant, bundle, len(packed), files)
        async with self._checking:
            definitions = await asyncio.to_thread(self._found_in, bundle)
        uses = {use_key(bundle, each.dag_id, tenant): b"{}" for each in definitions}
        await self._journal.put_records(USES, uses)
        defined = [await self._deploy(tenant, bundle, each, idem) for each in definitions]
        await self._touch(tenant, bundle, len(packed), files)
        await self._journal.put_records(USES, uses)
        await asyncio.to_thread(self._store.put, bundle, packed)
        return defined

    @within(DEADLINE_S)
    async def bundles(self, tenant: str) -> list[BundleView]:
        """All that the tenant has, those last touched first."""
        uses = uses_of(await self._journal.records(USES))
        found = []
        for (bundle, holder), record in (await self._held()).items():
            if holder == tenant:
                dags = tuple(uses.get((bundle, tenant), ()))
                current = [dag_id for dag_id in dags if await self._keeper.is_current(bundle, tenant, dag_id)]
                at = instant(record.touched_ms)
                found.append(BundleView(bundle, record.size_bytes, record.files, at, dags, tuple(current)))
        return sorted(found, key=lambda view: (view.touched_at, view.bundle), reverse=True)

    @within(LONG_DEADLINE_S)
    async def delete(self, tenant: str, bundle: str) -> None:
        """The tenant has it no more. Raises NotFound, Conflict when a DAG or a run needs it, Unavailable."""
        await self._keeper.delete(bundle, tenant)

    @within(LONG_DEADLINE_S)
    async def prune(self, tenant: str, grace: timedelta) -> Sequence[str]:
        """Those of the tenant that nobody needs and nobody touched for that long are gone; their ids."""
        return await self._keeper.prune(grace, tenant)

    async def families(self) -> list[Metric]:
        """What is kept, as gauges."""
        sizes = {bundle: record.size_bytes for (bundle, _), record in (await self._held()).items()}
        return gauges([*sizes.values()])

    async def _held(self) -> dict[tuple[str, str], BundleRecord]:
        return held(await self._journal.records(RECORDS))

    async def _has(self, tenant: str, bundle: str) -> bool:
        return await self._journal.record(RECORDS, record_key(bundle, tenant)) is not None

    async def _take_offer(self, bundle: str) -> None:
        packed = await asyncio.to_thread(self._store.offered, bundle)
        if packed is not None:
            await self.put(DEFAULT_TENANT, bundle, packed)
            await asyncio.to_thread(self._store.withdraw, bundle)

    def _found_in(self, bundle: str) -> list[Definition]:
        folder = self._store.unpacked(bundle)
        packages = self._store.packages(bundle, folder)
        definitions = check(folder, packages, self._code_dirs)
        self._store.publish(bundle)
        return definitions

    async def _deploy(self, tenant: str, bundle: str, definition: Definition, idem: Idempotency | None) -> DagDefined:
        named = msgspec.structs.replace(definition, bundle=bundle)
        own = None if idem is None else Idempotency(f"{idem.key}/{definition.dag_id}", idem.fingerprint)
        return await self._define(tenant, named, keep_tasks=False, expect=None, idem=own)

    async def _touch(self, tenant: str, bundle: str, size_bytes: int, files: int) -> None:
        record = BundleRecord(size_bytes, files, milliseconds(self._clock.now()))
        await self._journal.put_records(RECORDS, {record_key(bundle, tenant): msgspec.json.encode(record)})

    async def _check_room(self, tenant: str, size_bytes: int) -> None:
        found = await self._held()
        kept = sum(record.size_bytes for (_, holder), record in found.items() if holder == tenant)
        if kept + size_bytes > KEPT_MAX:
            raise Conflict(f"bundles take {kept:,} of {KEPT_MAX:,} bytes; remove some: orchestrator bundles prune")


def _measured(packed: bytes) -> tuple[str, int]:
    """Its id, and the number of its files."""
    return bundles.id_of(packed), sum(1 for _ in bundles.entries(packed))


def gauges(sizes: Sequence[int]) -> list[Metric]:
    """Of bundles with so many bytes each, packed."""
    return [
        GaugeMetricFamily("orchestrator_bundles", "Bundles of code that are kept", value=len(sizes)),
        GaugeMetricFamily("orchestrator_bundles_bytes", "What they take, packed", value=sum(sizes)),
    ]
