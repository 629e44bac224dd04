"""The actor of one orchestrator instance: a RunActor for its run alone, which gives signs of life.

Every BEAT_S it notes its process id and the time in the journal, beside the run: the run's own version does not move.
Who wants to know whether it lives now asks it (`whether_alive`).
"""

from __future__ import annotations

import asyncio
import logging
import os

from actors.clock import Clock
from actors.hosted import milliseconds
from actors.names import instance_of
from actors.peers import Peers
from actors.run_actor import RunActor
from actors.settings import Settings
from orchestrator.errors import JournalUnavailable
from orchestrator.ports import Journal

#: seconds between signs of life
BEAT_S = 10.0

_log = logging.getLogger(__name__)


class OrchestratorActor(RunActor):
    """Hosts one instance. `start` returns at once."""

    def __init__(self, name: str, journal: Journal, peers: Peers, clock: Clock, settings: Settings) -> None:
        super().__init__(name, journal, peers, clock, settings)
        self._instance = instance_of(name)

    def start(self) -> None:
        """Begin to live: recover, then serve and give signs of life."""
        super().start()
        self._spawn(self._beat_forever())

    async def whether_alive(self, _blob: bytes) -> bytes:
        """It has recovered and answers."""
        await self._recovered.wait()
        return b"1"

    async def _beat_forever(self) -> None:
        while True:
            try:
                await self._journal.beat(self._instance, os.getpid(), milliseconds(self._clock.now()))
            except JournalUnavailable as unavailable:
                _log.warning("%s", unavailable)
            await asyncio.sleep(BEAT_S)
