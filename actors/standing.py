"""What a RunActor tells the scheduler: one Standing at a time, and nothing twice that was understood.

Demand is absolute and told again when it appears, disappears or grows, and with it where tasks are at home that have
large inputs; while leaves of the tree of shares compete, what each was served is told along with it. Released leases,
lost workers and refused admissions are kept until a Standing that carries them was delivered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actors.names import SCHEDULER
from actors.peers import Peers
from actors.slot_time import SlotTime
from orchestrator import actor_codec
from orchestrator.control import Standing
from orchestrator.errors import Unavailable
from orchestrator.nearness import Near
from orchestrator.shares import Path

_log = logging.getLogger(__name__)

#: seconds before a Standing that was not delivered is sent again
AGAIN_S = 0.2

Held = tuple[tuple[str, int], ...]


class Reporter:
    """Keeps the scheduler informed about one RunActor."""

    def __init__(
        self,
        actor: str,
        peers: Peers,
        demand: Callable[[], dict[Path, int]],
        held: Callable[[], Held],
        kept: Callable[[], tuple[int, ...]],
        hosted: Callable[[], int],
        near: Callable[[], tuple[tuple[Path, Near], ...]],
        slot_time: SlotTime,
    ) -> None:
        self._actor = actor
        self._peers = peers
        self._demand = demand
        self._held = held
        self._kept = kept
        self._hosted = hosted
        self._near = near
        self._slot_time = slot_time
        self.epoch = 0
        self._wanted = asyncio.Event()
        self._released: list[tuple[str, int]] = []
        self._lost: list[tuple[str, str]] = []
        self._refused: list[tuple[str, int]] = []
        self._told: dict[Path, int] = {}
        #: what this incarnation took over has not been told yet
        self._introduce = True

    def released(self, leases: list[tuple[str, int]]) -> None:
        """Leases (worker, lease) were given back."""
        self._released += leases

    def granted(self) -> None:
        """The scheduler has leased slots, and counts that much less demand: what is left is told anew."""
        self._told = {}

    def lost(self, worker: str, incarnation: str) -> None:
        """A worker died while it was in use here."""
        self._lost.append((worker, incarnation))

    def refused(self, run_id: str, number: int) -> None:
        """The journal refused an admission for now."""
        self._refused.append((run_id, number))

    def look(self) -> None:
        """A turn is over: is there anything to tell?"""
        demand = self._demand()
        news = bool(self._released or self._lost or self._refused) or bool(demand) != bool(self._told)
        if news or any(n > self._told.get(leaf, 0) for leaf, n in demand.items()):
            self._wanted.set()

    def share(self) -> None:
        """Tell what everybody was served; it is time."""
        self._wanted.set()

    def remind(self) -> None:
        """Tell again what still waits."""
        if self._demand():
            self._wanted.set()

    def answer(self) -> bytes:
        """The whole standing, for a scheduler that asks."""
        self._told = self._demand()
        return actor_codec.encode_control(
            Standing(
                self._actor,
                self.epoch,
                tuple(self._told.items()),
                hosted=self._hosted(),
                held=self._held(),
                kept=self._kept(),
                near=self._near(),
            )
        )

    async def run(self) -> None:
        """Tell whenever there is something to tell; never returns."""
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._tell()

    async def _tell(self) -> None:
        released, lost, refused = self._released, self._lost, self._refused
        self._released, self._lost, self._refused = [], [], []
        demand = self._demand()
        held = self._held() if self._introduce else None
        served = self._slot_time.take_untold()
        standing = Standing(
            self._actor,
            self.epoch,
            tuple(demand.items()),
            tuple(released),
            tuple(lost),
            tuple(refused),
            self._hosted(),
            held,
            served,
            self._kept() if held else (),
            self._near(),
        )
        try:
            await self._peers.tell(SCHEDULER, "standing", actor_codec.encode_control(standing))
            self._told = demand
            self._introduce = False
            self.look()  # turns have passed meanwhile
        except Unavailable as unavailable:
            _log.warning("%s", unavailable)
            self._released[:0], self._lost[:0], self._refused[:0] = released, lost, refused
            self._slot_time.keep_untold(served)
            self._wanted.set()
            await asyncio.sleep(AGAIN_S)
