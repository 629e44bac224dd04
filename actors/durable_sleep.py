"""`ctx.sleep` and `ctx.sleep_until`: the attempt ends, the task starts again later, and the same call returns.

    sleep n, not known       ──▶ Suspended: the attempt ends with a report of n and the instant
    sleep n, known, to come  ──▶ the same with the instant it had; at most SKEW_S are waited for in place
    sleep n, known, past     ──▶ returns

Calls are numbered from 1 since the task's last checkpoint, by whatever attempt; a checkpoint forgets them. So code that
runs again from its start, and code that goes on from its checkpoint, both meet the sleeps that they have had.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import msgspec

from actors.clock import Clock
from actors.work import Work
from orchestrator.errors import PermanentFailure
from orchestrator.messages import Value
from orchestrator.wait_params import YEAR_S
from orchestrator.waits import SLEEPS_MAX

#: whoever starts the task again has another clock: a rest as short as this is waited for
SKEW_S = 5.0


class Suspended(BaseException):
    """Ends the attempt to sleep. Not an Exception, so that code which catches those lets it pass."""

    def __init__(self, call: int, until: datetime) -> None:
        super().__init__(call, until)
        self.call = call
        self.until = until

    def __str__(self) -> str:
        return f"sleeps until {self.until.isoformat()}, which only tasks of DAGs on workers can"

    def value(self) -> Value:
        """What the report of the attempt carries."""
        text = msgspec.json.encode((self.call, self.until))
        return Value(msgspec.Raw(text), None, len(text))


class Sleeps:
    """The sleeps of one attempt."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._clock = Clock()
        self._known = dict(work.assignment.sleeps)
        self._calls = 0

    def forget(self) -> None:
        """There is a new checkpoint."""
        self._known.clear()
        self._calls = 0

    def sleep(self, seconds: float) -> None:
        """Raises ValueError for a span that is none, or is longer than a year."""
        if not 0 <= seconds <= YEAR_S:
            raise ValueError(f"a task sleeps from 0 to {YEAR_S} s, not {seconds}")
        self._sleep(self._clock.now() + timedelta(seconds=seconds))

    def sleep_until(self, instant: datetime) -> None:
        """Raises ValueError for an instant without a zone, or more than a year away."""
        if instant.tzinfo is None:
            raise ValueError(f"{instant} is no instant: it has no zone")
        if instant > self._clock.now() + timedelta(seconds=YEAR_S):
            raise ValueError(f"a task sleeps {YEAR_S} s at most")
        self._sleep(instant.astimezone(UTC))

    def _sleep(self, wanted: datetime) -> None:
        self._work.attempt.check()
        self._calls += 1
        if self._calls > SLEEPS_MAX:
            raise PermanentFailure(f"more than {SLEEPS_MAX} sleeps without a checkpoint between them")
        known = self._known.get(self._calls)
        until = wanted if known is None else known
        left_s = (until - self._clock.now()).total_seconds()
        if known is not None and left_s <= SKEW_S:
            self._wait(left_s)
        elif left_s > 0:
            raise Suspended(self._calls, until)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            woken = threading.Event()
            self._work.attempt.on_cancel(woken.set)
            woken.wait(seconds)
            self._work.attempt.check()
