"""Bundles in memory, behind the port of the HTTP layer: file `dag_id` tells what one defines, file `broken` is bad."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from orchestrator import bundle as bundles
from orchestrator.bundle_record import BundleStored, BundleView
from orchestrator.definition import Definition
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.views import DagDefined


class FakeBundles:
    """`ports.Bundles`."""

    def __init__(self, check: Callable[[], None], define: Callable[..., Awaitable[DagDefined]], at: datetime) -> None:
        #: raises when the system is to be broken
        self._check = check
        self._define = define
        self._at = at
        #: (tenant, bundle) -> files
        self.kept: dict[tuple[str, str], dict[str, bytes]] = {}
        self.pruned: list[timedelta] = []
        #: why the next delete is refused
        self.needed = ""

    async def put(self, tenant: str, bundle: str, packed: bytes) -> BundleStored:
        self._check()
        files = dict(bundles.entries(packed))
        if bundles.id_of_files(files) != bundle:
            raise Invalid("another id", (("bundle", "not the id of the content"),))
        created = self.kept.setdefault((tenant, bundle), files) is files
        return BundleStored(bundle, len(packed), len(files), created)

    async def deploy(self, tenant: str, bundle: str, idem: Idempotency | None) -> list[DagDefined]:
        self._check()
        files = self._files(tenant, bundle)
        if "broken" in files:
            raise Invalid("flow.py: ModuleNotFoundError: x", (("flow.py", "x"), ("traceback", "line 1\nline 2")))
        dag_id = files.get("dag_id", b"flow").decode()
        definition = Definition(dag_id, "me", bundle=bundle)
        return [await self._define(tenant, definition, keep_tasks=False, expect=None, idem=idem)]

    async def bundles(self, tenant: str) -> list[BundleView]:
        self._check()
        own = {bundle: files for (holder, bundle), files in self.kept.items() if holder == tenant}
        return [BundleView(each, 10, len(files), self._at, ("flow",)) for each, files in own.items()]

    async def delete(self, tenant: str, bundle: str) -> None:
        self._check()
        self._files(tenant, bundle)
        if self.needed:
            raise Conflict(self.needed)
        del self.kept[tenant, bundle]

    async def prune(self, tenant: str, grace: timedelta) -> Sequence[str]:
        self._check()
        self.pruned.append(grace)
        return sorted(bundle for holder, bundle in self.kept if holder == tenant)

    def _files(self, tenant: str, bundle: str) -> dict[str, bytes]:
        if (tenant, bundle) not in self.kept:
            raise NotFound("bundle", bundle)
        return self.kept[tenant, bundle]
