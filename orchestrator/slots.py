"""Whose turn a worker slot is, without a clock or a wire.

A RunActor says how many ready tasks it has that wait for a slot (`demand`, per leaf of the tree of shares:
tenant, class, DAG); a free slot is *leased* for the leaf whose turn it is in the slot's pool (`bids.py`). It keeps the
slot as long as it has work, one task after the other without asking again: that is what makes a chain
fast; whose tasks it does is its own choice, by the same tree (`actors/readiness.py`). While someone waits who has
none, the one with the most leases is asked to yield; with one lease
each, whoever has held a slot for QUANTUM_S is. So with work waiting, no slot is idle (I9),
and no RunActor waits longer than about a quantum and a batch. Tasks that need another pool or permits bid under
names of their own (`permits.py`), each in its pool.

**Moving slots.** Leases are kept, so who has them decides as much as whose turn it is. While leaves compete, RunActors
tell what each was served, and learn what the tree comes to of it. At most once in QUANTUM_S per pool, a slot is moved
to a bidder of the leaf that is served least: from whoever does nothing but what is ahead of that leaf, by more than
SLACK_S per slot; or from who has more than twice as many slots as a bidder that is not ahead. Never from one that has
a single slot (that one yields as above), and never while another slot of the pool is being given back: each move costs
two messages and the end of a batch, and its effect is to be seen before the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.bids import Bids
from orchestrator.shares import BORROW, Path, Shares

DEFAULT_POOL = "default"
#: seconds a RunActor may hold its only slot while another one has none
QUANTUM_S = 0.1
#: weighted seconds per slot by which a leaf may be behind another one before slots move because of it: less than that
#: is not known, for what was served is told ten times a second
SLACK_S = 0.1
#: seconds for which leaves count as competing after they last did
CONTENDED_S = 1.0


@dataclass(slots=True)
class Slot:
    """One worker's slot. `holder` is the RunActor that has it, or None."""

    worker: str
    pool: str
    incarnation: str
    holder: str | None = None
    lease: int = 0
    since_s: float = 0.0
    #: for which it was leased last; None = for none in particular
    leaf: Path | None = None
    yielding: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """`holder` may send batches to `worker` until it releases `lease`."""

    holder: str
    worker: str
    incarnation: str
    lease: int
    #: for whose task; None = for none in particular
    leaf: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Yield:
    """`holder` is to release `worker` as soon as what it sent has ended."""

    holder: str
    worker: str
    lease: int


