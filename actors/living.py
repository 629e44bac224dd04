"""What every shell with a loop of its own does alike: no task fails unseen, and the journal may be away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from orchestrator.errors import Fenced, JournalUnavailable
from orchestrator.ports import Journal

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: seconds between tries while the journal is away
FIRST_PAUSE_S = 0.05
PAUSE_MAX_S = 1.0


class Living:
    """A shell by its name. A task of it that fails ends the process: what comes after it recovers from the journal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[None]] = set()

    def on_crash(self) -> None:
        """An unforeseen error: let the process end and be restarted (set by whoever made this actor)."""

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The journal's answer, however long it is away; nothing can be done here without it."""
        delay_s = FIRST_PAUSE_S
        while True:
            try:
                return await attempt()
            except JournalUnavailable as unavailable:
                _log.warning("%s: %s; trying again in %.2f s", self.name, unavailable, delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(PAUSE_MAX_S, delay_s * 2)

    async def ensure_current(self, journal: Journal, epoch: int) -> None:
        """Ends this process and raises Fenced when a later one has its name."""
        current = await self.insist(lambda: journal.owner(self.name))
        if current.epoch != epoch:
            self.on_crash()
            raise Fenced(self.name, epoch, current.epoch)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.critical("a task of %s failed", self.name, exc_info=task.exception())
            self.on_crash()
