"""The journal of memory as several control planes see it: `plane_journal.PlaneJournal` without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator import planes
from orchestrator.errors import JournalUnavailable
from orchestrator.planes import Claim, Lease
from tests.fakes_journal import MemoryJournal

if TYPE_CHECKING:
    from orchestrator.ports import Journal


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

    async def claim_lease(self, asked: Claim) -> Lease:
        return self._put(planes.claim(self.memory.lease, asked, self._now_ms()))

    async def release_lease(self, plane: str) -> Lease:
        return self._put(planes.release(self.memory.lease, plane, self._now_ms()))

    async def lease(self) -> Lease:
        return self.memory.lease

    def _put(self, lease: Lease) -> Lease:
        self.memory.lease = lease
        return lease
