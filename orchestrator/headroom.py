"""Slots of a pool that backfills leave free: a limit on how many they may have at a time.

    4 slots, headroom 1:    open   open   open  │  kept        at most 3 are busy with backfills, whatever waits
                             any work, by turns │  no backfill

A lease is *open*, for any work, or *kept*, for what is not of a backfill; it stays so until it is over. At most
`headroom` leases of a pool are kept at a time, and at most the rest are open. What is not of a backfill gets a kept
lease as long as there is one, so that the open ones are left to those that may have nothing else.

Another design would keep the count alone, and have the scheduler hand each RunActor a number of slots that it may use
for backfills: any slot would do for a run, but a number that is lowered must be acknowledged before it can be given to
somebody else, through crashes of either side, and that is what leases are there for already.

Open and kept slots of a pool are shared each for themselves (`bids.py`), like two pools. A pool has one open slot at
least: its backfills get on, however small it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import Invalid
from orchestrator.shares import Path

#: the class of runs that leaves slots free
BACKFILL = "backfill"
#: in place of a pool: those that are not named
OTHERS = "*"
#: behind the name of a pool: its kept slots
KEPT = " kept"
#: slots that may be kept free
HEADROOM_MAX = 1000

_ENTRY = re.compile(r"(?:(?P<pool>[A-Za-z0-9][A-Za-z0-9_.-]{0,62})=)?(?P<slots>\d{1,4})")


def spares(leaf: Path) -> bool:
    """Is that leaf (tenant, class, DAG) of a class that must leave slots free?"""
    return BACKFILL in leaf[1:2]


def read_headroom(text: str) -> dict[str, int]:
    """`1`, or `default=2,gpu=1`, or `1,gpu=0`: pool, or OTHERS -> slots. Raises Invalid."""
    out: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        found = _ENTRY.fullmatch(entry)
        if found is None or int(found["slots"]) > HEADROOM_MAX:
            raise Invalid(f"{entry!r}: slots (0 to {HEADROOM_MAX}), or POOL=SLOTS expected", (("headroom", entry),))
        out[found["pool"] or OTHERS] = int(found["slots"])
    return out


def shared_as(pool: str, kept: bool) -> str:
    """What the slots of a pool are called where slot time is told; no pool can have the name of the kept ones."""
    return pool + KEPT if kept else pool


@dataclass(frozen=True, slots=True)
class Room:
    """Leases of a pool that may still be given; less than nothing: so many are too many."""

    open: int
    kept: int

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Whether it is a kept one: what may be leased, the better one first for who may have both."""
        return _KINDS[self.kept > 0, self.open > 0]

    def less(self, kept: bool) -> Room:
        """What is left of it after one more lease."""
        return Room(self.open, self.kept - 1) if kept else Room(self.open - 1, self.kept)


_KINDS = {(False, False): (), (False, True): (False,), (True, False): (True,), (True, True): (True, False)}
#: of a pool that keeps none: there is as much room as there are free slots
ALL_OPEN = Room(1, 0)


def headroom_of(by_pool: Mapping[str, int]) -> Headroom | None:
    """What says how many slots are kept in each pool; None when none are anywhere."""
    return Headroom(by_pool) if any(by_pool.values()) else None


class Headroom:
    """How many slots are kept in each pool."""

    def __init__(self, by_pool: Mapping[str, int]) -> None:
        self._by_pool = dict(by_pool)

    def kept(self, pool: str, slots: int) -> int:
        """Of so many slots, those that are kept."""
        wanted = self._by_pool.get(pool, self._by_pool.get(OTHERS, 0))
        return max(0, min(wanted, slots - 1))

    def room(self, pool: str, slots: int, open_leases: int, kept_leases: int) -> Room:
        """What may still be leased of a pool with so many slots and leases."""
        kept = self.kept(pool, slots)
        return Room(slots - kept - open_leases, kept - kept_leases)
