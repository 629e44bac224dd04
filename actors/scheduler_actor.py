"""The scheduler: which queued run starts, on which RunActor, and who gets which worker slot.

    sched stream (journal) ─▶ admission ─┐          (`run_queue`: what waits; `hosts`: what is due to whom)
    Standing of RunActors  ─▶ slots ─────┼─▶ Hosting, one message in flight per RunActor (`host_mailer`)
    Roster of supervisor   ─▶ who exists ┘          (`worker_arrivals`: whose slot there is)

Everything here is memory, rebuilt when it restarts: queued and active runs from the journal, leases by
asking the RunActors where they stand. `take_epoch` comes first, so that admissions of a former
incarnation are refused by the journal from then on. The choices themselves are in
`orchestrator/dispatch.py` and `orchestrator/slots.py`, and where a run goes in `hosts`; tasks with needs are the
`guard`'s. What it tells of itself is in `scheduler_view`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from actors.clock import Clock
from actors.gatherer import Gatherer
from actors.guard import Guard
from actors.host_mailer import HostMailer
from actors.hosts import ACTED_AFTER_S, Host, Hosts
from actors.living import Living
from actors.names import SCHEDULER, SUPERVISOR, is_own_actor, own_actor_name
from actors.peers import Peers
from actors.pool_demand import PoolDemand
from actors.refusals import Refusals
from actors.replaced import ReplacedRuns
from actors.roster_order import RosterOrder
from actors.run_queue import RunQueue, key_of
from actors.scheduler_view import SchedulerView
from actors.settings import Settings, class_weights, headroom
from actors.timekeeper import Timekeeper
from actors.worker_arrivals import WorkerArrivals
from orchestrator import actor_codec, codec, errors
from orchestrator.control import Admission, Roster, Standing
from orchestrator.dispatch import CLASSES, WAKES, Queued
from orchestrator.dispatch import Admission as Admissions
from orchestrator.limits import LIMITS
from orchestrator.ports import Journal
from orchestrator.records import TENANT_SHARES
from orchestrator.rows import TERMINAL, RunRow
from orchestrator.slots import Slots
from orchestrator.steps import Commit
from orchestrator.streams import SCHED, BackfillShaped, DagChanged, RunMoved, RunsCreated, SchedItem, Wake

_log = logging.getLogger(__name__)

#: seconds a new scheduler waits for a RunActor to say where it stands
HELLO_S = 3.0
#: seconds until a supervisor that did not answer is asked again
ROSTER_AGAIN_S = 1.0


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
        self._hosts = Hosts(clock, self._slots, self._release)
        self._mailer = HostMailer(peers, clock, self._slots, self._hosts, self._spawn)
        self._workers = WorkerArrivals(peers, clock, self._slots, self._spawn, self._worker_there)
        self._guard = Guard(
            peers,
            clock,
            self._slots,
            self._spawn,
            lambda: self._wake.set(),
            lambda: self._hosts.by_name,
            lambda: self._workers.wanted,
        )
        self._view = SchedulerView(clock, self._admissions, self._slots, self._guard)
        self._pool_demand = PoolDemand(peers, self._slots, self._spawn)
        self._queue = RunQueue(clock, self._admissions)
        #: DAGs whose runs get a RunActor of their own
        self._dedicated: set[str] = set()
        self._rosters = RosterOrder()
        self._epoch = 0
        #: how far the sched stream was read
        self._cursor = ""
        self._refusals = Refusals(self._ensure_current, self._spawn, self._queue_again)
        self._replaced = ReplacedRuns(journal, peers, self._hosts.some_run_actor)
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
        if claims.actor in self._hosts.by_name or not is_own_actor(claims.actor):
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
        return actor_codec.encode_states(self._view.slot_states())

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
        self._mailer.weigh(await self._journal.records(TENANT_SHARES))
        self._wake.set()
        return b""

    async def explain(self, blob: bytes) -> bytes:
        """What a run waits for, a views.RunWaiting as JSON."""
        await self._ready.wait()
        return actor_codec.encode_waiting(self._view.waiting(blob.decode()))

    async def load(self, _blob: bytes) -> bytes:
        """How much waits, as JSON: for gauges."""
        return actor_codec.encode_load(self._view.load())

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        self._epoch = await self.insist(lambda: self._journal.take_epoch(SCHEDULER))
        self._hosts.begin(self._epoch)
        self._mailer.begin(self._epoch)
        self._slots.number_from(self._epoch << 32)
        self._guard.begin(self._epoch, await self.insist(lambda: self._journal.records(LIMITS)))
        kept = (await self.insist(lambda: self._journal.owner(SCHEDULER))).cursor
        cursor = await self.insist(lambda: self._journal.position(SCHED))
        if not await self._fetch_roster():
            self._spawn(self._fetch_roster_later())
        self._mailer.weigh(await self.insist(lambda: self._journal.records(TENANT_SHARES)))
        await self._rebuild()
        await self.insist(lambda: self._read_wakes(kept))
        self._cursor = await self.insist(partial(self._read_on, cursor))  # news that are old already admit nothing
        await asyncio.gather(*(self._greet(host) for host in self._hosts.by_name.values()))
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
            self._hosts.wake(row.run_id, row.owner)
            dag = key_of(row.tenant, row.dag_id)
            self._admissions.shape(dag, row.run_id, row.max_active_runs, row.state == "paused")
            return
        self._queue.find(row, backfills)
        if row.state == "queued":
            return
        if not row.owner:  # asleep, and its wake-up may have come while nobody listened
            self._hosts.wake(row.run_id, "")
        elif not (host := self._hosts.place(row.run_id, row.owner)).standing:
            host.admissions.append(Admission(row.run_id, only_host=True))

    async def _greet(self, host: Host) -> None:
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
                    self._take_wake(item.run_id)
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
            shares = await self.insist(lambda: self._journal.records(TENANT_SHARES))
            self._mailer.weigh(shares)  # the word of a change may be lost

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
                dag = key_of(item.tenant, item.dag_id)
                self._admissions.shape(dag, item.run_id, item.max_active_runs, item.paused)
            case DagChanged():
                await self._know_dag(item.tenant, item.dag_id, again=True)
            case Wake(reason="orphan"):
                self._replaced.look()
            case Wake():
                self._take_wake(item.run_id)

    async def _take_created(self, item: RunsCreated) -> None:
        if item.run_type == "backfill":
            for run_id in item.run_ids:
                self._hosts.wake(run_id, "")
                self._admissions.shape(key_of(item.tenant, item.dag_id), run_id, item.max_active_runs, False)
            return
        await self._know_dag(item.tenant, item.dag_id)
        for run_id in item.run_ids:
            self._hosts.unplace(run_id)
            self._refusals.moved(run_id)
        self._queue.create(item)

    async def _take_moved(self, item: RunMoved) -> None:
        if item.after != "queued":  # else it was let go, or a command changed it
            self._refusals.moved(item.run_id)
        if item.after in TERMINAL:
            self._queue.end(item.run_id)
            self._admissions.unshape(item.run_id)
            self._hosts.ended(item.run_id)
        elif item.after != "queued" and item.run_type != "backfill":
            await self._know_dag(item.tenant, item.dag_id)
            self._queue.occupy(item)
            self._hosts.moved(item.run_id, item.owner)

    def _take_wake(self, run_id: str) -> None:
        """News of windows also come for a backfill that has ended."""
        if self._knows(run_id):
            self._hosts.wake(run_id)
        else:
            self._hosts.wake_ended(run_id)

    def _knows(self, run_id: str) -> bool:
        """Does the run go on, as far as was heard?"""
        queued = self._queue.known(run_id) is not None
        return queued or self._hosts.knows(run_id) or self._admissions.leaf(run_id) is not None

    async def _know_dag(self, tenant: str, dag_id: str, again: bool = False) -> None:
        key = key_of(tenant, dag_id)
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
        host = self._hosts.heard(standing.actor, standing.epoch)
        if host is None:
            return
        now_s = self._clock.monotonic()
        for worker, lease in standing.held or ():
            self._slots.adopt(host.name, worker, lease, now_s, lease in standing.kept)
        for worker, lease in standing.released:
            self._slots.release(host.name, worker, lease)
        for worker, incarnation in standing.lost:
            self._workers.lost(worker, incarnation)
        for run_id, number in standing.refused:
            queued, given = self._queue.known(run_id), self._hosts.given(run_id)
            if queued is not None and given is not None and given.number == number:
                self._hosts.unplace(run_id)
                self._refusals.take(queued)
        self._slots.demand(host.name, dict(standing.demand))
        if standing.near:
            host.tells_homes = True
        self._slots.hints.set(host.name, dict(standing.near))
        if standing.served:
            self._slots.served(host.name, dict(standing.served))
            host.leads_due = True

    def _queue_again(self, queued: Queued) -> None:
        self._queue.again(queued)
        self._wake.set()

    def _take_roster(self, roster: Roster) -> None:
        self._hosts.stand(roster.run_actors)
        wanted = dict(roster.workers)
        for worker in self._workers.want(wanted, roster.draining):
            self._guard.worker_left(worker)
        self._pool_demand.watch(roster.elastic, wanted.values())

    def _worker_there(self, worker: str, incarnation: str) -> None:
        self._guard.worker_there(worker, incarnation)
        self._hosts.worker_there(worker, incarnation)
        self._wake.set()

    def _release(self, actor: str) -> None:
        """A RunActor that was there for one run is not needed any more."""
        self._guard.forget(actor)
        self._mailer.release(actor)

    # ── decisions ─────────────────────────────────────────────────────────────────────────────────

    def _decide(self) -> None:
        if not self._hosts.ready:
            return
        self._hosts.host_woken()
        for queued in self._admissions.admit():
            owner = own_actor_name(queued.run_id) if queued.dag in self._dedicated else ""
            self._hosts.admit(queued.run_id, owner, self._queue.since(queued), queued.parent or "")
        now_s = self._clock.monotonic()
        self._guard.claim_slots()
        self._grant(now_s)
        while self._guard.offer(now_s):
            self._grant(now_s)
        self._grant_ahead(now_s)
        for ask in self._slots.yields(now_s):
            if not self._guard.ask(ask):
                self._hosts.by_name[ask.holder].yields.append((ask.worker, ask.lease))
        self._guard.ask_back(now_s)
        self._guard.send()
        self._pool_demand.look(now_s)
        self._mailer.send(now_s)

    def _grant(self, now_s: float) -> None:
        for grant in self._slots.grants(now_s, self._guard.takes(now_s)):
            if not self._guard.grant(grant, now_s):
                self._hosts.by_name[grant.holder].grant(grant)

    def _grant_ahead(self, now_s: float) -> None:
        """A slot that nobody wants goes along with new admissions: their first task need not ask for one."""
        for host in [host for host in self._hosts.by_name.values() if host.admissions]:
            backfill = all(admission.lane or admission.only_host for admission in host.admissions)
            grant = self._slots.spare(host.name, now_s, backfill)
            if grant is not None:
                host.grant(grant)
