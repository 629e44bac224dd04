"""Random histories of the ledger of permits and the slots, in virtual time, against what really runs.

Limits and pools of chance; tasks come, end, and start others on the same lease; workers come and go, RunActors are
lost with what they run still running, the scheduler is replaced and takes stock. After every step: no limit was
exceeded by a grant or a start (I7), and no task waits while its slot, permits and starts are free (I9).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random

import pytest

from orchestrator.control import Bound
from orchestrator.dispatch import Slots
from orchestrator.leases import Lease, label_of
from orchestrator.limits import Limit, Rate
from orchestrator.messages import Need
from orchestrator.permits import PATIENCE_S, Permits

HISTORIES = 300
MANY = int(os.environ.get("PERMITS_MANY", "10000"))
#: what additions of floats may be off by
ROUNDING_S = 1e-9
STEPS = 60
KEYS = ("l/t/a", "l/t/b", "l/t/c", "d/t/d")
POOLS = ("default", "gpu")
HOLDERS = ("run-actor-0", "run-actor-1", "run-actor-2")


@dataclass
class Runs:
    """What runs at a worker, on which lease; `holder` may be dead."""

    holder: str
    need: Need
    number: int
    starts: int | None
    #: nobody answers for it
    orphan: bool = False
    yielding: bool = False


@dataclass
class World:
    """The scheduler's memory, and what is true."""

    rng: Random
    now_s: float = 100.0
    slots: Slots = field(default_factory=Slots)
    permits: Permits = field(default_factory=Permits)
    limits: dict[str, Limit] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)
    running: dict[str, Runs] = field(default_factory=dict)
    #: (holder, need) -> tasks that wait
    waiting: dict[tuple[str, Need], int] = field(default_factory=dict)
    #: key -> instants at which tasks started
    started: dict[str, list[float]] = field(default_factory=dict)
    epoch: int = 0
    grants: int = 0

    def __post_init__(self) -> None:
        rng = self.rng
        for key in KEYS:
            self.limits[key] = self.a_limit()
        self.needs = [
            Need(rng.choice(POOLS), tuple(sorted((key, rng.choice((1, 1, 2))) for key in rng.sample(KEYS, n))))
            for n in (0, 1, 1, 2, 3)
        ]
        for n in range(rng.randint(1, 6)):
            self.workers[f"worker-{n}"] = rng.choice(POOLS)
        self.restart()

    def a_limit(self) -> Limit:
        rng = self.rng
        rate = Rate(rng.randint(1, 3), rng.choice((0.5, 3.0))) if rng.random() < 0.3 else None
        return Limit(rng.choice((None, 0, 1, 1, 2, 3)), rate)

    # ── what happens ──

    def restart(self) -> None:
        """Another scheduler: it hears everybody, then it grants."""
        self.epoch += 1
        self.slots, self.permits = Slots(), Permits()
        self.slots.number_from(self.epoch << 32)
        self.permits.begin(self.now_s)
        for key, limit in self.limits.items():
            self.permits.define(key, limit, self.now_s)
        for worker, pool in self.workers.items():
            self.slots.add(worker, pool, "i")
        for worker, runs in self.running.items():
            bound = Bound(worker, "i", runs.number, runs.need, runs.starts)
            lease = Lease.of(runs.holder, bound, self.now_s)
            if runs.orphan:
                self.permits.spot(lease, self.now_s)
            else:
                self.permits.adopt(lease, self.now_s)
                runs.yielding = False
            self.slots.adopt(lease.label, worker, runs.number, self.now_s)
        for (holder, need), n in self.waiting.items():
            self.permits.demand(holder, need, {0: n}, self.now_s)
        self.permits.opened = True

    def lease(self, worker: str) -> Lease:
        """Of what runs there, as the ledger has it."""
        runs = self.running[worker]
        found = self.permits.find(runs.holder, worker, runs.number)
        assert found is not None, "forgotten while it runs"
        return found

    def come(self) -> None:
        """Tasks are ready."""
        key = self.rng.choice(HOLDERS), self.rng.choice(self.needs)
        self.waiting[key] = self.waiting.get(key, 0) + self.rng.randint(1, 3)
        self.permits.demand(*key, {0: self.waiting[key]}, self.now_s)

    def go(self) -> None:
        """Tasks are cancelled."""
        if self.waiting:
            key = self.rng.choice(list(self.waiting))
            del self.waiting[key]
            self.slots.demand(self.permits.demand(*key, {}, self.now_s), {})

    def end(self) -> None:
        """A task ends; the next one with the need follows on the lease, unless it is to be given back."""
        if not self.running:
            return
        worker = self.rng.choice(list(self.running))
        runs = self.running[worker]
        key = runs.holder, runs.need
        if not runs.orphan and not runs.yielding and runs.starts is None and self.waiting.get(key):
            self.take(key)
            self.permits.demand(*key, {0: n} if (n := self.waiting.get(key, 0)) else {}, self.now_s)
            self.start(worker, runs)
            return
        label = label_of(*key)
        if runs.orphan:
            ghost = next(g for g in self.permits.ghosts if g.worker == worker)
            self.permits.lay(ghost, self.now_s)
        else:
            self.permits.release(self.lease(worker), self.now_s)
        del self.running[worker]
        self.slots.release(label, worker, runs.number)

    def lose(self) -> None:
        """A RunActor is gone; what it had running goes on for a while."""
        holder = self.rng.choice(HOLDERS)
        for key in [key for key in self.waiting if key[0] == holder]:
            del self.waiting[key]
            self.slots.demand(self.permits.demand(*key, {}, self.now_s), {})
        for worker, runs in self.running.items():
            if runs.holder == holder and not runs.orphan:
                runs.orphan = True
                self.permits.haunt(self.lease(worker))

    def define(self) -> None:
        """Somebody changes a limit."""
        key = self.rng.choice(KEYS)
        self.limits[key] = self.a_limit()
        self.started.pop(key, None)  # a new rate counts from here
        self.permits.define(key, self.limits[key], self.now_s)

    def leave(self) -> None:
        """A worker is gone, with what it did."""
        worker = self.rng.choice(list(self.workers))
        self.slots.remove(worker)
        runs = self.running.pop(worker, None)
        if runs is not None and runs.orphan:
            self.permits.lay(next(g for g in self.permits.ghosts if g.worker == worker), self.now_s)
        elif runs is not None:
            self.permits.release(
                next(each for each in self.permits.leases.values() if each.worker == worker), self.now_s
            )
        self.workers[worker] = self.rng.choice(POOLS)
        self.slots.add(worker, self.workers[worker], "i")

    def wait(self) -> None:
        """Time passes."""
        self.now_s += self.rng.choice((0.0, 0.01, 0.2, 0.6, 4.0))

    # ── decisions, as the scheduler makes them ──

    def decide(self) -> None:
        self.grant()
        while claims := self.permits.offers(self.now_s, set(self.workers.values())):
            for claim in claims:
                self.slots.demand(claim.label, dict(claim.ranks), claim.need.pool)
            self.grant()
        asked = [(ask.worker, ask.lease) for ask in self.slots.yields(self.now_s)]
        asked += [(lease.worker, lease.number) for lease in self.permits.yields(self.now_s)]
        for worker, number in asked:
            if worker in self.running and self.running[worker].number == number:
                self.running[worker].yielding = True

    def grant(self) -> None:
        grants = self.slots.grants(self.now_s, lambda label: self.permits.take(label, self.now_s))
        leases = [self.permits.bind(g.holder, g.worker, g.incarnation, g.lease, self.now_s) for g in grants]
        for lease in leases:
            self.granted(lease)

    def granted(self, lease: Lease) -> None:
        self.grants += 1
        assert lease.worker not in self.running, "one lease of a slot at a time"
        assert self.workers[lease.worker] == lease.need.pool
        key = lease.holder, lease.need
        runs = Runs(*key, lease.number, 0 if lease.metered else None)
        assert not lease.metered or lease.tokens >= 1
        self.running[lease.worker] = runs
        for uses, slots in lease.need.keys:
            most = self.limits[uses].max_running
            assert most is None or self.used(uses) <= most, f"I7 {uses}: {self.used(uses)} of {most}, took {slots}"
        self.take(key)
        self.start(lease.worker, runs)
        if lease.metered:
            self.permits.begun(lease, 1, self.now_s)
        n = self.waiting.get(key, 0)
        self.permits.demand(*key, {0: n} if n else {}, self.now_s)

    def take(self, key: tuple[str, Need]) -> None:
        self.waiting[key] -= 1
        if not self.waiting[key]:
            del self.waiting[key]

    def start(self, worker: str, runs: Runs) -> None:
        for key, _ in runs.need.keys:
            rate, starts = self.limits[key].rate, self.started.setdefault(key, [])
            starts.append(self.now_s)
            if rate is not None:
                recent = [at for at in starts if at > self.now_s - rate.per_s + ROUNDING_S]
                assert len(recent) <= rate.count, f"I7 {key}: {len(recent)} starts in {rate.per_s} s, at {worker}"

    # ── what must be so ──

    def used(self, key: str) -> int:
        return sum(dict(runs.need.keys).get(key, 0) for runs in self.running.values())

    def check(self) -> None:
        """I9, and that the ledger is what is true."""
        for key in KEYS:
            use = self.permits.uses.get(key)
            assert (use.running if use else 0) == self.used(key), key
        free = {self.workers[w] for w in self.workers if w not in self.running}
        for (_, need), n in self.waiting.items():
            if need.pool in free and all(self.is_free(key, slots) for key, slots in need.keys):
                raise AssertionError(f"I9 {n} tasks wait for {need} at {self.now_s}")

    def is_free(self, key: str, slots: int) -> bool:
        limit, use = self.limits[key], self.permits.uses.get(key)
        if use is not None and use.reserved is not None:
            return False  # it is set aside for somebody who has waited long
        if limit.max_running is not None and self.used(key) + slots > limit.max_running:
            return False
        return use is None or use.meter is None or use.meter.free(self.now_s) > 0


