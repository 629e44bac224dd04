"""`schedules.toml`: what its entries say, when they fire, and what is made up for after a pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from orchestrator.errors import Invalid
from orchestrator.job_schedule import JobSchedule, check_blueprints, due, next_fire, parse_schedules

FILE = """
[often]
blueprint = "poll"
interval_seconds = 90

[nightly]
blueprint = "sync"
daily_at = "02:30"
input_data = {full = true, parts = [1, 2]}

[report]
blueprint = "report"
weekly_days = ["Mon", "thu"]
time = "9:05"

[invoice]
blueprint = "bill"
monthly_dates = [1, 31]
time = "00:00"
"""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def one(entry: str, zone: str = "UTC") -> JobSchedule:
    (found,) = parse_schedules(f'[x]\nblueprint = "b"\n{entry}', zone)
    return found


def fires(schedule: JobSchedule, after: str, count: int) -> list[datetime]:
    found, now = [], at(after)
    for _ in range(count):
        now = next_fire(schedule, now)
        found.append(now)
    return found


def test_entries_are_read_in_order() -> None:
    schedules = parse_schedules(FILE, "UTC")
    assert [(s.name, s.blueprint) for s in schedules] == [
        ("often", "poll"),
        ("nightly", "sync"),
        ("report", "report"),
        ("invoice", "bill"),
    ]
    assert schedules[0].interval == timedelta(seconds=90)
    assert [s.input_data for s in schedules] == [{}, {"full": True, "parts": [1, 2]}, {}, {}]


def test_an_empty_file_has_no_schedules() -> None:
    assert parse_schedules("", "UTC") == ()


def test_each_kind_fires_at_its_times() -> None:
    often, nightly, report, invoice = parse_schedules(FILE, "UTC")
    begin = "2026-01-29T12:00"  # a Thursday
    assert fires(often, begin, 2) == [at("2026-01-29T12:01:30"), at("2026-01-29T12:03")]
    assert fires(nightly, begin, 2) == [at("2026-01-30T02:30"), at("2026-01-31T02:30")]
    assert fires(report, begin, 2) == [at("2026-02-02T09:05"), at("2026-02-05T09:05")]
    assert fires(invoice, begin, 4) == [at("2026-01-31"), at("2026-02-01"), at("2026-03-01"), at("2026-03-31")]


def test_a_firing_is_strictly_after() -> None:
    assert next_fire(one('daily_at = "02:30"'), at("2026-01-30T02:30")) == at("2026-01-31T02:30")


def test_times_are_on_the_wall_clock_of_the_zone() -> None:
    berlin = one('daily_at = "09:00"', "Europe/Berlin")
    assert fires(berlin, "2026-03-27T12:00", 3) == [
        at("2026-03-28T08:00"),
        at("2026-03-29T07:00"),
        at("2026-03-30T07:00"),
    ]


def test_a_time_that_the_clock_skips_fires_once_and_one_that_comes_twice_too() -> None:
    berlin = one('daily_at = "02:30"', "Europe/Berlin")
    assert fires(berlin, "2026-03-28T12:00", 2) == [at("2026-03-29T01:00"), at("2026-03-30T00:30")]
    assert fires(berlin, "2026-10-24T12:00", 2) == [at("2026-10-25T00:30"), at("2026-10-26T01:30")]


def test_an_interval_takes_no_notice_of_clocks() -> None:
    hourly = one("interval_seconds = 3600", "Europe/Berlin")
    assert next_fire(hourly, at("2026-03-29T00:30")) == at("2026-03-29T01:30")
    elsewhere = at("2026-03-29T00:30").astimezone(timezone(timedelta(hours=5)))
    assert next_fire(hourly, elsewhere) == at("2026-03-29T01:30")
    assert next_fire(hourly, elsewhere).tzinfo is UTC


@pytest.mark.parametrize("entry", ["interval_seconds = 60", 'daily_at = "00:01"'])
def test_nothing_is_due_before_the_first_firing(entry: str) -> None:
    assert due(one(entry), at("2026-01-01"), at("2026-01-01T00:00:59.999999")) is None
    assert due(one(entry), at("2026-01-01"), at("2026-01-01T00:01")) == at("2026-01-01T00:01")
    assert due(one(entry), at("2026-01-01"), at("2025-01-01")) is None


def test_of_the_firings_that_were_missed_the_newest_is_made_once() -> None:
    nightly = one('daily_at = "02:30"')
    last, now = at("2026-01-01T02:30"), at("2026-01-04T12:00")
    fire = due(nightly, last, now)
    assert fire == at("2026-01-04T02:30")
    assert due(nightly, fire, now) is None
    often = one("interval_seconds = 90")
    fire = due(often, at("2026-01-01"), at("2026-01-01T00:04:00"))
    assert fire == at("2026-01-01T00:03:00")
    assert due(often, fire, at("2026-01-01T00:04:00")) is None


def test_every_schedule_starts_a_known_blueprint() -> None:
    schedules = parse_schedules(FILE, "UTC")
    check_blueprints(schedules, {"poll", "sync", "report", "bill", "other"})
    with pytest.raises(Invalid, match="nightly/blueprint: unknown blueprint 'sync'"):
        check_blueprints(schedules, {"poll", "report", "bill"})


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("", "x: must have exactly one of interval_seconds, daily_at.*: there is none"),
        ('interval_seconds = 5\ndaily_at = "01:00"', "x: .*: not interval_seconds and daily_at"),
        ("interval_seconds = 0", "x/interval_seconds: must be a number from 1"),
        ("interval_seconds = -5", "x/interval_seconds: must be a number from 1"),
        ("interval_seconds = inf", "x/interval_seconds: must be a number from 1"),
        ("interval_seconds = nan", "x/interval_seconds: must be a number from 1"),
        ("interval_seconds = true", "x/interval_seconds: must be a number from 1"),
        ('interval_seconds = "5"', "x/interval_seconds: must be a number from 1"),
        ('daily_at = "24:00"', "x/daily_at: must be a time of day"),
        ('daily_at = "7"', "x/daily_at: must be a time of day"),
        ("daily_at = 07:30:00", "x/daily_at: must be a time of day"),
        ('daily_at = "07:30"\ntime = "08:00"', "x/time: goes with weekly_days or monthly_dates, not with daily_at"),
        ('weekly_days = ["mon"]', "x/time: must be a time of day"),
        ('weekly_days = []\ntime = "08:00"', "x/weekly_days: must be a list of mon, tue"),
        ('weekly_days = ["monday"]\ntime = "08:00"', "x/weekly_days: must be a list of mon, tue"),
        ('weekly_days = "mon"\ntime = "08:00"', "x/weekly_days: must be a list of mon, tue"),
        ('monthly_dates = [0]\ntime = "08:00"', "x/monthly_dates: must be a list of numbers from 1 to 31"),
        ('monthly_dates = [true]\ntime = "08:00"', "x/monthly_dates: must be a list of numbers from 1 to 31"),
        ('monthly_dates = ["1"]\ntime = "08:00"', "x/monthly_dates: must be a list of numbers from 1 to 31"),
        ('daily_at = "07:30"\nevery = 5', "x/every: unknown key; expected blueprint, input_data"),
        ('daily_at = "07:30"\ninput_data = 5', "x/input_data: must be a table"),
        ('daily_at = "07:30"\ninput_data = {day = 2026-01-02}', "x/input_data/day: is not JSON but a date"),
        ("daily_at = ", "malformed TOML"),
    ],
)
def test_what_is_wrong_is_told_by_its_path(entry: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        one(entry)


def test_an_entry_is_a_table_that_names_a_blueprint() -> None:
    with pytest.raises(Invalid, match="x: must be a table"):
        parse_schedules("x = 5", "UTC")
    with pytest.raises(Invalid, match="x/blueprint: must name a blueprint"):
        parse_schedules('[x]\ndaily_at = "01:00"', "UTC")


def test_the_zone_must_exist() -> None:
    with pytest.raises(Invalid, match="unknown time zone 'Mars/Base'"):
        parse_schedules("", "Mars/Base")