class Slots:
    """Leases of worker slots. Times are seconds of a monotonic clock; leaves are (tenant, class, DAG) in each pool."""

    def __init__(self, by_name: Mapping[tuple[int, str], float] | None = None, wakes: Collection[str] = ()) -> None:
        self.slots: dict[str, Slot] = {}
        self._by_name = dict(by_name or {})
        self._wakes = frozenset(wakes)
        #: weights of nodes in every pool
        self._weights: dict[Path, float] = {}
        #: who bids in each pool, and in which, if not in the default one
        self._bids: dict[str, Bids] = {}
        self._pools: dict[str, str] = {}
        #: RunActor -> what its leases were charged until it tells what it did with them: pool, leaf, seconds
        self._advanced: dict[str, list[tuple[str, Path, float]]] = {}
        #: pool -> when bidders were compared last
        self._compared_s: dict[str, float] = {}
        self._contended_until_s = 0.0
        self._lease = 0
        #: RunActor -> lease it got last: of those alike, who was served longest ago comes first
        self._served: dict[str, int] = {}

    def number_from(self, lease: int) -> None:
        """Leases get numbers above this one."""
        self._lease = lease

    def add(self, worker: str, pool: str, incarnation: str) -> None:
        """A worker is ready for work; a new incarnation ends any lease on the former one."""
        slot = self.slots.get(worker)
        if slot is None or slot.incarnation != incarnation:
            self.slots[worker] = Slot(worker, pool, incarnation)

    def remove(self, worker: str) -> None:
        """The worker is gone."""
        self.slots.pop(worker, None)

    def drain(self, worker: str) -> None:
        """Give no more work to the worker; its holder is asked to yield."""
        if worker in self.slots:
            self.slots[worker].draining = True

    def adopt(self, holder: str, worker: str, lease: int, now_s: float) -> None:
        """A holder told of a lease that an earlier scheduler gave."""
        slot = self.slots.get(worker)
        if slot is not None and slot.holder is None:
            slot.holder, slot.lease, slot.since_s, slot.leaf = holder, lease, now_s, None
            self._lease = max(self._lease, lease)

    def demand(self, holder: str, by_leaf: Mapping[Path, int], pool: str = DEFAULT_POOL) -> None:
        """`holder` has this many ready tasks without a slot of the pool; it bids for slots of one pool only."""
        if not by_leaf:
            self._withdraw(holder)
            return
        if pool != DEFAULT_POOL:
            self._pools[holder] = pool
        self._in(pool).set(holder, by_leaf)

    def _withdraw(self, holder: str) -> None:
        bids = self._bids.get(self._pools.pop(holder, DEFAULT_POOL))
        if bids is not None:
            bids.set(holder, {})

    def _in(self, pool: str) -> Bids:
        bids = self._bids.get(pool)
        if bids is None:
            bids = self._bids[pool] = Bids(Shares(self._by_name, self._wakes))
            for path, weight in self._weights.items():
                bids.shares.weigh(path, weight)
        return bids

    def release(self, holder: str, worker: str, lease: int) -> None:
        """The holder gives the slot back; an old or foreign lease changes nothing."""
        slot = self.slots.get(worker)
        if slot is not None and slot.holder == holder and slot.lease == lease:
            slot.holder, slot.yielding = None, False

    def forget(self, holder: str) -> None:
        """The holder lost its memory: its leases and its demand are void."""
        self._withdraw(holder)
        self._advanced.pop(holder, None)
        for slot in self.slots.values():
            if slot.holder == holder:
                slot.holder, slot.yielding = None, False

    def wants(self, holder: str) -> bool:
        """Does `holder` have ready tasks without a slot?"""
        bids = self._bids.get(self._pools.get(holder, DEFAULT_POOL))
        return bids is not None and holder in bids.demand

    def held(self, holder: str) -> int:
        """Leases that `holder` has."""
        return sum(slot.holder == holder for slot in self.slots.values())

    def hungry(self) -> list[str]:
        """Pools for whose slots somebody bids."""
        return [pool for pool, bids in self._bids.items() if bids.demand]

    def waiting_in(self, pool: str) -> int:
        """Ready tasks that wait for a slot of the pool."""
        bids = self._bids.get(pool)
        return 0 if bids is None else sum(sum(leaves.values()) for leaves in bids.demand.values())

    @property
    def waiting(self) -> int:
        """Ready tasks that wait for a slot."""
        return sum(sum(leaves.values()) for bids in self._bids.values() for leaves in bids.demand.values())

    # ── shares ──

    def weigh(self, path: Path, weight: float) -> None:
        """Set the weight of a tenant, or of a leaf, in every pool."""
        if self._weights.get(path, 1.0) != weight:
            self._weights[path] = weight
            for bids in self._bids.values():
                bids.shares.weigh(path, weight)

    def served(self, holder: str, by_leaf: Mapping[Path, float]) -> None:
        """`holder` has used that many seconds of slots since it told last; paths begin with the pool."""
        self._settle(holder)
        for (pool, *leaf), seconds in by_leaf.items():
            self._in(pool).shares.charge(tuple(leaf), seconds)

    def _settle(self, holder: str) -> None:
        for pool, leaf, seconds in self._advanced.pop(holder, ()):
            self._in(pool).shares.charge(leaf, -seconds)

    def contended(self, now_s: float) -> bool:
        """Do leaves compete, or did they a moment ago? `contended` holders tell what they were served."""
        if any(bids.shares.contended for bids in self._bids.values()):
            self._contended_until_s = now_s + CONTENDED_S
        elif now_s >= self._contended_until_s:
            for holder in list(self._advanced):
                self._settle(holder)
            return False
        return True

    def leads(self) -> dict[Path, float]:
        """Pool and node -> by how much it is ahead of the sibling with work that is served least."""
        return {(pool, *path): lead for pool, bids in self._bids.items() for path, lead in bids.shares.leads().items()}

    def share(self, leaf: Path) -> float:
        """What the leaf gets of the default pool while all who want slots now go on to."""
        return self._in(DEFAULT_POOL).shares.share(leaf)

    def wanted(self, leaf: Path) -> bool:
        """Do ready tasks of that leaf wait for a slot of any pool?"""
        return any(leaf in bids.wanting for bids in self._bids.values())

    # ── giving ──

    def grants(self, now_s: float, takes: Callable[[str], bool] | None = None) -> list[Grant]:
        """Lease every free slot for which there is demand. Who cannot take what else it needs stops bidding."""
        out: list[Grant] = []
        wanted = {pool for pool, bids in self._bids.items() if bids.demand}
        free = [slot for slot in self._free() if slot.pool in wanted]
        if not free:
            return out
        held = Counter(slot.holder for slot in self.slots.values() if slot.holder)
        for pool, count in Counter(slot.pool for slot in self.slots.values()).items():
            if pool in wanted:
                self._bids[pool].shares.borrow = BORROW * count
        for slot in free:
            bid = self._next(self._bids[slot.pool], held, takes)
            if bid is not None:
                holder, leaf = bid
                self._charge_ahead(slot.pool, holder, leaf)
                self._bids[slot.pool].take_one(holder, leaf)
                if not self.wants(holder):
                    self._pools.pop(holder, None)
                held[holder] += 1
                out.append(self._lease_to(holder, slot, leaf, now_s))
        return out

    def spare(self, holder: str, now_s: float) -> Grant | None:
        """Lease a slot that nobody wants to `holder`, which will soon want one; None when there is none."""
        slot = next((slot for slot in self._free() if slot.pool == DEFAULT_POOL), None)
        return None if slot is None else self._lease_to(holder, slot, None, now_s)

    def _next(
        self, bids: Bids, held: Mapping[str, int], takes: Callable[[str], bool] | None
    ) -> tuple[str, Path] | None:
        def order(holder: str) -> tuple[int, int, str]:
            return held.get(holder, 0), self._served.get(holder, 0), holder

        bid = bids.next(order)
        while bid is not None and takes is not None and not takes(bid[0]):
            self._withdraw(bid[0])
            bid = bids.next(order)
        return bid

    def _charge_ahead(self, pool: str, holder: str, leaf: Path) -> None:
        shares = self._bids[pool].shares
        if shares.contended:
            shares.charge(leaf, QUANTUM_S)
            actor = holder.partition("\n")[0]  # a claim's name begins with its RunActor's
            self._advanced.setdefault(actor, []).append((pool, leaf, QUANTUM_S))

    def _free(self) -> Iterator[Slot]:
        return (slot for slot in self.slots.values() if slot.holder is None and not slot.draining)

    def _lease_to(self, holder: str, slot: Slot, leaf: Path | None, now_s: float) -> Grant:
        self._lease += 1
        slot.holder, slot.lease, slot.since_s, slot.yielding, slot.leaf = holder, self._lease, now_s, False, leaf
        self._served[holder] = self._lease
        return Grant(holder, slot.worker, slot.incarnation, slot.lease, leaf)

    # ── taking back ──

    def yields(self, now_s: float) -> list[Yield]:
        """Whom to ask for a slot back; each lease is asked once."""
        out = [self._ask(slot) for slot in self.slots.values() if slot.draining and slot.holder and not slot.yielding]
        for pool, bids in self._bids.items():
            if not bids.demand:
                continue
            asked = len(out)
            for _ in range(self._missing(pool)):
                slot = self._victim(pool)
                if slot is None or self._keeps_s(slot, now_s) > 0:
                    break
                out.append(self._ask(slot))
            if len(out) == asked and bids.shares.contended:
                out += [self._ask(slot) for slot in self._unfair(pool, bids, now_s)]
        return out

    def ask_back(self, worker: str, lease: int) -> Yield | None:
        """Ask for that lease, whoever waits; None when it was asked for, or is over."""
        slot = self.slots.get(worker)
        if slot is None or slot.holder is None or slot.lease != lease or slot.yielding:
            return None
        return self._ask(slot)

    def next_review_s(self, now_s: float) -> float | None:
        """Seconds until `yields` may answer more although nothing happened; None when it cannot."""
        wanted = [pool for pool, bids in self._bids.items() if bids.demand]
        victims = [self._victim(pool) for pool in wanted if self._missing(pool) > 0]
        return min((self._keeps_s(slot, now_s) for slot in victims if slot is not None), default=None)

    def _unfair(self, pool: str, bids: Bids, now_s: float) -> list[Slot]:
        """Slots to move to who bids for the leaf that is served least."""
        if now_s < self._compared_s.get(pool, -QUANTUM_S) + QUANTUM_S:
            return []
        theirs: dict[str, list[Slot]] = {}
        for slot in self.slots.values():
            if slot.pool == pool and slot.holder and not slot.draining:
                if slot.yielding:
                    return []
                theirs.setdefault(slot.holder, []).append(slot)
        leaf = bids.shares.least(bids.wanting)
        taker = min(bids.wanting[leaf], key=lambda h: (len(theirs.get(h, ())), h))
        count, slack = len(theirs.get(taker, ())), SLACK_S * sum(map(len, theirs.values()))
        moves: list[tuple[float, int, str]] = []
        for holder, slots in theirs.items():
            if holder == taker or len(slots) < 2:
                continue
            lead = self._lead(bids, holder, slots, leaf)
            if lead > slack:
                moves.append((lead, 1, holder))
            elif len(slots) > 2 * count + 1:
                moves.append((lead, (len(slots) - count) // 4 or 1, holder))
        if not moves:
            self._compared_s[pool] = now_s
            return []
        _, number, giver = max(moves)
        old = [slot for slot in sorted(theirs[giver], key=lambda s: s.since_s) if now_s - slot.since_s >= QUANTUM_S]
        if old:
            self._compared_s[pool] = now_s
        return old[:number]

    @staticmethod
    def _lead(bids: Bids, holder: str, slots: list[Slot], leaf: Path) -> float:
        """By how much all that `holder` has to do is ahead of `leaf`; what it has, if it wants nothing more."""
        mine = bids.demand.get(holder) or {slot.leaf for slot in slots if slot.leaf is not None}
        return min((bids.shares.lead(own, leaf) for own in mine), default=0.0)

    def _missing(self, pool: str) -> int:
        """Holders that wait without a slot, less the slots that are being given back."""
        coming = sum(slot.yielding and not slot.draining and slot.pool == pool for slot in self.slots.values())
        holders = {slot.holder for slot in self.slots.values()}
        return sum(holder not in holders for holder in self._bids[pool].demand) - coming

    def _victim(self, pool: str) -> Slot | None:
        """The lease to be given back first: of whoever has most, the oldest."""
        held = Counter(slot.holder for slot in self.slots.values())
        leased = [
            slot
            for slot in self.slots.values()
            if slot.holder and slot.pool == pool and not slot.yielding and not slot.draining
        ]
        return max(leased, key=lambda s: (held[s.holder], -s.since_s), default=None)

    def _keeps_s(self, slot: Slot, now_s: float) -> float:
        """Seconds for which its holder may keep it: none of several, else what is left of the quantum.

        Those that are being given back do not count: a holder that is behind, which gets every free slot, would be
        asked for all of them before it has used one, again and again.
        """
        kept = sum(other.holder == slot.holder and not other.yielding for other in self.slots.values())
        return 0.0 if kept > 1 else max(0.0, slot.since_s + QUANTUM_S - now_s)

    @staticmethod
    def _ask(slot: Slot) -> Yield:
        slot.yielding = True
        return Yield(slot.holder or "", slot.worker, slot.lease)
