"""Sweeps of artifacts, as an API replica asks for them and shows them; what they do: `actors/artifact_sweeper.py`."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from actors.clock import Clock
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.reclaim import SWEEPS, ArtifactSweep
from serve_app.sweep_book import SweepBook


class ArtifactBook(SweepBook[ArtifactSweep]):
    """`ports.Artifacts` over the journal."""

    def __init__(self, journal: Journal, clock: Clock, control: ControlPlane) -> None:
        super().__init__(journal, clock, control, SWEEPS)

    async def sweep(self, older_than: timedelta, dry_run: bool, idem: Idempotency | None) -> ArtifactSweep:
        """Those of runs that ended longer ago go, durably wanted; asked again under the same key, how far that is."""
        return await self.want(partial(ArtifactSweep, dry_run=dry_run), older_than, idem)
