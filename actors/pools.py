"""Which workers ought to exist: the supervisor's book of pools.

    records (journal) ─▶ definitions ─┐
    Load of a pool (scheduler) ─▶ autoscale ─▶ wanted ─▶ fill: names to start; shed: names to drain
    workers that live (Ray) ──────────┘                         ─▶ request: what the cluster should have room for

A definition is durable before it counts. Workers are the supervisor's to start and to end; here they are names.
Whoever is draining gets no more work, counts for nothing, and ends once it has none: because its pool has too many,
because its shape is that of a former generation, or because its node is about to go (`leave`); in the last two cases
others take its place at once. Of surplus workers those end first that are not ready yet, then idle ones, then the
newest.

A pool that nobody has defined has no workers, but for `default`: as many as the settings say.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from actors.names import pool_of, worker_name
from orchestrator import codec
from orchestrator.autoscale import Course, Load, steer
from orchestrator.cluster_views import PoolView
from orchestrator.control import PoolLoad
from orchestrator.errors import JournalUnavailable, NotFound
from orchestrator.needs import DEFAULT_POOL
from orchestrator.pools import NUMBERS, POOLS, POOLS_MAX, PoolSpec, fixed, succeeding, too_many

_log = logging.getLogger(__name__)

#: bundles, and the label selector of each, as Ray's autoscaler takes them
Request = tuple[tuple[dict[str, float], ...], tuple[dict[str, str], ...]]
#: what a worker without a shape takes there (`placement.py`)
UNSHAPED = {"CPU": 1.0}
#: order in which surplus workers end; the scheduler does not know those that are not ready
_ENDS_FIRST = {None: 0, "idle": 1}


class PoolRecords(Protocol):
    """What the journal is asked here: a part of `ports.Journal`."""

    async def put_records(self, kind: str, records: Mapping[str, bytes | None]) -> None:
        """Durable; None removes."""
        ...

    async def record(self, kind: str, key: str) -> bytes | None: ...
    async def records(self, kind: str) -> dict[str, bytes]: ...
    async def count(self, counts: Sequence[tuple[str, int]]) -> None:
        """Add to metrics; may be lost."""
        ...


class Pools:
    """For one supervisor. `open` it first; until then there are the workers that live."""

    def __init__(self, records: PoolRecords, standing: int) -> None:
        self._records = records
        #: workers of `default` unless somebody says otherwise
        self._standing = standing
        #: worker -> pool
        self.workers: dict[str, str] = {}
        #: those of them that are to end
        self.draining: set[str] = set()
        self.opened = False
        self._specs: dict[str, PoolSpec] = {}
        self._courses: dict[str, Course] = {}
        #: as the scheduler told last, if it did
        self._loads: dict[str, PoolLoad] = {}
        self._told = False

    # ── what is defined ──

    def find(self, present: Iterable[str]) -> None:
        """Workers that live, of those that are not known yet."""
        self.workers |= {name: pool_of(name) for name in present if name.startswith("worker-")}

    async def open(self) -> None:
        """Read what is defined; repeatable. Raises JournalUnavailable."""
        if self.opened:
            return
        records = await self._records.records(POOLS)
        self._specs = {name: codec.decode_pool(record) for name, record in records.items()}
        self.opened, self._courses = True, {}
        alive = Counter(pool for name, pool in self.workers.items() if self._has_shape(name))
        if DEFAULT_POOL not in self._specs:
            self._courses[DEFAULT_POOL] = Course(self._standing)
        for name, spec in self._specs.items():
            self._courses[name] = Course(max(spec.min, min(spec.max, alive[name])))

    async def define(self, name: str, spec: PoolSpec) -> None:
        """The pool is so from now on, durably. Raises Conflict, JournalUnavailable."""
        await self.open()
        if name not in self._specs and len(self._specs) >= POOLS_MAX:
            raise too_many(POOLS_MAX)
        used = [_generation(worker) for worker, pool in self.workers.items() if pool == name]
        former = self._specs.get(name, PoolSpec() if name == DEFAULT_POOL else None)
        made = succeeding(spec, former, max(used, default=-1) + 1)
        await self._put(name, codec.encode_pool(made))
        self._take(name, made)

    async def fix(self, name: str, n: int) -> None:
        """The pool has exactly `n` workers from now on, durably; made if need be. Raises JournalUnavailable."""
        await self.open()
        await self.define(name, fixed(self._specs.get(name, PoolSpec()), n))

    async def forget(self, name: str) -> None:
        """The pool is not defined any more: its workers end once they have no work. Raises NotFound."""
        await self.open()
        if name not in self._specs:
            raise NotFound("pool", name)
        await self._put(name, None)
        del self._specs[name]
        self._courses[name] = Course(self._standing if name == DEFAULT_POOL else 0)

    async def learn(self, name: str) -> None:
        """Tasks wait for that pool: whoever deployed them may have defined it just now. Raises JournalUnavailable."""
        if name not in self._specs and (record := await self._records.record(POOLS, name)) is not None:
            self._take(name, codec.decode_pool(record))

    async def _put(self, name: str, record: bytes | None) -> None:
        try:
            await self._records.put_records(POOLS, {name: record})
        except JournalUnavailable:
            self.opened = False  # it may be so, or not: to be read again
            raise

    def _take(self, name: str, spec: PoolSpec) -> None:
        self._specs[name] = spec
        wanted = self._courses.get(name, Course(0)).wanted
        self._courses[name] = Course(max(spec.min, min(spec.max, wanted)))

    def spec(self, name: str) -> PoolSpec:
        """What is defined of it; of nothing special unless somebody did."""
        return self._specs.get(name, PoolSpec())

    # ── how many ──

    @property
    def elastic(self) -> tuple[str, ...]:
        """Pools whose number of workers follows what waits."""
        return tuple(sorted(name for name, spec in self._specs.items() if spec.elastic))

    @property
    def restless(self) -> bool:
        """Is there an elastic pool that may have more or fewer workers although nobody says a word?"""
        if not self._told:
            return bool(self.elastic)
        return any(self._courses[name].wanted > self._specs[name].min or self._waits(name) for name in self.elastic)

    def _waits(self, name: str) -> bool:
        return name in self._loads and self._loads[name].waiting > 0

    async def steer(self, loads: Iterable[PoolLoad], now_s: float) -> None:
        """What the scheduler says of pools; elastic ones follow. Raises JournalUnavailable."""
        self.hear(loads)
        await self._follow(self.elastic, now_s)

    def hear(self, loads: Iterable[PoolLoad]) -> None:
        """All that the scheduler has to say of pools; those it does not name have neither work nor slots."""
        self._loads = {load.pool: load for load in loads}
        self._told = True

    async def take_demand(self, loads: Iterable[PoolLoad], now_s: float) -> None:
        """Tasks have begun to wait in these pools, and nobody has a free slot. Raises JournalUnavailable."""
        loads = list(loads)
        for load in loads:
            await self.learn(load.pool)
            self._loads[load.pool] = load
        await self._follow([load.pool for load in loads if load.pool in self.elastic], now_s)

    async def _follow(self, names: Iterable[str], now_s: float) -> None:
        counts = []
        for name in names:
            load, before = self._loads.get(name, PoolLoad(name)), self._courses[name]
            after = steer(self._specs[name], Load(load.waiting, load.waiting_s, load.busy), before, now_s)
            self._courses[name] = after
            if after.wanted != before.wanted:
                _log.info("pool %s: %d workers instead of %d (%s)", name, after.wanted, before.wanted, load)
                counts.append((f"pool_scale_events_total|{name}|{_direction(before, after)}", 1))
        if counts:
            await self._records.count(counts)

    def lower(self, worker: str) -> None:
        """Somebody drains that worker: its pool has one fewer for now, unless it is elastic and needs it."""
        name = self.workers[worker]
        if not self.spec(name).elastic and self._has_shape(worker) and worker not in self.draining:
            course = self._courses.get(name, Course(0))
            self._courses[name] = replace(course, wanted=max(0, course.wanted - 1))
        self.draining.add(worker)

    def leave(self, workers: Iterable[str]) -> list[str]:
        """Their node is about to go: others take their place. Those that were not known to end."""
        new = sorted(name for name in workers if name in self.workers and name not in self.draining)
        self.draining |= set(new)
        return new

    @property
    def crowded(self) -> bool:
        """Has some pool more workers than it should?"""
        return self.opened and any(len(self._staying(pool)) > self._wanted(pool) for pool in set(self.workers.values()))

    def fill(self) -> None:
        """Name the workers to start; those of a former shape are to end, and others take their place."""
        if not self.opened:
            return
        self.draining |= {name for name in self.workers if not self._has_shape(name)}
        for pool, course in self._courses.items():
            self._name_more(pool, course.wanted - len(self._staying(pool)))

    def shed(self, states: Mapping[str, str]) -> None:
        """Have surplus workers end; `states` are the scheduler's words for ready ones."""
        if not self.opened:
            return
        for pool in set(self.workers.values()):
            mine = self._staying(pool)
            self.draining |= set(_by_use(mine, states)[: max(0, len(mine) - self._wanted(pool))])

    def adopt(self, states: Mapping[str, str]) -> None:
        """A former supervisor told the scheduler of workers that are to end: they are."""
        self.draining |= {name for name in self.workers if states.get(name, "").startswith("draining")}

    def _staying(self, pool: str) -> list[str]:
        return [name for name, where in self.workers.items() if where == pool and name not in self.draining]

    def _wanted(self, pool: str) -> int:
        return self._courses.get(pool, Course(0)).wanted

    def _name_more(self, pool: str, count: int) -> None:
        number = self.spec(pool).generation * NUMBERS
        while count > 0:
            name = worker_name(pool, number)
            if name not in self.workers:
                self.workers[name] = pool
                count -= 1
            number += 1

    def ended(self, name: str) -> None:
        """That worker is gone for good."""
        self.workers.pop(name, None)
        self.draining.discard(name)

    def _has_shape(self, worker: str) -> bool:
        return _generation(worker) == self.spec(self.workers[worker]).generation

    # ── what others see ──

    def request(self) -> Request:
        """What a cluster that we joined should have room for: one bundle per worker."""
        bundles, labels = [], []
        for pool, course in sorted(self._courses.items()):
            spec = self.spec(pool)
            bundles += [spec.bundle or UNSHAPED] * course.wanted
            labels += [dict(spec.labels)] * course.wanted
        return tuple(bundles), tuple(labels)

    def view(self, name: str, states: Mapping[str, str]) -> PoolView:
        """The pool; `states` are the scheduler's words for workers that are ready."""
        mine = self._staying(name)
        load = self._loads.get(name, PoolLoad(name))
        return PoolView(
            name,
            self._specs.get(name) or fixed(PoolSpec(), self._wanted(name)),
            name in self._specs,
            self._wanted(name),
            len(mine),
            sum(worker not in states for worker in mine),
            sum(states.get(worker) == "busy" for worker in mine),
            sum(pool == name and worker in self.draining for worker, pool in self.workers.items()),
            load.waiting,
            load.waiting_s,
        )

    def names(self) -> list[str]:
        """Pools that are defined, or have workers, by name."""
        return sorted({DEFAULT_POOL, *self._specs, *self.workers.values()})


def shaped(placed: Mapping[str, Any], spec: PoolSpec) -> dict[str, Any]:
    """Ray's options for a worker of the pool, given those for one without a shape (`placement.py`).

    A shape says how many CPUs a worker takes, and labels are a must: its node has them, or it waits.
    """
    options = dict(placed)
    if spec.bundle:
        options["num_cpus"] = spec.num_cpus
    if spec.num_gpus:
        options["num_gpus"] = spec.num_gpus
    if spec.memory_bytes:
        options["memory"] = spec.memory_bytes
    if spec.resources:
        options["resources"] = dict(spec.resources)
    if spec.labels:
        options["label_selector"] = dict(spec.labels)
        options.pop("fallback_strategy", None)
    return options


def _by_use(workers: Collection[str], states: Mapping[str, str]) -> list[str]:
    """Those that are missed least first."""
    return sorted(workers, key=lambda name: (_ENDS_FIRST.get(states.get(name), 2), -_number(name)))


def _generation(worker: str) -> int:
    return _number(worker) // NUMBERS


def _number(worker: str) -> int:
    return int(worker.rsplit("-", 1)[1])


def _direction(before: Course, after: Course) -> str:
    return "up" if after.wanted > before.wanted else "down"
