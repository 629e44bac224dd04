"""Whose time worker slots are: what a RunActor charges to the tree of shares, and tells the scheduler.

A batch is charged what it is expected to take when it is composed. From when its worker was free for it until its
answer is here, the slot is its own: that time, split among the leaves of the batch as they were charged, is what it
comes to in the end. A batch that lasts longer than it has paid for pays more now and then (`accrue`), because a task
of an hour must not look like one of a moment until it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.bound_work import BoundWork
from actors.readiness import Sending
from orchestrator.headroom import shared_as
from orchestrator.messages import Need
from orchestrator.needs import DEFAULT_POOL
from orchestrator.shares import Path, Shares

#: seconds between what is told to the scheduler while leaves compete, and between additions to the metrics
TELL_S = 0.1
COUNT_S = 1.0


@dataclass(slots=True)
class _Flight:
    """A batch at a worker. Its time is split as its `costs` are; `paid` are seconds charged so far."""

    need: Need | None
    costs: dict[Path, float]
    expected_s: float
    paid: float
    sent_s: float
    #: its slot is kept from backfills
    kept: bool = False


class SlotTime:
    """Charges the slots of one RunActor: plain tasks to `shares`, others to what `work` has for their need.

    Plain tasks on slots that are kept from backfills are charged to `kept`.

    Times are seconds of a monotonic clock.
    """

    def __init__(self, shares: Shares, work: BoundWork, kept: Shares) -> None:
        self._shares = shares
        self._kept = kept
        self._work = work
        #: worker -> number of the batch -> batch, in the order in which they were sent
        self._flights: dict[str, dict[int, _Flight]] = {}
        #: worker -> since when its time is counted
        self._free_s: dict[str, float] = {}
        #: charged and not told yet: pool and leaf -> seconds
        self._untold: dict[Path, float] = {}
        #: (tenant, class) -> seconds that are not in the metrics yet
        self._uncounted: dict[tuple[str, str], float] = {}
        self._counted_s = 0.0
        #: leaves compete, says the scheduler
        self.competing = False

    def sent(self, sending: Sending, number: int, now_s: float) -> None:
        """That batch left."""
        expected_s = sum(sending.costs.values())
        flight = _Flight(sending.seat.need, sending.costs, expected_s, 0.0, now_s, sending.seat.kept)
        flights = self._flights.get(sending.seat.worker)
        if flights is None:
            flights = self._flights[sending.seat.worker] = {}
        flights[number] = flight
        if sending.charged:
            flight.paid = expected_s
            self._note(flight, expected_s)

    def kept(self, sending: Sending) -> None:
        """That batch did not leave."""
        if sending.charged:
            back = {leaf: -cost for leaf, cost in sending.costs.items()}
            self._charge(sending.seat.need, sending.seat.kept, back)

    def _charge(self, need: Need | None, kept: bool, by_leaf: Mapping[Path, float]) -> None:
        shares = self._work.shares(need) if need is not None else self._kept if kept else self._shares
        if shares is not None:
            for leaf, seconds in by_leaf.items():
                shares.charge(leaf, seconds)

    def ended(self, worker: str, number: int, now_s: float) -> None:
        """The batch is over."""
        flights = self._flights.get(worker)
        flight = flights.pop(number, None) if flights is not None else None
        if flight is None:
            return
        took = max(0.0, now_s - max(flight.sent_s, self._free_s.get(worker, 0.0)))
        self._free_s[worker] = now_s
        if self.competing or flight.paid:
            self._pay(flight, took - flight.paid)
        for (tenant, kind, _), cost in flight.costs.items():
            self._uncounted[tenant, kind] = self._uncounted.get((tenant, kind), 0.0) + took * cost / flight.expected_s

    def gone(self, worker: str, now_s: float) -> None:
        """The worker is gone, and its batches with it."""
        for number in list(self._flights.get(worker, ())):
            self.ended(worker, number, now_s)
        self._flights.pop(worker, None)
        self._free_s.pop(worker, None)

    def accrue(self, now_s: float) -> None:
        """Charge batches for what they took beyond what they have paid."""
        for worker, flights in self._flights.items():
            for flight in list(flights.values())[:1]:  # those behind it wait
                took = now_s - max(flight.sent_s, self._free_s.get(worker, 0.0))
                if took > flight.paid:
                    self._pay(flight, took - flight.paid)

    def take_leads(self, leads: Mapping[Path, float], now_s: float) -> None:
        """How everybody stands, says the scheduler, but for what it was not told yet; empty = nobody competes.

        Paths begin with the pool.
        """
        if leads and not self.competing:  # what was used while nobody else wanted it is nobody's debt
            self._untold.clear()
            for worker, flights in self._flights.items():
                self._free_s[worker] = now_s
                for flight in flights.values():
                    flight.paid = 0.0
        self.competing = bool(leads)
        by_pool: dict[str, dict[Path, float]] = {}
        for (pool, *path), lead in leads.items():
            by_pool.setdefault(pool, {})[tuple(path)] = lead
        plain = {DEFAULT_POOL: self._shares, shared_as(DEFAULT_POOL, True): self._kept}
        for pool, shares in (*plain.items(), *self._work.trees()):
            shares.take_leads(by_pool.get(pool, {}))
        for (pool, *leaf), seconds in self._untold.items() if leads else ():
            if pool in plain:
                plain[pool].charge(tuple(leaf), seconds)

    def take_untold(self) -> tuple[tuple[Path, float], ...]:
        """What to tell the scheduler: leaf -> seconds charged since it was told last."""
        untold, self._untold = self._untold, {}
        return tuple(untold.items()) if self.competing else ()

    def keep_untold(self, told: tuple[tuple[Path, float], ...]) -> None:
        """The scheduler did not hear it."""
        for leaf, seconds in told:
            self._untold[leaf] = self._untold.get(leaf, 0.0) + seconds

    def counts(self, now_s: float) -> list[tuple[str, int]]:
        """What to add to the metrics, once in COUNT_S: milliseconds of slot time by tenant and class."""
        if now_s - self._counted_s < COUNT_S or not self._uncounted:
            return []
        self._counted_s = now_s
        out = []
        for (tenant, kind), seconds in self._uncounted.items():
            ms = int(seconds * 1000)
            self._uncounted[tenant, kind] = seconds - ms / 1000
            if ms:
                out.append((f"slot_time_ms|{tenant}|{kind}", ms))
        return out

    def _pay(self, flight: _Flight, seconds: float) -> None:
        flight.paid += seconds
        by_leaf = {leaf: seconds * cost / flight.expected_s for leaf, cost in flight.costs.items()}
        self._charge(flight.need, flight.kept, by_leaf)
        self._note(flight, seconds)

    def _note(self, flight: _Flight, seconds: float) -> None:
        pool = shared_as(DEFAULT_POOL if flight.need is None else flight.need.pool, flight.kept)
        for leaf, cost in flight.costs.items():
            where = (pool, *leaf)
            self._untold[where] = self._untold.get(where, 0.0) + seconds * cost / flight.expected_s
