"""The scheduler's side of pools that grow: telling the supervisor that tasks have begun to wait.

    somebody bids for slots of a pool, and still does after all that can be granted was
        ─▶ once per such time, for a pool that is elastic or has no workers: PoolLoad ─▶ supervisor

Of a pool that still has no workers, since nobody has defined it, it is told now and then. How it goes on the supervisor
asks (`loads`) as long as it matters. So a pool that rests costs no message, and one in which tasks begin to wait has
its first worker under way at once. What could not be told is told again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from actors.names import SUPERVISOR
from actors.peers import Peers
from orchestrator import actor_codec
from orchestrator.control import PoolLoad
from orchestrator.errors import Unavailable
from orchestrator.slots import Slots

_log = logging.getLogger(__name__)

#: seconds until a supervisor that did not answer is told again
AGAIN_S = 1.0
#: seconds until it hears again of a pool that has no workers: somebody may have defined it meanwhile
REMIND_S = 10.0


class PoolDemand:
    """For one scheduler, whose `slots` these are."""

    def __init__(self, peers: Peers, slots: Slots, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._peers = peers
        self._slots = slots
        self._spawn = spawn
        self._elastic: frozenset[str] = frozenset()
        #: pools that have workers, or will once these have started
        self._staffed: frozenset[str] = frozenset()
        #: pool -> since when somebody has bid for its slots
        self._since_s: dict[str, float] = {}
        #: of those, the ones about which the supervisor knows, or need not know -> since when
        self._told: dict[str, float] = {}
        #: what it is still to be told, by whoever is at it
        self._due: dict[str, PoolLoad] = {}
        self._telling = False

    def watch(self, elastic: Iterable[str], staffed: Iterable[str] = ()) -> None:
        """Pools that may grow, and those that have workers, says the supervisor."""
        self._staffed = frozenset(staffed)
        if self._elastic != (found := frozenset(elastic)):
            self._elastic = found
            self._told.clear()

    def loads(self, now_s: float) -> list[PoolLoad]:
        """Every pool that has slots, or in which tasks wait."""
        self._note(now_s)
        ready = [slot for slot in self._slots.slots.values() if not slot.draining]
        slots = Counter(slot.pool for slot in ready)
        busy = Counter(slot.pool for slot in ready if slot.holder)
        return [
            PoolLoad(
                pool,
                self._slots.waiting_in(pool),
                max(0.0, now_s - self._since_s.get(pool, now_s)),
                busy[pool],
                slots[pool],
            )
            for pool in sorted({*slots, *self._since_s})
        ]

    def look(self, now_s: float) -> None:
        """Everything that can be granted was; who still bids waits for slots."""
        self._note(now_s)
        news = {pool for pool in self._since_s if self._is_news(pool, now_s)}
        if not news:
            return
        self._told |= dict.fromkeys(news, now_s)
        loads = [load for load in self.loads(now_s) if load.pool in news]
        self._due |= {load.pool: load for load in loads if load.pool in self._elastic or load.pool not in self._staffed}
        if self._due and not self._telling:
            self._telling = True
            self._spawn(self._tell())

    def _is_news(self, pool: str, now_s: float) -> bool:
        told_s = self._told.get(pool)
        return told_s is None or (pool not in self._staffed and now_s - told_s >= REMIND_S)

    def _note(self, now_s: float) -> None:
        hungry = self._slots.hungry()
        if hungry or self._since_s:
            self._since_s = {pool: self._since_s.get(pool, now_s) for pool in hungry}
            self._told = {pool: told_s for pool, told_s in self._told.items() if pool in self._since_s}

    async def _tell(self) -> None:
        try:
            while self._due:
                loads, self._due = self._due, {}
                try:
                    await self._peers.tell(SUPERVISOR, "demand", actor_codec.encode_pool_loads(list(loads.values())))
                except Unavailable as unavailable:
                    _log.warning("%s", unavailable)
                    await asyncio.sleep(AGAIN_S)
                    self._due = {pool: load for pool, load in loads.items() if pool in self._told} | self._due
        finally:
            self._telling = False
