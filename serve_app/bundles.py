"""Bundles of code, as an API replica takes them in.

    PUT ─▶ checked against its id ─▶ record ─▶ file               (repeated: nothing changes)
    deploy ─▶ record ─▶ unpacked here ─▶ requirements installed ─▶ imported by a process of its own (`bundle_check`)
           ─▶ where all nodes find it ─▶ use ─▶ a version of each DAG in it that names the bundle

A deploy that is refused changes nothing but the time at which somebody last wanted the bundle. One that is repeated
finds everything done: under the same `X-Request-Id` each DAG's answer is the stored one, so that a repeat that is late
does not bring back code that was replaced meanwhile. DAGs are deployed one after another; one that is refused (it would
wait for itself, say) leaves those before it deployed, and says so.

Bundles belong to the operator, whose code they are: to other tenants they do not exist.
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
from orchestrator.bundle_record import RECORDS, USES, BundleRecord, BundleStored, BundleView, use_key, uses_of
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, Invalid
from orchestrator.idempotency import Idempotency
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.ports import Journal
from orchestrator.views import DagDefined
from serve_app.deadlines import DEADLINE_S, LONG_DEADLINE_S, within
from serve_app.ports import Expect

#: bytes that all bundles together may take, packed
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
    async def put(self, bundle: str, packed: bytes) -> BundleStored:
        """It is kept, durably. Raises Invalid, Conflict when there is no room, Unavailable."""
        actual, files = await asyncio.to_thread(_measured, packed)
        if actual != bundle:
            raise Invalid(f"this is bundle {actual}, not {bundle}", (("bundle", "not the id of the content"),))
        if await self._journal.record(RECORDS, bundle) is None:
            await self._check_room(len(packed))
        await self._touch(bundle, len(packed), files)
        created = await asyncio.to_thread(self._store.put, bundle, packed)
        return BundleStored(bundle, len(packed), files, created)

    async def deploy(self, bundle: str, idem: Idempotency | None) -> list[DagDefined]:
        """Its DAGs are the current ones. Raises Invalid with what is wrong in it, NotFound, Conflict, Unavailable.

        Keeps no deadline of 5 s: installing and importing have limits of their own.
        """
        packed = await asyncio.to_thread(self._store.packed, bundle)
        _, files = await asyncio.to_thread(_measured, packed)
        await self._touch(bundle, len(packed), files)
        async with self._checking:
            definitions = await asyncio.to_thread(self._found_in, bundle)
        await self._journal.put_records(USES, {use_key(bundle, each.dag_id): b"{}" for each in definitions})
        defined = [await self._deploy(bundle, each, idem) for each in definitions]
        await asyncio.to_thread(self._store.put, bundle, packed)  # a sweep may just have removed it
        return defined

    @within(DEADLINE_S)
    async def bundles(self) -> list[BundleView]:
        """All that are kept, those last touched first."""
        uses = uses_of(await self._journal.records(USES))
        found = []
        for bundle, blob in (await self._records()).items():
            record, dags = msgspec.json.decode(blob, type=BundleRecord), tuple(uses.get(bundle, ()))
            current = [dag_id for dag_id in dags if await self._keeper.is_current(bundle, dag_id)]
            at = instant(record.touched_ms)
            found.append(BundleView(bundle, record.size_bytes, record.files, at, dags, tuple(current)))
        return sorted(found, key=lambda view: (view.touched_at, view.bundle), reverse=True)

    @within(LONG_DEADLINE_S)
    async def prune(self, grace: timedelta) -> Sequence[str]:
        """Those that nobody needs and nobody touched for that long are gone; their ids."""
        return await self._keeper.prune(grace)

    async def families(self) -> list[Metric]:
        """What is kept, as gauges."""
        sizes = [msgspec.json.decode(blob, type=BundleRecord).size_bytes for blob in (await self._records()).values()]
        return gauges(sizes)

    async def _records(self) -> dict[str, bytes]:
        return await self._journal.records(RECORDS)

    def _found_in(self, bundle: str) -> list[Definition]:
        folder = self._store.unpacked(bundle)
        packages = self._store.packages(bundle, folder)
        definitions = check(folder, packages, self._code_dirs)
        self._store.publish(bundle)
        return definitions

    async def _deploy(self, bundle: str, definition: Definition, idem: Idempotency | None) -> DagDefined:
        named = msgspec.structs.replace(definition, bundle=bundle)
        own = None if idem is None else Idempotency(f"{idem.key}/{definition.dag_id}", idem.fingerprint)
        return await self._define(DEFAULT_TENANT, named, keep_tasks=False, expect=None, idem=own)

    async def _touch(self, bundle: str, size_bytes: int, files: int) -> None:
        record = BundleRecord(size_bytes, files, milliseconds(self._clock.now()))
        await self._journal.put_records(RECORDS, {bundle: msgspec.json.encode(record)})

    async def _check_room(self, size_bytes: int) -> None:
        kept = sum(msgspec.json.decode(each, type=BundleRecord).size_bytes for each in (await self._records()).values())
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
