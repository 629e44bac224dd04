"""The detached root: which actors ought to exist, and making it so.

    every RECONCILE_S:  journal answers? ─ start the embedded server again
                        work outside the cluster? ─ from then on the gateway is one of them
                        nodes that are about to go ─ others take the place of their workers
                        elastic pools ─ more or fewer workers, by what the scheduler says of them
                        actors that ought to exist ─ start those that do not
                        workers that are to end ─ the scheduler is told; once they have no work they end
    on change:          Roster ─▶ scheduler, room for workers ─▶ Ray's autoscaler

All control actors and workers are detached and restarted by Ray itself, so user code survives a crash of
this actor; the loop only fills gaps. The gateway costs sixty megabytes: it is there from the first time that
somebody asks for it, or has left something in its inboxes, so whoever runs DAGs alone never has it. A phase
that fails is logged and tried again in the next round, and never stops the others. How many workers an elastic
pool has is read back from the actors that are alive.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.clock import Clock
from actors.kubernetes_config import configured
from actors.names import (
    GATEWAY,
    GATEWAY_PARTS,
    HANDLERS,
    KUBERNETES,
    RUNNER,
    SCHEDULER,
    is_own_actor,
    run_actor_name,
    run_ids_of,
)
from actors.peers import Peers, WorkerGone
from actors.pools import PoolRecords, Pools, Request
from actors.roster_order import first_number, numbered
from actors.settings import Settings
from orchestrator import actor_codec
from orchestrator.cluster_views import PoolView, WorkerView
from orchestrator.control import PoolLoad, Roster
from orchestrator.errors import Invalid, JournalUnavailable, NotFound, OrchestratorError, Unavailable
from orchestrator.needs import POOL
from orchestrator.pools import WORKERS_MAX, PoolSpec, check
from orchestrator.rows import TERMINAL, OwnerRow, RunRow
from orchestrator.streams import inbox

_log = logging.getLogger(__name__)

#: seconds between looks
RECONCILE_S = 2.0
#: seconds a phase may take: Ray answers no question about actors while its GCS is away
PHASE_S = 30.0
#: seconds between looks for actors of single runs that have ended
LEFTOVERS_S = 60.0
#: seconds until room is requested again: Ray's GCS forgets that when it is replaced (its second autoscaler)
REQUEST_AGAIN_S = 60.0
#: actors about which the last order is remembered
ORDERS_MAX = 10_000


class Stage(Protocol):
    """How actors come to be and go; `spawn.py` implements it over Ray. Blocking calls, made from threads."""

    def present(self) -> set[str]:
        """Names of the actors that live."""
        ...

    def start(self, name: str, pool: str | None, spec: PoolSpec | None = None) -> None:
        """Make the actor of that name exist, a worker with that shape; a second time changes nothing."""
        ...

    def end(self, name: str) -> None:
        """End the actor for good."""
        ...

    def revive_journal(self) -> None:
        """Start the embedded journal server if it does not run."""
        ...

    def leaving(self) -> set[str]:
        """Names of the actors on nodes that were told to drain."""
        ...

    def request(self, room: Request) -> None:
        """Have Ray's autoscaler keep room for these bundles, and for nothing that was requested before."""
        ...


class Facts(PoolRecords, Protocol):
    """What the journal is asked here: a part of `ports.Journal`."""

    async def ping(self) -> bool:
        """It answers, and writes."""
        ...

    async def owner(self, owner: str) -> OwnerRow:
        """Epoch 0 = nobody ever had the name."""
        ...

    async def summary(self, run_id: str) -> RunRow | None:
        """The run; None = it is not there."""
        ...

    async def position(self, stream: str) -> str:
        """Of the newest entry; "0-0" = there is none."""
        ...


