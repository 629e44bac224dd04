"""Work that comes again: one look after another, in a task of its own, for as long as the process lives.

    start ──first_s──▶ look ──▶ pause: what it asked for, or until it is woken ──┐
                        ▲ └ fails: logged; `again_s` where something is away,    │
                        │          `pause_s` after a bug                         │
                        └────────────────────────────────────────────────────────┘

There is never more than one look at a time, and whoever wakes it in the middle of one gets another. Nothing that a
look does may matter beyond it: `stop` cuts it off, as the end of the process would.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from orchestrator.errors import Unavailable

_log = logging.getLogger(__name__)


class Recurring(ABC):
    """Looks again and again; `work` names it in the log. `start` returns at once."""

    def __init__(self, work: str, pause_s: float, again_s: float | None = None, first_s: float = 0.0) -> None:
        self._work = work
        self._pause_s = pause_s
        self._again_s = pause_s if again_s is None else again_s
        self._first_s = first_s
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @abstractmethod
    async def look(self) -> float | None:
        """Do what there is to do; seconds until the next look, None = not before it is woken. Raises Unavailable."""

    def start(self) -> None:
        """Begin, with what a former life left undone."""
        self._loop = asyncio.get_running_loop().create_task(self._look_forever())

    def stop(self) -> None:
        """What is under way is cut off."""
        if self._loop is not None:
            self._loop.cancel()

    def wake(self) -> None:
        """There is something to look at."""
        self._woken.set()

    async def _look_forever(self) -> None:
        await asyncio.sleep(self._first_s)
        while True:
            self._woken.clear()  # before it looks: what comes meanwhile is looked at next
            pause_s = await self._look_once()
            try:
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _look_once(self) -> float | None:
        try:
            return await self.look()
        except Unavailable as unavailable:
            _log.warning("%s goes on later: %s", self._work, unavailable)
            return self._again_s
        except Exception:
            _log.exception("%s failed", self._work)
            return self._pause_s
