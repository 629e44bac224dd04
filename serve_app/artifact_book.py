"""Sweeps of artifacts, as an API replica asks for them and shows them; what they do: `actors/artifact_sweeper.py`."""

from __future__ import annotations

from datetime import timedelta

from actors.clock import Clock
from orchestrator import reclaim
from orchestrator.errors import Conflict, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.reclaim import RECORDS, ArtifactSweep
from serve_app.asking import KEY_REUSED
from serve_app.steps import epoch_ms, id_of


class ArtifactBook:
    """`ports.Artifacts` over the journal."""

    def __init__(self, journal: Journal, clock: Clock, control: ControlPlane) -> None:
        self._journal = journal
        self._clock = clock
        self._control = control

    async def sweep(self, older_than: timedelta, dry_run: bool, idem: Idempotency | None) -> ArtifactSweep:
        """Those of runs that ended longer ago go, durably wanted; asked again under the same key, how far that is."""
        now = self._clock.now()
        sweep_id = id_of(idem) if idem else self._clock.new_run_id()
        known = await self._journal.record(RECORDS, sweep_id)
        fingerprint = idem.fingerprint if idem else ""
        if known is not None:
            sweep = reclaim.decode_sweep(known)
            if sweep.fingerprint != fingerprint:
                raise Conflict(KEY_REUSED)
            return sweep
        before_ms, asked_ms = epoch_ms(now - older_than), epoch_ms(now)
        sweep = ArtifactSweep(
            id=sweep_id, before_ms=before_ms, dry_run=dry_run, fingerprint=fingerprint, asked_ms=asked_ms
        )
        await self._journal.put_records(RECORDS, {sweep_id: reclaim.encode_sweep(sweep)})
        try:
            await self._control.wake_archiver()
        except Unavailable:
            pass  # it looks for itself when it is back
        return sweep

    async def sweeps(self) -> list[ArtifactSweep]:
        """Those that go on, and those that ended last; the latest first."""
        return reclaim.sweeps(await self._journal.records(RECORDS))[::-1]
