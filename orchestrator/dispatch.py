"""The scheduler's two choices, without a clock or a wire: which queued run may start, and whose turn a
worker slot is.

**Admission.** Per DAG, queued runs wait in lanes: one for scheduled and manual runs, one for each
backfill, in the order in which they are to start. Lanes of lower rank go
first, so a backfill never takes the place of a scheduled run. A run starts when its DAG is active and
both limits hold: `max_active_runs` of the DAG, and of the backfill it belongs to (I7), which must not
be paused. Where runs of the schedule must not overlap (`fires.py`), one of those is active at a time;
others of the DAG pass those that wait for it.

**Slots.** A RunActor says how many ready tasks it has that wait for a slot (`demand`, per rank); a
free slot is *leased* to the one with the lowest rank, then the fewest leases. It keeps the slot as
long as it has work, one task after the other without asking again: that is what makes a chain
fast. While someone waits who has none, the one with the most leases is asked to yield; with one lease
each, whoever has held a slot for QUANTUM_S is. So with work waiting, no slot is idle (I9),
and no RunActor waits longer than about a quantum and a batch. Tasks that need another pool or permits bid under
names of their own (`permits.py`), each in its pool.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

DEFAULT_POOL = "default"
#: seconds a RunActor may hold its only slot while another one has none
QUANTUM_S = 0.1


def rank_of(parent: str | None) -> int:
    """The lane rank of a run: windows of backfills go after everything else."""
    return 1 if parent else 0


# ── admission ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Queued:
    """A run that waits for admission."""

    run_id: str
    dag: str
    parent: str | None
    rank: int
    #: the backfill's own limit, or None
    parent_limit: int | None = None
    #: place in its lane; of equals the older run id comes first
    order: int = 0
    #: a version of the run since it was queued
    since: int = 1
    #: a fire of the DAG's schedule made it
    scheduled: bool = False


@dataclass(slots=True)
class _Lane:
    rank: int
    limit: int | None
    heap: list[tuple[int, str]] = field(default_factory=list)
    active: int = 0


@dataclass(slots=True)
class _Dag:
    limit: int = 16
    paused: bool = False
    active: int = 0
    lanes: dict[str, _Lane] = field(default_factory=dict)
    #: runs of its schedule must not overlap
    one_by_one: bool = False
    #: active runs of its schedule
    scheduled: set[str] = field(default_factory=set)
    #: runs of its schedule that wait for those
    behind: list[Queued] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a backfill may run its windows now, whatever they were queued with."""

    limit: int | None
    paused: bool


