"""The scheduler's side of pools, concurrency keys and rates: the ledger of permits, and everybody who may have some.

    Claims of RunActors ─▶ permits ─▶ bidders for slots ─▶ leases ─▶ Binding, one message in flight per RunActor
    limits of the journal ─▶ permits

The choices are in `orchestrator/permits.py`. Here is what makes them exact when processes die:

- *Stock.* A scheduler that begins has an empty ledger. Before it grants anything that has a key, every RunActor has
  told what it holds (and takes nothing from a former scheduler any more), and every worker what it is at (and starts
  nothing any more that a former incarnation of a RunActor sent). Whoever does not answer is asked until he does, or
  is gone.
- *Ghosts.* When a RunActor was replaced, or its worker does not answer, nobody says any more that the lease is over.
  Its permits stay in use until the worker has left, or says twice that it is not at a batch of that holder any more.
- A Binding that may not have arrived is sent again; its lease is not given to anybody else meanwhile.

Whoever uses no limit and no pool costs nothing here: stock is taken when the first claim with a key comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.clock import Clock
from actors.peers import Peers, WorkerGone
from orchestrator import actor_codec, codec
from orchestrator.control import Binding, Bound, Claims, LimitUsage
from orchestrator.errors import Unavailable
from orchestrator.leases import Lease
from orchestrator.limits import Limit
from orchestrator.messages import Need
from orchestrator.nearness import Near
from orchestrator.needs import dag_key
from orchestrator.permits import Permits
from orchestrator.shares import Path
from orchestrator.slots import Grant, Slots, Yield

_log = logging.getLogger(__name__)

#: seconds before somebody who did not answer is asked again, and a message is sent again
AGAIN_S = 0.2
#: seconds between looks at the worker of a ghost; doubles up to the cap
LOOK_S, LOOK_MAX_S = 0.05, 1.0
#: looks at which a worker has to be at something else: a batch may follow right behind another one
LOOKS = 2
#: seconds within which a worker that lives answers; one that does not is started anew, and is at nothing
INSPECT_MAX_S = 120.0


@dataclass(slots=True)
class _Box:
    """What one RunActor is to be told."""

    grants: list[Bound] = field(default_factory=list)
    yields: list[tuple[str, int]] = field(default_factory=list)
    sending: bool = False


class Guard:
    """Permits, for one scheduler. `begin` it before anything else; `slots` are the scheduler's."""

    def __init__(
        self,
        peers: Peers,
        clock: Clock,
        slots: Slots,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wake: Callable[[], None],
        hosts: Callable[[], Iterable[str]],
        workers: Callable[[], Iterable[str]],
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._slots = slots
        self._spawn = spawn
        self._wake = wake
        #: names of the RunActors there are, and of the workers
        self._hosts = hosts
        self._workers = workers
        self.permits = Permits()
        self._epoch = 0
        #: RunActor -> its incarnation, and the number of the Claims that was heard last
        self._epochs: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._boxes: dict[str, _Box] = {}
        self._opening = False
        #: when somebody may have started a task under a rate by leave of a former scheduler
        self._metered_s = 0.0

    def begin(self, epoch: int, limits: Mapping[str, bytes]) -> None:
        """An earlier scheduler may have granted until now."""
        now_s = self._clock.monotonic()
        self._epoch, self._metered_s = epoch, now_s
        self.permits.begin(now_s)
        for key, record in limits.items():
            self.permits.define(key, codec.decode_limit(record), now_s)

    def define(self, key: str, limit: Limit | None) -> None:
        """What is allowed under a key from now on; None = it is not limited."""
        self.permits.define(key, limit, self._clock.monotonic())
        self._wake()

    def define_dag(self, tenant: str, dag_id: str, max_active_tasks: int | None) -> None:
        """What the current version of a DAG says."""
        limit = Limit(max_active_tasks) if max_active_tasks is not None else None
        self.permits.define(dag_key(tenant, dag_id), limit, self._clock.monotonic())

    def usage(self) -> list[LimitUsage]:
        """Every key that somebody has, or waits for."""
        return [LimitUsage(key, running, waiting) for key, (running, waiting) in self.permits.usage().items()]

    def waiting(self) -> dict[str, int]:
        """pool -> ready tasks with needs that wait for a slot, or for what they need beside it."""
        out: dict[str, int] = {}
        for claim in self.permits.claims.values():
            out[claim.need.pool] = out.get(claim.need.pool, 0) + claim.waiting
        return out

    # ── what RunActors say ──

    def take_claims(self, claims: Claims, stock: bool = False) -> None:
        """A RunActor tells what it wants and has; with `stock` in answer to our question."""
        actor, now_s = claims.actor, self._clock.monotonic()
        known = self._epochs.get(actor, 0)
        if claims.epoch < known:
            return
        if claims.epoch > known or stock:
            if claims.held is None:  # a later message was faster than the first one
                self._spawn(self._take_stock_of(actor))
                return
            self._take_over(claims, claims.epoch > known, now_s)
            self._metered_s = max(self._metered_s, now_s - claims.quiet_s)
        for worker, number, starts in claims.begun:
            if (lease := self.permits.find(actor, worker, number)) is not None:
                self.permits.begun(lease, starts, now_s)
        for worker, number in claims.released:
            if (lease := self.permits.find(actor, worker, number)) is not None:
                self._release(lease, now_s)
        for worker, number in claims.lost:
            if (lease := self.permits.find(actor, worker, number)) is not None:
                self._haunt(lease, claims.epoch)
        if claims.number > self._numbers.get(actor, 0):
            self._numbers[actor] = claims.number
            self._take_demand(claims, now_s)

    def _take_demand(self, claims: Claims, now_s: float) -> None:
        demand = dict(claims.demand)
        near: dict[Need, dict[Path, Near]] = {}
        for need, leaf, tasks in claims.near:
            near.setdefault(need, {})[leaf] = tasks
        if claims.whole:
            demand = {need: () for need in self.permits.claimed_by(claims.actor)} | demand
        for need, by_leaf in demand.items():
            label = self.permits.demand(claims.actor, need, dict(by_leaf), now_s)
            self._slots.hints.set(label, near.get(need, {}))
            if not by_leaf:
                self._slots.demand(label, {})
            elif need.keys and not self._opening:
                self._opening = True
                self._spawn(self._open())

    def _take_over(self, claims: Claims, replaced: bool, now_s: float) -> None:
        """All that this incarnation has, is told; what else its former ones had may still be at work."""
        actor = claims.actor
        self._epochs[actor] = claims.epoch
        if replaced:
            self._numbers.pop(actor, None)
            self._boxes.pop(actor, None)
        held = {bound.worker: bound for bound in claims.held or ()}
        ours = self._epoch << 32
        for lease in [lease for lease in self.permits.leases.values() if lease.holder == actor]:
            if lease.worker in held:
                self._release(lease, now_s)
            elif replaced:
                self._haunt(lease, claims.epoch - 1)
            elif lease.number <= ours:  # it has given it back
                self._release(lease, now_s)
        for bound in held.values():
            self._adopt(actor, bound, now_s)

    def _adopt(self, actor: str, bound: Bound, now_s: float) -> None:
        """Its permits are in use; the slot is its, if the worker is known already."""
        lease = Lease.of(actor, bound, now_s)
        self.permits.adopt(lease, now_s)
        self._slots.adopt(lease.label, lease.worker, lease.number, now_s, lease.kept)

    def _release(self, lease: Lease, now_s: float) -> None:
        self.permits.release(lease, now_s)
        self._slots.release(lease.label, lease.worker, lease.number)

    def forget(self, actor: str) -> None:
        """The RunActor has ended for good."""
        now_s = self._clock.monotonic()
        for need in self.permits.claimed_by(actor):
            self._slots.demand(self.permits.demand(actor, need, {}, now_s), {})
        for lease in [lease for lease in self.permits.leases.values() if lease.holder == actor]:
            self._haunt(lease, self._epochs.get(actor, 0))
        for known in (self._epochs, self._numbers, self._boxes):
            known.pop(actor, None)

    # ── workers ──

    def worker_there(self, worker: str, incarnation: str) -> None:
        """The worker's slot exists. Who had it may not have noticed that it was started anew, and send it a batch."""
        for lease in self._leases_on(worker):
            lease.incarnation = incarnation
        self.claim_slots()

    def worker_left(self, worker: str) -> None:
        """It has ended for good."""
        now_s = self._clock.monotonic()
        for lease in self._leases_on(worker):
            self.permits.release(lease, now_s)
            self.permits.lay(lease, now_s)

    def _leases_on(self, worker: str) -> list[Lease]:
        return [each for each in (*self.permits.leases.values(), *self.permits.ghosts) if each.worker == worker]

    def claim_slots(self) -> None:
        """A slot that is free again while one of our leases of it is not over is not free."""
        now_s = self._clock.monotonic()
        for lease in (*self.permits.leases.values(), *self.permits.ghosts):
            self._slots.adopt(lease.label, lease.worker, lease.number, now_s, lease.kept)

    # ── decisions ──

    def offer(self, now_s: float) -> bool:
        """Let claims bid for slots whose permits could be had; whether there is anybody new."""
        if not self.permits.claims:
            return False
        pools = {slot.pool for slot in self._slots.slots.values() if not slot.draining}
        claims = self.permits.offers(now_s, pools)
        for claim in claims:
            self._slots.demand(claim.label, claim.leaves, claim.need.pool)
        return bool(claims)

    def takes(self, now_s: float) -> Callable[[str], bool] | None:
        """Whether a bidder can take its permits, and it does; None = nobody needs any."""
        return (lambda label: self.permits.take(label, now_s)) if self.permits.claims else None

    def grant(self, grant: Grant, now_s: float) -> bool:
        """Was it for tasks with a need? Then their RunActor will be told."""
        if "\n" not in grant.holder:
            return False
        lease = self.permits.bind(grant, now_s)
        starts = lease.tokens if lease.metered else None
        node = self._slots.slots[lease.worker].node
        bound = Bound(lease.worker, lease.incarnation, lease.number, lease.need, starts, lease.kept, node)
        self._boxes.setdefault(lease.holder, _Box()).grants.append(bound)
        return True

    def ask(self, ask: Yield) -> bool:
        """Was it such a lease that is wanted back?"""
        if "\n" not in ask.holder:
            return False
        lease = self.permits.find(ask.holder.partition("\n")[0], ask.worker, ask.lease)
        if lease is not None:
            lease.yielding = True
            self._boxes.setdefault(lease.holder, _Box()).yields.append((ask.worker, ask.lease))
        return True

    def ask_back(self, now_s: float) -> None:
        """Ask for leases whose permits others wait for, or that are more than is allowed by now."""
        for lease in self.permits.yields(now_s):
            ask = self._slots.ask_back(lease.worker, lease.number)
            if ask is not None:
                self.ask(ask)

    def send(self) -> None:
        """Tell RunActors what there is to tell."""
        for name, box in self._boxes.items():
            if (box.grants or box.yields) and not box.sending:
                box.sending = True
                self._spawn(self._send(name, box))

    async def _send(self, name: str, box: _Box) -> None:
        while (box.grants or box.yields) and self._boxes.get(name) is box:
            grants, yields = box.grants, box.yields
            box.grants, box.yields = [], []
            binding = Binding(self._epoch, self._epochs.get(name, 0), tuple(grants), tuple(yields))
            try:
                await self._peers.tell(name, "bind", actor_codec.encode_control(binding))
            except Unavailable as unavailable:
                _log.warning("%s", unavailable)
                box.grants[:0], box.yields[:0] = grants, yields
                await asyncio.sleep(AGAIN_S)
        box.sending = False

    # ── who has what, after a restart ──

    async def _open(self) -> None:
        """Hear everybody; then keys may be granted."""
        await asyncio.gather(*(self._take_stock_of(name) for name in list(self._hosts())))
        await asyncio.gather(*(self._inspect(worker) for worker in list(self._workers())))
        self.permits.open(self._metered_s, self._clock.monotonic())
        self._wake()

    async def _take_stock_of(self, name: str) -> None:
        while name in self._hosts():
            try:
                blob = await self._peers.ask(name, "stock", actor_codec.encode_epoch(self._epoch))
            except Unavailable as unavailable:
                _log.warning("stock of %s: %s", name, unavailable)
                await asyncio.sleep(AGAIN_S)
                continue
            self.take_claims(actor_codec.decode_claims(blob), stock=True)
            self._wake()
            return

    async def _inspect(self, worker: str) -> None:
        """What the worker is at has an owner, or is a ghost."""
        deadline_s = self._clock.monotonic() + INSPECT_MAX_S
        while worker in self._workers() and self._clock.monotonic() < deadline_s:
            try:
                fenced = actor_codec.decode_fenced(await self._peers.control(worker, "fence", dict(self._epochs)))
            except WorkerGone as gone:
                _log.warning("%s", gone)
                await asyncio.sleep(AGAIN_S)
                continue
            known = any(lease.need == fenced.need for lease in self._leases_on(worker))
            if fenced.batch is None or fenced.need is None or known:
                return
            owner, epoch, _ = fenced.batch
            now_s = self._clock.monotonic()
            ghost = Lease.of(owner, Bound(worker, fenced.incarnation, -1, fenced.need), now_s)
            self.permits.spot(ghost, now_s)
            self._spawn(self._watch(ghost, epoch))
            return

    # ── ghosts ──

    def _haunt(self, lease: Lease, epoch: int) -> None:
        """Nobody answers for the lease; batches of that holder's incarnations up to this one may be under way."""
        self.permits.haunt(lease)
        self._spawn(self._watch(lease, epoch))

    async def _watch(self, ghost: Lease, epoch: int) -> None:
        pause_s, quiet = LOOK_S, 0
        while ghost in self.permits.ghosts:
            fence = {ghost.holder: self._epochs[ghost.holder]} if ghost.holder in self._epochs else {}
            try:
                fenced = actor_codec.decode_fenced(await self._peers.control(ghost.worker, "fence", fence))
            except WorkerGone as gone:
                _log.info("%s, which had permits", gone)
                quiet = 0
            else:
                batch = fenced.batch
                busy = batch is not None and batch[0] == ghost.holder and batch[1] <= epoch
                quiet = 0 if busy else quiet + 1
                if quiet == LOOKS:
                    self.permits.lay(ghost, self._clock.monotonic())
                    self._slots.release(ghost.label, ghost.worker, ghost.number)
                    self._wake()
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(LOOK_MAX_S, 2 * pause_s)
