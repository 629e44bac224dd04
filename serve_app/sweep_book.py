"""Sweeps of one kind, as an API replica asks for them and shows them; who works them off: `actors/sweeper.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Generic

from actors.clock import Clock
from actors.hosted import milliseconds
from orchestrator.errors import Conflict, Unavailable
from orchestrator.idempotency import Idempotency
from orchestrator.ports import ControlPlane, Journal
from orchestrator.sweeps import Kind, S
from serve_app.asking import KEY_REUSED
from serve_app.steps import id_of


class SweepBook(Generic[S]):
    """Their records in the journal."""

    def __init__(self, journal: Journal, clock: Clock, control: ControlPlane, kind: Kind[S]) -> None:
        self._journal = journal
        self._clock = clock
        self._control = control
        self._kind = kind

    async def want(self, make: Callable[..., S], older_than: timedelta, idem: Idempotency | None) -> S:
        """What ended longer ago goes, durably wanted; asked again under the same key, how far that is.

        `make` is told id, before_ms, fingerprint and asked_ms. Raises Conflict when the key was another request's.
        """
        now = self._clock.now()
        sweep_id = id_of(idem) if idem else self._clock.new_run_id()
        known = await self._journal.record(self._kind.records, sweep_id)
        fingerprint = idem.fingerprint if idem else ""
        if known is not None:
            sweep = self._kind.decode(known)
            if sweep.fingerprint != fingerprint:
                raise Conflict(KEY_REUSED)
            return sweep
        before_ms, asked_ms = milliseconds(now - older_than), milliseconds(now)
        sweep = make(id=sweep_id, before_ms=before_ms, fingerprint=fingerprint, asked_ms=asked_ms)
        await self._journal.put_records(self._kind.records, {sweep_id: self._kind.encode(sweep)})
        try:
            await self._control.wake_archiver()
        except Unavailable:
            pass  # it looks for itself, wherever it is
        return sweep

    async def sweeps(self) -> list[S]:
        """Those that go on, and those that ended last; the latest first."""
        return self._kind.in_order(await self._journal.records(self._kind.records))[::-1]
