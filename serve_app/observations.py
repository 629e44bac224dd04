"""What this replica answered, on its way to the whole system's histogram.

Requests are only noted; once a second, and before a scrape, the notes go to the gateway in one call. While
the journal is down they are kept, up to a bound, and then the oldest are dropped: counts are not worth
memory without limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from orchestrator.errors import OrchestratorError
from serve_app.ports import Observation

PERIOD_S = 1.0
KEPT = 100_000

_log = logging.getLogger(__name__)


class Observations:
    """Observations that the gateway has not counted yet."""

    def __init__(self, count: Callable[[Sequence[Observation]], Awaitable[None]]) -> None:
        self._count = count
        self._waiting: deque[Observation] = deque(maxlen=KEPT)

    def add(self, observation: Observation) -> None:
        """Note one request."""
        self._waiting.append(observation)

    async def flush(self) -> None:
        """Hand over what is noted; what cannot be handed over is kept."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, deque(maxlen=KEPT)
        try:
            await self._count(tuple(batch))
        except OrchestratorError as error:
            self._waiting = deque((*batch, *self._waiting), maxlen=KEPT)
            _log.warning("request counts not handed over: %s", error)

    async def keep_flushing(self) -> None:
        """Flush every second, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.flush()
