"""The scheduler's two choices, without a clock or a wire: which queued run may start, and whose turn a
worker slot is.

**Admission.** Per DAG, queued runs wait in lanes: one for scheduled runs, one for manual runs, one for each
backfill, in the order in which they are to start. Lanes share the places of their DAG, by starts: classes by
weight, backfills alike (`shares.py`), so that neither a backfill nor a flood of triggers keeps the others out. A run
starts when its DAG is active and both limits hold: `max_active_runs` of the DAG, and of the backfill it belongs to
(I7). DAGs do not compete here: no limit is common to them. Where runs of the schedule
must not overlap (`fires.py`), one of those is active at a time; others of the DAG pass those that wait for it.

**Slots.** A RunActor says how many ready tasks it has that wait for a slot (`demand`, per leaf of the tree of shares:
tenant, class, DAG); a free slot is *leased* for the leaf whose turn it is, to whoever has the fewest leases of those
that have such tasks. It keeps the slot as
long as it has work, one task after the other without asking again: that is what makes a chain
fast; whose tasks it does is its own choice, by the same tree (`actors/readiness.py`). While someone waits who has
none, the one with the most leases is asked to yield; with one lease
each, whoever has held a slot for QUANTUM_S is. So with work waiting, no slot is idle (I9),
and no RunActor waits longer than about a quantum and a batch.

While leaves compete, RunActors tell what each was served, and learn what the tree comes to of it. Where all that one
RunActor does is ahead of what another one waits to do, by more than SLACK_S per slot, it is asked for one; and where
one has more than twice as many slots as another that waits with the same, for some of them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.shares import Path, Shares

#: seconds a RunActor may hold its only slot while another one has none
QUANTUM_S = 0.1
#: weighted seconds per slot by which a leaf may be behind another one before slots move because of it: less than that
#: is not known, for what was served is told ten times a second
SLACK_S = 0.1
#: seconds for which leaves count as competing after they last did
CONTENDED_S = 1.0

#: kinds of runs that share what their tenant gets, in the order in which equals go
CLASSES = ("scheduled", "manual", "backfill")
#: of those, whose work is next when it arrives after idleness
WAKES = ("scheduled", "manual")


def class_of(run_type: str, parent: str | None) -> str:
    """The class of a run: whatever belongs to a backfill is of that class."""
    return "backfill" if parent else "scheduled" if run_type == "scheduled" else "manual"


# ── admission ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Queued:
    """A run that waits for admission."""

    run_id: str
    dag: str
    parent: str | None
    #: the backfill's own limit, or None
    parent_limit: int | None = None
    #: place in its lane; of equals the older run id comes first
    order: int = 0
    #: a version of the run since it was queued
    since: int = 1
    #: a fire of the DAG's schedule made it
    scheduled: bool = False
    #: when it was queued, seconds of a monotonic clock
    queued_s: float = 0.0

    @property
    def lane(self) -> Path:
        """Class and backfill."""
        return class_of("scheduled" if self.scheduled else "manual", self.parent), self.parent or ""


@dataclass(slots=True)
class _Lane:
    limit: int | None
    heap: list[tuple[int, str]] = field(default_factory=list)
    active: int = 0


@dataclass(slots=True)
class _Dag:
    limit: int = 16
    paused: bool = False
    active: int = 0
    lanes: dict[Path, _Lane] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    #: runs of its schedule must not overlap
    one_by_one: bool = False
    #: active runs of its schedule
    scheduled: set[str] = field(default_factory=set)
    #: runs of its schedule that wait for those
    behind: list[Queued] = field(default_factory=list)


class Admission:
    """Queued and active runs of every DAG. `dag` keys are `tenant/dag_id`; `weights` are of classes."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = {(0, name): weight for name, weight in (weights or {}).items()}
        self._dags: dict[str, _Dag] = {}
        self._queued: dict[str, Queued] = {}
        #: run id -> (dag, lane) of runs that count against the limits
        self._active: dict[str, tuple[str, Path]] = {}
        #: DAGs to look at again, in the order in which that became so
        self._dirty: dict[str, None] = {}

    @property
    def queued(self) -> int:
        """Runs that wait."""
        return len(self._queued)

    @property
    def oldest(self) -> float | None:
        """Since when the run waits that does so longest, as `queued_s` says; None when nobody waits."""
        return min((run.queued_s for run in self._queued.values()), default=None)

    @property
    def active(self) -> int:
        """Runs that count against limits."""
        return len(self._active)

    def knows(self, dag: str) -> bool:
        """Has `configure` been called for this DAG?"""
        return dag in self._dags

    def configure(self, dag: str, limit: int, paused: bool, one_by_one: bool = False) -> None:
        """Set what the DAG's current version says."""
        entry = self._dag(dag)
        entry.limit, entry.paused, entry.one_by_one = limit, paused, one_by_one
        self._dirty[dag] = None

    def enqueue(self, run: Queued) -> None:
        """Add a waiting run; a second time changes nothing."""
        if run.run_id in self._queued:
            return
        self._leave(run.run_id)
        self._queued[run.run_id] = run
        lane = self._line_up(run)
        if run.parent_limit is not None:  # else a run of the lane was restarted by itself
            lane.limit = run.parent_limit
        self._dirty[run.dag] = None

    def occupy(self, run: Queued) -> None:
        """The run is active already: it was found so in the journal, or was revived by hand."""
        self._queued.pop(run.run_id, None)
        if run.run_id not in self._active:
            self._enter(run)

    def finish(self, run_id: str) -> None:
        """The run ended, or was cancelled while it waited."""
        self._queued.pop(run_id, None)
        self._leave(run_id)

    def requeue(self, run_id: str, run: Queued) -> None:
        """An admission was refused or lost: the run waits again."""
        self._leave(run_id)
        self.enqueue(run)

    def waiting(self, run_id: str) -> tuple[Queued, int, int, int, bool] | None:
        """A run that waits: it, how many of its lane go first, places its DAG has taken and has, is the DAG paused."""
        run = self._queued.get(run_id)
        if run is None:
            return None
        entry = self._dag(run.dag)
        lane = entry.lanes.get(run.lane)
        mine = (run.order, run.run_id)
        ahead = sum(each < mine and each[1] in self._queued for each in lane.heap) if lane else 0
        return run, ahead, entry.active, entry.limit, entry.paused

    def leaf(self, run_id: str) -> Path | None:
        """Tenant, class and DAG of an active run; None for any other."""
        where = self._active.get(run_id)
        if where is None:
            return None
        tenant, _, dag_id = where[0].partition("/")
        return tenant, where[1][0], dag_id

    def admit(self) -> list[Queued]:
        """The runs that start now; they count as active from here on."""
        out: list[Queued] = []
        for dag in self._dirty:
            out.extend(self._admit_from(dag))
        self._dirty.clear()
        return out

    def _admit_from(self, dag: str) -> Iterable[Queued]:
        entry = self._dags.get(dag)
        if entry is None or entry.paused:
            return
        if entry.behind and not (entry.one_by_one and entry.scheduled):
            behind, entry.behind = entry.behind, []
            for run in behind:
                self._line_up(run)
        for name in list(entry.lanes):
            self._look(entry, name)
        while entry.active < entry.limit and (turn := entry.shares.next()) is not None:
            lane = entry.lanes[turn]
            waiting = self._queued.get(heapq.heappop(lane.heap)[1])
            if waiting is not None and waiting.scheduled and entry.one_by_one and entry.scheduled:
                entry.behind.append(waiting)
            elif waiting is not None:
                del self._queued[waiting.run_id]
                self._enter(waiting)
                entry.shares.charge(turn, 1.0)
                yield waiting
            self._look(entry, turn)

    @staticmethod
    def _look(entry: _Dag, name: Path) -> None:
        """Does the lane compete for a place? One that nobody uses is forgotten."""
        lane = entry.lanes[name]
        if lane.heap and (lane.limit is None or lane.active < lane.limit):
            entry.shares.arrive(name)
            return
        entry.shares.leave(name)
        if not lane.heap and not lane.active:
            del entry.lanes[name]

    def _line_up(self, run: Queued) -> _Lane:
        lane = self._lane(run)
        heapq.heappush(lane.heap, (run.order, run.run_id))
        return lane

    def _lane(self, run: Queued) -> _Lane:
        return self._dag(run.dag).lanes.setdefault(run.lane, _Lane(run.parent_limit))

    def _dag(self, dag: str) -> _Dag:
        entry = self._dags.get(dag)
        if entry is None:
            entry = self._dags[dag] = _Dag(shares=Shares(self._weights))
        return entry

    def _enter(self, run: Queued) -> None:
        lane = self._lane(run)
        self._active[run.run_id] = (run.dag, run.lane)
        self._dags[run.dag].active += 1
        lane.active += 1
        if run.scheduled:
            self._dags[run.dag].scheduled.add(run.run_id)

    def _leave(self, run_id: str) -> None:
        where = self._active.pop(run_id, None)
        if where is None:
            return
        dag, lane = where
        self._dags[dag].active -= 1
        self._dags[dag].scheduled.discard(run_id)
        if lane in self._dags[dag].lanes:
            self._dags[dag].lanes[lane].active -= 1
        self._dirty[dag] = None


