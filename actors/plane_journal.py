"""The journal as one control plane sees it: with the lease of who is in charge, and epochs for that plane alone.

    plane   hash, the fields of `planes.Lease`; `owner:<actor>` has the `term` under which its epoch was taken

Rules: `orchestrator/planes.py`. Every actor that takes epochs opens its journal here, so that those of a plane that is
not in charge, which Ray restarts as it does, wait instead of fencing the actors of the one that is. What the cast puts
on record is refused then, too; replicas of the API may put records whoever is in charge: those are durable, and his.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from actors.journal import Journal, Script
from orchestrator import step_codec
from orchestrator.errors import JournalUnavailable
from orchestrator.planes import Claim, Lease

#: the fields of a lease, and the time
_Told = tuple[str, int, int, int, int, str, str, str, int]


class Planes(Protocol):
    """The lease. Every method raises JournalUnavailable."""

    async def claim_lease(self, asked: Claim) -> Lease:
        """The lease after the claim: granted when it names the plane that asked."""
        ...

    async def release_lease(self, plane: str) -> Lease:
        """The plane is not in charge any more."""
        ...

    async def lease(self) -> Lease:
        """As it is."""
        ...

    async def dated_lease(self) -> tuple[Lease, int]:
        """The same, and the time by the journal's server, epoch milliseconds."""
        ...


class PlaneJournal(Journal):
    """`ports.Journal` and `Planes` for the plane of that id."""

    def __init__(self, url: str, plane: str) -> None:
        super().__init__(url)
        self._plane = plane
        self._claim_lease = Script("planes", "claim_plane")
        self._release_lease = Script("planes", "release_plane")

    async def take_epoch(self, owner: str) -> int:
        """As `Journal` does. Raises JournalUnavailable while another plane is in charge."""
        epoch = int(await self._run(self._take_epoch, step_codec.pack([owner, self._plane])))
        if not epoch:
            raise JournalUnavailable(f"{owner} of {self._plane}: another control plane is in charge")
        return epoch

    async def claim_lease(self, asked: Claim) -> Lease:
        """One atomic step; sent again after a lost answer it is answered alike."""
        step = [asked.plane, asked.span_ms, asked.seat, asked.url, asked.returning, asked.alone, asked.wants]
        return _lease(await self._run(self._claim_lease, step_codec.pack(step)))[0]

    async def release_lease(self, plane: str) -> Lease:
        return _lease(await self._run(self._release_lease, step_codec.pack(plane)))[0]

    async def lease(self) -> Lease:
        return (await self.dated_lease())[0]

    async def dated_lease(self) -> tuple[Lease, int]:
        return _lease(await self._run(self._claim_lease, step_codec.pack(["", 0, "", "", False, False, False])))


class CastJournal(PlaneJournal):
    """The same for actors, which keep records for the plane in charge."""

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        """As `Journal` does. Raises JournalUnavailable while another plane is in charge."""
        if not await self._run(self._put_records, step_codec.pack_records(kind, records, self._plane)):
            raise JournalUnavailable(f"{kind} records of {self._plane}: another control plane is in charge")


def _lease(told: bytes) -> tuple[Lease, int]:
    plane, term, since_ms, until_ms, span_ms, seat, url, wanted, now_ms = msgspec.msgpack.decode(told, type=_Told)
    return Lease(plane, term, since_ms, until_ms, span_ms, seat, url, wanted), now_ms
