"""What the scheduler does about admissions that the journal refused.

    refused ─▶ is a later scheduler there? ─▶ this one ends, and is started anew
                      │ no
                      └─▶ the run keeps its place for a pause, then waits again

The journal refuses an admission when the DAG or the backfill was paused meanwhile, of which news are on their way;
or when a later scheduler has taken the epoch. That may be one that was replaced before it came to the journal: nobody
talks to it, everybody talks to this one, whose admissions are all refused. No news tell of that, so it asks. Pauses
double with each refusal of the same run, so what the journal never takes costs next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from orchestrator.dispatch import Queued

#: seconds until a refused run waits again, doubling up to the cap
FIRST_PAUSE_S = 0.05
PAUSE_MAX_S = 1.0


class Refusals:
    """Runs whose admission was refused, until they wait again."""

    def __init__(
        self,
        ensure_current: Callable[[], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        again: Callable[[Queued], None],
    ) -> None:
        self._ensure_current = ensure_current
        self._spawn = spawn
        #: called with a run that is to wait again
        self._again = again
        #: run -> what is known of it
        self._refused: dict[str, Queued] = {}
        #: run -> seconds that it has paused last
        self._pauses_s: dict[str, float] = {}
        self._asking = False

    def take(self, queued: Queued) -> None:
        """The run was not admitted."""
        run_id = queued.run_id
        pause_s = min(PAUSE_MAX_S, 2 * self._pauses_s.get(run_id, FIRST_PAUSE_S / 2))
        self._refused[run_id], self._pauses_s[run_id] = queued, pause_s
        asyncio.get_running_loop().call_later(pause_s, self._over, queued)
        self.doubt()

    def moved(self, run_id: str) -> None:
        """Something else has become of the run."""
        self._refused.pop(run_id, None)
        self._pauses_s.pop(run_id, None)

    def doubt(self) -> None:
        """A later scheduler may exist: ask the journal, once at a time."""
        if not self._asking:
            self._asking = True
            self._spawn(self._ask())

    async def _ask(self) -> None:
        try:
            await self._ensure_current()
        finally:
            self._asking = False

    def _over(self, queued: Queued) -> None:
        if self._refused.get(queued.run_id) is queued:
            del self._refused[queued.run_id]
            self._again(queued)