# ── slots ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Slot:
    """One worker's slot. `holder` is the RunActor that has it, or None."""

    worker: str
    pool: str
    incarnation: str
    holder: str | None = None
    lease: int = 0
    since_s: float = 0.0
    yielding: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """`holder` may send batches to `worker` until it releases `lease`."""

    holder: str
    worker: str
    incarnation: str
    lease: int


@dataclass(frozen=True, slots=True)
class Yield:
    """`holder` is to release `worker` as soon as what it sent has ended."""

    holder: str
    worker: str
    lease: int


class Slots:
    """Leases of worker slots. Times are seconds of a monotonic clock; `shares` has leaves (tenant, class, DAG)."""

    def __init__(self, shares: Shares | None = None) -> None:
        self.slots: dict[str, Slot] = {}
        self.shares = shares or Shares()
        #: RunActor -> leaf -> ready tasks that wait for a slot
        self._demand: dict[str, dict[Path, int]] = {}
        #: leaf -> RunActors that have such tasks
        self._wanting: dict[Path, set[str]] = {}
        #: RunActor -> what its leases were charged until it tells what it did with them
        self._advanced: dict[str, list[tuple[Path, float]]] = {}
        #: RunActor -> leaves it has served lately, as it told
        self._serving: dict[str, tuple[Path, ...]] = {}
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
            slot.holder, slot.lease, slot.since_s = holder, lease, now_s
            self._lease = max(self._lease, lease)

    def demand(self, holder: str, by_leaf: Mapping[Path, int]) -> None:
        """`holder` has this many ready tasks without a slot."""
        former = self._demand.pop(holder, {})
        if by_leaf:
            self._demand[holder] = dict(by_leaf)
        for leaf in by_leaf.keys() - former.keys():
            self._wanting.setdefault(leaf, set()).add(holder)
            self.shares.arrive(leaf)
        for leaf in former.keys() - by_leaf.keys():
            self._satisfied(leaf, holder)

    def served(self, holder: str, by_leaf: Mapping[Path, float]) -> None:
        """`holder` has used that many seconds of slots since it told last; `contended` holders tell."""
        for leaf, seconds in self._advanced.pop(holder, ()):
            self.shares.charge(leaf, -seconds)
        for leaf, seconds in by_leaf.items():
            self.shares.charge(leaf, seconds)
        self._serving[holder] = tuple(by_leaf)

    def contended(self, now_s: float) -> bool:
        """Do leaves compete, or did they a moment ago?"""
        if self.shares.contended:
            self._contended_until_s = now_s + CONTENDED_S
        elif now_s >= self._contended_until_s:
            for holder in list(self._advanced):
                self.served(holder, {})
            self._serving.clear()
            return False
        return True

    def _satisfied(self, leaf: Path, holder: str) -> None:
        wanting = self._wanting[leaf]
        wanting.discard(holder)
        if not wanting:
            del self._wanting[leaf]
            self.shares.leave(leaf)

    def release(self, holder: str, worker: str, lease: int) -> None:
        """The holder gives the slot back; an old or foreign lease changes nothing."""
        slot = self.slots.get(worker)
        if slot is not None and slot.holder == holder and slot.lease == lease:
            slot.holder, slot.yielding = None, False

    def forget(self, holder: str) -> None:
        """The holder lost its memory: its leases and its demand are void."""
        self.demand(holder, {})
        self._serving.pop(holder, None)
        self._advanced.pop(holder, None)
        for slot in self.slots.values():
            if slot.holder == holder:
                slot.holder, slot.yielding = None, False

    def wants(self, holder: str) -> bool:
        """Does `holder` have ready tasks without a slot?"""
        return holder in self._demand

    def wanted(self, leaf: Path) -> bool:
        """Do ready tasks of that leaf wait for a slot?"""
        return leaf in self._wanting

    def held(self, holder: str) -> int:
        """Leases that `holder` has."""
        return sum(slot.holder == holder for slot in self.slots.values())

    @property
    def waiting(self) -> int:
        """Ready tasks that wait for a slot."""
        return sum(sum(leaves.values()) for leaves in self._demand.values())

    def grants(self, now_s: float) -> list[Grant]:
        """Lease every free slot for which there is demand."""
        out: list[Grant] = []
        for slot in self._free() if self._demand else ():
            leaf = self.shares.next()
            if leaf is None:
                break
            holder = min(self._wanting[leaf], key=lambda h: (self.held(h), self._served.get(h, 0), h))
            if self.shares.contended:
                self.shares.charge(leaf, QUANTUM_S)
                self._advanced.setdefault(holder, []).append((leaf, QUANTUM_S))
            self._take_one(holder, leaf)
            out.append(self._lease_to(holder, slot, now_s))
        return out

    def spare(self, holder: str, now_s: float) -> Grant | None:
        """Lease a slot that nobody wants to `holder`, which will soon want one; None when there is none."""
        slot = next(self._free(), None)
        return None if slot is None else self._lease_to(holder, slot, now_s)

    def _free(self) -> Iterator[Slot]:
        return (slot for slot in self.slots.values() if slot.holder is None and not slot.draining)

    def _lease_to(self, holder: str, slot: Slot, now_s: float) -> Grant:
        self._lease += 1
        slot.holder, slot.lease, slot.since_s, slot.yielding = holder, self._lease, now_s, False
        self._served[holder] = self._lease
        return Grant(holder, slot.worker, slot.incarnation, slot.lease)

    def yields(self, now_s: float) -> list[Yield]:
        """Whom to ask for a slot back; each lease is asked once."""
        out = [self._ask(slot) for slot in self.slots.values() if slot.draining and slot.holder and not slot.yielding]
        for _ in range(self._missing()):
            slot = self._victim()
            if slot is None or self._keeps_s(slot, now_s) > 0:
                break
            out.append(self._ask(slot))
        if not out and self._demand and self.shares.contended and not any(s.yielding for s in self.slots.values()):
            out = [self._ask(slot) for slot in self._unfair(now_s)]
        return out

    def _unfair(self, now_s: float) -> list[Slot]:
        """Slots to move, so that who has less to do that is behind does not keep who has more from doing it."""
        slack, held = SLACK_S * len(self.slots), Counter(slot.holder for slot in self.slots.values() if slot.holder)
        moves: list[tuple[float, int, str]] = []
        for holder, count in held.items():
            for other in self._demand.keys() - {holder}:
                lead = self._lead(holder, other)
                if lead > slack:
                    moves.append((lead, 1, holder))
                elif count > 2 * held[other] + 1 and lead >= -slack:
                    moves.append((lead, (count - held[other]) // 4 or 1, holder))
        if not moves:
            return []
        _, number, giver = max(moves)
        theirs = [s for s in self.slots.values() if s.holder == giver and not s.draining]
        return [s for s in sorted(theirs, key=lambda s: s.since_s)[:number] if now_s - s.since_s >= QUANTUM_S]

    def _lead(self, holder: str, other: str) -> float:
        """By how much all that `holder` does, and waits to do, is ahead of something that `other` waits to do."""
        mine = {*self._demand.get(holder, ()), *self._serving.get(holder, ())}
        return max(min((self.shares.lead(own, leaf) for own in mine), default=0.0) for leaf in self._demand[other])

    def next_review_s(self, now_s: float) -> float | None:
        """Seconds until `yields` may answer more although nothing happened; None when it cannot."""
        slot = self._victim() if self._missing() > 0 else None
        return None if slot is None else self._keeps_s(slot, now_s)

    def _missing(self) -> int:
        """Holders that wait without a slot, less the slots that are being given back."""
        coming = sum(slot.yielding and not slot.draining for slot in self.slots.values())
        return sum(self.held(holder) == 0 for holder in self._demand) - coming

    def _take_one(self, holder: str, leaf: Path) -> None:
        leaves = self._demand[holder]
        leaves[leaf] -= 1
        if leaves[leaf] <= 0:
            del leaves[leaf]
            self._satisfied(leaf, holder)
        if not leaves:
            del self._demand[holder]

    def _victim(self) -> Slot | None:
        """The lease to be given back first: of whoever has most, the oldest."""
        leased = [slot for slot in self.slots.values() if slot.holder and not slot.yielding and not slot.draining]
        return max(leased, key=lambda s: (self.held(s.holder or ""), -s.since_s), default=None)

    def _keeps_s(self, slot: Slot, now_s: float) -> float:
        """Seconds for which its holder may keep it: none of several, else what is left of the quantum.

        Those that are being given back do not count: a holder of low rank, which gets every free slot, would be asked
        for all of them before it has used one, again and again.
        """
        kept = sum(other.holder == slot.holder and not other.yielding for other in self.slots.values())
        return 0.0 if kept > 1 else max(0.0, slot.since_s + QUANTUM_S - now_s)

    @staticmethod
    def _ask(slot: Slot) -> Yield:
        slot.yielding = True
        return Yield(slot.holder or "", slot.worker, slot.lease)