class Supervisor:
    """Reconciles. `start` returns at once."""

    def __init__(self, stage: Stage, peers: Peers, journal: Facts, settings: Settings) -> None:
        self._stage = stage
        self._peers = peers
        self._journal = journal
        self._settings = settings
        #: is the gateway one of those that ought to exist?
        self._outside = settings.works_outside
        self._run_actors = tuple(run_actor_name(n) for n in range(settings.run_actors_max))
        self._pools = Pools(journal, settings.worker_count)
        #: pools in which tasks have begun to wait since the last round, as that was told last
        self._demand: dict[str, PoolLoad] = {}
        #: when all pools were looked at
        self._steered_s = -RECONCILE_S
        #: has the scheduler said which workers a former supervisor wanted to end?
        self._adopted = False
        #: workers that have answered; on a cluster others may wait for room
        self._met: set[str] = set()
        #: what Ray's autoscaler was told last; None = nothing yet
        self._requested: Request | None = None
        self._requested_s = 0.0
        #: RunActors beyond the standing ones
        self._extra: set[str] = set()
        #: of those, the ones whose run had ended by the last look -> versions of its rows, and when that was
        self._idle: dict[str, list[int]] = {}
        self._idle_seen_s = 0.0
        #: of those, the ones that are needed no more and that could not be ended yet
        self._unneeded: set[str] = set()
        #: as it was last, and as the scheduler was told
        self._made = Roster((), (), number=first_number(Clock().now().timestamp()))
        self._told: Roster | None = None
        #: of the newest scheduler that was heard of
        self._scheduler_epoch = 0
        #: actor -> number of the last order about it; messages overtake one another
        self._orders: dict[str, int] = {}
        self._first = True
        #: another control plane is in charge: nobody is started here
        self.stands_by = False
        self._look = asyncio.Event()
        self._lock = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to reconcile."""
        self._loop = asyncio.get_running_loop().create_task(self._reconcile_forever())

    # ── what others call ──────────────────────────────────────────────────────────────────────────

    async def tell_roster(self, blob: bytes) -> bytes:
        """Who ought to exist, for a new scheduler."""
        self.check_in_charge()
        self._is_current(*actor_codec.decode_supervision(blob))
        async with self._lock:
            await self._know_workers()
            return actor_codec.encode_control(self._roster())

    async def ensure(self, blob: bytes) -> None:
        """A RunActor beyond the standing ones exists: for one run, or for what a former setting left behind."""
        order, name = actor_codec.decode_supervision(blob)
        if self._is_current(order, name):
            self._extra.add(name)
            self._unneeded.discard(name)
            await self._phase(self._fill_gaps)

    async def open_gateway(self, _blob: bytes) -> None:
        """Somebody asks for the gateway: it exists from now on."""
        self.check_in_charge()
        self._outside = True
        await self._phase(self._fill_gaps)

    async def release(self, blob: bytes) -> None:
        """Such a RunActor is not needed any more."""
        order, name = actor_codec.decode_supervision(blob)
        # a scheduler that has not heard of the standing ones may mean one; a former one does not know who needs it now
        if self._is_current(order, name) and name not in self._run_actors:
            await self.dismiss(name)

    def _is_current(self, order: int, name: str) -> bool:
        """Does the newest scheduler that was heard of say so, and has it said nothing later about that actor?"""
        self._scheduler_epoch = max(self._scheduler_epoch, order >> 32)
        if order >> 32 < self._scheduler_epoch or order < self._orders.get(name, 0):
            return False
        self._orders.pop(name, None)
        self._orders[name] = order
        if len(self._orders) > ORDERS_MAX:
            del self._orders[next(iter(self._orders))]
        return True

    def check_in_charge(self) -> None:
        """Raises Unavailable while another control plane is in charge."""
        if self.stands_by:
            raise Unavailable("this control plane stands by: another one on the same journal is in charge")

    async def step_down(self, end_cast: Callable[[], None]) -> None:
        """This plane is in charge no more: its actors end, and nobody is started again meanwhile."""
        self.stands_by = True
        await asyncio.to_thread(end_cast)

    async def dismiss(self, name: str) -> None:
        """The actor beyond the standing ones ends for good."""
        self._extra.discard(name)
        self._unneeded.add(name)
        await asyncio.to_thread(self._stage.end, name)
        self._unneeded.discard(name)

    async def ping(self) -> int:
        """Number of workers that ought to exist."""
        return len(self._pools.workers)

    async def workers(self, _blob: bytes) -> bytes:
        """JSON array of WorkerView."""
        if self._first and not self.stands_by:
            async with self._lock:
                await self._know_workers()
        return actor_codec.encode_workers(await self._views() if self._pools.workers else [])

    async def scale(self, blob: bytes) -> bytes:
        """Let a pool have `n` workers, durably; surplus ones finish what they do first. The workers then."""
        self.check_in_charge()
        pool, n = actor_codec.decode_scale(blob)
        _check_name(pool)
        if not 0 <= n <= WORKERS_MAX:
            raise Invalid(f"a pool has 0 to {WORKERS_MAX} workers, not {n}", (("n", f"0 to {WORKERS_MAX}"),))
        async with self._lock:
            await self._know_workers()
            await self._pools.fix(pool, n)
        await self._follow_change()
        return actor_codec.encode_workers(await self._views())

    async def set_pool(self, blob: bytes) -> bytes:
        """Define a pool, or forget one: durable, and so from now on. The pool then (JSON array of PoolView)."""
        self.check_in_charge()
        name, spec = actor_codec.decode_pool_change(blob)
        _check_name(name)
        if spec is not None:
            check(spec)
        async with self._lock:
            await self._know_workers()
            await (self._pools.forget(name) if spec is None else self._pools.define(name, spec))
        await self._follow_change()
        return actor_codec.encode_pool_views([view for view in await self._pool_views() if view.name == name])

    async def pools(self, _blob: bytes) -> bytes:
        """JSON array of PoolView, by name."""
        self.check_in_charge()
        await self._know_pools()
        return actor_codec.encode_pool_views(await self._pool_views())

    async def demand(self, blob: bytes) -> None:
        """The scheduler tells that tasks have begun to wait in some pools."""
        self._demand |= {load.pool: load for load in actor_codec.decode_pool_loads(blob)}
        self._look.set()

    async def drain(self, blob: bytes) -> bytes:
        """Give the worker no more work, and end it once it has none."""
        self.check_in_charge()
        await self._know_pools()
        worker = blob.decode()
        if worker not in self._pools.workers:
            raise NotFound("worker", worker)
        self._pools.lower(worker)
        await self._phase(self._tell_scheduler)
        self._look.set()
        return actor_codec.encode_workers([view for view in await self._views() if view.worker_id == worker])

    async def _know_pools(self) -> None:
        """What lives and what is defined is known, also to a new supervisor. Raises JournalUnavailable."""
        if not self._pools.opened:
            async with self._lock:
                await self._know_workers()
                await self._pools.open()

    async def _follow_change(self) -> None:
        for phase in (self._fill_gaps, self._shed, self._tell_scheduler):
            await self._phase(phase)
        self._look.set()

    # ── reconciling ───────────────────────────────────────────────────────────────────────────────

    async def _reconcile_forever(self) -> None:
        while True:
            for phase in (
                self._keep_journal,
                self._find_outside_work,
                self._leave_nodes,
                self._follow_load,
                self._fill_gaps,
                self._shed,
                self._tell_scheduler,
                self._retire,
                self._end_leftovers,
                self._tell_scheduler,
                self._request_room,
            ):
                await self._phase(phase)
            try:
                await asyncio.wait_for(self._look.wait(), RECONCILE_S)
            except TimeoutError:
                _log.debug("nothing asked for a look")
            self._look.clear()

    async def _phase(self, phase: Callable[[], Awaitable[None]]) -> None:
        """One phase; whatever goes wrong in it is logged and met again in the next round."""
        if self.stands_by:
            return
        try:
            async with self._lock:
                await asyncio.wait_for(phase(), PHASE_S)
        except Exception:
            _log.exception("phase %s failed", getattr(phase, "__name__", phase))

    async def _keep_journal(self) -> None:
        try:
            alive = await self._journal.ping()
        except JournalUnavailable:
            alive = False
        if not alive and self._settings.embedded:
            _log.warning("the journal does not answer: starting it again")
            await asyncio.to_thread(self._stage.revive_journal)

    async def _find_outside_work(self) -> None:
        if self._outside:
            return
        try:
            for part in GATEWAY_PARTS:
                owner, newest = await self._journal.owner(part), await self._journal.position(inbox(part))
                self._outside = self._outside or owner.epoch > 0 or newest != "0-0"
        except JournalUnavailable as unavailable:
            _log.info("looked in vain for work outside the cluster: %s", unavailable)

    async def _leave_nodes(self) -> None:
        """Workers of nodes that are about to go finish what they do; others take their place."""
        if not self._settings.ray_address:
            return  # a cluster of our own is one node
        leaving = self._pools.leave(await asyncio.to_thread(self._stage.leaving))
        if leaving:
            _log.warning("nodes drain: others take the place of %s", ", ".join(leaving))

    async def _follow_load(self) -> None:
        if not self._pools.opened:
            return
        now_s = asyncio.get_running_loop().time()
        demand, self._demand = self._demand, {}
        due = not demand or now_s - self._steered_s >= RECONCILE_S
        try:
            await self._pools.take_demand(demand.values(), now_s)
            demand = {}
            if due and self._pools.restless:
                self._steered_s = now_s
                await self._pools.steer(await self._loads(), now_s)
        except Unavailable as unavailable:
            self._demand = demand | self._demand
            _log.warning("pools stay as they are for now: %s", unavailable)

    async def _fill_gaps(self) -> None:
        present = await asyncio.to_thread(self._stage.present)
        await self._know_workers(present)
        self._pools.fill()
        jobs = (KUBERNETES,) if configured(self._settings) else ()
        runners = [f"{RUNNER}{n}" for n in range(1, self._settings.pipelines_incluster_runners + 1)]
        handlers = (HANDLERS,) if self._settings.blueprints_dir else ()
        gateway = (GATEWAY,) if self._outside else ()
        control = (SCHEDULER, *gateway, *handlers, *self._run_actors, *self._extra, *jobs, *runners)
        wanted: dict[str, str | None] = dict.fromkeys(control)
        wanted |= self._pools.workers
        missing = [(name, pool) for name, pool in wanted.items() if name not in present]
        if missing:
            _log.info("starting %s", ", ".join(name for name, _ in missing))
            await asyncio.gather(*(self._start(name, pool) for name, pool in missing))

    async def _shed(self) -> None:
        """Surplus workers get no more work."""
        if not self._adopted and (states := await self._states_if_told()):
            self._pools.adopt(states)
            self._adopted = True
        if self._pools.crowded:
            self._pools.shed(await self._states_if_told())

    async def _start(self, name: str, pool: str | None) -> None:
        spec = None if pool is None else self._pools.spec(pool)
        await asyncio.to_thread(self._stage.start, name, pool, spec)

    async def _know_workers(self, present: set[str] | None = None) -> None:
        """At first: what lives goes on, and what is defined of pools is read; workers of the latter wait for it."""
        if self._first:
            if present is None:
                present = await asyncio.to_thread(self._stage.present)
            self._first = False
            self._extra |= {name for name in present if is_own_actor(name)}
            self._outside = self._outside or GATEWAY in present
            self._pools.find(present)
        try:
            await self._pools.open()
        except JournalUnavailable as unavailable:
            _log.warning("pools cannot be read: %s", unavailable)

    async def _retire(self) -> None:
        """End those that have no work, and will get none: so says a scheduler that was told, or never met them."""
        for name in sorted(self._unneeded):
            if name in self._unneeded:  # it may be needed again since the one before it was ended
                await self.dismiss(name)
        draining = self._pools.draining
        if not draining:
            return
        try:
            states = await self._slot_states()
            await self._loads()  # raises while a new scheduler does not know yet who works, and said so of nobody
        except Unavailable as unavailable:
            _log.warning("workers that drain stay for now: %s", unavailable)
            return
        for name in [name for name in draining if states.get(name, "draining") == "draining"]:
            await asyncio.to_thread(self._stage.end, name)
            self._pools.ended(name)
            self._met.discard(name)

    async def _end_leftovers(self) -> None:
        """End actors of single runs that ended two looks ago, in case the scheduler died before it told."""
        now_s = asyncio.get_running_loop().time()
        if not self._extra or now_s - self._idle_seen_s < LEFTOVERS_S:
            return
        self._idle_seen_s, former, self._idle = now_s, self._idle, {}
        for name in sorted(self._extra):
            versions = await self._versions_if_ended(name)
            if versions is None:
                continue
            self._idle[name] = versions
            if former.get(name) == versions:
                _log.warning("%s ends: its run has ended, and nobody told", name)
                await self.dismiss(name)
                if await self._versions_if_ended(name) is None:  # it goes on since
                    self._extra.add(name)

    async def _versions_if_ended(self, own_actor: str) -> list[int] | None:
        """Versions of the rows that may be its run's, if it has ended."""
        asked = run_ids_of(own_actor)
        rows = [row for run_id in asked if (row := await self._journal.summary(run_id)) is not None]
        return [row.version for row in rows] if asked and all(row.state in TERMINAL for row in rows) else None

    async def _request_room(self) -> None:
        if not self._settings.ray_address or not self._pools.opened:
            return  # nobody else adds nodes
        room, now_s = self._pools.request(), asyncio.get_running_loop().time()
        if room != self._requested or now_s - self._requested_s >= REQUEST_AGAIN_S:
            await asyncio.to_thread(self._stage.request, room)
            self._requested, self._requested_s = room, now_s

    async def _tell_scheduler(self) -> None:
        roster = self._roster()
        if roster == self._told:
            return
        try:
            await self._peers.tell(SCHEDULER, "roster", actor_codec.encode_control(roster))
            self._told = roster
        except Unavailable as unavailable:
            _log.warning("%s", unavailable)

    def _roster(self) -> Roster:
        workers = tuple(sorted(self._pools.workers.items()))
        wanted = Roster(self._run_actors, workers, tuple(sorted(self._pools.draining)), self._pools.elastic)
        self._made = numbered(wanted, self._made)
        return self._made

    async def _slot_states(self) -> dict[str, str]:
        """worker -> idle | busy | draining | draining_busy, as the scheduler sees it."""
        return actor_codec.decode_states(await self._peers.ask(SCHEDULER, "slot_states", b""))

    async def _states_if_told(self) -> dict[str, str]:
        """The same, if the scheduler answers."""
        try:
            return await self._slot_states()
        except OrchestratorError as unavailable:
            _log.warning("%s", unavailable)
            return {}

    async def _loads(self) -> list[PoolLoad]:
        return actor_codec.decode_pool_loads(await self._peers.ask(SCHEDULER, "pool_loads", b""))

    async def _pool_views(self) -> list[PoolView]:
        states = await self._states_if_told()
        try:
            self._pools.hear(await self._loads())
        except Unavailable as unavailable:
            _log.warning("nobody tells how pools are: %s", unavailable)
        return [self._pools.view(name, states) for name in self._pools.names()]

    async def _views(self) -> list[WorkerView]:
        states = await self._states_if_told()
        workers = sorted(self._pools.workers.items())
        return await asyncio.gather(*(self._view(name, pool, states) for name, pool in workers))

    async def _view(self, name: str, pool: str, states: dict[str, str]) -> WorkerView:
        draining = name in self._pools.draining
        away = "draining" if draining else "lost" if name in self._met else "starting"
        if states and name not in states:  # it is not ready: asking it would take until nobody waits any more
            return WorkerView(name, pool, away)
        try:
            node, pid, node_id = await self._peers.control(name, "where")
        except WorkerGone:
            return WorkerView(name, pool, away)
        self._met.add(name)
        return WorkerView(name, pool, "draining" if draining else states.get(name, "starting"), node, pid, node_id)


def _check_name(pool: str) -> None:
    if not re.fullmatch(POOL, pool):
        raise Invalid(f"{pool!r} is not the name of a pool", (("pool", f"must match {POOL}"),))
