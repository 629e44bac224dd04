"""Sweeps of artifacts in memory, behind the port of the HTTP layer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from orchestrator.idempotency import Idempotency
from orchestrator.reclaim import ArtifactSweep


class FakeArtifacts:
    """`ports.Artifacts`."""

    def __init__(self, check: Callable[[], None]) -> None:
        #: raises when the system is to be broken
        self._check = check
        self.told: list[ArtifactSweep] = []

    async def sweep(self, older_than: timedelta, dry_run: bool, idem: Idempotency | None) -> ArtifactSweep:
        self._check()
        sweep_id = idem.key if idem else f"sweep-{len(self.told)}"
        known = [sweep for sweep in self.told if sweep.id == sweep_id]
        if not known:
            before_ms = 2_000_000_000_000 - int(older_than.total_seconds() * 1000)
            self.told.append(ArtifactSweep(id=sweep_id, before_ms=before_ms, dry_run=dry_run, asked_ms=1))
        return (known or self.told)[-1]

    async def sweeps(self) -> list[ArtifactSweep]:
        self._check()
        return self.told[::-1]
