"""Schedules of jobs against a scan of every minute, around changes of clocks.

The oracle asks zoneinfo what the wall clock shows. It fires at the first minute at which the clock has come to, or gone
past, the time of a day that it has not fired for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job_schedule import WEEKDAYS, JobSchedule, due, next_fire, parse_schedules

MINUTE = timedelta(minutes=1)
DAYS = 6
#: (zone, some days before a change)
PLACES = [
    ("UTC", "2026-02-26"),
    ("Europe/Berlin", "2026-03-26"),
    ("Europe/Berlin", "2026-10-22"),
    ("America/New_York", "2026-03-06"),
    ("America/New_York", "2026-10-29"),
    ("Australia/Lord_Howe", "2026-04-02"),
    ("Australia/Lord_Howe", "2026-10-01"),
    ("Asia/Kathmandu", "2026-01-29"),
]


def schedule_of(kind: str, hour: int, minute: int, days: list[int], zone: str) -> JobSchedule:
    entry = {
        "daily": f'daily_at = "{hour:02}:{minute:02}"',
        "weekly": f'weekly_days = {[WEEKDAYS[day % 7] for day in days]}\ntime = "{hour:02}:{minute:02}"',
        "monthly": f'monthly_dates = {[day + 1 for day in days]}\ntime = "{hour:02}:{minute:02}"',
    }[kind]
    (found,) = parse_schedules(f'[x]\nblueprint = "b"\n{entry}', zone)
    return found


def is_due_on(kind: str, days: list[int], local: datetime) -> bool:
    if kind == "weekly":
        return local.weekday() in [day % 7 for day in days]
    return kind == "daily" or local.day in [day + 1 for day in days]


def scanned(kind: str, hour: int, minute: int, days: list[int], zone: str, begin: datetime) -> list[datetime]:
    """Fires of DAYS days from `begin`, minute by minute."""
    clock, done, found = ZoneInfo(zone), set(), []
    for number in range(DAYS * 1440):
        now = begin + number * MINUTE
        local = now.astimezone(clock)
        if number == 0 and (local.hour, local.minute) > (hour, minute):
            done.add(local.date())  # it was due before the scan began
        past = (local.hour, local.minute) >= (hour, minute)
        if past and local.date() not in done and is_due_on(kind, days, local):
            found.append(now)
        if past:
            done.add(local.date())
    return found


@pytest.mark.parametrize(("zone", "day"), PLACES)
@given(data=st.data())
def test_every_firing_is_where_a_scan_of_the_minutes_finds_it(zone: str, day: str, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["daily", "weekly", "monthly"]))
    hour, minute = data.draw(st.integers(0, 5) | st.just(23)), data.draw(st.sampled_from([0, 15, 30, 59]))
    days = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=10))
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    schedule = schedule_of(kind, hour, minute, days, zone)
    expected = scanned(kind, hour, minute, days, zone, begin)
    found, now = [], begin - timedelta(microseconds=1)
    while (now := next_fire(schedule, now)) < begin + timedelta(days=DAYS):
        found.append(now)
    assert found == expected


@given(st.sampled_from(["daily", "weekly", "interval"]), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_due_is_the_last_of_the_firings_up_to_now(kind: str, before_s: int, after_s: int) -> None:
    if kind == "interval":
        (schedule,) = parse_schedules('[x]\nblueprint = "b"\ninterval_seconds = 4711.5', "UTC")
    else:
        schedule = schedule_of(kind, 2, 30, [0, 3], "Europe/Berlin")
    last = datetime(2026, 3, 20, tzinfo=UTC) + timedelta(seconds=before_s)
    now = last + timedelta(seconds=after_s)
    newest, fire = None, next_fire(schedule, last)
    while fire <= now:
        newest, fire = fire, next_fire(schedule, fire)
    assert due(schedule, last, now) == newest
