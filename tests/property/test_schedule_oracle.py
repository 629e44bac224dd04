"""Schedules against a brute-force scan of every UTC minute around real changes of clocks.

The oracle knows nothing of the implementation: it reads the fields with a parser of its own, asks zoneinfo
what the wall clock shows at each minute, and remembers what it has shown before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.calendars import Days
from orchestrator.errors import Invalid
from orchestrator.schedule import parse
from orchestrator.windows import backfill_windows

MINUTE = timedelta(minutes=1)
#: (zone, UTC instant near a change, what is special)
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00", "an hour is missing"),
    ("Europe/Berlin", "2026-10-25T01:00", "an hour comes twice"),
    ("America/New_York", "2026-03-08T07:00", "west of Greenwich"),
    ("America/New_York", "2026-11-01T06:00", "west of Greenwich"),
    ("Australia/Lord_Howe", "2026-10-03T15:30", "half an hour is missing"),
    ("Australia/Lord_Howe", "2026-04-04T15:00", "half an hour comes twice"),
    ("Pacific/Apia", "2011-12-30T10:00", "a whole date is missing"),
    ("Pacific/Kwajalein", "1993-08-21T12:00", "a whole date is missing"),
    ("Asia/Kathmandu", "1985-12-31T18:30", "a quarter of an hour is missing after midnight"),
    ("Asia/Pyongyang", "2015-08-14T15:00", "half an hour comes twice around midnight"),
    ("America/Sao_Paulo", "2018-11-04T03:00", "midnight is missing"),
    ("America/Sao_Paulo", "2018-02-18T02:00", "the hour before midnight comes twice"),
    ("America/Nuuk", "2024-03-31T01:00", "the hour before midnight is missing"),
    ("America/Nuuk", "2024-10-27T01:00", "the hour before midnight comes twice"),
    ("America/St_Johns", "2010-03-14T03:31", "missing from one past midnight"),
    ("America/St_Johns", "2010-11-07T02:31", "set back over midnight, between two dates"),
    ("America/Havana", "2026-11-01T05:00", "midnight comes twice"),
    ("Antarctica/Troll", "2026-03-29T01:00", "two hours are missing"),
    ("Antarctica/Troll", "2026-10-25T01:00", "two hours come twice"),
    ("Europe/Dublin", "2026-03-29T01:00", "winter is the daylight saving time"),
    ("Africa/Casablanca", "2026-02-15T02:00", "Ramadan"),
    ("Pacific/Chatham", "2026-09-26T14:00", "changes at a quarter to"),
    ("Asia/Tokyo", "2026-01-01T00:00", "nothing changes"),
]
#: zones whose clocks changed in different ways in these years: by an hour and by half, at two and around midnight, by
#: rules of the sun and of the moon
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Africa/Casablanca")
YEARS = range(2020, 2031)
EXPRESSIONS = (
    "* * * * *",
    "*/15 * * * *",
    "0 * * * *",
    "30 * * * *",
    "59 * * * *",
    "7,37 * * * *",
    "0 */2 * * *",
    "15 */3 * * *",
    "30 1/2 * * *",
    "0 0-6/2 * * *",
    "0 0 * * *",
    "1 0 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "15 1 * * *",
    "45 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "59 2 * * *",
    "0 3 * * *",
    "30 3 * * *",
    "0 12 * * *",
    "0 22 * * *",
    "30 22 * * *",
    "0 23 * * *",
    "30 23 * * *",
    "59 23 * * *",
    "*/10 2 * * *",
    "0,30 1-3 * * *",
    "0 2,14 * * *",
    "15 0,1,2,3,23 * * *",
    "20 22-1 * * *",
    "*/20 0-23 * * *",
    "30 2 * * SUN",
    "30 2 * * SAT,SUN",
    "0 2 * MAR,OCT *",
    "30 1 25-31 * *",
    "0 2 1-7 * SUN",
    "45 23 28-31 3,10,11 SAT",
)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NAMES = {name: i for i, name in enumerate(MONTHS, 1)} | {name: i for i, name in enumerate(WEEKDAYS)}


@dataclass(frozen=True)
class Minute:
    """What the wall clock shows at one UTC minute."""

    at: datetime
    wall: datetime
    #: the clock has shown it before
    again: bool
    #: wall-clock minutes of existing dates that were skipped just before
    skipped: tuple[datetime, ...]


@cache
def minutes_around(zone: str, near: str) -> tuple[Minute, ...]:
    """Two days before a change to two days after it; the scan itself begins two days earlier."""
    center, clock = datetime.fromisoformat(near).replace(tzinfo=UTC), ZoneInfo(zone)
    instants = [center + i * MINUTE for i in range(-4 * 1440, 2 * 1440)]
    walls = [at.astimezone(clock).replace(tzinfo=None) for at in instants]
    dates = {wall.date() for wall in walls}
    seen: set[datetime] = set()
    out = []
    for i, (at, wall) in enumerate(zip(instants, walls, strict=True)):
        skipped = []
        missing = walls[i - 1] + MINUTE if i else wall
        while missing < wall:
            if missing.date() in dates and missing not in seen:
                skipped.append(missing)
            missing += MINUTE
        out.append(Minute(at, wall, wall in seen, tuple(skipped)))
        seen.add(wall)
    return tuple(out[2 * 1440 :])


def number(text: str) -> int:
    return int(text) if text.isdigit() else NAMES[text.lower()]


def field(text: str, lowest: int, highest: int) -> set[int]:
    """Values of one cron field. Wrap-around only without step: croniter counts steps over the wrap its own way."""
    out: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        if first == "*":
            low, high = lowest, highest
        else:
            low = number(first)
            high = number(last) if last else (highest if step else low)
        values = list(range(low, high + 1)) if low <= high else [*range(low, highest + 1), *range(lowest, high + 1)]
        out.update(values[:: int(step or 1)])
    return out


class Oracle:
    """One expression, matched against wall-clock minutes."""

    def __init__(self, expression: str) -> None:
        self.texts = expression.split()
        minute, hour, day, month, weekday = self.texts
        self.minutes, self.hours = field(minute, 0, 59), field(hour, 0, 23)
        self.days, self.months = field(day, 1, 31), field(month, 1, 12)
        self.weekdays = {value % 7 for value in field(weekday, 0, 7)}
        self.fixed = "*" not in hour and "/" not in hour

    def due(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        by_day, by_weekday = wall.day in self.days, (wall.weekday() + 1) % 7 in self.weekdays
        if self.texts[2] == "*" or self.texts[4] == "*":
            return by_day and by_weekday
        return by_day or by_weekday

    def fires(self, minute: Minute) -> bool:
        if not self.fixed:
            return self.due(minute.wall)
        return (self.due(minute.wall) and not minute.again) or any(self.due(wall) for wall in minute.skipped)

    def dates(self, minute: Minute) -> set[date]:
        """The local dates that a fire at this minute may stand for."""
        if self.due(minute.wall):
            return {minute.wall.date()}
        return {wall.date() for wall in minute.skipped if self.due(wall)}


def items(lowest: int, highest: int, names: tuple[str, ...] = (), steps: bool = True) -> st.SearchStrategy[str]:
    """A list of values, ranges and steps. An equal range means the whole cycle to croniter: a unit test has it."""
    numbers = st.integers(lowest, highest).map(str)
    value = st.one_of(numbers, st.sampled_from(names)) if names else numbers
    spans = st.tuples(value, value).filter(lambda pair: number(pair[0]) != number(pair[1]))
    kinds = [value, value, spans.map("-".join)]
    if steps:
        step = st.integers(1, highest).map(str)
        rising = spans.filter(lambda pair: number(pair[0]) < number(pair[1])).map("-".join)
        kinds += [st.tuples(rising, step).map("/".join), step.map("*/{}".format)]
    return st.lists(st.one_of(kinds), min_size=1, max_size=3).map(",".join)


def weighted(star: int, other: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(*[st.just("*")] * star, other)


#: hours near midnight and near the usual change are drawn often
hours = st.one_of(
    st.sampled_from(["*", "*/2", "1", "2", "3", "0", "23", "1-3", "23-2", "0-23", "2/3", "0-4/2", "*/24"]),
    items(0, 23),
)
expressions = st.tuples(
    st.one_of(st.sampled_from(["0", "30", "15", "*/15", "1", "59"]), weighted(1, items(0, 59))),
    hours,
    weighted(3, items(1, 31, steps=False)),
    weighted(4, items(1, 12, ("JAN", "mar", "Oct", "NOV", "dec"))),
    weighted(3, items(0, 6, ("sun", "MON", "Wed", "SAT"), steps=False)),
).map(" ".join)


def accepted(expression: str, zone: str) -> bool:
    """Whether the expression can be parsed; what is refused would never fire."""
    try:
        parse(expression, zone)
    except Invalid:
        oracle = Oracle(expression)
        leap_year = [datetime(2000, 1, 1) + timedelta(days=i) for i in range(366)]
        noon = Oracle(" ".join(["0", "12", *oracle.texts[2:]]))
        assert not any(noon.due(day.replace(hour=12)) for day in leap_year), expression
        return False
    return True


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CHANGES), expressions)
def test_fires_are_those_of_a_minute_scan(change: tuple[str, str, str], expression: str) -> None:
    zone, near, _ = change
    if not accepted(expression, zone):
        return
    minutes, oracle, schedule = minutes_around(zone, near), Oracle(expression), parse(expression, zone)
    expected = [minute for minute in minutes if oracle.fires(minute)]
    dated = list(schedule.dated(minutes[0].at, minutes[-1].at + MINUTE))
    assert [fire for fire, _ in dated] == [minute.at for minute in expected]
    assert all(day in oracle.dates(minute) for (_, day), minute in zip(dated, expected, strict=True))
    assert list(schedule.between(minutes[0].at, minutes[-1].at + MINUTE)) == [fire for fire, _ in dated]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CHANGES), expressions, st.integers(0, 4 * 1440 - 1), st.integers(0, 60_000_000 - 1))
def test_next_is_the_first_fire_of_the_scan(
    change: tuple[str, str, str], expression: str, index: int, micros: int
) -> None:
    zone, near, _ = change
    if not accepted(expression, zone):
        return
    minutes, oracle = minutes_around(zone, near), Oracle(expression)
    after = minutes[index].at + timedelta(microseconds=micros)
    found = parse(expression, zone).next(after)
    assert found > after
    expected = next((m.at for m in minutes[index:] if m.at > after and oracle.fires(m)), None)
    if expected is None:
        assert found > minutes[-1].at
    else:
        assert found == expected


@pytest.mark.parametrize(("zone", "near", "_what"), CHANGES)
@pytest.mark.parametrize("time", ["0 0", "15 0", "30 1", "0 2", "30 2", "0 3", "30 23", "0 12"])
def test_a_daily_schedule_has_one_window_on_every_date_there_is(zone: str, near: str, _what: str, time: str) -> None:
    minutes = minutes_around(zone, near)
    first, last = minutes[1440].wall.date(), minutes[-1440].wall.date()
    dates = sorted({minute.wall.date().isoformat() for minute in minutes if first <= minute.wall.date() <= last})
    windows = backfill_windows(parse(f"{time} * * *", zone), zone, first, last, 100)
    assert [window.start for window in windows] == dates
    assert backfill_windows(None, zone, first, last, 100) == windows


# every change of eleven years


@cache
def changes(zone: str) -> tuple[str, ...]:
    """The UTC minutes of YEARS at which the zone's offset became another: a scan by day, then by minute."""
    clock, day = ZoneInfo(zone), timedelta(days=1)
    found, at = [], datetime(YEARS.start, 1, 1, tzinfo=UTC)
    while at.year in YEARS:
        if at.astimezone(clock).utcoffset() != (at + day).astimezone(clock).utcoffset():
            before = at.astimezone(clock).utcoffset()
            minutes = (at + n * MINUTE for n in range(1, 1441))
            change = next(each for each in minutes if each.astimezone(clock).utcoffset() != before)
            found.append(change.replace(tzinfo=None).isoformat())
        at += day
    return tuple(found)