class Admission:
    """Queued and active runs of every DAG. `dag` keys are opaque (tenant and DAG id)."""

    def __init__(self) -> None:
        self._dags: dict[str, _Dag] = {}
        self._queued: dict[str, Queued] = {}
        #: run id -> (dag, lane) of runs that count against the limits
        self._active: dict[str, tuple[str, str]] = {}
        #: of backfills that go on
        self._shapes: dict[str, _Shape] = {}
        #: DAGs to look at again, in the order in which that became so
        self._dirty: dict[str, None] = {}

    @property
    def queued(self) -> int:
        """Runs that wait."""
        return len(self._queued)

    @property
    def active(self) -> int:
        """Runs that count against limits."""
        return len(self._active)

    def knows(self, dag: str) -> bool:
        """Has `configure` been called for this DAG?"""
        return dag in self._dags

    def configure(self, dag: str, limit: int, paused: bool, one_by_one: bool = False) -> None:
        """Set what the DAG's current version says."""
        entry = self._dags.setdefault(dag, _Dag())
        entry.limit, entry.paused, entry.one_by_one = limit, paused, one_by_one
        self._dirty[dag] = None

    def shape(self, dag: str, backfill: str, limit: int | None, paused: bool) -> None:
        """The backfill runs at most `limit` windows at a time, and starts none while it is paused."""
        self._shapes[backfill] = _Shape(limit, paused)
        self._dirty[dag] = None

    def unshape(self, backfill: str) -> None:
        """The backfill has ended; windows of it that go on by themselves are runs like any other."""
        self._shapes.pop(backfill, None)

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
        for name in sorted(entry.lanes, key=lambda n: (entry.lanes[n].rank, n)):
            lane = entry.lanes[name]
            shape = self._shapes.get(name)
            limit = lane.limit if shape is None else 0 if shape.paused else shape.limit
            while lane.heap and entry.active < entry.limit and (limit is None or lane.active < limit):
                waiting = self._queued.get(heapq.heappop(lane.heap)[1])
                if waiting is None:
                    continue
                if waiting.scheduled and entry.one_by_one and entry.scheduled:
                    entry.behind.append(waiting)
                    continue
                del self._queued[waiting.run_id]
                self._enter(waiting)
                yield waiting
            if not lane.heap and not lane.active:
                del entry.lanes[name]

    def _line_up(self, run: Queued) -> _Lane:
        lane = self._lane(run)
        heapq.heappush(lane.heap, (run.order, run.run_id))
        return lane

    def _lane(self, run: Queued) -> _Lane:
        entry = self._dags.setdefault(run.dag, _Dag())
        return entry.lanes.setdefault(run.parent or "", _Lane(run.rank, run.parent_limit))

    def _enter(self, run: Queued) -> None:
        lane = self._lane(run)
        self._active[run.run_id] = (run.dag, run.parent or "")
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
    """Leases of worker slots. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        #: RunActor -> rank -> ready tasks that wait for a slot
        self._demand: dict[str, dict[int, int]] = {}
        #: where they bid, if not in the default pool
        self._pools: dict[str, str] = {}
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

    def demand(self, holder: str, by_rank: dict[int, int], pool: str = DEFAULT_POOL) -> None:
        """`holder` has this many ready tasks without a slot of the pool; it bids for slots of one pool only."""
        if by_rank:
            self._demand[holder] = by_rank
            if pool != DEFAULT_POOL:
                self._pools[holder] = pool
        else:
            self._withdraw(holder)

    def _withdraw(self, holder: str) -> None:
        self._demand.pop(holder, None)
        self._pools.pop(holder, None)

    def release(self, holder: str, worker: str, lease: int) -> None:
        """The holder gives the slot back; an old or foreign lease changes nothing."""
        slot = self.slots.get(worker)
        if slot is not None and slot.holder == holder and slot.lease == lease:
            slot.holder, slot.yielding = None, False

    def forget(self, holder: str) -> None:
        """The holder lost its memory: its leases and its demand are void."""
        self._withdraw(holder)
        for slot in self.slots.values():
            if slot.holder == holder:
                slot.holder, slot.yielding = None, False

    def wants(self, holder: str) -> bool:
        """Does `holder` have ready tasks without a slot?"""
        return holder in self._demand

    def held(self, holder: str) -> int:
        """Leases that `holder` has."""
        return sum(slot.holder == holder for slot in self.slots.values())

    @property
    def waiting(self) -> int:
        """Ready tasks that wait for a slot."""
        return sum(sum(ranks.values()) for ranks in self._demand.values())

    def grants(self, now_s: float, takes: Callable[[str], bool] | None = None) -> list[Grant]:
        """Lease every free slot for which there is demand. Who cannot take what else it needs stops bidding."""
        out: list[Grant] = []
        dry: set[str] = set()
        for slot in self.slots.values():
            if slot.holder is None and not slot.draining and slot.pool not in dry:
                holder = self._neediest(slot.pool)
                while holder is not None and takes is not None and not takes(holder):
                    self._withdraw(holder)
                    holder = self._neediest(slot.pool)
                if holder is None:
                    dry.add(slot.pool)
                    continue
                self._lease += 1
                slot.holder, slot.lease, slot.since_s, slot.yielding = holder, self._lease, now_s, False
                self._served[holder] = self._lease
                self._take_one(holder)
                out.append(Grant(holder, slot.worker, slot.incarnation, slot.lease))
        return out

    def yields(self, now_s: float) -> list[Yield]:
        """Whom to ask for a slot back; each lease is asked once."""
        out = [self._ask(slot) for slot in self.slots.values() if slot.draining and slot.holder and not slot.yielding]
        for pool in self._wanted():
            for _ in range(self._missing(pool)):
                slot = self._victim(pool)
                if slot is None or self._keeps_s(slot, now_s) > 0:
                    break
                out.append(self._ask(slot))
        return out

    def next_review_s(self, now_s: float) -> float | None:
        """Seconds until `yields` may answer more although nothing happened; None when it cannot."""
        victims = [self._victim(pool) for pool in self._wanted() if self._missing(pool) > 0]
        return min((self._keeps_s(slot, now_s) for slot in victims if slot is not None), default=None)

    def ask_back(self, worker: str, lease: int) -> Yield | None:
        """Ask for that lease, whoever waits; None when it was asked for, or is over."""
        slot = self.slots.get(worker)
        if slot is None or slot.holder is None or slot.lease != lease or slot.yielding:
            return None
        return self._ask(slot)

    def _wanted(self) -> Iterable[str]:
        """Pools that somebody bids in."""
        if not self._pools:
            return (DEFAULT_POOL,)
        return dict.fromkeys(self._pools.get(holder, DEFAULT_POOL) for holder in self._demand)

    def _bidders(self, pool: str) -> Iterable[str]:
        if not self._pools:
            return self._demand if pool == DEFAULT_POOL else ()
        return [holder for holder in self._demand if self._pools.get(holder, DEFAULT_POOL) == pool]

    def _missing(self, pool: str) -> int:
        """Holders that wait without a slot, less the slots that are being given back."""
        coming = sum(slot.yielding and not slot.draining and slot.pool == pool for slot in self.slots.values())
        return sum(self.held(holder) == 0 for holder in self._bidders(pool)) - coming

    def _neediest(self, pool: str) -> str | None:
        served = self._served
        return min(
            self._bidders(pool),
            key=lambda h: (min(self._demand[h]), self.held(h), served.get(h, 0), h),
            default=None,
        )

    def _take_one(self, holder: str) -> None:
        ranks = self._demand[holder]
        rank = min(ranks)
        ranks[rank] -= 1
        if ranks[rank] <= 0:
            del ranks[rank]
        if not ranks:
            self._withdraw(holder)

    def _victim(self, pool: str) -> Slot | None:
        """The lease to be given back first: of whoever has most, the oldest."""
        leased = [
            slot
            for slot in self.slots.values()
            if slot.holder and slot.pool == pool and not slot.yielding and not slot.draining
        ]
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
