"""An event loop whose clock jumps: nothing sleeps, and what happens depends on nothing but the seed.

When no callback is ready the loop goes straight to the next timer. Callbacks run in the order in which they were
scheduled, so a world that draws its chances from one seed runs the same way every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from actors.clock import Clock
from orchestrator.ids import RunId, instance_id, run_id

T = TypeVar("T")

#: a little before a full minute
START = datetime(2026, 3, 1, 11, 59, 52, tzinfo=UTC)


#: rounds of the loop after which a world counts as going round in circles
ROUNDS_MAX = 150_000


#: a round takes at least this long, so that who waits for the rest of a float gets there
TICK_S = 1e-9


class Stuck(Exception):
    """The world waits for something that never comes, or never comes to rest."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`time` is virtual; there are no sockets and no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self._selector = self
        #: how many rounds it has run
        self.rounds = 0

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def select(self, timeout: float | None) -> tuple[()]:
        """Instead of waiting for sockets: let the time pass."""
        self.rounds += 1
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        if self.rounds > ROUNDS_MAX:
            raise Stuck(f"{self.rounds} rounds until {self._now_s:.3f} s")
        self._now_s += timeout + TICK_S
        return ()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """At once, in this thread."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else wakes this loop."""


def virtually(story: Coroutine[Any, Any, T]) -> T:
    """The story's result, without waiting for it."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


class WorldClock(Clock):
    """Wall time that follows the loop, a little off; ids and chance from one seed."""

    def __init__(self, loop: VirtualLoop, rng: Random) -> None:
        super().__init__()
        self._loop = loop
        self._rng = rng
        #: by how much wall time is off now
        self.skew = timedelta()
        self._last_ms = 0
        self._count = 0

    def now(self) -> datetime:
        """Wall time."""
        return START + timedelta(seconds=self._loop.time()) + self.skew

    def monotonic(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def new_run_id(self) -> RunId:
        """Ascending, like the real one."""
        return run_id(*self._next(), self._rng.getrandbits(64))

    def new_instance_id(self) -> RunId:
        """The same for an instance."""
        return instance_id(*self._next(), self._rng.getrandbits(64))

    def random_bytes(self, size: int) -> bytes:
        """From the seed."""
        return self._rng.randbytes(size)

    def _next(self) -> tuple[int, int]:
        self._last_ms = max(self._last_ms, round(self.now().timestamp() * 1000))
        self._count += 1
        return self._last_ms, self._count

    def uuid(self) -> str:
        """A uuid4 of this seed."""
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    def jitter(self) -> float:
        """A share in [0, 1)."""
        return self._rng.random()