def agrees_with_the_scan(zone: str, near: str, expression: str) -> None:
    """From two days before the change to two days after it."""
    minutes, oracle = minutes_around(zone, near), Oracle(expression)
    expected = [(minute.at, oracle.dates(minute)) for minute in minutes if oracle.fires(minute)]
    found = list(parse(expression, zone).dated(minutes[0].at, minutes[-1].at + MINUTE))
    assert [fire for fire, _ in found] == [at for at, _ in expected], (zone, near, expression)
    assert all(day in dates for (_, day), (_, dates) in zip(found, expected, strict=True)), (zone, near, expression)


def test_the_zones_have_changes_in_every_year() -> None:
    assert len(set(EXPRESSIONS)) == 40
    for zone in ZONES:
        years = {near[:4] for near in changes(zone)}
        assert len(years) == len(YEARS), zone
        assert len(changes(zone)) >= 2 * len(YEARS) - 1, zone  # Nuuk had one only in 2023


def test_a_sample_of_all_changes_agrees_with_the_scan() -> None:
    chance = Random(2026)
    for zone in ZONES:
        for near in chance.sample(changes(zone), 3):
            for expression in chance.sample(EXPRESSIONS, 12):
                agrees_with_the_scan(zone, near, expression)


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
def test_every_change_of_eleven_years_agrees_with_the_scan(zone: str) -> None:
    for near in changes(zone):
        for expression in EXPRESSIONS:
            agrees_with_the_scan(zone, near, expression)


