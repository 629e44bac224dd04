"""The journal of memory as several control planes see it: `plane_journal.CastJournal` without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from orchestrator import planes
from orchestrator.errors import JournalUnavailable
from orchestrator.planes import Claim, Lease, PlaneView
from tests.fakes_journal import MemoryJournal

if TYPE_CHECKING:
    from orchestrator.ports import Journal


class FakePlanes:
    """`serve_app.ports.Planes`: a plane that is in charge unless told otherwise."""

    def __init__(self, check: Callable[[], None]) -> None:
        #: raises when the system is to be broken
        self._check = check
        self.seen = PlaneView("here", in_charge=True, lease=Lease("here", 1, 1_000))

    async def view(self) -> PlaneView:
        self._check()
        return self.seen

    async def standby(self) -> PlaneView | None:
        return None if self.seen.in_charge else self.seen

    async def take_over(self) -> PlaneView:
        self._check()
        if not self.seen.in_charge:
            lease = msgspec.structs.replace(self.seen.lease, wanted=self.seen.plane)
            self.seen = msgspec.structs.replace(self.seen, lease=lease)
        return self.seen


class MemoryPlanes:
    """One plane's view; `now_ms` is the clock of the server, which all of them share."""

    def __init__(self, memory: MemoryJournal, plane: str, now_ms: Callable[[], int]) -> None:
        self.memory = memory
        self._plane = plane
        self._now_ms = now_ms

    @property
    def journal(self) -> Journal:
        """For all that does not depend on the plane."""
        return self.memory

    async def take_epoch(self, owner: str) -> int:
        if not planes.may_decide(self.memory.lease, self._plane):
            raise JournalUnavailable(f"{owner} of {self._plane}: another control plane is in charge")
        return await self.memory.take_epoch(owner)

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        if not planes.may_decide(self.memory.lease, self._plane):
            raise JournalUnavailable(f"{kind} records of {self._plane}: another control plane is in charge")
        await self.memory.put_records(kind, records)

    async def records(self, kind: str) -> dict[str, bytes]:
        return await self.memory.records(kind)

    async def claim_lease(self, asked: Claim) -> Lease:
        return self._put(planes.claim(self.memory.lease, asked, self._now_ms()))

    async def release_lease(self, plane: str) -> Lease:
        return self._put(planes.release(self.memory.lease, plane, self._now_ms()))

    async def lease(self) -> Lease:
        return self.memory.lease

    async def dated_lease(self) -> tuple[Lease, int]:
        return await self.lease(), self._now_ms()

    def _put(self, lease: Lease) -> Lease:
        self.memory.lease = lease
        return lease
