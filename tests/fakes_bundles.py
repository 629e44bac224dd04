"""Bundles in memory, behind the port of the HTTP layer: file `dag_id` tells what one defines, file `broken` is bad."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from orchestrator import bundle as bundles
from orchestrator.bundle_record import BundleStored, BundleView
from orchestrator.definition import Definition
from orchestrator.errors import Invalid, NotFound
from orchestrator.idempotency import Idempotency
from orchestrator.ids import DEFAULT_TENANT
from orchestrator.views import DagDefined


class FakeBundles:
    """`ports.Bundles`."""

    def __init__(self, check: Callable[[], None], define: Callable[..., Awaitable[DagDefined]], at: datetime) -> None:
        #: raises when the system is to be broken
        self._check = check
        self._define = define
        self._at = at
        self.kept: dict[str, dict[str, bytes]] = {}
        self.pruned: list[timedelta] = []

    async def put(self, bundle: str, packed: bytes) -> BundleStored:
        self._check()
        files = dict(bundles.entries(packed))
        if bundles.id_of_files(files) != bundle:
            raise Invalid("another id", (("bundle", "not the id of the content"),))
        created = self.kept.setdefault(bundle, files) is files
        return BundleStored(bundle, len(packed), len(files), created)

    async def deploy(self, bundle: str, idem: Idempotency | None) -> list[DagDefined]:
        self._check()
        if bundle not in self.kept:
            raise NotFound("bundle", bundle)
        if "broken" in self.kept[bundle]:
            raise Invalid("flow.py: ModuleNotFoundError: x", (("flow.py", "x"), ("traceback", "line 1\nline 2")))
        dag_id = self.kept[bundle].get("dag_id", b"flow").decode()
        definition = Definition(dag_id, "me", bundle=bundle)
        return [await self._define(DEFAULT_TENANT, definition, keep_tasks=False, expect=None, idem=idem)]

    async def bundles(self) -> list[BundleView]:
        self._check()
        return [BundleView(each, 10, len(files), self._at, ("flow",)) for each, files in self.kept.items()]

    async def prune(self, grace: timedelta) -> Sequence[str]:
        self._check()
        self.pruned.append(grace)
        return sorted(self.kept)
