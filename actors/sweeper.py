"""Works off sweeps of one kind: those that somebody asked for, and its own.

Who wants a sweep leaves a record (`orchestrator/sweeps.py`), then wakes this; where that cannot be told, as by a server
that stands by, it is seen within LOOK_S. The same record tells how far it is. One of its own is made every SWEEP_S,
unless everything is kept for ever; cut off, or put off, it is made anew, as settings are then. A sweep that is put off
or fails for good says so itself, and holds up no other one.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Set
from datetime import timedelta
from typing import Generic

import msgspec

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.recurring import Recurring
from orchestrator.errors import Unavailable
from orchestrator.ports import Journal
from orchestrator.sweeps import AUTOMATIC, TOLD, Kind, S

#: seconds between two sweeps that nobody asked for, and between looks for those that somebody did
SWEEP_S = 3600.0
LOOK_S = 60.0

_log = logging.getLogger(__name__)


class Errand(ABC, Generic[S]):
    """One sweep under way."""

    def __init__(self, journal: Journal, clock: Clock, kind: Kind[S], sweep: S) -> None:
        self._journal = journal
        self._clock = clock
        self._kind = kind
        self._sweep = sweep

    @abstractmethod
    async def carry_out(self) -> None:
        """Everything that may go has gone. Raises Unavailable: then it is still wanted; and what refuses it."""

    async def tell(self, state: str = "running", error: str = "") -> S:
        """How far it is, for whoever asks."""
        now_ms = milliseconds(self._clock.now())
        self._sweep = msgspec.structs.replace(self._sweep, state=state, error=error, updated_ms=now_ms)
        await self._journal.put_records(self._kind.records, {self._sweep.id: self._kind.encode(self._sweep)})
        return self._sweep


class Sweeper(Recurring, Generic[S]):
    """Sweeps when asked, and by itself what ended `kept` ago (0 = never). `start` returns at once."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        kind: Kind[S],
        kept: timedelta,
        *,
        work: str,
        again_s: float,
        own_first_s: float = 0.0,
    ) -> None:
        super().__init__(work, LOOK_S, again_s)
        self._journal = journal
        self._clock = clock
        self._kind = kind
        self._kept = kept
        self._own_first_s = own_first_s
        #: when the next one of its own is due, by the loop's time
        self._due_s = 0.0

    @abstractmethod
    async def _errand(self, wanted: S) -> Errand[S]:
        """What is to be done for it."""

    @abstractmethod
    def _own(self, before_ms: int, asked_ms: int) -> S:
        """The one that nobody asks for."""

    def start(self) -> None:
        """Begin, with what a former life left undone."""
        self._due_s = asyncio.get_running_loop().time() + self._own_first_s
        super().start()

    async def look(self) -> float:
        """Work off what is due, and what is wanted; seconds until the next look. Raises Unavailable."""
        now_s = asyncio.get_running_loop().time()
        put_off: Unavailable | None = None
        if self._kept and now_s >= self._due_s:
            now = self._clock.now()
            put_off = await self._try(self._own(milliseconds(now - self._kept), milliseconds(now)))
            if put_off is None:
                self._due_s = now_s + SWEEP_S
        tried: set[str] = set()
        while wanted := await self.wanted(tried):
            tried.add(wanted.id)
            put_off = await self._try(wanted) or put_off
        if put_off is not None:
            raise put_off
        return min(LOOK_S, self._due_s - now_s) if self._kept else LOOK_S

    async def _try(self, wanted: S) -> Unavailable | None:
        """It is done, or has failed for good, unless something put it off; others go on."""
        try:
            await self.sweep(wanted)
        except Unavailable as unavailable:
            return unavailable
        except Exception:
            _log.exception("%s: sweep %s failed", self._work, wanted.id)
        return None

    async def wanted(self, tried: Set[str] = frozenset()) -> S | None:
        """The first other sweep that somebody asked for and that has not ended. Raises JournalUnavailable."""
        found = self._kind.in_order(await self._journal.records(self._kind.records))
        over = [sweep.id for sweep in found if not sweep.open]
        if len(over) > TOLD:
            await self._journal.put_records(self._kind.records, dict.fromkeys(over[:-TOLD]))
        return next((sweep for sweep in found if sweep.open and sweep.id not in {AUTOMATIC, *tried}), None)

    async def sweep(self, wanted: S) -> S:
        """Everything that may go has gone. Raises Unavailable: then it is still wanted; and what refuses it."""
        errand = await self._errand(wanted)
        try:
            await errand.tell()
            await errand.carry_out()
            done = await errand.tell("done")
        except Unavailable as unavailable:
            await errand.tell(error=str(unavailable))
            await self._count("put_off")
            raise
        except Exception as error:
            await errand.tell("failed", str(error))
            await self._count("failed")
            raise
        await self._count("done")
        return done

    async def _count(self, end: str) -> None:
        await self._journal.count([(f"{self._kind.counted}_{end}", 1)])
