"""The scheduler: which queued run starts, on which RunActor, and who gets which worker slot.

    sched stream (journal) ─▶ admission ─┐
    Standing of RunActors  ─▶ slots ─────┼─▶ Hosting, one message in flight per RunActor
    Roster of supervisor   ─▶ who exists ┘

Everything here is memory, rebuilt when it restarts: queued and active runs from the journal, leases by
asking the RunActors where they stand. `take_epoch` comes first, so that admissions of a former
incarnation are refused by the journal from then on. The choices themselves are in
`orchestrator/dispatch.py`; placement is *spread, then stack*: a run goes to the RunActor with the
fewest runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from actors.clock import Clock
from actors.gatherer import Gatherer
from actors.guard import Guard
from actors.living import Living
from actors.names import SCHEDULER, SUPERVISOR, is_own_actor, own_actor_name
from actors.peers import Peers, WorkerGone
from actors.pool_demand import PoolDemand
from actors.refusals import Refusals
from actors.replaced import ReplacedRuns
from actors.roster_order import RosterOrder
from actors.settings import Settings, class_weights, headroom
from actors.timekeeper import Timekeeper
from orchestrator import actor_codec, codec, errors
from orchestrator.cluster_views import RunWaiting
from orchestrator.control import Admission, Hosting, Roster, Standing
from orchestrator.dispatch import CLASSES, WAKES, Queued
from orchestrator.dispatch import Admission as Admissions
from orchestrator.limits import LIMITS
from orchestrator.ports import Journal
from orchestrator.records import TENANT_SHARES
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.shares import Path
from orchestrator.slots import Slot, Slots
from orchestrator.steps import Commit
from orchestrator.streams import SCHED, BackfillShaped, DagChanged, RunMoved, RunsCreated, SchedItem, Wake

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: seconds a new scheduler waits for a RunActor to say where it stands
HELLO_S = 3.0
#: seconds after which a wake has reached the actor it was for
ACTED_AFTER_S = 30.0
#: seconds until a supervisor that did not answer is asked again
ROSTER_AGAIN_S = 1.0
#: how often a lost worker is asked whether it is back: at first, then (it waits for room, or for a new node), and when
RETURN_CHECK_S = 0.05
RETURN_CHECK_LATER_S = 2.0
RETURN_LATER_AFTER_S = 10.0


@dataclass(slots=True)
class _Host:
    """A RunActor as the scheduler knows it."""

    name: str
    #: one of the RunActors that are always there; others are started for what they own
    standing: bool = False
    epoch: int = 0
    #: runs placed there that have not ended
    runs: set[str] = field(default_factory=set)
    admissions: list[Admission] = field(default_factory=list)
    grants: list[tuple[str, str, int]] = field(default_factory=list)
    yields: list[tuple[str, int]] = field(default_factory=list)
    sending: bool = False
    #: it is to be told how everybody stands, and the weights of tenants
    leads_due: bool = False
    weights_due: bool = True
    #: was told that leaves compete
    competing: bool = False
    #: has ever told where its tasks are at home
    placed: bool = False
    #: worker -> incarnation, of those that it is to look up before it has a lease of them
    arrived: dict[str, str] = field(default_factory=dict)

    @property
    def due(self) -> bool:
        """Is there anything to tell it?"""
        return bool(self.admissions or self.grants or self.yields or self.leads_due or self.arrived)


class SchedulerActor(Living):
    """Admission, placement and slot leases. `start` returns at once."""

    def __init__(self, journal: Journal, peers: Peers, clock: Clock, settings: Settings) -> None:
        super().__init__(SCHEDULER)
        self._journal = journal
        self._peers = peers
        self._clock = clock
        self._settings = settings
        weights = class_weights(settings)
        self._admissions = Admissions({name: weight for (_, name), weight in weights.items()})
        self._slots = Slots(weights, WAKES, headroom(settings))
        #: tenant -> weight, of those that have one
        self._weights: dict[str, float] = {}
        self._hosts: dict[str, _Host] = {}
        self._guard = Guard(
            peers, clock, self._slots, self._spawn, lambda: self._wake.set(), lambda: self._hosts, lambda: self._workers
        )
        self._pool_demand = PoolDemand(peers, self._slots, self._spawn)
        #: run -> RunActor
        self._placed: dict[str, str] = {}
        #: run -> the admission that holds for it; anything about an older one is late
        self._given: dict[str, Admission] = {}
        self._number = 0
        #: of the last order to the supervisor
        self._order_number = 0
        #: what is known of a run that waits, to queue it again
        self._waiting: dict[str, Queued] = {}
        #: run -> RunActor or "": runs to be hosted without being started
        self._to_host: dict[str, str] = {}
        #: DAGs whose runs get a RunActor of their own
        self._dedicated: set[str] = set()
        self._rosters = RosterOrder()
        self._workers: dict[str, str] = {}
        self._draining: set[str] = set()
        self._returning: set[str] = set()
        self._epoch = 0
        #: how far the sched stream was read
        self._cursor = ""
        #: place of the run that was queued last
        self._order = 0
        self._refusals = Refusals(self._ensure_current, self._spawn, self._queue_again)
        self._replaced = ReplacedRuns(journal, peers, self._some_run_actor)
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()

    def start(self) -> None:
        """Begin to live: rebuild, then serve."""
        self._spawn(self._live())

    # ── what others call ──────────────────────────────────────────────────────────────────────────

    async def standing(self, blob: bytes) -> None:
        """A RunActor tells where it stands."""
        await self._ready.wait()
        self._take_standing(actor_codec.decode_standing(blob))
        self._wake.set()

    async def claims(self, blob: bytes) -> None:
        """A RunActor tells what it wants and has of tasks that are not plain."""
        await self._ready.wait()
        claims = actor_codec.decode_claims(blob)
        if claims.scheduler > self._epoch:
            self._refusals.doubt()
        if claims.actor in self._hosts or not is_own_actor(claims.actor):
            self._guard.take_claims(claims)
            self._wake.set()

    async def set_limit(self, blob: bytes) -> None:
        """Define a limit, or forget one: durable, and so from now on."""
        await self._ready.wait()
        key, limit = actor_codec.decode_limit_change(blob)
        record = None if limit is None else codec.encode_limit(limit)
        await self.insist(lambda: self._journal.put_records(LIMITS, {key: record}))
        self._guard.define(key, limit)

    async def limit_usage(self, _blob: bytes) -> bytes:
        """What is in use of each key, and how many wait (control.LimitUsage)."""
        return actor_codec.encode_usage(self._guard.usage())

    async def roster(self, blob: bytes) -> None:
        """The supervisor tells who ought to exist."""
        told = actor_codec.decode_roster(blob)
        if self._rosters.is_news(told):
            self._take_roster(told)
            self._wake.set()

    async def ping(self) -> int:
        """Number of runs that wait, once rebuilt."""
        await self._ready.wait()
        return self._admissions.queued

    async def slot_states(self, _blob: bytes) -> bytes:
        """worker -> idle | busy | draining | draining_busy, as JSON."""
        return actor_codec.encode_states({s.worker: _word(s) for s in self._slots.slots.values()})

    async def pool_loads(self, _blob: bytes) -> bytes:
        """Every pool that has slots, or in which tasks wait, as JSON (control.PoolLoad). Raises Unavailable at first.

        Nobody waits here: who asks is the supervisor, whom a new scheduler asks before it is ready.
        """
        if not self._ready.is_set():
            raise errors.Unavailable("the scheduler has not heard of everybody yet")
        return actor_codec.encode_pool_loads(self._pool_demand.loads(self._clock.monotonic()))

    async def take_weights(self, _blob: bytes) -> bytes:
        """Weights of tenants have changed: read them again."""
        await self._ready.wait()
        self._take_weights(await self._journal.records(TENANT_SHARES))
        self._wake.set()
        return b""

    async def explain(self, blob: bytes) -> bytes:
        """What a run waits for, a views.RunWaiting as JSON."""
        await self._ready.wait()
        return actor_codec.encode_waiting(self._explain(blob.decode()))

    def _explain(self, run_id: str) -> RunWaiting:
        waits = self._admissions.waiting(run_id)
        if waits is not None:
            run, ahead, active, limit, paused = waits
            return RunWaiting(run_id, "place", run.lane[0], ahead, active, limit, paused)
        leaf = self._admissions.leaf(run_id)
        if leaf is None:
            return RunWaiting(run_id)
        share = round(self._slots.share(leaf), 4)
        return RunWaiting(run_id, "slot" if self._slots.wanted(leaf) else None, leaf[1], share=share)

    async def load(self, _blob: bytes) -> bytes:
        """How much waits, as JSON: for gauges."""
        return actor_codec.encode_load(
            {
                "queued_runs": self._admissions.queued,
                "active_runs": self._admissions.active,
                "waiting_tasks": self._slots.waiting + self._guard.permits.parked,
                "plain_waiting": self._slots.waiting + self._guard.permits.parked - sum(self._guard.waiting().values()),
                "workers": len(self._slots.slots),
                "oldest_s": self._oldest_s(),
            }
            | {f"pool_waiting|{pool}": n for pool, n in self._guard.waiting().items()}
        )

    def _oldest_s(self) -> int:
        """Seconds since the run was created, or found, that waits for admission longest."""
        since = self._admissions.oldest
        return 0 if since is None else int(self._clock.monotonic() - since)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        self._epoch = await self.insist(lambda: self._journal.take_epoch(SCHEDULER))
        self._number = self._order_number = self._epoch << 32
        self._slots.number_from(self._epoch << 32)
        self._guard.begin(self._epoch, await self.insist(lambda: self._journal.records(LIMITS)))
        kept = (await self.insist(lambda: self._journal.owner(SCHEDULER))).cursor
        cursor = await self.insist(lambda: self._journal.position(SCHED))
        if not await self._fetch_roster():
            self._spawn(self._fetch_roster_later())
        self._take_weights(await self.insist(lambda: self._journal.records(TENANT_SHARES)))
        await self._rebuild()
        await self.insist(lambda: self._read_wakes(kept))
        self._cursor = await self.insist(partial(self._read_on, cursor))  # news that are old already admit nothing
        await asyncio.gather(*(self._greet(host) for host in self._hosts.values()))
        self._ready.set()
        self._spawn(self._note_cursor())
        self._spawn(self._replaced.run())
        self._spawn(Timekeeper(self._journal, self._clock, self._epoch, self._settings, self._replaced.look).run())
        gatherer = Gatherer(self._journal, self._clock, self._epoch, self._settings.home)
        self._spawn(gatherer.run())
        self._spawn(gatherer.review())
        self._spawn(self._read_sched(gatherer))
        self._wake.set()
        while True:
            await self._wait_for_news()
            self._decide()

    async def _wait_for_news(self) -> None:
        now_s = self._clock.monotonic()
        reviews = (self._slots.next_review_s(now_s), self._guard.permits.next_review_s(now_s))
        review_s = min((each for each in reviews if each is not None), default=None)
        try:
            await asyncio.wait_for(self._wake.wait(), review_s)
        except TimeoutError:
            _log.debug("a lease may have to be given back by now")
        self._wake.clear()

    async def _fetch_roster(self) -> bool:
        """Ask the supervisor who ought to exist; whether it answered."""
        try:
            asked = actor_codec.encode_supervision(self._epoch << 32, "")
            answer = actor_codec.decode_roster(await self._peers.ask(SUPERVISOR, "tell_roster", asked))
        except errors.Unavailable as unavailable:
            _log.warning("%s", unavailable)
            return False
        if self._rosters.is_so(answer):
            self._take_roster(answer)
            self._wake.set()
        return True

    async def _fetch_roster_later(self) -> None:
        """The supervisor tells a Roster when it changes; one that this scheduler never had must be asked for."""
        while not await self._fetch_roster():  # noqa: ASYNC110 (nobody could set an event)
            await asyncio.sleep(ROSTER_AGAIN_S)

    async def _rebuild(self) -> None:
        rows = await self.insist(self._journal.queued_and_active)
        backfills = {row.run_id: row for row in rows if row.run_type == "backfill"}
        for row in rows:
            await self._know_dag(row.tenant, row.dag_id)
            self._place_found(row, backfills)

    def _place_found(self, row: RunRow, backfills: Mapping[str, RunRow]) -> None:
        if row.run_type == "backfill":
            self._host_only(row.run_id, row.owner)
            dag = _dag_key(row.tenant, row.dag_id)
            self._admissions.shape(dag, row.run_id, row.max_active_runs, row.state == "paused")
            return
        queued = self._found(row, backfills)
        if row.state == "queued":
            self._waiting[row.run_id] = queued
            self._admissions.enqueue(queued)
        else:
            self._admissions.occupy(queued)
            if not row.owner:  # asleep, and its wake-up may have come while nobody listened
                self._host_only(row.run_id, "")
            elif not (host := self._place(row.run_id, row.owner)).standing:
                host.admissions.append(Admission(row.run_id, only_host=True))

    def _found(self, row: RunRow, backfills: Mapping[str, RunRow]) -> Queued:
        """A run as it waits, or waited, in the lane of the backfill that is at it."""
        at_it = (backfills[b] for b in (row.parent, *reversed(row.watchers)) if b in backfills) if row.parent else ()
        backfill = next(iter(at_it), None)
        parent = backfill.run_id if backfill else row.parent or None
        cap = backfill.max_active_runs if backfill else None
        dag = _dag_key(row.tenant, row.dag_id)
        scheduled = row.run_type == "scheduled" and not row.watchers
        return Queued(row.run_id, dag, parent, cap, self._next_place(), row.version, scheduled, self._clock.monotonic())

    def _next_place(self) -> int:
        self._order += 1
        return self._order

    async def _greet(self, host: _Host) -> None:
        """A RunActor that does not answer now tells us later; its leases count as free meanwhile."""
        try:
            blob = await asyncio.wait_for(self._peers.ask(host.name, "hello", b""), HELLO_S)
        except (TimeoutError, errors.Unavailable) as late:
            _log.warning("%s does not answer yet: %s", host.name, late)
        else:
            standing = actor_codec.decode_standing(blob)
            host.epoch = standing.epoch
            self._take_standing(standing)

    # ── news ──────────────────────────────────────────────────────────────────────────────────────

    async def _read_on(self, cursor: str) -> str:
        """Take all there is after `cursor`; the cursor then."""
        while entries := await self._journal.tail(SCHED, cursor, 0):
            for entry in entries:
                for item in codec.decode_sched(entry.item):
                    await self._take_item(item)
            cursor = entries[-1].cursor
        return cursor

    async def _read_wakes(self, cursor: str) -> None:
        """Wakes that a former scheduler may not have acted on; what else has happened is in the rows."""
        while entries := await self._journal.tail(SCHED, cursor, 0):
            for item in (item for entry in entries for item in codec.decode_sched(entry.item)):
                if isinstance(item, Wake) and item.reason != "orphan":
                    self._host_only(item.run_id, self._placed.get(item.run_id, ""))
            cursor = entries[-1].cursor

    async def _note_cursor(self) -> None:
        """Note now and then how far the stream was read some time ago: by now everything there has been acted on."""
        turn, behind, noted = 0, self._cursor, ""
        while True:
            await asyncio.sleep(ACTED_AFTER_S)
            if behind != noted:
                turn, noted = turn + 1, behind
                note = Commit(owner=SCHEDULER, epoch=self._epoch, turn=turn, cursor=behind)
                await self.insist(partial(self._journal.commit, note))
            behind = self._cursor
            await self._ensure_current()
            await self._fetch_roster()  # the last word may be of a former supervisor
            self._take_weights(await self.insist(lambda: self._journal.records(TENANT_SHARES)))  # the word may be lost

    async def _ensure_current(self) -> None:
        await self.ensure_current(self._journal, self._epoch)

    async def _read_sched(self, gatherer: Gatherer) -> None:
        while True:
            try:
                entries = await self._journal.tail(SCHED, self._cursor, 10_000)
                for entry in entries:
                    for item in codec.decode_sched(entry.item):
                        await self._take_item(item)
                        gatherer.heard(item)
                    self._cursor = entry.cursor
            except errors.Unavailable as unavailable:
                _log.warning("sched: %s", unavailable)
                await asyncio.sleep(0.2)
                continue
            if entries:
                self._wake.set()

    async def _take_item(self, item: SchedItem) -> None:
        match item:
            case RunsCreated():
                await self._take_created(item)
            case RunMoved():
                await self._take_moved(item)
            case BackfillShaped():
                dag = _dag_key(item.tenant, item.dag_id)
                self._admissions.shape(dag, item.run_id, item.max_active_runs, item.paused)
            case DagChanged():
                await self._know_dag(item.tenant, item.dag_id, again=True)
            case Wake(reason="orphan"):
                self._replaced.look()
            case Wake():
                self._host_only(item.run_id, self._placed.get(item.run_id, ""))

    async def _take_created(self, item: RunsCreated) -> None:
        if item.run_type == "backfill":
            for run_id in item.run_ids:
                self._host_only(run_id, "")
                self._admissions.shape(_dag_key(item.tenant, item.dag_id), run_id, item.max_active_runs, False)
            return
        await self._know_dag(item.tenant, item.dag_id)
        dag = _dag_key(item.tenant, item.dag_id)
        limit = item.max_active_runs if item.parent else None
        for run_id, since in zip(item.run_ids, item.versions or (1,) * len(item.run_ids), strict=True):
            queued = Queued(
                run_id,
                dag,
                item.parent or None,
                limit,
                self._next_place(),
                since,
                scheduled=item.run_type == "scheduled" and not item.parent,
                queued_s=self._clock.monotonic(),
            )
            self._unplace(run_id)
            self._refusals.moved(run_id)
            self._waiting[run_id] = queued
            self._admissions.enqueue(queued)

    async def _take_moved(self, item: RunMoved) -> None:
        if item.after != "queued":  # else it was let go, or a command changed it
            self._refusals.moved(item.run_id)
        if item.after in TERMINAL:
            self._waiting.pop(item.run_id, None)
            self._admissions.finish(item.run_id)
            self._admissions.unshape(item.run_id)
            self._unplace(item.run_id)
        elif item.after != "queued" and item.run_type != "backfill":
            await self._know_dag(item.tenant, item.dag_id)
            dag = _dag_key(item.tenant, item.dag_id)
            scheduled = item.run_type == "scheduled"
            self._admissions.occupy(Queued(item.run_id, dag, item.parent or None, scheduled=scheduled))
            self._unplace(item.run_id)
            if item.owner:
                self._place(item.run_id, item.owner)

    async def _know_dag(self, tenant: str, dag_id: str, again: bool = False) -> None:
        key = _dag_key(tenant, dag_id)
        if self._admissions.knows(key) and not again:
            return
        row = await self.insist(lambda: self._journal.dag(tenant, dag_id))
        if row is None:
            return
        definition = codec.decode_definition(row.definition)
        self._admissions.configure(key, definition.max_active_runs, row.paused, definition.overlap != "allow")
        for name in CLASSES:
            self._slots.weigh((tenant, name, dag_id), definition.weight)
        self._guard.define_dag(tenant, dag_id, definition.max_active_tasks)
        if definition.isolation == "dedicated":
            self._dedicated.add(key)
        else:
            self._dedicated.discard(key)

    def _take_standing(self, standing: Standing) -> None:
        if standing.actor not in self._hosts and is_own_actor(standing.actor):
            return  # late: its run has ended, and it with it; a lease taken over from it would stay with nobody
        host = self._hosts.setdefault(standing.actor, _Host(standing.actor))
        if standing.epoch < host.epoch:
            return
        if standing.epoch > host.epoch:
            self._host_was_replaced(host, standing.epoch)
        now_s = self._clock.monotonic()
        for worker, lease in standing.held or ():
            self._slots.adopt(host.name, worker, lease, now_s, lease in standing.kept)
        for worker, lease in standing.released:
            self._slots.release(host.name, worker, lease)
        for worker, incarnation in standing.lost:
            slot = self._slots.slots.get(worker)
            if slot is None or slot.incarnation == incarnation:
                self._slots.remove(worker)
                self._await_worker(worker)
        for run_id, number in standing.refused:
            queued, given = self._waiting.get(run_id), self._given.get(run_id)
            if queued is not None and given is not None and given.number == number:
                self._unplace(run_id)
                self._refusals.take(queued)
        self._slots.demand(host.name, dict(standing.demand))
        if standing.near:
            host.placed = True
        self._slots.hints.set(host.name, dict(standing.near))
        if standing.served:
            self._slots.served(host.name, dict(standing.served))
            host.leads_due = True

    def _queue_again(self, queued: Queued) -> None:
        self._admissions.requeue(queued.run_id, queued)
        self._wake.set()

    def _host_was_replaced(self, host: _Host, epoch: int) -> None:
        """Its memory is gone: leases are void, and what it was told but had not committed is told again."""
        host.epoch = epoch
        host.competing, host.weights_due = False, True
        self._introduce_workers(host)
        host.grants.clear()
        host.yields.clear()
        self._slots.forget(host.name)
        again = [self._given.get(run_id, Admission(run_id, only_host=True)) for run_id in sorted(host.runs)]
        host.admissions += [admission for admission in again if admission not in host.admissions]

    def _take_roster(self, roster: Roster) -> None:
        for name in roster.run_actors:
            host = self._hosts.setdefault(name, _Host(name))
            if not host.standing:
                host.standing = True
                self._introduce_workers(host)
        wanted = dict(roster.workers)
        left = self._workers.keys() - wanted.keys()
        self._workers = wanted
        for worker in left:
            self._slots.remove(worker)
            self._guard.worker_left(worker)
        for worker in roster.draining:
            self._slots.drain(worker)
        self._draining = set(roster.draining)
        self._pool_demand.watch(roster.elastic, wanted.values())
        for worker in wanted:
            if worker not in self._slots.slots:
                self._await_worker(worker)

    def _introduce_workers(self, host: _Host) -> None:
        """It looks up all workers. One that is there for a single run does not: it calls few of them."""
        if host.standing:
            host.arrived = {slot.worker: slot.incarnation for slot in self._slots.slots.values()}

    def _await_worker(self, worker: str) -> None:
        if worker in self._workers and worker not in self._returning:
            self._returning.add(worker)
            self._spawn(self._welcome(worker))

    async def _welcome(self, worker: str) -> None:
        """Add the worker's slot as soon as it answers; Ray may be starting it (again)."""
        later_s = self._clock.monotonic() + RETURN_LATER_AFTER_S
        try:
            while worker in self._workers:
                try:
                    incarnation, node = await self._meet(worker)
                except WorkerGone:
                    await asyncio.sleep(RETURN_CHECK_S if self._clock.monotonic() < later_s else RETURN_CHECK_LATER_S)
                    continue
                self._slots.add(worker, self._workers[worker], incarnation, node)
                self._guard.worker_there(worker, incarnation)
                for host in self._hosts.values():
                    if host.standing:
                        host.arrived[worker] = incarnation
                if worker in self._draining:
                    self._slots.drain(worker)
                self._wake.set()
                return
        finally:
            self._returning.discard(worker)

    async def _meet(self, worker: str) -> tuple[str, str]:
        """Its incarnation, and Ray's id of the node that it is on. Raises WorkerGone."""
        asked = (self._peers.control(worker, method) for method in ("ping", "where"))
        incarnation, (_, _, node) = await asyncio.gather(*asked)
        return incarnation, node

    # ── decisions ─────────────────────────────────────────────────────────────────────────────────

    def _decide(self) -> None:
        if not any(host.standing for host in self._hosts.values()):
            return
        for run_id, owner in self._to_host.items():
            self._place(run_id, owner).admissions.append(Admission(run_id, only_host=True))
        self._to_host.clear()
        for queued in self._admissions.admit():
            host = self._place(queued.run_id, own_actor_name(queued.run_id) if queued.dag in self._dedicated else "")
            self._number += 1
            since = self._waiting.get(queued.run_id, queued).since
            given = Admission(queued.run_id, number=self._number, since=since, lane=queued.parent or "")
            self._given[queued.run_id] = given
            host.admissions.append(given)
        now_s = self._clock.monotonic()
        self._guard.claim_slots()
        self._grant(now_s)
        while self._guard.offer(now_s):
            self._grant(now_s)
        self._grant_ahead(now_s)
        for ask in self._slots.yields(now_s):
            if not self._guard.ask(ask):
                self._hosts[ask.holder].yields.append((ask.worker, ask.lease))
        self._guard.ask_back(now_s)
        self._guard.send()
        self._pool_demand.look(now_s)
        competing = self._slots.contended(now_s)
        for host in self._hosts.values():
            host.leads_due |= bool(host.standing or host.epoch) and host.competing != competing
            if host.due and not host.sending:
                host.sending = True
                self._spawn(self._send(host))

    def _grant(self, now_s: float) -> None:
        for grant in self._slots.grants(now_s, self._guard.takes(now_s)):
            if not self._guard.grant(grant, now_s):
                self._hosts[grant.holder].grants.append((grant.worker, grant.incarnation, grant.lease))

    def _grant_ahead(self, now_s: float) -> None:
        """A slot that nobody wants goes along with new admissions: their first task need not ask for one."""
        for host in [host for host in self._hosts.values() if host.admissions]:
            backfill = all(admission.lane or admission.only_host for admission in host.admissions)
            grant = self._slots.spare(host.name, now_s, backfill)
            if grant is not None:
                host.grants.append((grant.worker, grant.incarnation, grant.lease))

    async def _send(self, host: _Host) -> None:
        """Tell a RunActor all there is, until there is no more; what could not be told is told again."""
        if not host.standing and not host.epoch:
            await self._supervise("ensure", host.name)
        while host.due:
            admissions = [a for a in host.admissions if a.only_host or self._given.get(a.run_id) == a]
            grants, yields, arrived = host.grants, host.yields, host.arrived
            host.admissions, host.grants, host.yields, host.arrived = [], [], [], {}
            shares = self._shares_for(host)
            kept = self._slots.kept(grants)
            nodes = self._slots.nodes(grants) if host.placed else ()
            told = tuple(admissions), tuple(grants), tuple(yields)
            message = Hosting(self._epoch, *told, *shares, kept, nodes, tuple(arrived.items()))
            try:
                await self._peers.tell(host.name, "host", actor_codec.encode_control(message))
            except errors.Unavailable as unavailable:
                _log.warning("%s", unavailable)
                host.admissions[:0] = [a for a in admissions if a not in host.admissions]
                host.yields[:0] = yields
                host.arrived = arrived | host.arrived
                host.leads_due |= shares[0] is not None
                host.weights_due |= shares[1] is not None
                for worker, _, lease in grants:
                    self._slots.release(host.name, worker, lease)
                if not host.standing:
                    await self._supervise("ensure", host.name)
                await asyncio.sleep(0.2)
        host.sending = False

    def _take_weights(self, records: Mapping[str, bytes]) -> None:
        """Whoever has no record any more weighs 1 again."""
        weights = {tenant: codec.decode_share(record) for tenant, record in records.items()}
        weights = dict.fromkeys(self._weights, 1.0) | weights
        if weights == self._weights:
            return
        self._weights = weights
        for tenant, weight in self._weights.items():
            self._slots.weigh((tenant,), weight)
        for host in self._hosts.values():
            host.weights_due = host.leads_due = True

    def _shares_for(
        self, host: _Host
    ) -> tuple[tuple[tuple[Path, float], ...] | None, tuple[tuple[str, float], ...] | None]:
        """How everybody stands, and the weights of tenants; None = it need not be told."""
        leads = weights = None
        if host.leads_due:
            host.competing = self._slots.contended(self._clock.monotonic())
            leads = tuple(self._slots.leads().items()) if host.competing else ()
        if host.weights_due and self._weights:
            weights = tuple(self._weights.items())
        host.leads_due = host.weights_due = False
        return leads, weights

    def _supervise(self, method: str, actor: str) -> Coroutine[Any, Any, None]:
        """Have the supervisor start or end an actor that is there for one run; asked again when it matters."""
        self._order_number += 1
        return self._tell_supervisor(method, actor_codec.encode_supervision(self._order_number, actor))

    async def _tell_supervisor(self, method: str, blob: bytes) -> None:
        try:
            await self._peers.tell(SUPERVISOR, method, blob)
        except errors.Unavailable as unavailable:
            _log.warning("%s", unavailable)

    def _place(self, run_id: str, owner: str) -> _Host:
        """Where the run lives: where the journal says, else where the fewest are."""
        if owner:
            host = self._hosts.setdefault(owner, _Host(owner))
        else:
            host = self._idlest()
        former = self._placed.get(run_id, host.name)
        if former != host.name:
            self._hosts[former].runs.discard(run_id)
        host.runs.add(run_id)
        self._placed[run_id] = host.name
        return host

    def _idlest(self) -> _Host:
        shared = (host for host in self._hosts.values() if host.standing)
        return min(shared, key=lambda h: (len(h.runs), h.name))

    def _some_run_actor(self) -> str | None:
        return self._idlest().name if any(host.standing for host in self._hosts.values()) else None

    def _unplace(self, run_id: str) -> None:
        self._given.pop(run_id, None)
        name = self._placed.pop(run_id, None)
        if name is None:
            return
        host = self._hosts[name]
        host.runs.discard(run_id)
        if not host.standing and not host.runs:
            del self._hosts[name]
            self._slots.forget(name)
            self._guard.forget(name)
            self._spawn(self._supervise("release", name))

    def _host_only(self, run_id: str, owner: str) -> None:
        self._to_host[run_id] = owner


def _dag_key(tenant: str, dag_id: str) -> str:
    return f"{tenant}/{dag_id}"


def _word(slot: Slot) -> str:
    if slot.draining:
        return "draining_busy" if slot.holder else "draining"
    return "busy" if slot.holder else "idle"
