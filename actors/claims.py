"""What a RunActor tells the scheduler about tasks with needs, and what it may use: beside `standing.py`, and like it.

One `Claims` at a time; whoever hosts no such task never sends one. Demand is absolute per need, and only needs of
which it appeared, disappeared or grew are told; leases that were given back, and starts that were used, until they
were delivered. With it goes where tasks are at home that have large inputs, which is no news by itself.

**Which grants count.** A permit must not be used under two leases, so a `Binding` counts only when it is for this
incarnation and from a scheduler that is not older than any this one has heard of: the journal tells at the start
which that is, and a new scheduler takes stock of everybody (`stock`) before it grants anything that has a key. A
lease that was given back is void if it should be granted again by a message that comes twice (`Crew.bind`).
"""

from __future__ import annotations

import asyncio
import logging

from actors.bound_work import BoundWork
from actors.crew import Crew, Gone
from actors.names import SCHEDULER
from actors.peers import Peers
from orchestrator import actor_codec
from orchestrator.control import Binding, Claims
from orchestrator.errors import Unavailable
from orchestrator.messages import Need
from orchestrator.shares import Path

_log = logging.getLogger(__name__)

#: seconds before Claims that were not delivered are sent again
AGAIN_S = 0.2


class Claimant:
    """Keeps the scheduler informed about the tasks with needs of one RunActor. `start` it when the epoch is known."""

    def __init__(self, actor: str, peers: Peers, work: BoundWork) -> None:
        self._actor = actor
        self._peers = peers
        self._work = work
        self._crew: Crew
        self._epoch = 0
        #: newest scheduler that was heard of
        self._scheduler = 0
        #: has this actor ever had such a task, or a lease for one?
        self.active = False
        self._wanted = asyncio.Event()
        self._number = 0
        self._told: dict[Need, dict[Path, int]] = {}
        self._pending: dict[Need, None] = {}
        #: everything is to be told
        self._anew = False
        self._begun: list[tuple[str, int, int]] = []
        self._released: list[tuple[str, int]] = []
        self._lost: list[tuple[str, int]] = []
        #: when this incarnation may last have started a task under a rate: it, or the one before it
        self._metered_s = 0.0

    def start(self, epoch: int, scheduler: int, crew: Crew) -> None:
        """This incarnation begins; `scheduler` is the newest scheduler that the journal knows."""
        self._epoch, self._scheduler, self._crew = epoch, scheduler, crew
        # what a former incarnation had is over, unless it is told now
        self._anew = True
        self._metered_s = _now()
        self._wanted.set()

    # ── what the scheduler says ──

    def bind(self, binding: Binding) -> None:
        """Take the leases that were granted, and notice which are wanted back."""
        if binding.to_epoch != self._epoch or binding.epoch < self._scheduler:
            _log.info("a binding of scheduler %d for incarnation %d is late", binding.epoch, binding.to_epoch)
            return
        self.active = True
        self._scheduler = binding.epoch
        for grant in binding.grants:
            self._told.pop(grant.need, None)  # the scheduler counts that much less demand
            self._pending[grant.need] = None
            if not self._crew.bind(grant):
                self._released.append((grant.worker, grant.lease))
        for worker, lease in binding.yields:
            self._crew.give_up(worker, lease)

    def stock(self, scheduler: int) -> bytes:
        """A new scheduler wants to know everything; grants of a former one are void from now on."""
        self._scheduler = max(self._scheduler, scheduler)
        claims = self._all()
        self._told = {need: dict(by_leaf) for need, by_leaf in claims.demand}
        self._pending.clear()
        return actor_codec.encode_control(claims)

    # ── what happened here ──

    def begun(self, worker: str, lease: int, starts: int) -> None:
        """So many tasks started on a lease that came with a number of starts; none more will."""
        self._begun.append((worker, lease, starts))
        self._metered_s = _now()

    def gone(self, gone: Gone) -> None:
        """A seat for tasks with a need was lost with its worker, or with its answers."""
        self._lost.append((gone.worker, gone.lease))

    def released(self, leases: list[tuple[str, int]]) -> None:
        """Leases (worker, lease) were given back."""
        self._released += leases

    def look(self) -> None:
        """A turn is over: is there anything to tell?"""
        self._pending |= self._work.changed
        self._work.changed.clear()
        self.active = self.active or bool(self._pending)
        for need in list(self._pending):
            if not self._is_news(need):
                del self._pending[need]
        if self._pending or self._begun or self._released or self._lost:
            self._wanted.set()

    def remind(self) -> None:
        """Tell again what still waits."""
        if self.active and (self._work or self._told):
            self._anew = True
            self._wanted.set()

    def _is_news(self, need: Need) -> bool:
        told, demand = self._told.get(need, {}), self._work.demand(need)
        return bool(demand) != bool(told) or any(n > told.get(leaf, 0) for leaf, n in demand.items())

    # ── telling ──

    async def run(self) -> None:
        """Tell whenever there is something to tell; never returns."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._anew or self._pending or self._begun or self._released or self._lost:
                await self._tell()

    async def _tell(self) -> None:
        claims, anew, pending = self._all() if self._anew else self._news(), self._anew, self._pending
        begun, released, lost = self._begun, self._released, self._lost
        self._begun, self._released, self._lost = [], [], []
        self._anew, self._pending = False, {}
        try:
            await self._peers.tell(SCHEDULER, "claims", actor_codec.encode_control(claims))
        except Unavailable as unavailable:
            _log.warning("%s", unavailable)
            self._begun[:0], self._released[:0], self._lost[:0] = begun, released, lost
            self._anew, self._pending = self._anew or anew, pending | self._pending
            self._wanted.set()
            await asyncio.sleep(AGAIN_S)
        else:
            self._note_told(claims, anew)

    def _note_told(self, claims: Claims, anew: bool) -> None:
        if anew:
            self._told = {}
        for need, by_leaf in claims.demand:
            if need in self._pending:
                continue  # granted meanwhile: it is told again anyway
            if by_leaf:
                self._told[need] = dict(by_leaf)
            else:
                self._told.pop(need, None)
        self.look()  # turns have passed meanwhile

    def _news(self) -> Claims:
        self._number += 1
        demand = tuple((need, tuple(self._work.demand(need).items())) for need in self._pending)
        told = (tuple(self._begun), tuple(self._released), tuple(self._lost))
        near = self._work.near(self._pending)
        return Claims(
            self._actor, self._epoch, self._number, demand, False, *told, scheduler=self._scheduler, near=near
        )

    def _all(self) -> Claims:
        self._number += 1
        demand = tuple((need, tuple(self._work.demand(need).items())) for need in self._work.needs())
        told = (tuple(self._begun), tuple(self._released), tuple(self._lost))
        held, quiet_s, near = self._crew.bound(), _now() - self._metered_s, self._work.near(self._work.needs())
        return Claims(self._actor, self._epoch, self._number, demand, True, *told, held, quiet_s, self._scheduler, near)


def _now() -> float:
    return asyncio.get_running_loop().time()