CALENDARS = st.builds(
    lambda exclude, include, weekdays: Days(exclude, include - exclude, weekdays),
    st.frozensets(st.integers(-2, 2), max_size=2),
    st.frozensets(st.integers(-2, 2), max_size=2),
    st.none() | st.frozensets(st.integers(0, 6), min_size=1, max_size=6),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CHANGES), expressions, CALENDARS)
def test_a_calendar_keeps_and_adds_dates_as_the_scan_has_them(
    change: tuple[str, str, str], expression: str, relative: Any
) -> None:
    """Dates are drawn as days from the change. The scan's own reading of a calendar: by date, exclusion first."""
    zone, near, what = change
    if what == "a whole date is missing" or not accepted(expression, zone):
        return
    minutes, oracle = minutes_around(zone, near), Oracle(expression)
    around = minutes[2 * 1440].wall.date()
    exclude, include = (
        frozenset(around + timedelta(days=n) for n in days) for days in (relative.exclude, relative.include)
    )
    calendar = Days(exclude, include, relative.weekdays)
    anyday = Oracle(" ".join([*oracle.texts[:2], "*", "*", "*"]))

    def due(wall: datetime) -> bool:
        day = wall.date()
        if day in exclude:
            return False
        if day in include:
            return anyday.due(wall)
        return oracle.due(wall) and (calendar.weekdays is None or day.isoweekday() % 7 in calendar.weekdays)

    def fires(minute: Minute) -> bool:
        if not oracle.fixed:
            return due(minute.wall)
        return (due(minute.wall) and not minute.again) or any(due(wall) for wall in minute.skipped)

    expected = [minute.at for minute in minutes if fires(minute)]
    try:
        schedule = parse(expression, zone, calendar)
    except Invalid:  # it would never fall on these weekdays
        found = []
    else:
        found = list(schedule.between(minutes[0].at, minutes[-1].at + MINUTE))
    assert found == expected