def play(seed: int) -> World:
    """One history."""
    rng = Random(seed)
    world = World(rng)
    does = [world.come] * 5 + [world.end] * 5 + [world.wait] * 3
    does += [world.go, world.lose, world.define, world.leave, world.restart]
    for _ in range(STEPS):
        rng.choice(does)()
        world.decide()
        world.check()
    return world


def drain(world: World) -> None:
    """Nothing new comes: all that can run has run within bounded time."""
    for key in KEYS:
        world.limits[key] = Limit(2, world.limits[key].rate)
        world.permits.define(key, world.limits[key], world.now_s)
    world.workers["worker-d"], world.workers["worker-g"] = POOLS
    for worker in ("worker-d", "worker-g"):
        world.slots.add(worker, world.workers[worker], "i")
    for _ in range(3000):
        if not world.waiting and not world.running:
            return
        world.decide()
        world.check()
        world.end()
        world.now_s += 0.1
    raise AssertionError(f"still waiting: {world.waiting}")


@pytest.mark.parametrize("first", range(0, HISTORIES, 50))
def test_no_history_exceeds_a_limit_or_lets_work_wait_in_vain(first: int) -> None:
    for seed in range(first, first + 50):
        world = play(seed)
        drain(world)


def test_histories_grant_a_great_deal() -> None:
    assert sum(play(seed).grants for seed in range(50)) > 400, "else nothing is tested"


def test_a_task_that_needs_much_is_not_overtaken_for_ever() -> None:
    world = World(Random(1))
    world.limits = {key: Limit(2) for key in KEYS}
    world.workers = {f"worker-{n}": "default" for n in range(4)}
    world.restart()
    one, both = Need("default", ((KEYS[0], 1),)), Need("default", ((KEYS[0], 2), (KEYS[1], 1)))
    world.waiting = {("run-actor-0", one): 100_000, ("run-actor-1", both): 1, ("run-actor-2", one): 100_000}
    world.restart()
    began_s = world.now_s
    while ("run-actor-1", both) in world.waiting:
        world.decide()
        world.check()
        world.end()
        world.now_s += 0.05
        assert world.now_s < began_s + PATIENCE_S + 5.0
    assert world.grants > 50


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY, 500))
def test_many_histories(first: int) -> None:
    for seed in range(first, first + 500):
        drain(play(seed))
