"""Visits of states that are code: so many at once, each once at a time, and what they came to.

A visit is asked for only once its beginning is durable. A handler that cannot be reached, or whose process dies, has
raised: the job tries again, as often as it may.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from orchestrator.blueprint import Outcome, Visit

_log = logging.getLogger(__name__)


class Handlers(Protocol):
    """Where handlers run."""

    async def visit(self, visit: Visit) -> Outcome:
        """What it came to. Whatever is raised counts as raised by the handler."""


class HandlerVisits:
    """At most `room` visits at once. `done` is told what each came to."""

    def __init__(
        self,
        handlers: Handlers,
        room: int,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        done: Callable[[Visit, Outcome], None],
    ) -> None:
        self._handlers = handlers
        self._room = max(1, room)
        self._spawn = spawn
        self._done = done
        #: jobs whose visit is being decided
        self._promised: dict[str, Visit] = {}
        self._wanted: OrderedDict[str, Visit] = OrderedDict()
        self._running: dict[tuple[str, int], None] = {}

    @property
    def full(self) -> bool:
        """Is there no room for one more?"""
        return len(self._promised) + len(self._wanted) + len(self._running) >= self._room

    def promise(self, visit: Visit) -> None:
        """It is to be made once this is durable; one that is wanted or runs is not promised again."""
        wanted = self._wanted.get(visit.job_id)
        if (visit.job_id, visit.serial) not in self._running and (wanted is None or wanted.serial != visit.serial):
            self._promised[visit.job_id] = visit

    def make(self, visit: Visit) -> None:
        """It is durable: make it as soon as there is room, unless it was dropped."""
        if self._promised.get(visit.job_id) is visit:
            del self._promised[visit.job_id]
            self._wanted[visit.job_id] = visit
            self._start()

    def drop(self, job_id: str) -> None:
        """Not wanted any more; if it runs already, its outcome comes to nothing."""
        self._promised.pop(job_id, None)
        self._wanted.pop(job_id, None)

    def _start(self) -> None:
        while self._wanted and len(self._running) < self._room:
            _, visit = self._wanted.popitem(last=False)
            self._running[visit.job_id, visit.serial] = None
            self._spawn(self._make(visit))

    async def _make(self, visit: Visit) -> None:
        try:
            outcome = await self._handlers.visit(visit)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # user code and the road to it: anything can come
            _log.warning("handler of %s at %s: %r", visit.blueprint, visit.state, error)
            outcome = Outcome(error=f"{type(error).__name__}: {error}", again=True)
        del self._running[visit.job_id, visit.serial]
        self._done(visit, outcome)
        self._start()
