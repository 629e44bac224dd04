"""Cron on a wall clock: the instants at which a schedule fires.

croniter reads the text (five fields, names, ranges, steps); what the fields mean when the clocks
change is decided here (contracts/dags.md sections 6 and 9a), because croniter decides otherwise. A zone is
walked era by era, an era being a time of one constant UTC offset:

    UTC    ────────────┬────────────────┬──────────▶
    wall   01:00–02:00 │ 03:00–03:00    │ 02:00–…          one hour missing, later one hour twice
                       └ a gap          └ times below the mark reached before come again

- Hour field of values, lists and plain ranges ("fixed"): whatever a gap swallowed fires once, at the first
  instant after it, unless its whole date was swallowed; a time that comes again does not fire again.
- Hour field with `*` or a step follows real time: it fires whenever the clock shows a matching time.

A calendar (`calendars.py`) adds dates to those of the expression, and skips some: a fire is a tick that is not
skipped. Everything returned is UTC. Schedules live in the years 1500 to 2500.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from orchestrator.calendars import EVERY_DAY, Days, days_of
from orchestrator.definition import Definition
from orchestrator.errors import Invalid

FIRST_YEAR = 1500
LAST_YEAR = 2500
_BEGIN = datetime(FIRST_YEAR - 1, 1, 1, tzinfo=UTC)
_END = datetime(LAST_YEAR + 1, 12, 31, tzinfo=UTC)
_DAY = timedelta(days=1)
#: no gap and no repetition is longer than a day: from here on the past cannot matter
_LOOK_BACK = timedelta(days=2)
#: tzdata's shortest era lasted four days (Freetown, 1939): no change hides between two probes
_PROBE = timedelta(days=2)

_LEAP_YEAR = [date(2000, 1, 1) + n * _DAY for n in range(366)]
#: years after which every date has fallen on every weekday
_WEEKDAY_CYCLE = range(2000, 2028)

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LONGEST_EXPRESSION = 1000
_ITEM = r"(?:\*|(?:[0-9]+|[a-z]{3})(?:-(?:[0-9]+|[a-z]{3}))?)(?:/[0-9]+)?"
_FIELD = re.compile(rf"{_ITEM}(?:,{_ITEM})*")
#: zone files that are not IANA names: what they mean depends on the machine, or counts leap seconds
_NOT_IANA = ("localtime", "posixrules", "posix/", "right/")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed expression on the wall clock of `zone`."""

    expression: str
    zone: ZoneInfo
    #: times of day, ascending, as time since midnight
    times: tuple[timedelta, ...]
    days: frozenset[int]
    months: frozenset[int]
    #: 0 = Sunday
    weekdays: frozenset[int]
    #: both day fields are restricted: one of them suffices
    either_day: bool
    #: the hour field names hours of the wall clock instead of following real time
    fixed: bool
    calendar: Days = EVERY_DAY

    @property
    def at_most_daily(self) -> bool:
        """True when there is one time of day: a fire is then known by its local date."""
        return len(self.times) == 1

    def next(self, after: datetime) -> datetime:
        """The first fire strictly after `after`. Raises Invalid at the end of time."""
        for fire in self.between(after + timedelta(microseconds=1), _END):
            return fire
        raise Invalid(f"schedule {self.expression!r} does not fire after {after}", (("schedule", "fires no more"),))

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Fires from `start` (inclusive) to `end` (exclusive), ascending."""
        return (fire for fire, _ in self.dated(start, end))

    def dated(self, start: datetime, end: datetime = _END) -> Iterator[tuple[datetime, date]]:
        """As `between`, each with the local date it belongs to.

        That date is the one of the wall-clock time that was due. It differs from the date the clock shows
        only when a gap moved the fire past midnight (Nuuk in spring: 23:30 is gone, it fires at 00:00).
        """
        return ((fire, day) for fire, day in self.ticks(start, end) if self.calendar.skips(day) is None)

    def ticks(self, start: datetime, end: datetime = _END) -> Iterator[tuple[datetime, date]]:
        """As `dated`, with the instants that the calendar skips."""
        start, end = max(start.astimezone(UTC), _BEGIN), min(end.astimezone(UTC), _END)
        for fire, day in _walk(self, start, end):
            if fire >= start:
                yield fire, day

    def date_of(self, fire: datetime) -> date:
        """The local date that a fire of this schedule belongs to."""
        for _, day in self.dated(fire, fire + timedelta(microseconds=1)):
            return day
        return fire.astimezone(self.zone).date()


def schedule_of(definition: Definition) -> Schedule | None:
    """The schedule of a DAG; None when it has none. Raises Invalid, also about a zone without a schedule."""
    calendar = days_of(definition.calendar)
    if definition.schedule is None:
        zone_of(definition.timezone)
        return None
    return parse(definition.schedule, definition.timezone, calendar)


def parse(expression: str, zone: str, calendar: Days = EVERY_DAY) -> Schedule:
    """The schedule of a five-field cron expression or macro. Raises Invalid."""
    where = zone_of(zone)
    fields = _fields(expression)
    expanded = _expand(expression, fields)
    schedule = Schedule(
        expression=expression,
        zone=where,
        times=_times(_values(expanded[0], range(60)), _values(expanded[1], range(24))),
        days=frozenset(_values(expanded[2], range(1, 32))),
        months=frozenset(_values(expanded[3], range(1, 13))),
        weekdays=frozenset(_values(expanded[4], range(7))),
        either_day="*" not in expanded[2] and "*" not in expanded[4],
        fixed=not set(fields[1]) & {"*", "/"},
        calendar=calendar,
    )
    # Leap years have every date there is, and every weekday falls into every month.
    if not any(_of_expression(schedule, day) for day in _LEAP_YEAR):
        raise _refused(expression, f"no month of '{fields[3]}' has a day '{fields[2]}': it would never fire")
    if calendar.weekdays is not None and not _fires_in(schedule, _WEEKDAY_CYCLE):
        raise Invalid(
            f"schedule {expression[:100]!r} never falls on the calendar's weekdays",
            (("calendar/weekdays", "it would never fire"),),
        )
    return schedule


def zone_of(name: str) -> ZoneInfo:
    """The IANA zone of that name. Raises Invalid."""
    if not name.startswith(_NOT_IANA):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # unknown; not a name at all; a folder of zones
            pass
    raise Invalid(f"unknown time zone {name[:100]!r}", (("timezone", "not an IANA time zone"),))


def _fields(expression: str) -> list[str]:
    """The five fields in lower case, each of a form we accept."""
    if len(expression) > _LONGEST_EXPRESSION:
        raise _refused(expression, f"longer than {_LONGEST_EXPRESSION} characters")
    text = expression.strip(" \t").lower()
    fields = re.split(r"[ \t]+", _MACROS.get(text, text))
    if len(fields) != 5:
        raise _refused(expression, "expected five fields (minute hour day-of-month month day-of-week) or a macro")
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise _refused(expression, f"field '{field}' is not a list of values, ranges and steps")
    return fields


def _expand(expression: str, fields: list[str]) -> list[list[int | str]]:
    # Slow to import, and only those who parse need it.
    from croniter import CroniterError, croniter

    try:
        expanded, _ = croniter.expand(" ".join(fields))
    except CroniterError as error:
        raise _refused(expression, str(error)) from error
    return [list(values) for values in expanded]


def _values(expanded: list[int | str], every: range) -> list[int]:
    return list(every) if "*" in expanded else sorted(int(value) for value in expanded)


def _times(minutes: list[int], hours: list[int]) -> tuple[timedelta, ...]:
    return tuple(timedelta(hours=hour, minutes=minute) for hour in hours for minute in minutes)


def _refused(expression: str, why: str) -> Invalid:
    return Invalid(f"schedule {expression[:100]!r} is not valid: {why}", (("schedule", why),))


def _walk(schedule: Schedule, start: datetime, end: datetime) -> Iterator[tuple[datetime, date]]:
    """Fires before `end` with their dates; some from before `start` may come first."""
    reached: datetime | None = None
    for since, until, offset in _eras(schedule.zone, max(start - _LOOK_BACK, _BEGIN), end):
        opens, closes = _wall(since, offset), _wall(until, offset)
        begin = opens
        if schedule.fixed and reached is not None:
            begin = max(opens, reached)
            due = _swallowed(schedule, reached, opens)
            if due is not None and not _matches(schedule, opens):
                yield since, due
        for local, day in _within(schedule, max(begin, _wall(start, offset)), closes):
            yield (local - offset).replace(tzinfo=UTC), day
        reached = max(closes, reached or closes)


def _swallowed(schedule: Schedule, gone: datetime, back: datetime) -> date | None:
    """The date of the last wall-clock time in a gap that was due, on a date that exists; None if none was."""
    partly_lived = {back.date()} | ({gone.date()} if gone.time() != time.min else set())
    due = [day for _, day in _within(schedule, gone, back) if day in partly_lived]
    return due[-1] if due else None


def _matches(schedule: Schedule, local: datetime) -> bool:
    return any(_within(schedule, local, local + timedelta(microseconds=1)))


def _within(schedule: Schedule, start: datetime, end: datetime) -> Iterator[tuple[datetime, date]]:
    """Matching wall-clock times in [start, end) with their dates, as if no clock ever changed."""
    if end <= start:
        return
    for day in _dates(schedule, start.date(), end.date()):
        midnight = datetime.combine(day, time.min)
        for since_midnight in schedule.times[bisect_left(schedule.times, start - midnight) :]:
            local = midnight + since_midnight
            if local >= end:
                return
            yield local, day


def _dates(schedule: Schedule, first: date, last: date) -> Iterator[date]:
    """Matching dates from `first` to `last`, both inclusive."""
    day, also = first, schedule.calendar.include
    while day <= last:
        if day.month not in schedule.months and not also:
            day = (day.replace(day=1) + 31 * _DAY).replace(day=1)
            continue
        if day in also or _of_expression(schedule, day):
            yield day
        day += _DAY


def _of_expression(schedule: Schedule, day: date) -> bool:
    if day.month not in schedule.months:
        return False
    tests = (day.day in schedule.days, day.isoweekday() % 7 in schedule.weekdays)
    return any(tests) if schedule.either_day else all(tests)


def _fires_in(schedule: Schedule, years: range) -> bool:
    days = _dates(schedule, date(years.start, 1, 1), date(years.stop, 1, 1))
    return bool(schedule.calendar.include) or any(schedule.calendar.skips(day) is None for day in days)


def _eras(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """[start, end) in pieces (since, until, UTC offset); a year's end divides an era too."""
    since = start
    for year in range(start.year, end.year + 1):
        for change in (*_changes(zone.key, year), datetime(year + 1, 1, 1, tzinfo=UTC)):
            until = min(change, end)
            if since < until:
                yield since, until, _offset(zone, since)
                since = until


@lru_cache(maxsize=4096)
def _changes(zone_key: str, year: int) -> tuple[datetime, ...]:
    """The instants of a UTC year at which the zone's offset becomes another."""
    zone, out = ZoneInfo(zone_key), []
    probe, last = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    while probe < last:
        following = min(probe + _PROBE, last)
        if _offset(zone, probe) != _offset(zone, following):
            out.append(_change(zone, probe, following))
        probe = following
    return tuple(out)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The one change in (before, after], to the second."""
    old = _offset(zone, before)
    seconds = range(int((after - before).total_seconds()))
    return before + timedelta(
        seconds=bisect_left(seconds, True, key=lambda s: _offset(zone, before + timedelta(seconds=s)) != old)
    )


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _wall(instant: datetime, offset: timedelta) -> datetime:
    """What a clock of that offset shows: a naive local time."""
    return instant.replace(tzinfo=None) + offset
