"""Whose turn a worker slot is, without a clock or a wire.

A RunActor says how many ready tasks it has that wait for a slot (`demand`, per leaf of the tree of shares:
tenant, class, DAG); a free slot is *leased* for the leaf whose turn it is in the slot's pool (`bids.py`). It keeps the
slot as long as it has work, one task after the other without asking again: that is what makes a chain
fast; whose tasks it does is its own choice, by the same tree (`actors/readiness.py`). While someone waits who has
none, the one with the most leases is asked to yield, as soon as it is the turn of what the other one waits for; with
one lease each, whoever has held a slot for QUANTUM_S is. So with work waiting, no slot is idle (I9), and a RunActor
whose turn it is waits no longer than about a quantum and a batch. Tasks that need another pool or permits bid under
names of their own (`permits.py`), each in its pool. Of the free slots of a pool, who gets one gets that which has what
its tasks take on its node, if it said so (`nearness.py`).

**Moving slots.** Leases are kept, so who has them decides as much as whose turn it is. While leaves compete, RunActors
tell what each was served, and learn what the tree comes to of it. At most once in QUANTUM_S per pool, a slot is moved
to a bidder of the leaf that is served least: from whoever does nothing but what is ahead of that leaf, by more than
SLACK_S per slot, even its only one; or from who has more than twice as many slots as a bidder that is not ahead. Never
while another slot of the pool is being given back: each move costs two messages and the end of a batch, and its effect
is to be seen before the next one.

**Headroom** (`headroom.py`). In a pool where backfills leave slots free, some leases are *kept* from them. Then I9 is:
no ready task waits while there is a slot that it may have. When backfills wait, and slots are free that they may not
have, an open lease is asked back that was given for something else, since that may have a kept one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.bids import Bids
from orchestrator.headroom import ALL_OPEN, KEPT, Room, headroom_of, shared_as, spares
from orchestrator.nearness import Hints
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
    #: from backfills
    kept: bool = False
    yielding: bool = False
    draining: bool = False
    #: Ray's id of the node that the worker is on; "" = nobody knows
    node: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """`holder` may send batches to `worker` until it releases `lease`."""

    holder: str
    worker: str
    incarnation: str
    lease: int
    #: for whose task; None = for none in particular
    leaf: Path | None = field(default=None, compare=False)
    #: not for tasks of backfills
    kept: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Yield:
    """`holder` is to release `worker` as soon as what it sent has ended."""

    holder: str
    worker: str
    lease: int


class _Turn(NamedTuple):
    """Who gets a slot."""

    slot: Slot
    holder: str
    #: None = for whatever it has
    leaf: Path | None
    kept: bool
    lease: int


class Slots:
    """Leases of worker slots. Times are seconds of a monotonic clock; leaves are (tenant, class, DAG) in each pool."""

    def __init__(
        self,
        by_name: Mapping[tuple[int, str], float] | None = None,
        wakes: Collection[str] = (),
        headroom: Mapping[str, int] | None = None,
    ) -> None:
        self.slots: dict[str, Slot] = {}
        #: slots that are kept from backfills; None = none anywhere
        self._headroom = headroom_of(headroom or {})
        self._by_name = dict(by_name or {})
        self._wakes = frozenset(wakes)
        #: weights of nodes in every pool
        self._weights: dict[Path, float] = {}
        #: who bids in each pool, and in which, if not in the default one
        self._bids: dict[str, Bids] = {}
        self._pools: dict[str, str] = {}
        #: RunActor -> what its leases were charged until it tells what it did with them: pool, leaf, seconds
        self._advanced: dict[str, list[tuple[str, Path, float]]] = {}
        #: pool, and whether its kept slots -> when bidders were compared last
        self._compared_s: dict[tuple[str, bool], float] = {}
        self._contended_until_s = 0.0
        self._lease = 0
        #: RunActor -> lease it got last: of those alike, who was served longest ago comes first
        self._served: dict[str, int] = {}
        #: pool -> lease given of it last
        self._given: dict[str, int] = {}
        #: where tasks of bidders are at home
        self.hints = Hints()

    def number_from(self, lease: int) -> None:
        """Leases get numbers above this one."""
        self._lease = lease

    def add(self, worker: str, pool: str, incarnation: str, node: str = "") -> None:
        """A worker is ready for work; a new incarnation ends any lease on the former one."""
        slot = self.slots.get(worker)
        if slot is None or slot.incarnation != incarnation:
            self.slots[worker] = Slot(worker, pool, incarnation, node=node)

    def remove(self, worker: str) -> None:
        """The worker is gone."""
        self.slots.pop(worker, None)

    def drain(self, worker: str) -> None:
        """Give no more work to the worker; its holder is asked to yield."""
        if worker in self.slots:
            self.slots[worker].draining = True

    def adopt(self, holder: str, worker: str, lease: int, now_s: float, kept: bool = False) -> None:
        """A holder told of a lease that an earlier scheduler gave."""
        slot = self.slots.get(worker)
        if slot is not None and slot.holder is None:
            slot.holder, slot.lease, slot.since_s, slot.leaf, slot.kept = holder, lease, now_s, None, kept
            self._lease = max(self._lease, lease)

    def demand(self, holder: str, by_leaf: Mapping[Path, int], pool: str = DEFAULT_POOL) -> None:
        """`holder` has this many ready tasks without a slot of the pool; it bids for slots of one pool only."""
        if not by_leaf:
            self._withdraw(holder)
            self.hints.set(holder, {})
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
            bids = self._bids[pool] = Bids(self._new_tree(), None if self._headroom is None else self._new_tree())
        return bids

    def _new_tree(self) -> Shares:
        shares = Shares(self._by_name, self._wakes)
        for path, weight in self._weights.items():
            shares.weigh(path, weight)
        return shares

    def _trees(self) -> dict[str, Shares]:
        """Every tree, as it is called where slot time is told."""
        out = {pool: bids.shares for pool, bids in self._bids.items()}
        return out | {shared_as(pool, True): b.kept for pool, b in self._bids.items() if b.kept is not None}

    def release(self, holder: str, worker: str, lease: int) -> None:
        """The holder gives the slot back; an old or foreign lease changes nothing."""
        slot = self.slots.get(worker)
        if slot is not None and slot.holder == holder and slot.lease == lease:
            slot.holder, slot.yielding = None, False

    def forget(self, holder: str) -> None:
        """The holder lost its memory: its leases and its demand are void."""
        self._withdraw(holder)
        self.hints.set(holder, {})
        self._advanced.pop(holder, None)
        for bidder in [each for each in self._served if each.partition("\n")[0] == holder]:  # what it bids as, too
            del self._served[bidder]
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
            for tree in self._trees().values():
                tree.weigh(path, weight)

    def served(self, holder: str, by_leaf: Mapping[Path, float]) -> None:
        """`holder` has used that many seconds of slots since it told last; paths begin with the pool."""
        self._settle(holder)
        for (name, *leaf), seconds in by_leaf.items():
            self._charge(name, tuple(leaf), seconds)

    def _settle(self, holder: str) -> None:
        for name, leaf, seconds in self._advanced.pop(holder, ()):
            self._charge(name, leaf, -seconds)

    def _charge(self, name: str, leaf: Path, seconds: float) -> None:
        pool = name.removesuffix(KEPT)
        self._in(pool).tree(kept=pool != name).charge(leaf, seconds)

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
        return {(name, *path): lead for name, tree in self._trees().items() for path, lead in tree.leads().items()}

    def share(self, leaf: Path) -> float:
        """What the leaf gets of the default pool while all who want slots now go on to."""
        return self._in(DEFAULT_POOL).shares.share(leaf)

    def wanted(self, leaf: Path) -> bool:
        """Do ready tasks of that leaf wait for a slot of any pool?"""
        return any(leaf in bids.wanting for bids in self._bids.values())

    # ── giving ──

    def grants(self, now_s: float, takes: Callable[[str], bool] | None = None) -> list[Grant]:
        """Lease every free slot for which there is demand. Who cannot take what else it needs stops bidding."""
        wanted = {pool for pool, bids in self._bids.items() if bids.demand}
        free = [slot for slot in self._free() if slot.pool in wanted]
        if not free:
            return []
        if len(wanted) > 1:  # they may want the same permits: the pool goes first that was given something longest ago
            free.sort(key=lambda slot: (self._given.get(slot.pool, 0), slot.pool))
        held = Counter(slot.holder for slot in self.slots.values() if slot.holder)
        for pool, count in Counter(slot.pool for slot in self.slots.values()).items():
            if pool in wanted:
                self._bids[pool].shares.borrow = BORROW * count
        rooms = {pool: self._room(pool) for pool in wanted}
        turns: list[_Turn] = []
        for slot in free:
            kept, bid = False, None
            for kept in rooms[slot.pool].kinds:
                if (bid := self._next(self._bids[slot.pool], held, takes, kept)) is not None:
                    break
            if bid is not None:
                holder, leaf = bid
                self._charge_ahead(slot.pool, holder, leaf, kept)
                self._bids[slot.pool].take_one(holder, leaf)
                if not self.wants(holder):
                    self._pools.pop(holder, None)
                held[holder] += 1
                turns.append(_Turn(slot, holder, leaf, kept, self._number(holder)))
                self._given[slot.pool] = self._lease
                if self._headroom is not None:
                    rooms[slot.pool] = rooms[slot.pool].less(kept)
        return [_lease(turn, now_s) for turn in (self._nearest(turns, free) if self.hints else turns)]

    def _number(self, holder: str) -> int:
        """Of the holder's next lease."""
        self._lease += 1
        self._served[holder] = self._lease
        return self._lease

    def _nearest(self, turns: list[_Turn], free: list[Slot]) -> list[_Turn]:
        """The same turns, each on a slot of its pool that is nearer to what its tasks take, if it said so."""
        out = list(turns)
        for pool in {turn.slot.pool for turn in turns}:
            mine = [n for n, turn in enumerate(turns) if turn.slot.pool == pool]
            slots = [slot for slot in free if slot.pool == pool]
            bids = [(turns[n].holder, turns[n].leaf or ()) for n in mine]
            for n, at in zip(mine, self.hints.choose(bids, [slot.node for slot in slots]), strict=True):
                out[n] = turns[n]._replace(slot=slots[at])
        for turn in turns:
            if not self.wants(turn.holder):
                self.hints.set(turn.holder, {})
        return out

    def spare(self, holder: str, now_s: float, backfill: bool = False) -> Grant | None:
        """Lease a slot that nobody wants to `holder`, which will soon want one; None when it needs none.

        Who holds open slots only, and hosts a run soon that is not of a backfill, needs a kept one.
        """
        needs_any = not self.held(holder) and not self.wants(holder)
        if not needs_any and self._headroom is None:
            return None
        slot = next((slot for slot in self._free() if slot.pool == DEFAULT_POOL), None)
        if slot is None:
            return None
        room = self._room(DEFAULT_POOL)
        if not backfill and room.kept > 0 and (needs_any or self._lacks_kept(holder)):
            return _lease(_Turn(slot, holder, None, True, self._number(holder)), now_s)
        if needs_any and room.open > 0:
            return _lease(_Turn(slot, holder, None, False, self._number(holder)), now_s)
        return None

    def _lacks_kept(self, holder: str) -> bool:
        """Has it no kept slot of the default pool, and has not asked for one?"""
        bids = self._bids.get(DEFAULT_POOL)
        if bids is not None and not all(map(spares, bids.demand.get(holder, ()))):
            return False
        return not any(slot.kept for slot in self.slots.values() if slot.holder == holder)

    def nodes(self, grants: Iterable[tuple[str, str, int]]) -> tuple[tuple[str, str], ...]:
        """Of leases (worker, incarnation, number), (worker, node), as far as they are known."""
        slots = [self.slots.get(worker) for worker, _, _ in grants]
        return tuple((slot.worker, slot.node) for slot in slots if slot is not None and slot.node)

    def kept(self, grants: Iterable[tuple[str, str, int]]) -> tuple[int, ...]:
        """Of leases (worker, incarnation, number), the numbers of those that are not for backfills."""
        if self._headroom is None:
            return ()
        slots = [(self.slots.get(worker), lease) for worker, _, lease in grants]
        return tuple(lease for slot, lease in slots if slot is not None and slot.lease == lease and slot.kept)

    def _room(self, pool: str) -> Room:
        if self._headroom is None:
            return ALL_OPEN
        mine = [slot for slot in self.slots.values() if slot.pool == pool and not slot.draining]
        leased = Counter(slot.kept for slot in mine if slot.holder)
        return self._headroom.room(pool, len(mine), leased[False], leased[True])

    def _next(
        self, bids: Bids, held: Mapping[str, int], takes: Callable[[str], bool] | None, kept: bool
    ) -> tuple[str, Path] | None:
        def order(holder: str) -> tuple[int, int, str]:
            return held.get(holder, 0), self._served.get(holder, 0), holder

        bid = bids.next(order, kept)
        while bid is not None and takes is not None and not takes(bid[0]):
            self._withdraw(bid[0])
            bid = bids.next(order, kept)
        return bid

    def _charge_ahead(self, pool: str, holder: str, leaf: Path, kept: bool) -> None:
        shares = self._bids[pool].tree(kept)
        if shares.contended:
            shares.charge(leaf, QUANTUM_S)
            actor = holder.partition("\n")[0]  # a claim's name begins with its RunActor's
            self._advanced.setdefault(actor, []).append((shared_as(pool, kept), leaf, QUANTUM_S))

    def _free(self) -> Iterator[Slot]:
        return (slot for slot in self.slots.values() if slot.holder is None and not slot.draining)

    # ── taking back ──

    def yields(self, now_s: float) -> list[Yield]:
        """Whom to ask for a slot back; each lease is asked once."""
        out = [self._ask(slot) for slot in self.slots.values() if slot.draining and slot.holder and not slot.yielding]
        if self._headroom is not None:
            out += [self._ask(slot) for slot in self._surplus()]
        for pool, bids in self._bids.items():
            if not bids.demand:
                continue
            asked = len(out)
            for kept in self._kinds:
                for _ in range(self._missing(pool, kept)):
                    slot = self._victim(pool, kept)
                    if slot is None or self._keeps_s(slot, now_s) > 0:
                        break
                    out.append(self._ask(slot))
            if self._headroom is not None:
                out += [self._ask(slot) for slot in self._misplaced(pool, bids) if self._aged_s(slot, now_s) <= 0]
            if len(out) == asked and bids.shares.contended:
                out += [self._ask(slot) for kept in self._kinds for slot in self._unfair(pool, bids, kept, now_s)]
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
        missing = [(pool, kept) for pool in wanted for kept in self._kinds if self._missing(pool, kept) > 0]
        at = [self._keeps_s(slot, now_s) for where in missing if (slot := self._victim(*where)) is not None]
        if self._headroom is not None:
            at += [self._aged_s(slot, now_s) for pool in wanted for slot in self._misplaced(pool, self._bids[pool])]
        return min(at, default=None)

    @property
    def _kinds(self) -> tuple[bool, ...]:
        """Of slots: open ones, and kept ones if there may be some."""
        return (False,) if self._headroom is None else (False, True)

    def _unfair(self, pool: str, bids: Bids, kept: bool, now_s: float) -> list[Slot]:
        """Slots to move to who bids for the leaf that is served least."""
        if now_s < self._compared_s.get((pool, kept), -QUANTUM_S) + QUANTUM_S:
            return []
        theirs: dict[str, list[Slot]] = {}
        for slot in self.slots.values():
            if slot.pool == pool and slot.holder and not slot.draining and slot.kept == kept:
                if slot.yielding:
                    return []
                theirs.setdefault(slot.holder, []).append(slot)
        leaf = bids.least(kept)
        if leaf is None:
            return []
        taker = min(bids.wanting[leaf], key=lambda h: (len(theirs.get(h, ())), h))
        count, slack = len(theirs.get(taker, ())), SLACK_S * sum(map(len, theirs.values()))
        moves: list[tuple[float, int, str]] = []
        for holder, slots in theirs.items():
            if holder == taker:
                continue
            lead = self._lead(bids, kept, holder, slots, leaf)
            if lead > slack:
                moves.append((lead, 1, holder))
            elif len(slots) > 2 * count + 1:
                moves.append((lead, (len(slots) - count) // 4 or 1, holder))
        if not moves:
            self._compared_s[pool, kept] = now_s
            return []
        _, number, giver = max(moves)
        oldest = sorted(theirs[giver], key=lambda s: (s.since_s, s.lease))
        old = [slot for slot in oldest if now_s - slot.since_s >= QUANTUM_S]
        if old:
            self._compared_s[pool, kept] = now_s
        return old[:number]

    @staticmethod
    def _lead(bids: Bids, kept: bool, holder: str, slots: list[Slot], leaf: Path) -> float:
        """By how much all that `holder` has to do is ahead of `leaf`; what it has, if it wants nothing more."""
        mine = bids.demand.get(holder) or {slot.leaf for slot in slots if slot.leaf is not None}
        leads = [bids.tree(kept).lead(own, leaf) for own in mine if not (kept and spares(own))]
        return min(leads, default=0.0)

    def _surplus(self) -> Iterator[Slot]:
        """Leases that are more than there may be of their kind, since slots were lost, or more are kept than before."""
        for pool in {slot.pool for slot in self.slots.values()}:
            room = self._room(pool)
            for kept, over in ((False, -room.open), (True, -room.kept)):
                leased = [slot for slot in self._leased(pool, kept) if not slot.draining]
                staying = [slot for slot in leased if not slot.yielding]
                going = len(leased) - len(staying)
                yield from sorted(staying, key=lambda s: -s.lease)[: max(0, over - going)]

    def _misplaced(self, pool: str, bids: Bids) -> list[Slot]:
        """While slots are idle that backfills may not have, and some wait: an open one that something else was given.

        The oldest; none while one is being given back.
        """
        room = self._room(pool)
        if room.open > 0 or room.open + room.kept <= 0 or not any(map(spares, bids.wanting)):
            return []
        leased = [slot for slot in self._leased(pool, kept=False) if not slot.draining]
        if any(slot.yielding for slot in leased):
            return []
        others = [slot for slot in leased if slot.leaf is None or not spares(slot.leaf)]
        return sorted(others, key=lambda slot: slot.lease)[:1]

    def _leased(self, pool: str, kept: bool) -> Iterator[Slot]:
        return (slot for slot in self.slots.values() if slot.holder and slot.pool == pool and slot.kept == kept)

    def _missing(self, pool: str, kept: bool) -> int:
        """Holders that wait without a slot, and would get the next one, less the slots that are being given back."""
        bids = self._bids[pool]
        holders = {slot.holder for slot in self.slots.values()}
        waiting = [holder for holder in bids.demand if holder not in holders]
        if waiting and (kept or bids.shares.contended):
            least = bids.least(kept)
            waiting = [holder for holder in waiting if least is not None and bids.are_due(holder, least, kept)]
        return len(waiting) - sum(slot.yielding and not slot.draining for slot in self._leased(pool, kept))

    def _victim(self, pool: str, kept: bool) -> Slot | None:
        """The lease to be given back first: of whoever has most, the oldest; of equals the one given first."""
        held = Counter(slot.holder for slot in self.slots.values())
        leased = [slot for slot in self._leased(pool, kept) if not slot.yielding and not slot.draining]
        return max(leased, key=lambda s: (held[s.holder], -s.since_s, -s.lease), default=None)

    def _keeps_s(self, slot: Slot, now_s: float) -> float:
        """Seconds for which its holder may keep it: none of several, else what is left of the quantum.

        Those that are being given back do not count: a holder that is behind, which gets every free slot, would be
        asked for all of them before it has used one, again and again.
        """
        kept = sum(other.holder == slot.holder and not other.yielding for other in self.slots.values())
        return 0.0 if kept > 1 else max(0.0, slot.since_s + QUANTUM_S - now_s)

    @staticmethod
    def _aged_s(slot: Slot, now_s: float) -> float:
        """Seconds until it is a quantum old."""
        return max(0.0, slot.since_s + QUANTUM_S - now_s)

    @staticmethod
    def _ask(slot: Slot) -> Yield:
        slot.yielding = True
        return Yield(slot.holder or "", slot.worker, slot.lease)


def _lease(turn: _Turn, now_s: float) -> Grant:
    slot, holder, leaf, kept, lease = turn
    slot.holder, slot.lease, slot.since_s, slot.yielding, slot.leaf = holder, lease, now_s, False, leaf
    slot.kept = kept
    return Grant(holder, slot.worker, slot.incarnation, lease, leaf, kept)
