"""What a schedule owes now: which fires start a run, which are dropped and why, and when to look again.

    next fire (journal) ──▶ due? ──▶ catch-up: which of those missed ──▶ overlap: is the last one still at it ──▶ Turn

A DAG's schedule stands at its next fire, which only ever goes forward: one step of the journal decides on everything
from there to now and moves it on, so every fire is decided on once, whatever dies in between, and a clock that is set
back finds nothing. A schedule whose server was away, or whose DAG was paused, is just far behind.

Catch-up. `none` runs what is late by less than GRACE, `last` the latest, `all` the `most` latest, oldest first.

Overlap, while runs of earlier fires are live (manual runs and backfills do not count):

    allow             starts
    skip              is dropped
    buffer_one        waits until they have ended; dropped while another one waits
    cancel_previous   starts when they have ended, and they are cancelled

With each but `allow`, one such run is active at a time (`dispatch.Admission`). Fires that `all` makes up for were due
when nothing ran: none of them is dropped, they wait for each other; only under `cancel_previous` the newest counts.

Jitter delays a fire by a share of `jitter` that follows from the DAG and the instant, so it is the same after a
restart; the delay is shorter than the time until the next fire. Source: contracts/dags.md section 6; the keys
`calendar`, `start_at`, `end_at`, `jitter_s` and `cancel_previous` are additive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from orchestrator.dates import parse_instant
from orchestrator.definition import Catchup, Definition, Overlap, Window
from orchestrator.errors import Invalid
from orchestrator.schedule import Schedule, schedule_of
from orchestrator.windows import window_of

#: a fire that is late by less than this is on time
GRACE = timedelta(seconds=60)
CATCHUP_MAX = 1000
#: dropped fires of one stretch are counted up to here: a schedule may have been away for years
COUNTED_MAX = 10_000
#: why a fire is dropped
MISSED, OVERLAP = "missed", "overlap"
_TICK = timedelta(microseconds=1)
_FAR = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Timetable:
    """A DAG's schedule with its bounds and its jitter."""

    schedule: Schedule
    #: what the jitter of a fire is drawn from, beside its instant
    name: str
    start: datetime | None = None
    end: datetime | None = None
    jitter: timedelta = timedelta(0)

    def next(self, after: datetime) -> datetime | None:
        """The first fire strictly after `after`; None when there is none any more."""
        return next(iter(self.between(after + _TICK, _FAR, 1)), None)

    def between(self, first: datetime, last: datetime, most: int | None = None) -> list[datetime]:
        """Fires from `first` to `last`, both inclusive; at most so many."""
        first = max(first, self.start) if self.start else first
        last = min(last, self.end) if self.end else last
        until = last if last == _FAR else last + _TICK
        return list(islice(self.schedule.between(first, until), most))

    def due(self, fire: datetime) -> datetime:
        """When that fire happens."""
        if not self.jitter:
            return fire
        following = next(self.schedule.between(fire + _TICK, fire + self.jitter), None)
        widest = self.jitter if following is None else following - fire
        drawn = hashlib.sha256(f"{self.name}|{fire.timestamp():.0f}".encode()).digest()
        milliseconds = int.from_bytes(drawn[:6], "big") * (widest // timedelta(milliseconds=1)) >> 48
        return fire + timedelta(milliseconds=milliseconds)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Fires that start nothing, for one reason."""

    reason: str
    #: at most COUNTED_MAX
    count: int
    #: the latest of them
    last: datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a schedule."""

    #: oldest first
    starts: tuple[datetime, ...]
    dropped: tuple[Dropped, ...]
    #: live runs that are to be cancelled
    replaces: tuple[str, ...]
    #: where the schedule stands then; None = it never fires again
    next: datetime | None


@dataclass(frozen=True, slots=True)
class Tick:
    """An instant of a schedule, before it comes."""

    at: datetime
    #: the same on the wall clock of the zone
    local: datetime
    #: with the jitter
    runs_at: datetime
    window: Window
    #: why nothing fires: `excluded` or `weekday` (of the calendar); None = it fires
    skipped: str | None
    #: the clocks change there: the time that was due does not exist
    moved: bool


def timetable_of(definition: Definition, tenant: str) -> Timetable | None:
    """When the DAG fires; None when it has no schedule. Raises Invalid."""
    schedule = schedule_of(definition)
    start = parse_instant(definition.start_at, "start_at") if definition.start_at else None
    end = parse_instant(definition.end_at, "end_at") if definition.end_at else None
    if start and end and end < start:
        raise Invalid("end_at: is before start_at", (("end_at", "is before start_at"),))
    if schedule is None:
        return None
    return Timetable(schedule, f"{tenant}/{definition.dag_id}", start, end, timedelta(seconds=definition.jitter_s))


def same_times(one: Definition, other: Definition) -> bool:
    """Whether both fire alike: the schedule then stays where it stands."""
    return _times(one) == _times(other)


def decide(
    timetable: Timetable,
    catchup: Catchup,
    overlap: Overlap,
    first: datetime,
    now: datetime,
    live: Mapping[str, str],
    most: int = CATCHUP_MAX,
) -> Turn:
    """The turn of a schedule that stands at `first`; `live` are the runs of earlier fires -> their core state."""
    until = _until(timetable, now)
    chosen = _caught_up(timetable, catchup, first, until, now, most)
    missed = _missed(timetable, first, chosen[0] - _TICK if chosen else until)
    made_up = catchup == "all" and bool(chosen) and (len(chosen) > 1 or _late(timetable, chosen[0], now))
    if made_up and overlap != "cancel_previous":
        starts = len(chosen)
    else:
        starts = _room(overlap, len(chosen), live)
    if overlap == "cancel_previous":
        kept, surplus = chosen[-starts:], chosen[: len(chosen) - starts]
    else:
        kept, surplus = chosen[:starts], chosen[starts:]
    dropped = [missed] if missed else []
    if surplus:
        dropped.append(Dropped(OVERLAP, len(surplus), surplus[-1]))
    return Turn(
        starts=tuple(kept),
        dropped=tuple(dropped),
        replaces=tuple(sorted(live)) if overlap == "cancel_previous" and kept else (),
        next=timetable.next(max(until, first - _TICK)),
    )


def preview(timetable: Timetable, start: datetime, most: int) -> list[Tick]:
    """The ticks from `start` on that lie within the schedule's bounds, also those that the calendar skips."""
    first = max(start, timetable.start) if timetable.start else start
    schedule, out = timetable.schedule, []
    for at, day in islice(schedule.ticks(first), most):
        if timetable.end and at > timetable.end:
            break
        local = at.astimezone(schedule.zone)
        since_midnight = timedelta(hours=local.hour, minutes=local.minute)
        moved = since_midnight not in schedule.times or local.date() != day
        out.append(Tick(at, local, timetable.due(at), window_of(schedule, at), schedule.calendar.skips(day), moved))
    return out


def _times(definition: Definition) -> tuple[object, ...]:
    d = definition
    return d.schedule, d.timezone, d.calendar, d.start_at, d.end_at, d.jitter_s


def _until(timetable: Timetable, now: datetime) -> datetime:
    """Fires up to here are due: of those up to now, jitter may hold back the last."""
    last = _latest(timetable, now - timetable.jitter, now, 1) if timetable.jitter else []
    return last[0] - _TICK if last and timetable.due(last[0]) > now else now


def _late(timetable: Timetable, fire: datetime, now: datetime) -> bool:
    return now - timetable.due(fire) >= GRACE


def _caught_up(
    timetable: Timetable, catchup: Catchup, first: datetime, until: datetime, now: datetime, most: int
) -> list[datetime]:
    """The fires due that are to run, as far as catch-up says."""
    if catchup == "none":
        recent = timetable.between(max(first, now - GRACE - timetable.jitter), until)
        return [fire for fire in recent if not _late(timetable, fire, now)]
    return _latest(timetable, first, until, 1 if catchup == "last" else most)


def _latest(timetable: Timetable, first: datetime, until: datetime, most: int) -> list[datetime]:
    """The `most` latest fires from `first` to `until`; looks back only as far as needed."""
    if most <= 0:
        return []
    reach = timedelta(minutes=most)  # a schedule does not fire more often
    while reach < until - first:
        fires = timetable.between(until - reach, until)
        if len(fires) >= most:
            return fires[-most:]
        reach *= 8
    return timetable.between(first, until)[-most:]


def _missed(timetable: Timetable, first: datetime, until: datetime) -> Dropped | None:
    if until < first or not (latest := _latest(timetable, first, until, 1)):
        return None
    return Dropped(MISSED, len(timetable.between(first, until, COUNTED_MAX)), latest[0])


def _room(overlap: Overlap, wanted: int, live: Mapping[str, str]) -> int:
    """How many of the fires that are due start a run."""
    match overlap:
        case "allow":
            return wanted
        case "skip":
            return 0 if live else min(wanted, 1)
        case "buffer_one":
            return 0 if _waiting(live) else min(wanted, 1 if live else 2)
        case "cancel_previous":
            return min(wanted, 1)


def _waiting(live: Mapping[str, str]) -> Sequence[str]:
    return [run_id for run_id, state in live.items() if state == "queued"]
