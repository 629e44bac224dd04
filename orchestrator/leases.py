"""What the ledger of permits is made of: who wants some, who has some, and one key with its tokens.

`permits.py` tells how they work together. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from orchestrator.control import Bound
from orchestrator.limits import Limit, Rate
from orchestrator.messages import Need
from orchestrator.shares import Path

_encode = msgspec.json.Encoder().encode

#: holder, worker, number
LeaseKey = tuple[str, str, int]
#: leaf of the tree of shares, pool, permits wanted of the key
Lane = tuple[Path, str, int]


@dataclass(slots=True, eq=False)
class Claim:
    """Tasks of one RunActor with one need, as a bidder for slots: `label` is its name there."""

    label: str
    holder: str
    need: Need
    since_s: float
    #: leaf of the tree of shares -> tasks that wait
    leaves: dict[Path, int] = field(default_factory=dict)
    #: key and lane it waits in; None = it is offered
    parked: tuple[str, Lane] | None = None

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return sum(self.leaves.values())


@dataclass(slots=True, eq=False)
class Lease:
    """A slot with permits."""

    label: str
    holder: str
    need: Need
    worker: str
    incarnation: str
    number: int
    since_s: float
    #: only so many tasks may start on it
    metered: bool = False
    #: of those, starts that were not reported
    tokens: int = 0
    yielding: bool = False
    #: not for tasks of backfills
    kept: bool = False

    @property
    def key(self) -> LeaseKey:
        """What names it among all."""
        return self.holder, self.worker, self.number

    @classmethod
    def of(cls, holder: str, bound: Bound, now_s: float) -> Lease:
        """A lease as its holder tells of it."""
        label = label_of(holder, bound.need)
        lease = cls(label, holder, bound.need, bound.worker, bound.incarnation, bound.lease, now_s)
        lease.metered, lease.tokens, lease.kept = bound.starts is not None, bound.starts or 0, bound.kept
        return lease


class Meter:
    """Tokens of one rate."""

    __slots__ = ("_used", "away", "rate")

    def __init__(self, rate: Rate, used: Iterable[float] = ()) -> None:
        self.rate = rate
        #: tokens that a lease has
        self.away = 0
        #: when starts were reported, oldest first
        self._used = deque(used)

    def free(self, now_s: float) -> int:
        """Tokens to be had now; negative when more are in use than there are."""
        while self._used and self._used[0] + self.rate.per_s <= now_s:
            self._used.popleft()
        return self.rate.count - self.away - len(self._used)

    def report(self, taken: int, begun: int, now_s: float) -> None:
        """Of so many tokens that a lease took, so many were used."""
        self.away -= taken
        self._used.extend([now_s] * begun)

    def next_s(self, now_s: float) -> float | None:
        """Seconds until one is free again by itself; None = not before one is reported."""
        missing = 1 - self.free(now_s)
        if missing <= 0 or missing > len(self._used):
            return None
        return self._used[missing - 1] + self.rate.per_s - now_s

    def rests(self, now_s: float) -> bool:
        """Are all tokens here?"""
        return self.free(now_s) == self.rate.count


class Use:
    """One key: what is in use, and who waits for it."""

    __slots__ = ("lanes", "leases", "limit", "meter", "reserved", "running", "waiting")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.meter: Meter | None = None
        #: permits in use
        self.running = 0
        #: leases that have some, oldest first
        self.leases: dict[Lease, None] = {}
        self.lanes: dict[Lane, dict[str, Claim]] = {}
        #: claims in the lanes
        self.waiting = 0
        #: label of the claim that gets the next ones
        self.reserved: str | None = None

    def fits(self, slots: int, now_s: float) -> bool:
        """Could so many permits be taken?"""
        most = self.limit.max_running
        return (most is None or self.running + slots <= most) and (self.meter is None or self.meter.free(now_s) > 0)

    def room(self, now_s: float) -> float:
        """Permits that are free, of one each."""
        most = self.limit.max_running
        room = math.inf if most is None else most - self.running
        return room if self.meter is None else min(room, self.meter.free(now_s))

    def is_idle(self, now_s: float) -> bool:
        """Would nobody miss it?"""
        counts = self.meter is not None and not self.meter.rests(now_s)
        return not (self.leases or self.running or self.waiting or self.reserved or counts)


def label_of(holder: str, need: Need) -> str:
    """What a claim is called among the bidders for slots; a RunActor's plain tasks bid under its own name."""
    return f"{holder}\n{_encode(need).decode()}"
