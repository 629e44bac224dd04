"""How fast a backfill gets on, and when it will be through: by the journal alone, so every replica says the same.

    rate = windows at work, on average ÷ how long one takes        (Little's law)
    eta  = the latest event + windows that are left ÷ rate

Counting ends alone misleads: four windows of an hour, begun together, end within a second. So the sample, the latest
events since the backfill was started last, is read for both: each event says how many windows run from there on, and
windows that begin and end in it say how long they take. Time in which it is paused does not count. Where the sample
is too short for that (more windows at a time than it has ends), the average since the start has to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from orchestrator import events as e
from orchestrator.run_state import ENDED

#: latest events that are looked at
SAMPLE = 512
#: no backfill is told to end later than this
_FARTHEST = timedelta(days=3650)


class Pace(msgspec.Struct, frozen=True):
    """How a backfill gets on."""

    #: share of the windows that are over; those that were kept count as over
    progress: float
    windows_per_s: float | None = None
    #: when the last window ends, should all go on like this; None while it is paused, too
    eta: datetime | None = None


def pace(recent: Sequence[e.Event], counts: e.Counts, started: datetime | None, state: str) -> Pace:
    """The pace of a backfill in that core state, by its latest events and the counts of its windows."""
    left = counts.queued + counts.running
    # rounded down: 1 means that nothing is left
    progress = (counts.total - left) * 10_000 // counts.total / 10_000 if counts.total else 1.0
    if state in ENDED or not recent:
        return Pace(progress)
    sample = _Sample()
    for event in recent:
        if isinstance(event, e.RunStarted | e.RunRevived):
            sample = _Sample()  # what was before belongs to a former start
        sample.take(event)
    rate = sample.rate() or _average(recent[-1].at, counts, started)
    if not rate:
        return Pace(progress)
    rest = timedelta(seconds=min(left / rate, _FARTHEST.total_seconds()))
    eta = recent[-1].at + rest if state == "running" and left else None
    return Pace(progress, round(rate, 6), eta)


class _Sample:
    """What the latest events tell."""

    def __init__(self) -> None:
        #: seconds in which it was not paused; window seconds in them
        self.passed_s = 0.0
        self.work_s = 0.0
        #: seconds that windows took
        self.took_s: list[float] = []
        self.most = 0
        self._running = 0
        self._paused = False
        self._at: datetime | None = None
        self._begun: dict[str, datetime] = {}

    def take(self, event: e.Event) -> None:
        """The next event has happened."""
        if self._at is not None:
            span_s = max(0.0, (event.at - self._at).total_seconds())  # a clock may be set back
            if not self._paused:
                self.passed_s += span_s
                self.work_s += self._running * span_s
        self._at = event.at
        match event:
            case e.RunPaused():
                self._paused = True
            case e.RunResumed():
                self._paused = False
            case e.WindowChanged():
                self._take_change(event)

    def _take_change(self, event: e.WindowChanged) -> None:
        self._running = event.counts.running
        self.most = max(self.most, self._running)
        if event.after == "queued":
            self._begun.pop(event.child, None)
        elif event.after not in ENDED:
            self._begun.setdefault(event.child, event.at)
        elif (begun := self._begun.pop(event.child, None)) is not None:
            self.took_s.append(max(0.0, (event.at - begun).total_seconds()))

    def rate(self) -> float | None:
        """Windows per second; None when too few of those that run at a time began and ended here."""
        if len(self.took_s) < max(1, self.most / 4):
            return None
        one_s = sum(self.took_s) / len(self.took_s)
        return self.work_s / self.passed_s / one_s if one_s and self.passed_s else None


def _average(at: datetime, counts: e.Counts, started: datetime | None) -> float | None:
    """Windows per second since the start; None when none has ended."""
    passed_s = (at - started).total_seconds() if started else 0.0
    return (counts.succeeded + counts.failed + counts.cancelled) / passed_s if passed_s > 0 else None
