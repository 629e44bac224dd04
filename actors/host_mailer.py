"""Tells RunActors what the scheduler has decided for them: one Hosting in flight per RunActor, all that is due in it.

    Host: admissions, grants, yields, workers ─┐
    slots: who is ahead, kept leases, nodes    ├─▶ Hosting ─▶ RunActor ─▶ due meanwhile: the next one
    weights of tenants                         ┘      └─ not delivered: due again, its leases are free

A RunActor that is there for one run is started by the supervisor before it is told anything, and again when it does not
answer. How everybody stands is told when leaves begin to compete, to whoever tells what it was served, and once more
when they stop; weights when they change. An admission that holds no longer is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from actors.clock import Clock
from actors.hosts import Host, Hosts
from actors.names import SUPERVISOR
from actors.peers import Peers
from orchestrator import actor_codec, codec
from orchestrator.control import Hosting
from orchestrator.errors import Unavailable
from orchestrator.shares import Path
from orchestrator.slots import Slots

_log = logging.getLogger(__name__)

#: seconds before somebody who did not answer is told again
AGAIN_S = 0.2

#: pool and node -> lead, and tenant -> weight, as a Hosting has them; None = it need not be told
_Shares = tuple[tuple[tuple[Path, float], ...] | None, tuple[tuple[str, float], ...] | None]


class HostMailer:
    """For one scheduler, whose `slots` and `hosts` these are. `begin` it before anything else."""

    def __init__(
        self,
        peers: Peers,
        clock: Clock,
        slots: Slots,
        hosts: Hosts,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._slots = slots
        self._hosts = hosts
        self._spawn = spawn
        self._epoch = 0
        #: of the last order to the supervisor
        self._order_number = 0
        #: tenant -> weight, of those that have one, or had
        self._weights: dict[str, float] = {}

    def begin(self, epoch: int) -> None:
        """What is told is of this incarnation of the scheduler."""
        self._epoch, self._order_number = epoch, epoch << 32

    def weigh(self, records: Mapping[str, bytes]) -> None:
        """What the journal has on tenants' shares: whoever has no record any more weighs 1 again."""
        weights = {tenant: codec.decode_share(record) for tenant, record in records.items()}
        weights = dict.fromkeys(self._weights, 1.0) | weights
        if weights == self._weights:
            return
        self._weights = weights
        for tenant, weight in self._weights.items():
            self._slots.weigh((tenant,), weight)
        for host in self._hosts.by_name.values():
            host.weights_due = host.leads_due = True

    def send(self, now_s: float) -> None:
        """Tell everybody what there is to tell."""
        competing = self._slots.contended(now_s)
        for host in self._hosts.by_name.values():
            host.leads_due |= bool(host.standing or host.epoch) and host.competing != competing
            if host.due and not host.sending:
                host.sending = True
                self._spawn(self._send(host))

    def release(self, name: str) -> None:
        """Have the supervisor end an actor that was there for one run."""
        self._spawn(self._supervise("release", name))

    async def _send(self, host: Host) -> None:
        """Tell a RunActor all there is while it is needed, until there is no more; what was not heard is told again."""
        if not host.standing and not host.epoch:
            await self._ensure(host)
        while host.due and self._hosts.has(host):
            message = self._compose(host)
            try:
                await self._peers.tell(host.name, "host", actor_codec.encode_control(message))
            except Unavailable as unavailable:
                _log.warning("%s", unavailable)
                self._restore(host, message)
                if not host.standing:
                    await self._ensure(host)
                await asyncio.sleep(AGAIN_S)
        host.sending = False

    def _compose(self, host: Host) -> Hosting:
        """All that is due to it, which is not due from now on."""
        admissions = tuple(admission for admission in host.admissions if self._hosts.holds(admission))
        grants, yields, arrived = tuple(host.grants), tuple(host.yields), tuple(host.arrived.items())
        host.admissions, host.grants, host.yields, host.arrived = [], [], [], {}
        leads, weights = self._shares_for(host)
        kept = self._slots.kept(grants)
        nodes = self._slots.nodes(grants) if host.tells_homes else ()
        return Hosting(self._epoch, admissions, grants, yields, leads, weights, kept, nodes, arrived)

    def _restore(self, host: Host, lost: Hosting) -> None:
        """It may not have heard: all of that is due again, before what came since. Its leases are nobody's."""
        host.admissions[:0] = [admission for admission in lost.admissions if admission not in host.admissions]
        host.yields[:0] = lost.yields
        host.arrived = dict(lost.workers) | host.arrived
        host.leads_due |= lost.leads is not None
        host.weights_due |= lost.weights is not None
        for worker, _, lease in lost.grants:
            self._slots.release(host.name, worker, lease)

    def _shares_for(self, host: Host) -> _Shares:
        """How everybody stands, and the weights of tenants."""
        leads = weights = None
        if host.leads_due:
            host.competing = self._slots.contended(self._clock.monotonic())
            leads = tuple(self._slots.leads().items()) if host.competing else ()
        if host.weights_due and self._weights:
            weights = tuple(self._weights.items())
        host.leads_due = host.weights_due = False
        return leads, weights

    async def _ensure(self, host: Host) -> None:
        if self._hosts.has(host):  # its run may have ended since, and then an order to end it is under way
            await self._supervise("ensure", host.name)

    def _supervise(self, method: str, actor: str) -> Coroutine[Any, Any, None]:
        """Have the supervisor start or end an actor that is there for one run; asked again when it matters."""
        self._order_number += 1
        return self._tell_supervisor(method, actor_codec.encode_supervision(self._order_number, actor))

    async def _tell_supervisor(self, method: str, blob: bytes) -> None:
        try:
            await self._peers.tell(SUPERVISOR, method, blob)
        except Unavailable as unavailable:
            _log.warning("%s", unavailable)
