"""When the runs that an actor hosts have something to do by themselves: one timer of the event loop for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.clock import Clock
from actors.hosted import HostedRun
from actors.mail import Woken
from orchestrator import run_duties


class RunTimers:
    """`Woken` is posted when the time of a run has come."""

    def __init__(self, clock: Clock, post: Callable[[Woken], None]) -> None:
        self._clock = clock
        self._post = post
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set(self, hosted: HostedRun) -> None:
        """It is for the next instant at which something of the run is due."""
        run_id = hosted.run.run_id
        former = self._timers.pop(run_id, None)
        if former is not None:
            former.cancel()
        at = run_duties.next_wake(hosted.run)
        if at is not None:
            delay_s = max(0.0, (at - self._clock.now()).total_seconds())
            loop = asyncio.get_running_loop()
            self._timers[run_id] = loop.call_later(delay_s, self._post, Woken(run_id))

    def drop(self, run_id: str) -> None:
        """The run is not here any more."""
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()
