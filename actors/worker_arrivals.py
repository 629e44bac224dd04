"""The scheduler's side of workers that come and go: a slot exists as soon as its worker answers, until it leaves.

    Roster: who ought to be there ─▶ asked until it answers ─▶ slot ─▶ `arrived`: everybody may hear of it
    a RunActor has lost it        ─▶ the slot is gone, asked again (Ray may be starting it anew)
    it is not in the Roster any more ─▶ the slot is gone

A worker that is to end keeps its slot for what it is at, and is given nothing more (`Slots.drain`), also if it is
started anew meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from actors.clock import Clock
from actors.peers import Peers, WorkerGone
from orchestrator.slots import Slots

#: how often a lost worker is asked whether it is back: at first, then (it waits for room, or for a new node), and when
RETURN_CHECK_S = 0.05
RETURN_CHECK_LATER_S = 2.0
RETURN_LATER_AFTER_S = 10.0


class WorkerArrivals:
    """For one scheduler, whose `slots` these are. `arrived` is told each that answers, and its incarnation."""

    def __init__(
        self,
        peers: Peers,
        clock: Clock,
        slots: Slots,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        arrived: Callable[[str, str], None],
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._slots = slots
        self._spawn = spawn
        self._arrived = arrived
        #: worker -> pool, of those that ought to be there
        self.wanted: Mapping[str, str] = {}
        self._draining: Collection[str] = ()
        #: of those wanted, the ones that are asked whether they are there
        self._awaited: set[str] = set()

    def want(self, workers: Mapping[str, str], draining: Collection[str]) -> Collection[str]:
        """These ought to be there, of whom some are to end: who is not there is awaited. Those that have left."""
        left = self.wanted.keys() - workers.keys()
        self.wanted, self._draining = workers, frozenset(draining)
        for worker in left:
            self._slots.remove(worker)
        for worker in draining:
            self._slots.drain(worker)
        for worker in workers:
            if worker not in self._slots.slots:
                self._await(worker)
        return left

    def lost(self, worker: str, incarnation: str) -> None:
        """That incarnation does not answer who uses it; another one that came since does not concern it."""
        slot = self._slots.slots.get(worker)
        if slot is None or slot.incarnation == incarnation:
            self._slots.remove(worker)
            self._await(worker)

    def _await(self, worker: str) -> None:
        if worker in self.wanted and worker not in self._awaited:
            self._awaited.add(worker)
            self._spawn(self._welcome(worker))

    async def _welcome(self, worker: str) -> None:
        """Add the worker's slot as soon as it answers; Ray may be starting it (again)."""
        later_s = self._clock.monotonic() + RETURN_LATER_AFTER_S
        try:
            while worker in self.wanted:
                try:
                    incarnation, node = await self._meet(worker)
                except WorkerGone:
                    await asyncio.sleep(RETURN_CHECK_S if self._clock.monotonic() < later_s else RETURN_CHECK_LATER_S)
                    continue
                if worker in self.wanted:  # it may have left while it answered
                    self._add(worker, incarnation, node)
                return
        finally:
            self._awaited.discard(worker)

    def _add(self, worker: str, incarnation: str, node: str) -> None:
        self._slots.add(worker, self.wanted[worker], incarnation, node)
        self._arrived(worker, incarnation)
        if worker in self._draining:
            self._slots.drain(worker)

    async def _meet(self, worker: str) -> tuple[str, str]:
        """Its incarnation, and Ray's id of the node that it is on. Raises WorkerGone."""
        asked = (self._peers.control(worker, method) for method in ("ping", "where"))
        incarnation, (_, _, node) = await asyncio.gather(*asked)
        return incarnation, node
