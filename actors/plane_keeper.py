"""Keeps a control plane where it belongs: in charge, or standing by. Runs in the supervisor's process.

    claim every few seconds ─┬ granted ──▶ begin: the supervisor reconciles, and so everybody else comes to be
                             ├ refused ──▶ stand by: the supervisor alone, so nobody decides anything
                             └ lost, or somebody asked to take over ──▶ end the cast, release, end this process

To stand by is to have no cast: what does not exist decides nothing, and needs no switch in every actor. After a loss
the process ends, and Ray starts it again as one that stands by; so nothing here is ever undone. A plane that cannot
reach the journal goes on: what it decides is written there or not at all.

The embedded journal is its data directory's, and so can have one plane only: nothing is kept there, `enter` takes it.

Rules: `orchestrator/planes.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from actors.plane_journal import PlaneJournal, Planes
from actors.settings import Settings
from orchestrator.errors import JournalUnavailable
from orchestrator.planes import Claim, Lease

_log = logging.getLogger(__name__)

#: seconds between two claims of the plane in charge, and of one that stands by
RENEW_S = 3.0
LOOK_S = 2.0
#: seconds that ending the cast may take
END_S = 10.0


class PlaneKeeper:
    """Claims for the plane of `asked`. `start` returns at once; `begin`, `end_cast` and `leave` are told above."""

    def __init__(
        self,
        planes: Planes,
        asked: Claim,
        begin: Callable[[], None],
        end_cast: Callable[[], Awaitable[None]],
        leave: Callable[[], None],
    ) -> None:
        self._planes = planes
        self._asked = asked
        self._begin = begin
        self._end_cast = end_cast
        self._leave = leave
        self.in_charge = False
        #: under which it came to be in charge
        self._term = 0
        self._cleared = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to claim."""
        self._task = asyncio.get_running_loop().create_task(self.run())
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.critical("%s can neither begin nor stand by", self._asked.plane, exc_info=task.exception())
            self._leave()

    def take_over(self) -> None:
        """Ask whoever is in charge to hand over to this plane."""
        if not self.in_charge:
            self._asked = msgspec.structs.replace(self._asked, wants=True)
            self._wake.set()

    async def run(self) -> None:
        """Returns when the plane was in charge and is not any more."""
        while not await self._look():
            try:
                await asyncio.wait_for(self._wake.wait(), RENEW_S if self.in_charge else LOOK_S)
            except TimeoutError:
                _log.debug("time to claim again")
            self._wake.clear()
        await self._clear()
        await self._release()
        self._leave()

    async def _look(self) -> bool:
        """Claim, and do as the answer says; whether this plane has to go."""
        try:
            lease = await self._planes.claim_lease(self._asked)
        except JournalUnavailable as unavailable:
            _log.warning("cannot claim: %s", unavailable)
            return False
        except Exception:  # whoever claims no more would never learn that it has to go
            _log.exception("cannot claim")
            return False
        if self.in_charge:
            return self._has_to_go(lease)
        if lease.plane == self._asked.plane:
            self._asked = msgspec.structs.replace(self._asked, wants=False)
            self.in_charge, self._term = True, lease.term
            _log.warning("%s is in charge, term %d", lease.plane, lease.term)
            self._begin()
        elif not self._cleared:
            _log.warning("%s stands by: %s is in charge", self._asked.plane, lease.plane or "nobody")
            self._cleared = await self._clear()
        return False

    def _has_to_go(self, lease: Lease) -> bool:
        if lease.plane != self._asked.plane:
            _log.error("%s is not in charge any more: %s is, term %d", self._asked.plane, lease.plane, lease.term)
            return True
        if lease.term != self._term:  # what this process knows may be what another plane has changed since
            _log.error("%s is in charge again, after another one: term %d", lease.plane, lease.term)
            return True
        if lease.wanted:
            _log.warning("%s hands over to %s", lease.plane, lease.wanted)
        return bool(lease.wanted)

    async def _clear(self) -> bool:
        """The cast is gone. One that cannot be ended now is fenced, or is ended by the next look."""
        try:
            await asyncio.wait_for(self._end_cast(), END_S)
        except Exception:
            _log.exception("could not end the cast")
            return False
        return True

    async def _release(self) -> None:
        try:
            await self._planes.release_lease(self._asked.plane)
        except JournalUnavailable as unavailable:
            _log.warning("the lease has to run out: %s", unavailable)
        except Exception:
            _log.exception("the lease has to run out")


async def enter(settings: Settings, asked: Claim) -> bool:
    """A server starts: is its plane in charge now? One from the same data directory is gone, and need not run out."""
    if settings.embedded:
        asked = msgspec.structs.replace(asked, span_ms=0, alone=True)
    else:
        asked = msgspec.structs.replace(asked, returning=True)
    journal = PlaneJournal(settings.journal_url, asked.plane)
    try:
        return (await journal.claim_lease(asked)).plane == asked.plane
    finally:
        await journal.close()


async def leave(settings: Settings, plane: str) -> None:
    """A server ends in good order: the next may be in charge at once. Raises JournalUnavailable."""
    journal = PlaneJournal(settings.journal_url, plane)
    try:
        await journal.release_lease(plane)
    finally:
        await journal.close()
